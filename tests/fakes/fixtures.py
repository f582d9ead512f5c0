"""Fixtures around the scripted provider. `tests/conftest.py` loads them as a plugin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.provider_server import ProviderServer


@pytest.fixture
def provider_server() -> Iterator[ProviderServer]:
    """A scripted provider on the loopback that speaks OpenAI's and Gemini's HTTP."""
    with ProviderServer() as server:
        yield server
