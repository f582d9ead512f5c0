"""Web processes and workers of several machines around one PostgreSQL."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.provider_server import ProviderServer
from tests.load.postgres import limited_database
from tests.queue.installation import Installation
from tests.queue.services import PATIENCE, Redis
from trygo_backend.environment import CONNECT_SECONDS

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


@pytest.mark.parametrize("pool_size", ["0", "3"])
def test_a_database_that_is_away_for_a_while_costs_neither_requests_nor_pictures(
    pool_size: str, tmp_path: Path, provider_server: ProviderServer, redis: Redis
) -> None:
    with (
        limited_database(60) as database,
        closing(
            Installation(tmp_path, provider_server, redis.url, database.url, DATABASE_POOL_SIZE=pool_size)
        ) as installation,
    ):
        installation.manage("migrate", "--verbosity", "0")
        provider_server.hold()
        with installation.web(), installation.worker("--concurrency", "5"):
            images = [installation.queue(f"Number {number}") for number in range(15)]
            provider_server.wait_for(5, PATIENCE)
            with database.away():
                provider_server.release()  # the first five are paid for and stored; the others are taken up
                time.sleep(5)
            assert {installation.ended(image)["status"] for image in images} == {"ready"}
            assert {installation.look(image)["provider"] for image in images} == {"openai"}
        assert installation.paid == 15


@pytest.mark.parametrize("pool_size", ["0", "3"])
def test_a_caller_that_waits_is_told_in_time_if_the_database_goes_away(
    pool_size: str, tmp_path: Path, provider_server: ProviderServer, redis: Redis
) -> None:
    more = {"DATABASE_POOL_SIZE": pool_size, "IMAGE_RUN_ON_WORKERS": "1"}
    with (
        limited_database(60) as database,
        closing(Installation(tmp_path, provider_server, redis.url, database.url, **more)) as installation,
    ):
        installation.manage("migrate", "--verbosity", "0")
        with installation.web(), installation.worker(), ThreadPoolExecutor(1) as callers:
            installation.marker()  # both are at work
            provider_server.hold()
            asked = callers.submit(installation.ask, Prefer="wait=6")
            provider_server.wait_for(2, PATIENCE)
            with database.away():
                answer = asked.result(PATIENCE)
            provider_server.release()
            assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
            assert answer.json()["mayHaveBilled"] is True
            assert answer.elapsed.total_seconds() < 6 + CONNECT_SECONDS + 4  # 4 for a slow machine
