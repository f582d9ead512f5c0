"""The queue: publishing a row, claiming it once, waiting for it, and settling what a lost worker left.

The queue itself is a function that takes an image's id (`IMAGES["QUEUE"]`); `images.queues` has the known ones.

A queue delivers at least once, and any process may be killed at any moment, so the row decides which delivery makes
the image: one conditional UPDATE claims it and records the time (`started_at`); all other deliveries do nothing. A
provider that may have billed is not asked again unless the operator allows it (`IMAGE_RETRY_LOST`).
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import Error, InterfaceError, OperationalError, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.module_loading import import_string

from ..conf import conf
from ..exceptions import (
    RETRY_AFTER,
    DatabaseUnavailable,
    ImageNotFound,
    ImagesError,
    ProviderFailure,
    ProviderTimeout,
    QueueUnavailable,
    StorageError,
    find_kind,
)
from ..logs import log_event
from ..models import NO_WORKER_STARTED, STALE_AFTER, GeneratedImage, GeneratedImageQuerySet, Status
from ..signals import image_generation_failed
from . import budgets, rate_limits
from .database import release_connections, rows
from .failover import Attempt
from .incidents import Incident, report
from .repair import rescue, stopped

logger = logging.getLogger("images")

#: Seconds between two reads of a row that a caller waits for: at first, and at most.
FIRST_POLL, LONGEST_POLL_PAUSE = 0.1, 1.0
#: Seconds after which the operator is told about a request that no worker has started.
WAITING_LONG = 60


# --- publishing ---------------------------------------------------------------------------------------------------


def publish(image: GeneratedImage) -> None:
    """Put a pending row into the queue.

    Raises:
        QueueUnavailable: The queue did not accept it, and the row has failed.
    """
    try:
        enqueue(image)
    except Exception as err:
        log_event(logger, logging.ERROR, "queue_failed", exc_info=err, image=image.pk)
        failure = QueueUnavailable(retry_after=RETRY_AFTER)
        if not fail_pending(image, failure):
            return  # it did arrive: a worker has already claimed it
        raise failure from err


def publish_quietly(image: GeneratedImage) -> None:
    """Put a pending row into the queue, if there is no caller to raise a failure to.

    If the queue does not accept it, it stays pending for workers that publish such rows again (`outbox`), and
    otherwise fails.
    """
    try:
        if feature("REPUBLISHES"):
            enqueue(image)
        else:
            publish(image)
    except QueueUnavailable:
        return  # recorded
    except Exception as err:  # noqa: BLE001  (every broker's client has its own)
        log_event(logger, logging.WARNING, "queue_failed", exc_info=err, image=image.pk)
        return
    reread(image)


def enqueue(image: GeneratedImage) -> None:
    """Put a pending row into the queue.

    Raises:
        Exception: The queue's own, if it did not accept it.
    """
    import_string(conf.queue)(str(image.pk))
    log_event(logger, logging.INFO, "generation_queued", image=image.pk, content_item=image.content_item_id)


def feature(name: str) -> Any:
    """Something that the queue's module may have beside its function, or `None`."""
    return getattr(import_module(conf.queue.rpartition(".")[0]), name, None)


def reread(image: GeneratedImage) -> None:
    """Update a row that was published: a queue that works at once has generated the image by now."""
    with suppress(Error, ObjectDoesNotExist):  # it is in the queue all the same
        image.refresh_from_db(using=rows().db)


def fail_pending(row: GeneratedImage, failure: ImagesError) -> bool:
    """Mark a pending row as failed.

    Returns:
        Whether it was marked: not if it was claimed, finished or deleted since it was read.
    """
    now, seconds = timezone.now(), failure.retry_after
    values = {
        "status": Status.FAILED,
        "error_code": failure.code,
        "error_message": failure.message,
        "finished_at": now,
        # For `GeneratedImage.failure`: there may be no attempt that could keep it.
        "retry_at": now + timedelta(seconds=seconds) if seconds and isinstance(failure, ProviderFailure) else None,
    }
    found = rows().filter(pk=row.pk, status=Status.PENDING, started_at=row.started_at)
    if not budgets.record(found, **values):
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


# --- claiming -----------------------------------------------------------------------------------------------------


def claim(image_id: uuid.UUID, *, redelivered: bool, deferrable: bool = False) -> GeneratedImage | float | None:
    """Claim a queued row for this delivery.

    Args:
        image_id: The row that the queue has delivered.
        redelivered: It has done so before.
        deferrable: The queue can deliver a request again after some time. Then a delivery means that there is work
            for one more worker, and the row whose turn it is comes first: those of callers that wait, then the
            oldest. Otherwise it means this row and no other.

    Returns:
        The row, if the caller is to make its image now. A number of seconds, if it is to call again after that time
        with `redelivered`: another worker has started the row, and only the end of its time tells whether it was
        lost; or no provider can be asked for now. `None` if nothing is left to do.

    Raises:
        django.db.DatabaseError: The database does not answer.
        StorageError: The storage cannot tell whether a lost worker stored the file.
    """
    now = timezone.now()
    begun = _begun_as(image_id).first() if redelivered else None
    if begun is not None and begun.started_at is not None:
        settled = _settle_redelivered(begun, begun.started_at, now)
        if settled is not None:
            return settled
    row = rows().filter(pk=image_id).first()
    if row is None:  # deleted while it waited; or another installation uses the same queue
        report(Incident.UNKNOWN, image_id)
        return None
    is_waiting = row.status == Status.PENDING and row.started_at is None and not _is_expired(row, now)
    if not deferrable:
        return row if is_waiting and _mark_started(row, now) else None
    if refusal := rate_limits.refusal(conf.providers):
        return _put_off(row, refusal)
    return _claim_next(row, now)


#: How many rows are read at once to claim one of them, and how often.
_CANDIDATES, _CLAIM_TRIES = 20, 5


def _claim_next(delivered: GeneratedImage, now: datetime) -> GeneratedImage | float | None:
    """Claim the row whose turn it is."""
    due = Q(retry_at=None) | Q(retry_at__lte=now)
    for _ in range(_CLAIM_TRIES):
        found = list(waiting().filter(due).order_by("-caller_waits", "created_at")[:_CANDIDATES])
        if not found:
            return _next_attempt(delivered, now)
        for row in found:
            if not _is_expired(row, now) and _mark_started(row, now, delivery=delivered.pk):
                return row
    return rate_limits.FIRST_GAP  # other workers were faster each time


def _next_attempt(delivered: GeneratedImage, now: datetime) -> float | None:
    """Seconds until the first request that waits for a provider is due, if this delivery is needed for it."""
    first = waiting().exclude(retry_at=None).order_by("retry_at").values_list("retry_at", flat=True).first()
    if first is None or _is_spare(delivered):
        return None
    return rate_limits.delay(conf.providers, max(0.0, (first - now).total_seconds()))


def _is_spare(delivered: GeneratedImage) -> bool:
    """Whether a delivery may end although requests wait.

    It has to stay if its request waits, or was begun under another delivery, whose request needs this one now. The
    queue may have lost a delivery; that is made good by `outbox`, if anything calls it.
    """
    is_waiting = delivered.status == Status.PENDING and delivered.started_at is None
    return bool(not is_waiting and delivered.delivery is None and conf.queue and feature("REPUBLISHES"))


def _put_off(delivered: GeneratedImage, refusal: rate_limits.Refusal) -> float | None:
    """Deliver this request again when a provider can be asked, and let its row say why it waits."""
    free_at = timezone.now() + timedelta(seconds=refusal.seconds)
    for whose in ({"caller_waits": True}, {"pk": delivered.pk}):
        for row in waiting().filter(**whose, deadline_at__lt=free_at)[:_CANDIDATES]:
            fail_pending(row, refusal.error())  # its time is over by then, so it is told at once
    reason = {"error_code": refusal.failure.code, "error_message": refusal.failure.message}
    waits = waiting().filter(pk=delivered.pk).update(retry_at=free_at, **reason)
    if not waits and (_is_spare(delivered) or not waiting().exists()):
        return None
    return rate_limits.delay(conf.providers, refusal.seconds)


#: The failures after which a queued request waits, if nothing can have been billed: those that pass by themselves.
TEMPORARY = (*rate_limits.TEMPORARY, StorageError, DatabaseUnavailable)
#: Seconds until the next attempt if it is not a provider that cannot be used for now.
PAUSE = 5.0


def give_back(row: GeneratedImage, failure: ImagesError, unwritten: Mapping[str, Any]) -> float | None:
    """Let a row that was claimed wait in the queue again, because no provider could be asked, or nothing be stored.

    Args:
        row: With the attempts so far.
        failure: Why; it cannot have been billed.
        unwritten: Columns that the run has found out so far.

    Returns:
        Seconds after which the request is to be delivered again; `None` if that is too late for the row, or if it
        was deleted or claimed by another worker.
    """
    refusal = rate_limits.refusal(conf.providers)
    seconds = refusal.seconds if refusal else 0.0
    if not isinstance(failure, ProviderFailure):
        seconds = max(seconds, PAUSE)
    retry_at, until = timezone.now() + timedelta(seconds=seconds), row.queued_until
    if until is None or retry_at > until:
        return None
    found = rows().filter(pk=row.pk, status=Status.PENDING, started_at=row.started_at)
    changed = found.update(
        **{
            **unwritten,
            "started_at": None,
            "delivery": None,
            "deadline_at": until,
            "retry_at": retry_at,
            "attempts": row.attempts,
            "error_code": failure.code,
            "error_message": failure.message,
        }
    )
    if not changed:
        return None
    log_event(logger, logging.INFO, "generation_waits", image=row.pk, code=failure.code, seconds=round(seconds, 1))
    return rate_limits.delay(conf.providers, seconds)


def _is_expired(row: GeneratedImage, now: datetime) -> bool:
    """Whether a row has waited too long; then it is failed."""
    if row.deadline_at is None or now <= row.deadline_at:
        return False
    expire(row)
    return True


def _refused(row: GeneratedImage) -> ImagesError:
    """Why a row was not made in time that waited for a provider."""
    seconds = (row.retry_at - timezone.now()).total_seconds() if row.retry_at else 0.0
    return find_kind(row.error_code, row.error_message)(row.error_message, retry_after=max(seconds, RETRY_AFTER))


def _begun_as(image_id: uuid.UUID) -> GeneratedImageQuerySet:
    """The row that a worker has begun with when the queue delivered this one."""
    own = Q(pk=image_id, delivery=None) | Q(delivery=image_id)
    return rows().filter(own, status=Status.PENDING, started_at__isnull=False)


def expire(row: GeneratedImage) -> bool:
    """Fail a row that no worker has started in time, or that no provider could be asked for in time.

    Returns:
        Whether it was failed.
    """
    waited_for_provider = row.error_code != ""
    done = fail_pending(row, _refused(row) if waited_for_provider else QueueUnavailable(NO_WORKER_STARTED))
    if done and not waited_for_provider:
        report(Incident.EXPIRED, row.pk)
    return done


def lose(row: GeneratedImage) -> bool:
    """Fail a row whose worker was lost, and whose picture is not in the storage. Returns whether it was failed."""
    done = fail_pending(row, stopped())
    if done:
        report(Incident.LOST, row.pk)
    return done


def worker_lost(image_id: uuid.UUID) -> None:
    """Settle a row whose worker is known to be dead: it becomes ready if its file was stored, otherwise it fails.

    Raises:
        StorageError: The storage cannot tell whether the file was stored.
    """
    row = _begun_as(image_id).first()
    if row is not None and not rescue(row):
        lose(row)


def _settle_redelivered(row: GeneratedImage, started_at: datetime, now: datetime) -> GeneratedImage | float | None:
    """Settle a row whose worker's time is over, or return the seconds until it is."""
    over = started_at + timedelta(seconds=conf.longest_run) + STALE_AFTER
    if now <= over:
        return (over - now).total_seconds() + 1
    if rescue(row):
        return None
    if conf.retry_lost and not row.is_stale and budgets.cover_again(row) and _mark_started(row, now):
        return row
    lose(row)
    return None


def _mark_started(row: GeneratedImage, now: datetime, *, delivery: uuid.UUID | None = None) -> bool:
    """Claim the row, unless another worker has done so since it was read. Returns whether it was claimed."""
    deadline = now + timedelta(seconds=conf.longest_run)
    if conf.retry_lost and row.deadline_at is not None:
        deadline = max(deadline, row.deadline_at)  # it stays pending as long as it may be claimed again
    if delivery is None or delivery == row.pk:
        delivery = row.delivery if row.started_at else None
    values: dict[str, Any] = {"started_at": now, "deadline_at": deadline, "delivery": delivery, "retry_at": None}
    values |= {"error_code": "", "error_message": ""}  # it no longer waits
    found = rows().filter(pk=row.pk, status=Status.PENDING, started_at=row.started_at)
    if not found.update(**values):
        return False
    if row.started_at is not None:
        row.attempts = attempts_with_lost_run(row)
    row.queued_until = row.deadline_at
    for name, value in values.items():
        setattr(row, name, value)
    return True


def attempts_with_lost_run(row: GeneratedImage) -> list[Any]:
    """The attempts of a row whose worker was lost: nobody knows what its run has cost."""
    lost = Attempt(provider="", model="", code=ImagesError.code, ms=0, may_have_billed=True)
    return [*row.attempts, asdict(lost)]


# --- waiting ------------------------------------------------------------------------------------------------------


def wait_for(image: GeneratedImage, seconds: float) -> GeneratedImage:
    """Wait until an image is ready or has failed, without holding a pooled database connection meanwhile.

    Args:
        image: A pending row.
        seconds: How long to wait at most.

    Returns:
        The row as it is then; still `pending` if the time ran out.

    Raises:
        ImageNotFound: It was deleted meanwhile.
        ImagesError: The database did not answer when the time ran out.
    """
    end, pause = time.monotonic() + seconds, FIRST_POLL
    while True:
        left = end - time.monotonic()
        row = _poll(image, end)
        if row is not None and (row.current_status != Status.PENDING or left <= 0):
            return row
        release_connections()
        time.sleep(max(0.0, min(pause, end - time.monotonic())))
        pause = min(pause * 1.5, LONGEST_POLL_PAUSE)


def _poll(image: GeneratedImage, end: float) -> GeneratedImage | None:
    """Read the row; `None` if the database does not answer and it will be read again before the end."""
    try:
        row = rows().filter(pk=image.pk).exclude(status=Status.DELETING).first()
    except (OperationalError, InterfaceError) as err:
        # It may have taken some seconds to find out; another look would take as many, beyond what was promised.
        if time.monotonic() >= end:  # not `DatabaseUnavailable`: a worker may have paid for the image
            raise ImagesError().with_billing(True) from err
        return None
    if row is None:
        raise ImageNotFound("The image was deleted while it was being generated.")
    return row


def set_caller_waits(image: GeneratedImage, waits: bool) -> None:
    """Record whether a caller waits for a row: then it comes before those that nobody waits for."""
    rows().filter(pk=image.pk, status=Status.PENDING, started_at=None).update(caller_waits=waits)


def wait_for_worker(image: GeneratedImage) -> GeneratedImage:
    """Wait for a worker to start, up to the deadline, and then for its result.

    Raises:
        ImagesError: The failure that the worker recorded.
        ProviderTimeout: The worker recorded nothing before its time was over. With `IMAGE_RETRY_LOST` another one may
            still do so, but no caller waits for a second run.
        QueueUnavailable: No worker started.
    """
    row = wait_for(image, conf.deadline)
    if row.current_status == Status.PENDING and not _withdraw(row):
        row = wait_for(row, conf.longest_run + STALE_AFTER.total_seconds())
        if row.current_status == Status.PENDING:
            raise ProviderTimeout().with_billing(True)
    return finished(row)


def _withdraw(row: GeneratedImage) -> bool:
    """Fail a row that no worker has started, because its caller stops waiting. Returns whether it was failed."""
    return row.started_at is None and expire(row)


def finished(row: GeneratedImage) -> GeneratedImage:
    """The row, if it is ready.

    Raises:
        ImagesError: The failure that the worker recorded, as it would have been raised in this thread.
    """
    if row.status == Status.READY:
        return row
    raise row.failure or ImagesError()


# --- for operators ------------------------------------------------------------------------------------------------


def waiting() -> GeneratedImageQuerySet:
    """The requests that no worker works on, oldest first: not yet, or not until a provider can be asked."""
    return rows().in_status(Status.PENDING).filter(started_at=None).order_by("created_at")


def provider_problem(retry_at: datetime, code: str, message: str) -> str | None:
    """What an operator should know about requests that wait for a provider, or `None`.

    Args:
        retry_at: When the first of `waiting_for_provider()` is due.
        code: Its `error_code`.
        message: Its `error_message`.
    """
    seconds = (retry_at - timezone.now()).total_seconds()
    if seconds < -WAITING_LONG:
        return None  # no worker tries: `queue_problem` says so
    what = "the storage" if code == StorageError.code else "a provider"
    return f"Requests wait for {what} ({code}), and the next is tried in {max(0, seconds):.0f} s. {message}"


def waiting_for_provider() -> GeneratedImageQuerySet:
    """The requests that wait until a provider can be asked, the one that is due first at the front."""
    return waiting().exclude(error_code="").exclude(retry_at=None).order_by("retry_at")


def queue_problem(oldest: datetime | None) -> str | None:
    """What an operator should know about the queue, or `None`.

    Args:
        oldest: When the first of `waiting()` was created; `None` if nothing is waiting.
    """
    seconds = (timezone.now() - oldest).total_seconds() if oldest else 0
    if seconds < WAITING_LONG:
        return None
    return (
        f"A request has been waiting for {seconds:.0f} s: no worker is running (`make worker`), or there are too few."
    )
