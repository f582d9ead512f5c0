"""A hundred callers at once, two processes, one budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.fakes.provider_server import ProviderServer
from tests.load.callers import PATIENCE, Callers, server_for
from tests.load.postgres import limited_database

MANY, AFFORDABLE = 100, 20

pytestmark = pytest.mark.slow


@contextmanager
def database(kind: str) -> Iterator[dict[str, str]]:
    if kind == "sqlite":
        yield {}
    else:
        with limited_database(connections=40) as made:
            yield {"DATABASE_URL": made.url}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_processes_and_100_callers_never_cross_the_line(kind: str, tmp_path: Path) -> None:
    wanted = {
        "WEB_CONCURRENCY": "2",
        "OPENAI_IMAGE_MODEL": "some-model",
        "IMAGE_PRICES": "some-model=0.10",
        "IMAGE_BUDGET_DAY": "2.05",
        "IMAGE_BUDGET_MONTH": "50",
    }
    with (
        ProviderServer(image_bytes=20_000) as provider,
        database(kind) as variables,
        server_for(provider, tmp_path, **wanted, **variables) as server,
    ):
        provider.hold()
        with Callers(server.generate_url, MANY) as callers:
            provider.wait_for(AFFORDABLE, PATIENCE)
            provider.release()
        assert callers.statuses == {"200": AFFORDABLE, "503": MANY - AFFORDABLE}
        assert len(provider.requests) == AFFORDABLE
        images = requests.get(f"{server.base}/api/images/?pageSize=100", timeout=PATIENCE).json()
        assert images["count"] == AFFORDABLE
        refused = requests.post(server.generate_url, json={"contentItemId": "a", "title": "b"}, timeout=PATIENCE)
        assert (refused.status_code, refused.json()["code"]) == (503, "budget_exhausted")
        assert int(refused.headers["Retry-After"]) > 0
        ready = requests.get(f"{server.base}/health/ready", timeout=PATIENCE)
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert server.log.count("budget_warning setting=IMAGE_BUDGET_DAY") == 1
