"""Web processes and workers of several machines around one PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.provider_server import ProviderServer
from tests.load.postgres import limited_database
from tests.queue.installation import Installation
from tests.queue.services import Redis

pytestmark = pytest.mark.slow


def test_two_web_servers_and_two_workers_make_each_image_once(
    tmp_path: Path, provider_server: ProviderServer, redis: Redis
) -> None:
    with (
        limited_database(60) as database,
        closing(Installation(tmp_path, provider_server, redis.url, database.url)) as installation,
    ):
        installation.manage("migrate", "--verbosity", "0")

        def ask(number: int) -> str:
            # Each twice with the same key, at the same time, wherever they end up.
            answer = installation.ask(f"Number {number // 2}", Prefer="wait=80", Idempotency_Key=f"key-{number // 2}")
            assert answer.status_code in {200, 409}, answer.text
            return str(answer.json().get("imageUrl") or "")

        with (
            installation.web(processes=2),
            installation.worker(),
            installation.worker(),
            ThreadPoolExecutor(8) as callers,
        ):
            made = set(callers.map(ask, range(24))) - {""}
        assert len(made) == installation.paid == 12
