"""Failed requests that cost nothing are queued again: after an outage, a wrong key or a used-up quota.

The row is kept, and with it its id, its idempotency key and its attempts: whoever holds its address finds the picture
there in the end, and a caller that repeats its key meanwhile is told that the image is being made.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from ..exceptions import ContentRejected
from ..logs import log_event
from ..models import GeneratedImage, GeneratedImageQuerySet, Status
from .background import seconds_for, start_rows
from .database import rows
from .outbox import REPUBLISH_AFTER

logger = logging.getLogger("images")

#: Why failed requests are left out.
MAY_HAVE_BILLED, SUPERSEDED, REJECTED = "may_have_billed", "requested_again", "content_rejected"
#: How many rows are read at once.
CHUNK = 500


@dataclass(frozen=True, kw_only=True)
class Found:
    """Failed requests that can be queued again, and those that are left out.

    Attributes:
        images: The rows, oldest first.
        left_out: How many are left out, by reason: `may_have_billed`, `requested_again`, `content_rejected`.
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
    return ""


def retry_images(*, images: Iterable[GeneratedImage]) -> int:
    """Queue failed requests again, or without a queue make them in threads of this process.

    Args:
        images: From `find_failed`. Those that have been changed since are left alone.

    Returns:
        How many were queued.
    """
    chosen = list(images)
    deadline = timezone.now() + timedelta(seconds=seconds_for(len(chosen)))
    changed = [row for row in chosen if _let_wait_again(row, deadline)]
    if changed:
        start_rows(changed)
    return len(changed)


def _let_wait_again(row: GeneratedImage, deadline: datetime) -> bool:
    """Let a failed row wait as a new one does. Returns whether it was still as it was found."""
    values: dict[str, Any] = {
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
        "deadline_at": deadline,
        "republish_at": timezone.now() + REPUBLISH_AFTER,
    }
    found = rows().filter(pk=row.pk, status=row.status, started_at=row.started_at, deadline_at=row.deadline_at)
    if not found.update(**values):
        return False
    fields = {"image": row.pk, "content_item": row.content_item_id, "code": row.current_error[0]}
    log_event(logger, logging.INFO, "generation_retried", **fields)
    for name, value in values.items():
        setattr(row, name, value)
    return True
