from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.server import Server, migrated_database


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return migrated_database(tmp_path_factory.mktemp("database"))


@pytest.fixture
def server(tmp_path: Path, database: Path) -> Iterator[Server]:
    server = Server(tmp_path, database)
    yield server
    server.close()
