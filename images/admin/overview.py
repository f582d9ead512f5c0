"""The last day at a glance, for the admin's index: what was made, what failed and why, and what it cost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from django.db.models import Count, Q, Sum
from django.utils import timezone

from ..conf import conf
from ..local_files import media_root
from ..models import CostBasis, GeneratedImage, Status, image_storage
from ..providers import get_provider
from ..providers.models import utc_today

#: How many reasons of failures are named.
MOST_REASONS = 3


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The figures.

    Attributes:
        made: Images that were made.
        failed: Requests that failed.
        pending: Requests under way now, whenever they were made.
        reasons: The commonest codes of failures, and how often each came.
        spent: US dollars.
        at_least: A part of what was spent is unknown.
        free_bytes: What is left on the disk of the images; `None` if they are elsewhere.
        endings: A sentence for each configured model that will be shut down, or was.
    """

    made: int
    failed: int
    pending: int
    reasons: list[tuple[str, int]]
    spent: Decimal
    at_least: bool
    free_bytes: int | None
    endings: list[str]


def overview() -> Overview:
    """The figures of the last 24 hours."""
    rows = GeneratedImage.objects.filter(created_at__gte=timezone.now() - timedelta(days=1)).order_by()
    failed = rows.in_status(Status.FAILED)
    reasons = failed.values_list("error_code").annotate(number=Count("pk")).order_by("-number")[:MOST_REASONS]
    may_cost_more = Q(cost=None) & ~Q(started_at=None) | Q(cost_basis=CostBasis.AT_LEAST)
    costs = rows.exclude(status=Status.PENDING).aggregate(
        spent=Sum("cost"), unknown=Count("pk", filter=may_cost_more)
    )
    return Overview(
        made=rows.in_status(Status.READY).count(),
        failed=failed.count(),
        pending=GeneratedImage.objects.in_status(Status.PENDING).count(),
        reasons=[(code, number) for code, number in reasons if code],
        spent=costs["spent"] or Decimal(0),
        at_least=bool(costs["unknown"]),
        free_bytes=_free_bytes(),
        endings=list(_endings()),
    )


def _free_bytes() -> int | None:
    with suppress(OSError, NotImplementedError, AttributeError):
        if root := media_root(image_storage()):
            return shutil.disk_usage(root).free
    return None


def _endings() -> Iterator[str]:
    today = utc_today()
    for alias in conf.providers:
        with suppress(Exception):  # the page is about the images; the doctor names what is misconfigured
            provider = get_provider(alias)
            if deprecation := provider.deprecation():
                yield deprecation.sentence(provider.model, today)
