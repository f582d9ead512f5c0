from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.crash.server import migrated_database
from tests.fakes.provider_server import ProviderServer
from tests.queue.installation import Installation
from tests.queue.services import Redis, need

Install = Callable[..., Installation]


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return migrated_database(tmp_path_factory.mktemp("database"))


@pytest.fixture
def redis() -> Iterator[Redis]:
    need(shutil.which("redis-server"), "redis-server")
    with closing(Redis()) as redis:
        redis.start()
        yield redis


@pytest.fixture
def install(tmp_path: Path, database: Path, provider_server: ProviderServer) -> Iterator[Install]:
    """Makes installations on a SQLite database of their own."""
    with ExitStack() as stack:

        def make(broker: str, **variables: str) -> Installation:
            copied = shutil.copy(database, tmp_path / "db.sqlite3")
            made = Installation(tmp_path, provider_server, broker, f"sqlite:///{copied}", **variables)
            return stack.enter_context(closing(made))

        yield make


@pytest.fixture
def installation(install: Install, redis: Redis) -> Installation:
    return install(redis.url)
