"""More work than the server takes, and everything else beside it."""

from __future__ import annotations

import time
from pathlib import Path

import requests

from tests.fakes.provider_server import ProviderServer
from tests.load.callers import PATIENCE, Callers, server_for

BODY = {"contentItemId": "item-1", "title": "A quiet harbour at dawn"}


def test_at_the_concurrency_limit_one_more_is_turned_away_and_all_else_answers(
    provider_server: ProviderServer, tmp_path: Path
) -> None:
    with server_for(provider_server, tmp_path, IMAGE_MAX_CONCURRENCY="3") as server:
        picture = requests.post(server.generate_url, json=BODY, timeout=60).json()["imageUrl"]
        provider_server.hold()
        with Callers(server.generate_url, 3) as callers:
            provider_server.wait_for(4, PATIENCE)
            started = time.monotonic()
            refused = requests.post(server.generate_url, json=BODY, timeout=60)
            assert time.monotonic() - started < 5  # a generation's deadline is 90
            assert (refused.status_code, refused.json()["code"]) == (503, "too_many_generations")
            assert refused.json()["retryable"] is True
            assert int(refused.headers["Retry-After"]) > 0
            assert requests.get(f"{server.base}/health", timeout=30).json() == {"status": "ok"}
            assert requests.get(picture, timeout=30).content.startswith(b"\x89PNG")
            listed = requests.get(f"{server.base}/api/images/", timeout=30).json()
            assert sorted(image["status"] for image in listed["results"]) == ["pending"] * 3 + ["ready"]
            provider_server.release()
        assert callers.statuses == {"200": 3}
        assert requests.post(server.generate_url, json=BODY, timeout=60).status_code == 200
    assert len(provider_server.requests) == 5  # the one that was turned away cost nothing
