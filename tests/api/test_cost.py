"""The API says what an image cost, to its owner and to staff."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from images.exceptions import ProviderTimeout
from tests.conftest import client_for
from tests.fakes.providers import FakeProvider

BODY = {"contentItemId": "item-1", "title": "A quiet harbour at dawn"}

pytestmark = pytest.mark.django_db


def test_the_owner_and_staff_see_the_cost_wherever_the_image_is_shown(
    api: APIClient, staff: User, fake_provider: FakeProvider
) -> None:
    fake_provider.usage = {"cost": 0.0412}
    cost = {"usd": "0.0412", "basis": "reported"}
    made = api.post("/api/images/generate", BODY, format="json").json()
    assert made["cost"] == cost
    for client in (api, client_for(staff)):
        assert client.get(f"/api/images/{made['id']}").json()["cost"] == cost
        assert [image["cost"] for image in client.get("/api/images/").json()["results"]] == [cost]


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({}, None),
        ({"test-model-1": "0.10"}, {"usd": "0.1", "basis": "estimated"}),
        ({"test-model-1": 0}, {"usd": "0", "basis": "estimated"}),
    ],
)
def test_an_unknown_cost_is_null_and_not_zero(
    api: APIClient, fake_provider: FakeProvider, settings: Any, prices: dict[str, Any], cost: Any
) -> None:
    settings.IMAGES = {**settings.IMAGES, "PRICES": prices}
    assert api.post("/api/images/generate", BODY, format="json").json()["cost"] == cost


def test_a_failed_image_shows_what_it_cost_at_least(
    api: APIClient, fake_provider: FakeProvider, settings: Any
) -> None:
    entries = settings.IMAGES["PROVIDERS"]
    settings.IMAGES = {
        **settings.IMAGES,
        "PROVIDER": "test,again",
        "PROVIDERS": {**entries, "again": entries["test"]},
    }
    settings.IMAGES["PRICES"] = {"again": 0.02}
    fake_provider.will(ProviderTimeout(), b"no picture")
    assert api.post("/api/images/generate", BODY, format="json").status_code == 504
    [image] = api.get("/api/images/").json()["results"]
    assert (image["status"], image["cost"]) == ("failed", {"usd": "0.02", "basis": "at_least"})


def test_a_caller_from_a_trusted_network_does_not_see_the_cost(
    anonymous: APIClient, fake_provider: FakeProvider, settings: Any
) -> None:
    settings.IMAGES = {**settings.IMAGES, "TRUSTED_NETWORKS": "127.0.0.0/8"}
    made = anonymous.post("/api/images/generate", BODY, format="json").json()
    assert made["status"] == "ready"
    assert "cost" not in made
    assert "cost" not in anonymous.get("/api/images/").json()["results"][0]
