"""The queue: handing a row over, taking it up once, waiting for it, and settling what a lost worker left.

The queue itself is a function that takes an image's id (`IMAGES["QUEUE"]`); `images.queues` has the known ones.

A queue delivers at least once, and anything may be killed at any moment, so the row decides who makes the image: one
conditional UPDATE takes it up and leaves the moment as its mark (`started_at`). The others do nothing.
What a provider may have billed is not asked for again unless the operator wants it (`IMAGE_RETRY_LOST`).
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta

from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from ..conf import conf
from ..exceptions import (
    RATE_LIMIT_PAUSE,
    RETRY_AFTER,
    ImageNotFound,
    ImagesError,
    ProviderRateLimited,
    ProviderTimeout,
    QueueUnavailable,
)
from ..logs import log_event
from ..models import NOT_TAKEN_UP, STALE_AFTER, STOPPED, GeneratedImage, GeneratedImageQuerySet, Status
from ..signals import image_generation_failed
from .database import release_connections, rows
from .repair import rescue

logger = logging.getLogger("images")

#: Seconds between two looks at a row that a caller waits for: at first, and at the most.
FIRST_LOOK, LONGEST_PAUSE = 0.1, 1.0
#: Seconds after which the operator is told of a request that no worker has taken up.
WAITING_LONG = 60


# --- handing over -------------------------------------------------------------------------------------------------


def publish(image: GeneratedImage) -> None:
    """Put a pending row into the queue.

    Raises:
        QueueUnavailable: The queue did not take it; the row has failed.
    """
    try:
        import_string(conf.queue)(str(image.pk))
    except Exception as err:
        log_event(logger, logging.ERROR, "queue_failed", exc_info=err, image=image.pk)
        failure = QueueUnavailable(retry_after=RETRY_AFTER)
        if not give_up(image, failure):
            return  # it had arrived all the same: a worker has it already
        raise failure from err
    log_event(logger, logging.INFO, "generation_queued", image=image.pk, content_item=image.content_item_id)


def publish_quietly(image: GeneratedImage) -> None:
    """Put a pending row into the queue when there is no caller to raise to: the row says if that failed."""
    with suppress(QueueUnavailable):
        publish(image)


def give_up(row: GeneratedImage, failure: ImagesError) -> bool:
    """Let a pending row fail.

    Returns:
        Whether it did: not if it was taken up, finished or deleted since it was read.
    """
    values = {
        "status": Status.FAILED,
        "error_code": failure.code,
        "error_message": failure.message,
        "finished_at": timezone.now(),
    }
    found = rows().filter(pk=row.pk, status=Status.PENDING, started_at=row.started_at)
    if not found.update(**values):
        return False
    for name, value in values.items():
        setattr(row, name, value)
    log_event(
        logger,
        logging.WARNING,
        "generation_failed",
        image=row.pk,
        content_item=row.content_item_id,
        variant=row.variant,
        code=failure.code,
    )
    transaction.on_commit(
        lambda: image_generation_failed.send_robust(GeneratedImage, image=row, error=failure),
        using=rows().db,
        robust=True,
    )
    return True


# --- taking up ----------------------------------------------------------------------------------------------------


def take_up(image_id: uuid.UUID, *, redelivered: bool) -> GeneratedImage | float | None:
    """Claim a row that was queued, if this is the delivery that may.

    Returns:
        The row, if the caller is to make its image now. The seconds after which to ask again with `redelivered`, if
        a worker had begun: whether it still works can only be told when its time is over. `None` if there is nothing
        left to do.

    Raises:
        StorageError: Whether a lost worker has left the file cannot be told.
    """
    row = rows().filter(pk=image_id).first()
    if row is None or row.status != Status.PENDING:
        return None
    now = timezone.now()
    if row.started_at is not None:
        return _look_after(row, row.started_at, now) if redelivered else None
    if row.deadline_at is not None and now > row.deadline_at:
        give_up(row, QueueUnavailable(NOT_TAKEN_UP))
        return None
    return row if _claim(row, now) else None


def worker_lost(image_id: uuid.UUID) -> None:
    """Settle a row whose worker is known to be dead: it is ready if its file is there, and has failed if not.

    Raises:
        StorageError: Whether the file is there cannot be told.
    """
    row = rows().filter(pk=image_id, status=Status.PENDING, started_at__isnull=False).first()
    if row is not None and not rescue(row):
        give_up(row, ImagesError(STOPPED))


def _look_after(row: GeneratedImage, started_at: datetime, now: datetime) -> GeneratedImage | float | None:
    """Settle a row whose worker has had its time, or say when it will have had it."""
    over = started_at + timedelta(seconds=conf.deadline) + STALE_AFTER
    if now <= over:
        return (over - now).total_seconds() + 1
    if rescue(row):
        return None
    if conf.retry_lost and not row.is_stale and _claim(row, now):
        return row
    give_up(row, ImagesError(STOPPED))
    return None


def _claim(row: GeneratedImage, now: datetime) -> bool:
    """Take the row up if no other worker has done so since it was read; whether it was still to be had."""
    deadline = now + timedelta(seconds=conf.deadline)
    if conf.retry_lost and row.deadline_at is not None:
        deadline = max(deadline, row.deadline_at)  # it stays pending for as long as it may be taken up again
    found = rows().filter(pk=row.pk, status=Status.PENDING, started_at=row.started_at)
    if not found.update(started_at=now, deadline_at=deadline):
        return False
    row.started_at, row.deadline_at = now, deadline
    return True


# --- waiting ------------------------------------------------------------------------------------------------------


def wait_for(image: GeneratedImage, seconds: float) -> GeneratedImage:
    """Wait until an image is ready or has failed. No pooled database connection is held between two looks.

    Args:
        image: A pending row.
        seconds: How long at the most.

    Returns:
        The row as it is then; still `pending` if the time was up.

    Raises:
        ImageNotFound: It was deleted meanwhile.
        ImagesError: The database does not answer at the end of the time.
    """
    end, pause = time.monotonic() + seconds, FIRST_LOOK
    while True:
        left = end - time.monotonic()
        row = _look(image, is_last=left <= 0)
        if row is not None and (row.current_status != Status.PENDING or left <= 0):
            return row
        release_connections()
        time.sleep(max(0, min(pause, left)))
        pause = min(pause * 1.5, LONGEST_PAUSE)


def _look(image: GeneratedImage, *, is_last: bool) -> GeneratedImage | None:
    """Read the row; `None` if the database does not answer, and there will be another look."""
    try:
        row = rows().filter(pk=image.pk).exclude(status=Status.DELETING).first()
    except (OperationalError, InterfaceError) as err:
        if is_last:  # not `DatabaseUnavailable`: a worker may have paid for the image
            raise ImagesError from err
        return None
    if row is None:
        raise ImageNotFound("The image was deleted while it was being generated.")
    return row


def wait_for_worker(image: GeneratedImage) -> GeneratedImage:
    """Wait as a caller of `generate_image` does: for a worker up to the deadline, and then for its work.

    Raises:
        ImagesError: What the worker recorded.
        ProviderTimeout: The worker has not recorded anything, although its time is over.
        QueueUnavailable: No worker has taken it up.
    """
    row = wait_for(image, conf.deadline)
    if row.current_status == Status.PENDING and not _recall(row):
        row = wait_for(row, _longest_run())
        if row.current_status == Status.PENDING:
            raise ProviderTimeout
    return finished(row)


def _longest_run() -> float:
    """Seconds after which a row that was taken up cannot be pending, as far as clocks agree."""
    longest = max(conf.deadline, conf.queue_timeout) if conf.retry_lost else conf.deadline
    return longest + STALE_AFTER.total_seconds()


def _recall(row: GeneratedImage) -> bool:
    """Take a row that no worker has taken up back from the queue: its caller does not wait any longer."""
    return row.started_at is None and give_up(row, QueueUnavailable(NOT_TAKEN_UP))


def finished(row: GeneratedImage) -> GeneratedImage:
    """The row, if it is ready.

    Raises:
        ImagesError: Why it is not, as the worker recorded it: the same class, code and sentence.
    """
    if row.status == Status.READY:
        return row
    code, message = row.current_error
    found = [kind for kind in _kinds(ImagesError) if kind.code == code]
    # Two classes may share a code; the sentence tells them apart.
    kind = next((kind for kind in found if kind.default_message == message), found[0] if found else ImagesError)
    raise kind(message, retry_after=RATE_LIMIT_PAUSE) if kind is ProviderRateLimited else kind(message)


def _kinds(root: type[ImagesError]) -> Iterator[type[ImagesError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)


# --- for operators ------------------------------------------------------------------------------------------------


def waiting() -> GeneratedImageQuerySet:
    """The requests that no worker has taken up yet, oldest first."""
    return rows().in_status(Status.PENDING).filter(started_at=None).order_by("created_at")


def queue_problem(oldest: datetime | None) -> str | None:
    """What an operator should know about the queue, or `None`.

    Args:
        oldest: When the first of `waiting()` was made, if there is one.
    """
    seconds = (timezone.now() - oldest).total_seconds() if oldest else 0
    if seconds < WAITING_LONG:
        return None
    return f"A request has been waiting for {seconds:.0f} s: no worker runs (`make worker`), or there are too few."
