from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from images.services.diagnostics import Finding, Level, examine
from tests.fakes.provider_server import ProviderServer

OPENAI_KEY = "sk-secret-0123456789abcdef"
GEMINI_KEY = "AIzaSecret0123456789abcdef"

Configure = Callable[..., None]


@pytest.fixture
def configure(settings: Settings, provider_server: ProviderServer) -> Configure:
    """Changes an installation that is in order: both providers, on the loopback, with keys."""
    settings.IMAGES = {
        "PROVIDER": "openai",
        "OPENAI_API_KEY": OPENAI_KEY,
        "OPENAI_BASE_URL": f"{provider_server.url}/v1",
        "GEMINI_API_KEY": GEMINI_KEY,
        "GEMINI_API_BASE_URL": f"{provider_server.url}/v1beta",
        "PUBLIC_URL": "https://pics.example",
    }
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True

    def change(**changes: Any) -> None:
        settings.IMAGES = {**settings.IMAGES, **changes}

    return change


def problems(section: str = "", **options: Any) -> list[Finding]:
    """What is not fine, in one section or in all; each says what to do."""
    found = [finding for finding in examine(**options) if finding.level != Level.FINE]
    assert all(finding.next_step for finding in found)
    return [finding for finding in found if section in ("", finding.section)]


def findings(section: str, **options: Any) -> list[Finding]:
    return [finding for finding in examine(**options) if finding.section == section]
