"""The usage page: figures in words, charts, the list's filters, CSV; and the list as CSV."""

from __future__ import annotations

import csv
import io
import re
import time
import uuid
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from images.admin.usage import as_percentage, money
from images.models import DeletedImage, GeneratedImage, Status
from images.services.usage import Figures

pytestmark = pytest.mark.django_db

PAGE, LIST, EXPORT = (reverse(f"admin:images_generatedimage_{name}") for name in ("usage", "changelist", "export"))


def row(**fields: Any) -> GeneratedImage:
    """A ready image of today that cost a dime, unless `fields` say otherwise; it is not saved."""
    wanted = {
        "provider": "gemini",
        "model": "banana",
        "status": Status.READY,
        "duration_ms": 8000,
        "title": "A title",
    }
    wanted |= {"content_item_id": "item", "cost": Decimal("0.1"), "cost_basis": "estimated"}
    return GeneratedImage(file_stem=uuid.uuid4().hex, **{**wanted, **fields})


def made(*rows: GeneratedImage) -> None:
    GeneratedImage.objects.bulk_create(rows)


def lines(client: Client, page: str = PAGE, **query: Any) -> list[dict[str, str]]:
    wanted = query if page == EXPORT else {**query, "format": "csv"}
    response = client.get(page, wanted)
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    content = response.getvalue() if response.streaming else response.content
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))


def test_the_page_shows_money_first_and_leads_to_the_images(admin_client: Client) -> None:
    made(
        row(cost=Decimal("12.3")),
        row(cost=None, cost_basis=""),
        *(row(status="failed", error_code="x") for _ in range(20)),
    )
    html = admin_client.get(PAGE).text
    today = timezone.localdate()
    assert re.search(r"<dt>Spent</dt><dd>\$14.30, and 1 of unknown cost</dd>", html)
    assert re.search(r"<dt>Success</dt><dd>9 %.*below the promise", html)
    units = "&amp;".join(f"created_at__{unit}={getattr(today, unit)}" for unit in ("day", "month", "year"))
    assert f'href="{LIST}?{units}">22</a>' in html
    for by, query in (
        ("model", "&amp;model=banana&amp;provider=gemini"),
        ("user", "owner__isnull=True"),
        ("item", "content_item_id=item"),
    ):
        page = admin_client.get(PAGE, {"by": by}).text
        assert query in page
        address = re.search(r'<td class="images-number"><a href="([^"]+)">22</a>', page)
        assert address
        listed = admin_client.get(address[1].replace("&amp;", "&"))
        assert listed.context["cl"].result_count == 22, by


def test_one_slow_picture_is_no_alarm(admin_client: Client) -> None:
    made(row(duration_ms=36_600))
    html = admin_client.get(PAGE).text
    assert "36.6 s" in html
    assert "images-missed" not in html


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"model": "banana"}, {"banana": 2}),
        ({"provider": "openai"}, {"gpt": 2}),
        ({"variant": "inline"}, {"gpt": 2}),
        ({"status": "failed"}, {"banana": 1}),
        ({"error_code": "storage_error"}, {"banana": 1}),
        ({"q": "item-9"}, {"gpt": 2}),
        ({"content_item_id": "item-9"}, {"gpt": 2}),
        ({"owner__isnull": "True"}, {"banana": 2, "gpt": 2}),
        ({"q": "A title"}, {"banana": 2, "gpt": 1}),  # nothing is kept of a deleted image's title
        ({"title": "A title"}, {"banana": 2, "gpt": 1}),
    ],
)
def test_the_figures_follow_the_lists_filters_for_deleted_images_too(
    admin_client: Client, filters: dict[str, str], expected: dict[str, int]
) -> None:
    gone = row(
        provider="openai", model="gpt", variant="inline", content_item_id="item-9", file="draft-images/a/b.png"
    )
    kept = row(provider="openai", model="gpt", variant="inline", content_item_id="item-9")
    made(row(), row(status="failed", error_code="storage_error"), kept, gone)
    GeneratedImage.objects.filter(pk=gone.pk).delete()
    assert DeletedImage.objects.count() == 1
    found = lines(admin_client, by="model", **filters)
    assert {line["model"]: int(line["requested"]) for line in found if line["model"]} == expected
    assert "Only:" in admin_client.get(PAGE, filters).text


def test_a_filter_that_images_do_not_have_is_left_out(admin_client: Client) -> None:
    response = admin_client.get(PAGE, {"nonsense": "1", "days": "7"})
    assert (response.status_code, response["Location"]) == (302, "?days=7&by=day")


def test_any_range_of_dates_can_be_chosen(admin_client: Client) -> None:
    made(*(row(created_at=timezone.now() - timedelta(days=age)) for age in (0, 40, 41, 400)))
    today = timezone.localdate()
    assert len(lines(admin_client)) == 2  # a day and the total
    dates = {"since": (today - timedelta(days=41)).isoformat(), "until": (today - timedelta(days=40)).isoformat()}
    assert [line["requested"] for line in lines(admin_client, **dates)] == ["1", "1", "2"]
    assert "By month" in admin_client.get(PAGE, {"since": "2024-01-01"}).text
    assert "This is not a range of dates" in admin_client.get(PAGE, {"since": "2026-99-01"}).text


@pytest.mark.parametrize("days", ["7", "90", "1000000", "-1", "x", "٧"])
def test_only_the_ranges_that_are_offered_are_computed(admin_client: Client, days: str) -> None:
    assert admin_client.get(PAGE, {"days": days}).context["asked"].days == (int(days) if days in {"7", "90"} else 30)


def test_the_charts_say_in_words_what_they_show(admin_client: Client) -> None:
    made(row(cost=Decimal("3.5")), row(cost=None), row(status="failed", error_code="provider_timeout"))
    made(row(cost=None, created_at=timezone.now() - timedelta(days=1)))
    html = admin_client.get(PAGE, headers={"accept-language": "de"}).text
    assert html.count('<svg role="img" aria-label=') == 4
    assert "$3.60 on" in html
    assert re.search(r'fill="url\(#images-hatch-spend\)"><title>[^<]+: unknown', html)
    assert re.search(r'fill="url\(#images-hatch-failures\)"><title>[^<]+: 1<', html)
    numbers = [
        value
        for values in re.findall(r'<rect x="(\d+)" y="([^"]+)" width="7" height="([^"]+)"', html)
        for value in values
    ]
    assert numbers
    assert not [number for number in numbers if not re.fullmatch(r"\d+(\.\d)?", number)]


def test_the_former_address_leads_to_the_page(admin_client: Client) -> None:
    former = reverse("admin:images_generatedimage_ledger")
    assert admin_client.get(former, {"days": "7"})["Location"] == f"{PAGE}?days=7"


@pytest.mark.parametrize("page", [PAGE, EXPORT])
def test_a_user_who_may_not_view_images_sees_no_figures(client: Client, page: str) -> None:
    client.force_login(User.objects.create_user("staff", is_staff=True))
    assert client.get(page).status_code == 403


def test_money_is_never_zero_if_it_is_unknown() -> None:
    assert money(Figures()) == "–"
    assert money(Figures(requested=1)) == "$0.00"
    assert money(Figures(requested=2, unknown=2)) == "unknown"
    assert money(Figures(requested=4, cost=Decimal("12.4"), unknown=3)) == "$12.40, and 3 of unknown cost"
    assert money(Figures(requested=1, cost=Decimal("0.0412"), at_least=1)) == "at least $0.0412"


def test_a_missed_promise_never_looks_kept() -> None:
    assert as_percentage(0.94999) == "94.9 %"
    assert as_percentage(0.95) == "95 %"
    assert as_percentage(None) == "–"


def test_the_list_is_exported_as_it_is_filtered_and_harms_no_spreadsheet(admin_client: Client) -> None:
    made(
        row(title="=HYPERLINK(1)", usage={"total_tokens": 1234}, owner=User.objects.get()),
        row(model="other", cost=None),
    )
    (line,) = lines(admin_client, EXPORT, model="banana")
    assert (line["title"], line["cost_usd"], line["tokens"], line["owner"]) == (
        "'=HYPERLINK(1)",
        "0.1",
        "1234",
        "admin",
    )
    assert {line["cost_usd"] for line in lines(admin_client, EXPORT)} == {"0.1", ""}
    assert f'href="{EXPORT}?model=banana"' in admin_client.get(LIST, {"model": "banana"}).text


@pytest.mark.slow
def test_a_hundred_thousand_images_cost_few_queries_and_little_time(admin_client: Client) -> None:
    now = timezone.now()
    for start in range(0, 100_000, 10_000):
        GeneratedImage.objects.bulk_create(
            row(created_at=now - timedelta(seconds=20 * number), usage={"total_tokens": 1000}, prompt="p" * 500)
            for number in range(start, start + 10_000)
        )
    for url in (PAGE, LIST, reverse("admin:images_generatedimage_gallery")):
        started = time.process_time()
        with CaptureQueriesContext(connection) as context:
            assert admin_client.get(url).status_code == 200
        assert len(context) <= 24
        # Measured: 0.4 s of CPU for the usage page, 0.1 s for the list. A query for each image would take a minute.
        assert time.process_time() - started < 10, url
    with CaptureQueriesContext(connection) as context:
        assert len(lines(admin_client, EXPORT)) == 100_000
    assert len(context) <= 110
