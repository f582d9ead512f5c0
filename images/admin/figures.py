"""Figures of the ledger as a reader sees them: rounded, with units, in their language."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from urllib.parse import urlencode

from django.utils.formats import number_format
from django.utils.translation import gettext

from .ledger import Figures

#: What users were promised: the share of successes, and how long nine in ten pictures take at the most.
PROMISED_SUCCESS, PROMISED_MS = 0.95, 30_000
UNKNOWN = "–"


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """A line of a table; `query` is the query that shows its images."""

    day: date | None
    provider: str
    model: str
    query: str
    asked: str
    ready: str
    failed: str
    providers_failed: str
    refused: str
    running: str
    success: str
    misses_success: bool
    median: str
    ninetieth: str
    misses_time: bool
    tokens: str


def as_row(figures: Figures, *, day: date | None = None, provider: str = "", model: str = "") -> FigureRow:
    """Figures as a line.

    Args:
        figures: The numbers.
        day: Where they are those of one day.
        provider: Its alias, or another heading.
        model: The model's name.
    """
    ninetieth = figures.ninetieth_ms
    return FigureRow(
        day=day,
        provider=provider,
        model=model,
        query=_query(day, provider, model) if provider and (day or model) else "",
        asked=_count(figures.asked),
        ready=_count(figures.ready),
        failed=_count(figures.failed),
        providers_failed=_count(figures.providers_failed),
        refused=_count(figures.refused),
        running=_count(figures.running),
        success=as_percentage(figures.success),
        misses_success=figures.success is not None and figures.success < PROMISED_SUCCESS,
        median=_seconds(figures.median_ms),
        ninetieth=_seconds(ninetieth),
        misses_time=ninetieth is not None and ninetieth > PROMISED_MS,
        tokens=_tokens(figures),
    )


def as_percentage(share: float | None) -> str:
    """A share as `97.3 %`, rounded down so that a missed promise never looks kept; a dash for `None`."""
    if share is None:
        return UNKNOWN
    tenths = int(share * 1000 + 1e-9) / 10
    return gettext("%(number)s %%") % {"number": number_format(tenths, decimal_pos=0 if tenths == int(tenths) else 1)}


def _query(day: date | None, provider: str, model: str) -> str:
    wanted = {"provider": provider, "model": model} if model else {"provider": provider}
    if day:
        wanted |= {"created_at__year": str(day.year), "created_at__month": str(day.month)}
        wanted |= {"created_at__day": str(day.day)}
    return urlencode(wanted)


def _count(number: int) -> str:
    return number_format(number, force_grouping=True)


def _seconds(ms: int | None) -> str:
    if ms is None:
        return UNKNOWN
    return gettext("%(seconds)s s") % {"seconds": number_format(ms / 1000, decimal_pos=1)}


def _tokens(figures: Figures) -> str:
    if figures.tokens is None:
        return UNKNOWN
    text = _count(figures.tokens)
    if not figures.unreported:
        return text
    return gettext("%(tokens)s and %(number)s unknown") % {"tokens": text, "number": _count(figures.unreported)}
