"""`images_usage` prints what the admin's Usage page shows."""

from __future__ import annotations

import csv
import io
import json
import uuid
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from images.models import GeneratedImage, Status

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def images() -> None:
    wanted = {"title": "t", "provider": "gemini", "model": "banana", "status": Status.READY, "duration_ms": 8000}
    GeneratedImage.objects.bulk_create(
        GeneratedImage(file_stem=uuid.uuid4().hex, content_item_id="=item", cost=cost, **wanted)
        for cost in (Decimal("12.4"), None)
    )


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("images_usage", *arguments, stdout=out)
    return out.getvalue()


def test_a_table_says_what_was_spent() -> None:
    text = run("--by", "model", "--days", "7")
    assert "gemini banana  $12.4000, and 1 of unknown cost" in text
    assert "100 %" in text
    assert "Deletions: 0" in text


@pytest.mark.parametrize(
    ("by", "key"),
    [("day", {"day": None}), ("model", {"provider": "gemini", "model": "banana"}), ("user", {"user": ""}),
     ("item", {"content_item": "=item"})],
)  # fmt: skip
def test_programs_get_the_same_as_json_and_as_csv(by: str, key: dict[str, Any]) -> None:
    line, total = json.loads(run("--by", by, "--json"))
    wanted = {
        name: value or timezone.localdate().isoformat() if name == "day" else value for name, value in key.items()
    }
    assert {name: line[name] for name in wanted} == wanted
    assert (line["cost_usd"], line["unknown_cost"], line["requested"], line["p90_seconds"]) == ("12.4000", 1, 2, 8.0)
    assert total["cost_usd"] == "12.4000"
    first = next(csv.DictReader(io.StringIO(run("--by", by, "--csv"))))
    assert list(first) == list(line)
    if by == "item":
        assert first["content_item"] == "'=item"


def test_a_range_of_dates_without_images_is_an_empty_table() -> None:
    assert json.loads(run("--since", "2020-01-01", "--until", "2020-01-31", "--json")) == []
    assert "2020-01-01 to 2020-01-31" in run("--since", "2020-01-01", "--until", "2020-01-31")


@pytest.mark.parametrize(
    "wrong", [("--days", "0"), ("--since", "x"), ("--since", "2026-02-01", "--until", "2026-01-01")]
)
def test_a_range_that_is_none_is_refused_with_a_sentence(wrong: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match=r"--days must be|--since and --until"):
        run(*wrong)
