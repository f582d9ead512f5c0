"""`Prefer`, as RFC 7240 writes it, and what is claimed where there is no queue."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.test import APIClient

from images.api.serializers import Preferences, parse_preferences
from tests.fakes.providers import FakeProvider

BODY = {"contentItemId": "item-1", "title": "A quiet harbour at dawn"}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", Preferences()),
        ("respond-async", Preferences(respond_async=True)),
        ("Respond-Async", Preferences(respond_async=True)),
        ("respond-async, wait=10", Preferences(respond_async=True, wait=10)),
        ('handling=lenient,wait = "20" ; strict', Preferences(wait=20)),
        ("respond-async; foo=bar", Preferences(respond_async=True)),
        ("wait=5, wait=50", Preferences(wait=5)),
        ("wait=0", Preferences(wait=0)),
        ("wait=-1", Preferences()),
        ("wait=soon", Preferences()),
        ("wait", Preferences()),
        ("wait=1.5", Preferences()),
        ("wait=٣", Preferences()),
        ("wait=99999999999999999999", Preferences()),
        ('return="respond-async, wait=3"', Preferences()),
        ('x="a\\"b, respond-async", wait=7', Preferences(wait=7)),
        ('"respond-async"', Preferences()),
        (",,;=,", Preferences()),
    ],
)
def test_reads(header: str, expected: Preferences) -> None:
    assert parse_preferences(header) == expected


@given(st.text())
def test_any_header_can_be_read(header: str) -> None:
    parse_preferences(header)


@pytest.mark.parametrize(
    ("preferences", "patience"),
    [
        (Preferences(), None),
        (Preferences(respond_async=True), 0),
        (Preferences(wait=20), 20),
        (Preferences(wait=0), 0),
        (Preferences(respond_async=True, wait=20), 20),
    ],
)
def test_says_how_long_the_caller_waits(preferences: Preferences, patience: int | None) -> None:
    assert preferences.patience == patience


@pytest.mark.django_db
class TestWithoutAQueue:
    @pytest.mark.parametrize(
        ("header", "applied"),
        [("respond-async", None), ("wait=60", "wait=60"), ("respond-async, wait=60", "wait=60"), ("x=1", None)],
    )
    def test_the_image_is_made_and_only_what_was_kept_is_claimed(
        self, api: APIClient, fake_provider: FakeProvider, header: str, applied: str | None
    ) -> None:
        answer = api.post("/api/images/generate", BODY, format="json", headers={"Prefer": header})
        assert answer.status_code == 200
        assert answer.get("Preference-Applied") == applied

    def test_a_wait_that_was_too_short_is_not_claimed(self, api: APIClient, fake_provider: FakeProvider) -> None:
        answer = api.post("/api/images/", BODY, format="json", headers={"Prefer": "wait=0"})
        assert answer.status_code == 201
        assert "Preference-Applied" not in answer
