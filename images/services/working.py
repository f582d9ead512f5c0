"""The queue, seen from the workers: taking a row up once, and settling those whose worker was lost.

A queue delivers at least once, and anything may be killed at any moment, so the row decides who makes the image: one
conditional UPDATE takes it up and leaves the moment as its mark (`started_at`). Whoever does not get it does nothing.
What a provider may have billed is not asked for again unless the operator wants it (`IMAGE_RETRY_LOST`).
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import datetime, timedelta

from django.utils import timezone

from ..conf import conf
from ..exceptions import ImagesError, QueueUnavailable
from ..models import NOT_TAKEN_UP, STALE_AFTER, STOPPED, GeneratedImage, Status
from .queueing import give_up, rows
from .reconciliation import rescue
from .run import Generation


def run_generation(image_id: uuid.UUID, *, redelivered: bool = False) -> float | None:
    """Make the image of a row that was queued, if this is the delivery that may.

    Args:
        image_id: The row.
        redelivered: The queue says that it has given this to a worker before.

    Returns:
        `None` where all is said and done. Otherwise the seconds after which to call again with `redelivered`: some
        worker had begun, and whether it still works can only be told when its time is over.

    Raises:
        StorageError: Whether a lost worker has left the file cannot be told.
    """
    row = rows().filter(pk=image_id).first()
    if row is None or row.status != Status.PENDING:
        return None
    now = timezone.now()
    if row.started_at is not None:
        return _look_after(row, now) if redelivered else None
    if row.deadline_at is not None and now > row.deadline_at:
        give_up(row, QueueUnavailable(NOT_TAKEN_UP))
    else:
        _take_up(row, now)
    return None


def worker_lost(image_id: uuid.UUID) -> None:
    """Settle a row whose worker is known to be dead: it is ready where its file is there, and has failed where not.

    Raises:
        StorageError: Whether the file is there cannot be told.
    """
    row = rows().filter(pk=image_id, status=Status.PENDING, started_at__isnull=False).first()
    if row is not None and not rescue(row):
        give_up(row, ImagesError(STOPPED))


def _look_after(row: GeneratedImage, now: datetime) -> float | None:
    """Settle a row whose worker has had its time, or say when it will have had it."""
    if row.started_at is None:
        return None
    over = row.started_at + timedelta(seconds=conf.deadline) + STALE_AFTER
    if now <= over:
        return (over - now).total_seconds() + 1
    if rescue(row):
        return None
    if not conf.retry_lost or row.is_stale or not _take_up(row, now):
        give_up(row, ImagesError(STOPPED))
    return None


def _take_up(row: GeneratedImage, now: datetime) -> bool:
    """Make the image if nobody else has taken the row up since it was read; whether it was still to be had."""
    deadline = now + timedelta(seconds=conf.deadline)
    if conf.retry_lost and row.deadline_at is not None:
        deadline = max(deadline, row.deadline_at)  # it stays pending for as long as it may be taken up again
    found = rows().filter(pk=row.pk, status=Status.PENDING, started_at=row.started_at)
    if not found.update(started_at=now, deadline_at=deadline):
        return False
    row.started_at, row.deadline_at = now, deadline
    with suppress(ImagesError):  # the row and the log have it, and here is nobody to tell
        Generation(row).run()
    return True
