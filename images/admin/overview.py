"""The last day at a glance, for the admin's index: what was made, what failed and why, and what it cost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.db.models import Count, Q, Sum
from django.utils import timezone
from django.utils.translation import gettext

from ..conf import conf
from ..failures import REASONS
from ..local_files import media_root
from ..models import CostBasis, GeneratedImage, Status, image_storage
from ..providers import get_provider
from ..providers.models import utc_today
from ..services.budgets import DAY, Standing, standings
from .columns import dollars

#: How many reasons of failures are named.
MOST_REASONS = 3


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The figures.

    Attributes:
        made: Images that were made.
        failed: Requests that failed.
        pending: Requests under way now, whenever they were made.
        since: When the day began.
        reasons: The commonest codes of failures, each with a short reason and how often it came.
        spent: An amount in US dollars, for the reader.
        budgets: The installation's budgets: which, how much is used, and whether that is nearly all.
        free_bytes: What is left on the disk of the images; `None` if they are elsewhere.
        endings: A sentence for each configured model that will be shut down, or was.
    """

    made: int
    failed: int
    pending: int
    since: datetime
    reasons: list[tuple[str, str, int]]
    spent: str
    budgets: list[tuple[str, str, bool]]
    free_bytes: int | None
    endings: list[str]


def overview() -> Overview:
    """The figures of the last 24 hours."""
    since = timezone.now() - timedelta(days=1)
    rows = GeneratedImage.objects.filter(created_at__gte=since).order_by()
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
        since=since,
        reasons=[(code, str(REASONS.get(code, code)), number) for code, number in reasons if code],
        spent=dollars(costs["spent"] or Decimal(0), CostBasis.AT_LEAST if costs["unknown"] else "", places=2),
        budgets=[_budget(standing) for standing in standings()],
        free_bytes=_free_bytes(),
        endings=list(_endings()),
    )


def _budget(standing: Standing) -> tuple[str, str, bool]:
    name = gettext("Budget of the day") if standing.budget.kind == DAY else gettext("Budget of the month")
    amounts = {"spent": standing.spent, "limit": standing.budget.limit, "reserved": standing.reserved}
    told = {key: dollars(usd, places=2) for key, usd in amounts.items()}
    text = (
        gettext("%(spent)s of %(limit)s, and %(reserved)s reserved")
        if standing.reserved
        else gettext("%(spent)s of %(limit)s")
    )
    return name, text % told, standing.is_low


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
