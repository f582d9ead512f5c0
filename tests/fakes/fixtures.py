"""Fixtures around the scripted provider. `tests/conftest.py` loads them as a plugin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.certificates import loopback_certificate
from tests.fakes.provider_server import ProviderServer


@pytest.fixture
def provider_server() -> Iterator[ProviderServer]:
    """A scripted provider on the loopback that speaks OpenAI's and Gemini's HTTP."""
    with ProviderServer() as server:
        yield server


@pytest.fixture
def tls_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProviderServer]:
    """The scripted provider over https, with a certificate that SSL_CERT_FILE makes trusted."""
    context, trusted = loopback_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with ProviderServer(tls=context) as server:
        yield server
