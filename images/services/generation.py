"""The one path a generation takes, whoever asked: at once, or on the queue's workers."""

from __future__ import annotations

from functools import partial

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.db import router, transaction

from ..conf import conf
from ..models import GeneratedImage
from .orders import Order, take_order
from .queueing import publish, publish_quietly, wait_for_worker
from .run import Generation
from .slots import generation_slot


def generate_image(
    *,
    content_item_id: str,
    title: str,
    description: str | None = None,
    variant: str = "hero",
    user: AbstractBaseUser | AnonymousUser | None = None,
    idempotency_key: str | None = None,
    idempotency_scope: str | None = None,
    seed: int | None = None,
) -> GeneratedImage:
    """Make an image, store it and return its row.

    It blocks until the image is there: 5 to 90 seconds (`IMAGE_DEADLINE`). While the provider works, no
    database connection of this thread stays open, so do not call it while you iterate over a queryset.

    Args:
        content_item_id: What the image belongs to, in the caller's own terms; 1 to 255 characters.
        title: 1 to 500 characters.
        description: Up to 100,000 characters; a summary of it goes into the prompt.
        variant: `"hero"` (16:9) or `"inline"` (4:3).
        user: Who it is made for. They own the image and see it in the API.
        idempotency_key: Up to 255 characters. The same key and content give the same image again, paid once.
        idempotency_scope: Whose key it is; each user's own by default.
        seed: Repeats the choice of style and hints of an earlier image.

    Returns:
        The row in status `ready`; `image.public_url()` is the picture's address. `image.replayed` is true
        where an idempotency key was repeated.

    Raises:
        images.exceptions.OpenTransactionError: Inside `transaction.atomic()`; the sentence says what to do instead.
        images.exceptions.InvalidRequest: The arguments are not valid.
        images.exceptions.RequestInProgress: The image for this key is being made at this moment.
        images.exceptions.IdempotencyKeyReused: The key stands for other content.
        images.exceptions.TooManyGenerations: This process is at `IMAGE_MAX_CONCURRENCY`.
        images.exceptions.ProviderFailure: No provider of the chain painted; its subclasses say why.
        images.exceptions.StorageError: The image could not be stored.
        images.exceptions.QueueUnavailable: Where `IMAGE_RUN_ON_WORKERS` is on: no worker took it up.
    """
    order = take_order(
        content_item_id=content_item_id,
        title=title,
        description=description,
        variant=variant,
        user=user,
        idempotency_key=idempotency_key,
        idempotency_scope=idempotency_scope,
        seed=seed,
    )
    on_workers = conf.run_on_workers
    while True:
        if earlier := order.earlier():
            return earlier
        with generation_slot():
            image = order.begin(queued=on_workers)
            if image is None:
                continue  # somebody was faster with the same key: look at what they made of it
            if not on_workers:
                return Generation(image).run()
            publish(image)
            return wait_for_worker(image)


def generate_image_later(
    *,
    content_item_id: str,
    title: str,
    description: str | None = None,
    variant: str = "hero",
    user: AbstractBaseUser | AnonymousUser | None = None,
    idempotency_key: str | None = None,
    idempotency_scope: str | None = None,
    seed: int | None = None,
) -> GeneratedImage:
    """Let one of the queue's workers make an image, and return its row at once.

    It can be called inside `transaction.atomic()`: the request is queued when that commits, and forgotten when it is
    rolled back. A queue that cannot be reached then shows on the row, which fails, and by `image_generation_failed`.

    The arguments are those of `generate_image`.

    Returns:
        The row in status `pending`; a key that is repeated gives the earlier row, in status `ready`. The receivers of
        `image_generated` and `image_generation_failed` are called on the worker.

    Raises:
        django.core.exceptions.ImproperlyConfigured: There is no queue (`IMAGES["QUEUE"]`).
        images.exceptions.InvalidRequest: The arguments are not valid.
        images.exceptions.RequestInProgress: The image for this key is being made, or waits in the queue.
        images.exceptions.IdempotencyKeyReused: The key stands for other content.
        images.exceptions.QueueUnavailable: The queue cannot be reached, and no transaction is open.
    """
    if not conf.queue:
        raise ImproperlyConfigured('generate_image_later() needs a queue: IMAGES["QUEUE"] = "celery".')
    order = take_order(
        content_item_id=content_item_id,
        title=title,
        description=description,
        variant=variant,
        user=user,
        idempotency_key=idempotency_key,
        idempotency_scope=idempotency_scope,
        seed=seed,
    )
    return _queue(order)


def _queue(order: Order) -> GeneratedImage:
    using = router.db_for_write(GeneratedImage)
    while True:
        if earlier := order.earlier():
            return earlier
        image = order.begin(queued=True, own=False)
        if image is None:
            continue  # somebody was faster with the same key
        if transaction.get_connection(using).in_atomic_block:
            # Nobody is left to catch what is raised after the commit, and other receivers come after this one.
            transaction.on_commit(partial(publish_quietly, image), using=using, robust=True)
        else:
            publish(image)
        return image
