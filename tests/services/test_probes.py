"""The probes that start-up, `/health/ready`, the front page and the doctor share."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper
from pytest_django.fixtures import Settings

from images.services import probes
from images.services.probes import Level, run_probes
from tests.fakes.doctor import OPENAI_KEY, Configure


class OddStorage:
    """Cannot even be made."""

    def __init__(self, **options: Any) -> None:
        raise RuntimeError(OPENAI_KEY)


@pytest.mark.django_db
def test_all_of_them_are_fine_in_an_installation_in_order(configure: Configure) -> None:
    found = run_probes()
    assert {name: finding.level for name, finding in found.items()} == dict.fromkeys(probes.PROBES, Level.FINE)


@pytest.mark.parametrize(
    ("provider", "level"),
    [
        ("openai", "ok"),
        ("keyless,openai", "ok"),
        ("missing,unknown,openai", "ok"),
        ("keyless", "broken"),
        ("missing,unknown", "broken"),
        (" , ", "broken"),
    ],
)
def test_one_provider_that_is_ready_is_enough(configure: Configure, provider: str, level: str) -> None:
    entries = {
        "keyless": {"BACKEND": "images.providers.openai.OpenAIProvider", "OPTIONS": {"model": "m"}},
        "missing": "nowhere.Provider",
    }
    configure(PROVIDER=provider, PROVIDERS=entries)
    finding = run_probes("providers")["providers"]
    assert finding.level == level
    assert "nowhere" not in finding.public


def test_a_storage_that_fails_in_its_own_way_is_a_finding(configure: Configure, settings: Settings) -> None:
    settings.STORAGES = {**settings.STORAGES, "odd": {"BACKEND": f"{__name__}.OddStorage"}}
    configure(STORAGE="odd")
    finding = run_probes("storage")["storage"]
    assert finding.level == "broken"
    assert OPENAI_KEY not in str(finding)


def test_a_probe_does_not_queue_for_the_pool() -> None:
    original = {**connections["default"].settings_dict, "OPTIONS": {"pool": {"max_size": 1}, "sslmode": "require"}}
    connections["pooled"] = DatabaseWrapper(original, alias="pooled")
    try:
        with probes._own_connection("pooled") as connection:
            assert connection.pool is None  # type: ignore[attr-defined]
            options = connection.settings_dict["OPTIONS"]
    finally:
        del connections["pooled"]
    assert options == {"sslmode": "require", "connect_timeout": 3, "tcp_user_timeout": 3000}
    assert "pool" in original["OPTIONS"]
