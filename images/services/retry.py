"""Failed requests that cost nothing are queued again: after an outage, a wrong key or a used-up quota.

The row is kept, and with it its id, its idempotency key and its attempts: whoever holds its address finds the picture
there in the end, and a caller that repeats its key meanwhile is told that the image is being made.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from ..exceptions import ContentRejected
from ..logs import log_event
from ..models import GeneratedImage, GeneratedImageQuerySet, Status
from . import budgets
from .background import seconds_for, start_rows
from .database import rows
from .outbox import REPUBLISH_AFTER

logger = logging.getLogger("images")

#: Why failed requests are left out.
MAY_HAVE_BILLED, SUPERSEDED, REJECTED = "may_have_billed", "requested_again", "content_rejected"
PERIOD_OVER = "period_over"
#: How many rows are read at once.
CHUNK = 500


@dataclass(frozen=True, kw_only=True)
class Found:
    """Failed requests that can be queued again, and those that are left out.

    Attributes:
        images: The rows, oldest first.
        left_out: How many are left out, by reason: `may_have_billed`, `requested_again`, `content_rejected`,
            `period_over`.
    """

    images: list[GeneratedImage] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def requested_again_later() -> Q:
    """Images whose input was requested again later: another try would be paid for a second time."""
    same = {name: OuterRef(name) for name in ("content_item_id", "variant", "title")}
    later = GeneratedImage.objects.filter(**same, created_at__gt=OuterRef("created_at"))
    return Q(Exists(later.order_by().exclude(status=Status.DELETING)))


def find_failed(
    *, codes: Collection[str] = (), since: datetime | None = None, until: datetime | None = None
) -> Found:
    """Find the failed requests for which nothing can have been billed.

    Args:
        codes: Only those with one of these error codes. Rejected content is left out unless it is named here.
        since: Only those that were made at this time or later.
        until: Only those that were made before this time.
    """
    found = Found()
    for row in _failed(since, until).iterator(chunk_size=CHUNK):
        code = row.current_error[0]
        if codes and code not in codes:
            continue
        if reason := _reason_against(row, code, codes):
            found.left_out[reason] += 1
        else:
            found.images.append(row)
    return found


def _failed(since: datetime | None, until: datetime | None) -> GeneratedImageQuerySet:
    found = rows().in_status(Status.FAILED).order_by("created_at", "id")
    if since:
        found = found.filter(created_at__gte=since)
    if until:
        found = found.filter(created_at__lt=until)
    return found.annotate(superseded=requested_again_later()).defer("description", "context", "prompt", "scene")


def _reason_against(row: Any, code: str, codes: Collection[str]) -> str:
    if row.may_have_billed or row.file:
        return MAY_HAVE_BILLED
    if row.superseded:
        return SUPERSEDED
    if code == ContentRejected.code and code not in codes:
        return REJECTED
    return PERIOD_OVER if budgets.is_over(row.owner_id, row.created_at) else ""


def retry_images(*, images: Iterable[GeneratedImage]) -> int:
    """Queue failed requests again, or without a queue make them in threads of this process.

    Args:
        images: From `find_failed`. Those that have been changed since are left alone.

    Returns:
        How many were queued.

    Raises:
        BudgetExhausted: A budget does not cover all of them; those before it are queued.
        ProviderNotConfigured: There is a budget, and what an image will cost cannot be estimated.
    """
    chosen, changed = list(images), []
    deadline = timezone.now() + timedelta(seconds=seconds_for(len(chosen)))
    try:
        for row in chosen:
            if _let_wait_again(row, deadline):
                changed.append(row)
    finally:
        if changed:
            start_rows(changed)
    return len(changed)


def _let_wait_again(row: GeneratedImage, deadline: datetime) -> bool:
    """Let a failed row wait as a new one does. Returns whether it was still as it was found."""
    was, code = Q(status=row.status, started_at=row.started_at, deadline_at=row.deadline_at), row.current_error[0]
    reserved_before = row.budget_reserved is not None  # nothing has settled it
    if not reserved_before:
        budgets.prepare(row)
    with suppress(_Changed), transaction.atomic(using=rows().db):
        if not reserved_before:
            budgets.reserve(row)
        values = {**_waiting_values(), "deadline_at": deadline, "budget_reserved": row.budget_reserved}
        if not rows().filter(was, pk=row.pk).update(**values):
            raise _Changed
        for name, value in values.items():
            setattr(row, name, value)
        fields = {"image": row.pk, "content_item": row.content_item_id, "code": code}
        log_event(logger, logging.INFO, "generation_retried", **fields)
        return True
    return False


class _Changed(Exception):
    """Somebody else has changed the row."""


def _waiting_values() -> dict[str, Any]:
    return {
        "status": Status.PENDING,
        "error_code": "",
        "error_message": "",
        "provider": "",
        "model": "",
        "started_at": None,
        "finished_at": None,
        "duration_ms": None,
        "retry_at": None,
        "delivery": None,
        "caller_waits": False,
        "republish_at": timezone.now() + REPUBLISH_AFTER,
    }
