"""Hundreds of generations that wait at the same moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from benchmarks.processes import memory_mb
from tests.fakes.provider_server import ProviderServer
from tests.load.callers import PATIENCE, Callers, Server, server_for
from tests.load.postgres import limited_database

MANY = 500

pytestmark = pytest.mark.slow


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer(image_bytes=20_000) as server:
        yield server


def _all_wait_and_all_succeed(server: Server, provider: ProviderServer) -> None:
    provider.hold()
    with Callers(server.generate_url, MANY) as callers:
        provider.wait_for(MANY, PATIENCE)
        assert requests.get(f"{server.base}/health/ready", timeout=60).status_code == 200
        assert requests.get(f"{server.base}/api/images/?status=pending", timeout=60).json()["count"] == MANY
        provider.release()
    assert callers.statuses == {"200": MANY}


def test_on_sqlite_all_of_500_succeed(provider: ProviderServer, tmp_path: Path) -> None:
    with server_for(provider, tmp_path, IMAGE_MAX_CONCURRENCY=str(MANY)) as server:
        _all_wait_and_all_succeed(server, provider)
        assert server.rows() == [("ready",)] * MANY
        assert len(server.files()) == MANY


def test_on_a_postgresql_of_20_connections_all_of_500_succeed(provider: ProviderServer, tmp_path: Path) -> None:
    with limited_database(connections=20) as database:
        variables = {"IMAGE_MAX_CONCURRENCY": str(MANY), "DATABASE_URL": database.url}
        with server_for(provider, tmp_path, **variables) as server:
            _all_wait_and_all_succeed(server, provider)
            assert database.connections() <= 20
            assert database.count("ready") == MANY


def test_the_defaults_fit_a_small_machine(tmp_path: Path) -> None:
    with ProviderServer(image_bytes=1_500_000) as provider, server_for(provider, tmp_path) as server:
        assert _peak(server, provider, 100) < 250


def test_memory_does_not_grow_with_the_number_that_wait(tmp_path: Path) -> None:
    """Answers of 2 MB for 200 at once would be 800 MB and more, were each read as it comes."""
    variables = {"IMAGE_MAX_CONCURRENCY": "200"}
    with ProviderServer(image_bytes=1_500_000) as provider, server_for(provider, tmp_path, **variables) as server:
        assert _peak(server, provider, 20) > 0  # what is loaded with the first requests does not count
        few = _peak(server, provider, 20)
        many = _peak(server, provider, 200)
        assert many - few < 100, f"{few:.0f} MB with 20, {many:.0f} MB with 200"


def _peak(server: Server, provider: ProviderServer, count: int) -> float:
    """The most megabytes of the server's processes while `count` answers arrive at the same moment."""
    before, peak = len(provider.requests), 0.0
    provider.hold()
    with Callers(server.generate_url, count) as callers:
        provider.wait_for(before + count, PATIENCE)
        provider.release()
        while callers.running:
            peak = max(peak, memory_mb(server.process.pid))
    assert callers.statuses == {"200": count}
    return peak
