"""The one path a generation takes, whoever asked."""

from __future__ import annotations

import hashlib
import logging
import time
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import DatabaseError, IntegrityError, router, transaction
from django.utils import timezone

from .. import storage
from ..conf import conf
from ..exceptions import ImageNotFound, ImagesError, InvalidRequest
from ..logs import log_event
from ..models import GeneratedImage, Status, new_seed
from ..providers import Deadline, ImageProvider, ImageRequest
from ..providers.throttle import working_set
from ..signals import image_generated, image_generation_failed
from .chain import Painting, paint
from .idempotency import clean_key, find_earlier
from .inputs import GenerationInput, clean_input
from .prompts import ASPECT_RATIOS, get_prompt_builder
from .slots import generation_slot
from .transactions import own_transaction, release_connections

logger = logging.getLogger("images")

#: How often the result of a paid generation is offered to the database before only the log keeps it.
WRITE_TRIES = 3


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
    """
    wanted = clean_input(content_item_id=content_item_id, title=title, description=description, variant=variant)
    key = clean_key(idempotency_key)
    if seed is not None and not 0 <= seed < 2**63:
        raise InvalidRequest("seed: This must be a whole number from 0 to 2^63 - 1.")
    owner_id = user.pk if user is not None else None  # an anonymous user has none
    scope = idempotency_scope or ("process" if owner_id is None else f"user:{owner_id}")
    while True:
        if key is not None and (earlier := find_earlier(scope, key, wanted)):
            return earlier
        with generation_slot():
            try:
                image = _begin(wanted, owner_id, seed, scope if key is not None else "", key)
            except IntegrityError:
                if key is None:
                    raise
                continue  # somebody was faster with the same key: look at what they made of it
            return _Generation(image).run()


def _begin(wanted: GenerationInput, owner_id: Any, seed: int | None, scope: str, key: str | None) -> GeneratedImage:
    """Write the row before anything is paid for."""
    now = timezone.now()
    image = GeneratedImage(
        owner_id=owner_id,
        content_item_id=wanted.content_item_id,
        title=wanted.title,
        description=wanted.description,
        variant=wanted.variant,
        seed=new_seed() if seed is None else seed,
        idempotency_scope=scope,
        idempotency_key=key,
        created_at=now,
        deadline_at=now + timedelta(seconds=conf.deadline),
        file_stem=storage.file_stem(
            content_item_id=wanted.content_item_id,
            variant=wanted.variant,
            created_at=now,
            token=storage.new_token(),
        ),
    )
    prompt = get_prompt_builder().build(
        title=wanted.title, description=wanted.description, variant=wanted.variant, seed=image.seed
    )
    image.prompt, image.negative_prompt, image.style = prompt.text, prompt.negative, prompt.style
    with own_transaction(router.db_for_write(GeneratedImage)):
        image.save(force_insert=True)
    return image


class _Generation:
    """One run, from the pending row to `ready` or `failed`."""

    def __init__(self, image: GeneratedImage) -> None:
        self.image = image
        self.deadline = Deadline.after(conf.deadline)
        self.started = time.monotonic()
        self.attempts: list[dict[str, Any]] = []

    def run(self) -> GeneratedImage:
        log_event(logger, logging.INFO, "generation_started", **self._names())
        try:
            storage.check_space(self.image.file_stem)
            release_connections()
            with working_set():  # bounds how many images are read, verified and written at one moment
                painting = paint(self._request, self.deadline, self.attempts)
                name = storage.save(self.image.file_stem, painting.info.extension, painting.image.data)
                self._describe(painting, name)
                del painting
        except BaseException as err:
            self._fail(err)
            raise
        self._finish()
        return self.image

    def _request(self, provider: ImageProvider, deadline: Deadline) -> ImageRequest:
        image = self.image
        return ImageRequest(
            prompt=image.prompt,
            negative_prompt=image.negative_prompt if provider.supports_negative_prompt else "",
            title=image.title,
            variant=image.variant,
            aspect_ratio=ASPECT_RATIOS[image.variant],
            seed=image.seed,
            deadline=deadline,
        )

    def _describe(self, painting: Painting, name: str) -> None:
        image, data = self.image, painting.image.data
        image.file.name = name
        image.mime_type, image.size_bytes = painting.info.mime_type, len(data)
        image.width, image.height = painting.info.width, painting.info.height
        image.sha256 = hashlib.sha256(data).hexdigest()
        image.provider, image.model = painting.provider, painting.image.model
        image.usage = dict(painting.image.usage) if painting.image.usage is not None else None

    def _finish(self) -> None:
        image = self.image
        image.status = Status.READY
        try:
            written = self._write()
        except DatabaseError as err:
            log_event(
                logger, logging.ERROR, "generation_unrecorded", exc_info=err, file=image.file_name, **self._names()
            )
            raise
        if not written:  # deleted while it was being made
            storage.remove(image.file_name)
            raise ImageNotFound("The image was deleted while it was being made.")
        log_event(
            logger,
            logging.INFO,
            "generation_finished",
            **self._names(),
            provider=image.provider,
            model=image.model,
            bytes=image.size_bytes,
            ms=image.duration_ms,
        )
        transaction.on_commit(lambda: image_generated.send_robust(GeneratedImage, image=image), robust=True)

    def _fail(self, err: BaseException) -> None:
        """Say on the row what went wrong, as far as the database still listens."""
        image = self.image
        known = err if isinstance(err, ImagesError) else ImagesError()
        image.status, image.error_code, image.error_message = Status.FAILED, known.code, known.message
        last = self.attempts[-1] if self.attempts else {}
        image.provider, image.model = last.get("provider", ""), last.get("model", "")
        try:
            self._write()
        except DatabaseError as database_err:
            log_event(logger, logging.ERROR, "generation_unrecorded", exc_info=database_err, **self._names())
        unforeseen = None if isinstance(err, ImagesError) else err
        log_event(
            logger,
            logging.ERROR if unforeseen else logging.WARNING,
            "generation_failed",
            exc_info=unforeseen,
            **self._names(),
            provider=image.provider,
            model=image.model,
            code=known.code,
            ms=image.duration_ms,
            request_id=last.get("request_id", ""),
        )
        transaction.on_commit(
            lambda: image_generation_failed.send_robust(GeneratedImage, image=image, error=known), robust=True
        )

    def _write(self) -> bool:
        """Write the outcome; whether the row was still there.

        A row that a clean-up declared failed meanwhile becomes ready all the same: the picture is paid for.
        """
        image = self.image
        image.attempts = self.attempts
        image.finished_at = timezone.now()
        image.duration_ms = round((time.monotonic() - self.started) * 1000)
        names = [field.attname for field in GeneratedImage._meta.concrete_fields if field.attname in _OUTCOME]
        values = {name: getattr(image, name) for name in names}
        rows = GeneratedImage.objects.filter(pk=image.pk).exclude(status=Status.DELETING)
        for tries_left in range(WRITE_TRIES - 1, -1, -1):
            try:
                return bool(rows.update(**values))
            except DatabaseError:
                if not tries_left or transaction.get_connection(rows.db).in_atomic_block:
                    raise
                release_connections()  # the connection may be the one that broke
                time.sleep(0.2)
        return False

    def _names(self) -> dict[str, Any]:
        return {"image": self.image.pk, "content_item": self.image.content_item_id, "variant": self.image.variant}


_OUTCOME = {
    "status", "file", "mime_type", "width", "height", "size_bytes", "sha256", "provider", "model", "usage",
    "attempts", "duration_ms", "error_code", "error_message", "finished_at",
}  # fmt: skip
