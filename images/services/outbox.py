"""The outbox: what the queue has lost is published again from the rows, and what nobody will finish is settled.

A row that waits is the record that a request was accepted; the queue only says which one is next. Brokers lose
messages, are away at the moment of a commit, or are purged. So Celery's workers call `tend` now and then
(`images.queues.celery`), and for other queues `manage.py republish_images` does. A message too many is harmless: the
row decides who makes the image.

Any number of processes may do it at once: each change is one UPDATE that is conditional on what was found.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from ..conf import conf
from ..exceptions import GenerationCancelled, StorageError
from ..logs import log_event
from ..models import STALE_AFTER, GeneratedImage, GeneratedImageQuerySet, Status
from . import budgets, queue
from .database import rows
from .incidents import Incident, report
from .repair import rescue

logger = logging.getLogger("images")

#: How long a request waits before it is published again. After that, each pause is as long as the whole wait so far:
#: in the 15 minutes of IMAGE_QUEUE_TIMEOUT that is six times, however many workers there are.
REPUBLISH_AFTER = timedelta(seconds=20)
#: The longest of these pauses.
LONGEST_PAUSE = timedelta(minutes=10)
#: What the callers of `cancel_waiting` read.
CANCELLED = "The operator cancelled the request before it was started. Nothing was paid for."
#: The most rows that one call publishes, and that it settles, since it looks for their files.
MOST_PUBLISHED, MOST_SETTLED = 100, 20


def tend(*, at_once: bool = False) -> Counter[Incident]:
    """Settle what nobody will finish, and publish again what has waited for some time.

    Args:
        at_once: Publish every row that waits, however short a time ago it was published.

    Returns:
        How often what was done.

    Raises:
        django.db.DatabaseError: The database does not answer.
        Exception: The queue's own, if it does not accept a task.
    """
    done: Counter[Incident] = Counter()
    settled, published = (None, None) if at_once else (MOST_SETTLED, MOST_PUBLISHED)
    for find, handle, most in ((_stale, _settle, settled), (_lost, _give_back, settled)):
        _handle(find(timezone.now())[:most], handle, done)
    _handle(_due(timezone.now(), at_once=at_once)[:published], _publish, done)
    return done


def cancel_waiting() -> int:
    """Fail every request that no worker works on. Returns how many.

    Raises:
        django.db.DatabaseError: The database does not answer.
    """
    return sum(queue.fail_pending(row, GenerationCancelled(CANCELLED)) for row in queue.waiting().iterator())


def _handle(
    found: GeneratedImageQuerySet, handle: Callable[[GeneratedImage], Incident | None], done: Counter[Incident]
) -> None:
    for row in found:
        if incident := handle(row):
            done[incident] += 1


def _stale(now: datetime) -> GeneratedImageQuerySet:
    """Rows that count as failed already, although nothing has recorded it."""
    return rows().filter(status=Status.PENDING, deadline_at__lt=now - STALE_AFTER).order_by("deadline_at")


def _settle(row: GeneratedImage) -> Incident | None:
    """End a stale row: it becomes ready if its picture was stored, and otherwise fails."""
    if row.started_at is None:
        return Incident.EXPIRED if queue.expire(row) else None
    try:
        if rescue(row):
            return Incident.ORPHANED
    except StorageError as err:
        log_event(logger, logging.WARNING, "generation_unsettled", image=row.pk, error=err.message)
        return None
    return Incident.LOST if queue.lose(row) else None


def _lost(now: datetime) -> GeneratedImageQuerySet:
    """With `IMAGE_RETRY_LOST`: rows that may be made again, since their worker's time is over."""
    if not conf.retry_lost:
        return rows().none()
    over = now - timedelta(seconds=conf.longest_run) - STALE_AFTER
    return rows().in_status(Status.PENDING).filter(started_at__lt=over).order_by("started_at")


def _give_back(row: GeneratedImage) -> Incident | None:
    """Let a row wait again whose worker was lost, unless its picture was stored."""
    try:
        if rescue(row):
            return Incident.ORPHANED
    except StorageError as err:
        log_event(logger, logging.WARNING, "generation_unsettled", image=row.pk, error=err.message)
        return None
    if not budgets.cover_again(row):
        return Incident.LOST if queue.lose(row) else None
    found = rows().filter(pk=row.pk, status=Status.PENDING, started_at=row.started_at)
    attempts = queue.attempts_with_lost_run(row)
    if found.update(started_at=None, delivery=None, republish_at=timezone.now(), attempts=attempts):
        report(Incident.LOST, row.pk)
        return Incident.LOST
    return None


def _due(now: datetime, *, at_once: bool) -> GeneratedImageQuerySet:
    """Rows that have waited for long enough to be published again; with `at_once` all that wait."""
    found = rows().filter(status=Status.PENDING, started_at=None, deadline_at__gte=now).order_by("created_at")
    # Those that wait for a provider are delivered again when they are due.
    found = found.filter(Q(retry_at=None) | Q(retry_at__lte=now - REPUBLISH_AFTER))
    late = Q(republish_at=None, created_at__lte=now - REPUBLISH_AFTER) | Q(republish_at__lte=now)
    return found.filter(*() if at_once else (late,)).only("content_item_id", "created_at", "republish_at")


def _publish(row: GeneratedImage) -> Incident | None:
    """Put a row into the queue once more, unless another process is doing so."""
    now = timezone.now()
    found = rows().filter(pk=row.pk, status=Status.PENDING, started_at=None)
    next_time = now + min(max(now - row.created_at, REPUBLISH_AFTER), LONGEST_PAUSE)
    if not found.filter(republish_at=row.republish_at).update(republish_at=next_time):
        return None
    try:
        queue.enqueue(row)
    except Exception:
        found.filter(republish_at=next_time).update(republish_at=row.republish_at)  # as soon as the queue answers
        raise
    report(Incident.REPUBLISHED, row.pk, logging.INFO)
    return Incident.REPUBLISHED
