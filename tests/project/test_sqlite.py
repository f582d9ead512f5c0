"""SQLite as the settings configure it: Django's own backend, made for many threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler

from images.services.database import release_connections
from trygo_backend.environment import database


@pytest.fixture
def connection(tmp_path: Path, django_db_blocker: Any) -> Any:
    """A connection to a database of the test's own."""
    settings = database(f"sqlite:///{tmp_path / 'own.sqlite3'}", base_dir=tmp_path, pool_size=0)
    assert settings["ENGINE"] == "django.db.backends.sqlite3"
    with django_db_blocker.unblock():
        found = ConnectionHandler({"default": settings})["default"]
        yield found
        found.close()


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 1), ("busy_timeout", 30_000), ("foreign_keys", 1)],
)
def test_readers_work_beside_a_writer_and_writers_wait_for_each_other(
    connection: BaseDatabaseWrapper, pragma: str, value: object
) -> None:
    with connection.cursor() as cursor:
        assert cursor.execute(f"PRAGMA {pragma}").fetchone() == (value,)
    assert connection.transaction_mode == "IMMEDIATE"  # type: ignore[attr-defined]


def test_a_thread_keeps_its_connection_between_requests(connection: BaseDatabaseWrapper) -> None:
    connection.ensure_connection()
    kept = connection.connection
    connection.close_if_unusable_or_obsolete()
    assert connection.connection is kept


@pytest.mark.django_db(transaction=True)
def test_sqlite_is_not_given_back_while_a_provider_works() -> None:
    from django.db import connection

    if connection.vendor != "sqlite":
        pytest.skip("The suite runs on another database.")
    connection.ensure_connection()
    kept = connection.connection
    release_connections()
    assert connection.connection is kept
