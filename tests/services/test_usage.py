"""What was spent, made and failed: counted from rows and from what is left of deleted ones."""

from __future__ import annotations

import uuid
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from images.models import DeletedImage, GeneratedImage, Status
from images.services import usage as module
from images.services.spreadsheets import csv_lines
from images.services.usage import PROVIDERS_OWN, By, Figures, Period, UsageReport, percentile, records, usage_report

pytestmark = pytest.mark.django_db


def row(**fields: Any) -> GeneratedImage:
    """A ready image of today that cost a dime, unless `fields` say otherwise; it is not saved."""
    wanted = {"provider": "gemini", "model": "banana", "status": Status.READY, "duration_ms": 8000}
    wanted |= {"content_item_id": "item", "cost": Decimal("0.1"), "cost_basis": "estimated"}
    return GeneratedImage(title="A title", file_stem=uuid.uuid4().hex, **{**wanted, **fields})


def failure(code: str, **fields: Any) -> GeneratedImage:
    return row(status=Status.FAILED, error_code=code, **fields)


def report(*rows: GeneratedImage, by: By = By.DAY, days: int = 30) -> UsageReport:
    GeneratedImage.objects.bulk_create(rows)
    return usage_report(
        images=GeneratedImage.objects.all(), deleted=DeletedImage.objects.all(), period=Period.of_days(days), by=by
    )


def test_failures_are_attributed_to_the_provider_or_to_us() -> None:
    past = timezone.now() - timedelta(hours=1)
    found = report(
        row(),
        failure("provider_timeout"),
        failure("provider_overloaded"),
        failure("content_rejected"),
        failure("cancelled"),
        failure("storage_error"),
        failure("provider_quota_exhausted"),  # the operator's own account
        row(status=Status.PENDING, deadline_at=past),  # its process was stopped
        row(status=Status.PENDING, deadline_at=timezone.now()),
        row(status=Status.DELETING),
    ).total
    assert (found.requested, found.ready, found.providers_failed, found.refused) == (10, 2, 2, 2)
    assert (found.failed, found.running) == (3, 1)
    assert found.success == 0.4


def test_the_providers_own_failures_are_told_from_the_operators() -> None:
    assert {"provider_error", "provider_timeout", "provider_no_image"} <= PROVIDERS_OWN
    assert not {"content_rejected", "provider_auth", "internal_error", "storage_error"} & PROVIDERS_OWN


def test_an_unknown_cost_is_counted_apart_and_is_not_zero() -> None:
    found = report(
        row(cost=Decimal("1.25")),
        row(cost=Decimal("0.05"), cost_basis="at_least"),
        row(cost=None, cost_basis=""),
        failure("provider_error", cost=None),
        row(cost=None, duration_ms=None),  # imported: somebody else made it
        failure("queue_unavailable", cost=None),  # nobody was asked
        row(status=Status.PENDING, cost=None, deadline_at=timezone.now()),
        row(model="own", cost=None),
        by=By.MODEL,
    )
    assert (found.total.cost, found.total.unknown, found.total.at_least) == (Decimal("1.30"), 3, 1)
    own = found.groups["gemini", "own"]
    assert (own.cost, own.is_cost_unknown) == (Decimal(0), True)
    assert [line["cost_usd"] for line in records(found)] == ["1.3000", None, "1.3000"]


def test_deletions_change_no_sum_of_the_past_and_are_counted() -> None:
    user = User.objects.create_user("ada")
    past = timezone.now() - timedelta(days=5)
    images = [row(created_at=past, owner=user, content_item_id=f"item-{n}") for n in range(3)]
    images.append(failure("provider_timeout", created_at=past, owner=user))
    before = {by: records(report(*(images if by == By.DAY else []), by=by)) for by in By}
    GeneratedImage.objects.filter(pk__in=[image.pk for image in images[1:]]).update(file="draft-images/a/b.png")
    GeneratedImage.objects.exclude(pk=images[0].pk).delete()
    DeletedImage.objects.filter(content_item_id="item-1").update(at_first_try=False)
    assert {by: records(report(by=by)) for by in By} == before
    deletions = report().deletions
    assert (deletions.at_first_try, deletions.later, deletions.unfinished) == (2, 1, 0)
    assert not deletions.misses_promise  # three are too few to say so


def test_lines_are_those_that_cost_most_and_one_for_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GROUPS", 2)
    images = [row(content_item_id=f"item-{n}", cost=Decimal(n)) for n in (1, 2, 3, 4)]
    report(*images)
    GeneratedImage.objects.filter(content_item_id="item-4").delete()
    report(row(content_item_id="item-4", cost=Decimal(2)))
    found = report(by=By.ITEM)
    assert [(key[0], int(figures.cost)) for key, figures in found.groups.items()] == [("item-4", 6), ("item-3", 3)]
    assert found.others is not None
    assert (found.others.cost, found.others.requested) == (Decimal(3), 2)
    assert [line["content_item"] for line in records(found)] == ["item-4", "item-3", "(others)", "(total)"]


def test_users_are_called_by_their_names_also_those_who_are_gone() -> None:
    user = User.objects.create_user("ada")
    found = report(row(owner=user), row(owner=None, cost=0), row(owner_id=4711, cost=Decimal("0.05")), by=By.USER)
    assert [line["user"] for line in records(found)] == ["ada", "#4711", "", "(total)"]


def test_a_day_ends_at_midnight_in_the_readers_time_zone(settings: Settings) -> None:
    settings.TIME_ZONE = "Asia/Kolkata"  # half an hour off the whole hours
    today = timezone.localdate()
    midnight = timezone.make_aware(datetime.combine(today, datetime.min.time()))
    ages = [timedelta(seconds=1), timedelta(0), timedelta(days=29), timedelta(days=29, seconds=1)]
    found = report(*(row(created_at=midnight - age) for age in ages))
    assert list(found.groups) == [(today,), (today - timedelta(days=1),), (today - timedelta(days=29),)]
    assert [figures.requested for figures in found.groups.values()] == [1, 1, 1]
    assert len(found.days) == 30


def test_a_long_range_is_counted_by_month() -> None:
    period = Period.parse("2024-11-15", "2026-11-28")
    assert period.steps[:3] == [date(2024, 11, 15), date(2024, 12, 1), date(2025, 1, 1)]
    assert len(period.steps) == 25
    assert len(Period.parse("2025-11-28", "2026-11-28").steps) == 366


@pytest.mark.parametrize("dates", [("2026-11-02", "2026-11-01"), ("x", ""), ("1900-01-01", ""), ("", "2026-13-01")])
def test_a_range_that_is_none_is_refused(dates: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"first day|[Ii]nvalid isoformat|month must be"):
        Period.parse(*dates)


def test_counting_walks_along_an_index_that_holds_everything_and_never_along_the_rows() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("the other databases choose by the size of the table")
    with CaptureQueriesContext(connection) as context:
        report(days=90)
    counting = [each["sql"] for each in context if "COUNT(" in each["sql"] and "images_generatedimage" in each["sql"]]
    assert len(counting) <= 3  # all days together, what is special of rows, unfinished deletions
    for statement in counting:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}")
            plan = [line[-1] for line in cursor.fetchall() if "images_generatedimage" in line[-1]]
        assert all("COVERING INDEX" in line for line in plan), plan


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([], 0.5) is None
    assert percentile([7], 0.9) == 7
    assert percentile(range(1, 11), 0.5) == 5
    assert percentile(range(1, 11), 0.9) == 9
    assert percentile(range(1, 12), 0.9) == 10


def test_a_promise_is_missed_only_after_twenty_cases() -> None:
    assert not Figures(ready=1, failed=18, durations=[36_600] * 19).misses_success
    assert not Figures(durations=[36_600] * 19).misses_time
    few = Figures(ready=18, failed=2, durations=[36_600] * 20)
    assert few.misses_success
    assert few.misses_time


def test_durations_are_of_pictures_and_of_a_random_share_if_there_are_very_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = report(row(duration_ms=1000), row(duration_ms=3000), row(duration_ms=None), failure("provider_timeout"))
    assert (sorted(found.total.durations), found.share) == ([1000, 3000], 1)
    monkeypatch.setattr(module, "MAX_DURATIONS", 1)
    GeneratedImage.objects.all().delete()
    DeletedImage.objects.all().delete()
    low, high = row(id=uuid.UUID(int=1), duration_ms=1000), row(id=uuid.UUID(int=2**128 - 1), duration_ms=3000)
    found = report(low, high)
    assert (found.total.durations, found.share) == ([1000], 0.5)


def test_a_host_without_time_zones_has_figures_too(settings: Settings) -> None:
    settings.USE_TZ = False
    assert report(row(created_at=datetime.now())).total.requested == 1


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1"])
def test_text_never_becomes_a_formula_of_a_spreadsheet(text: str) -> None:
    header, line = csv_lines(["text", "number"], [{"text": text, "number": -1}])
    assert header == "text,number\r\n"
    assert line.lstrip('"').startswith(f"'{text}")
    assert line.endswith(",-1\r\n")
