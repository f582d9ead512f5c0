"""SQLite's connections are few, kept, and waited for in turn."""

from __future__ import annotations

import gc
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler

from trygo_backend.environment import database
from trygo_backend.sqlite.base import CONNECTIONS

MakeConnection = Callable[..., BaseDatabaseWrapper]


@pytest.fixture
def connect(tmp_path: Path, django_db_blocker: Any) -> Iterator[MakeConnection]:
    """Makes a thread's connection to a database of the test's own."""

    def make(patience: int = 1) -> BaseDatabaseWrapper:
        url = f"sqlite:///{tmp_path / 'own.sqlite3'}?timeout={patience}"
        return ConnectionHandler({"default": database(url, base_dir=tmp_path, pool_size=0)})["default"]

    with django_db_blocker.unblock():
        yield make


def opened(connection: BaseDatabaseWrapper) -> sqlite3.Connection:
    """The driver's own connection."""
    connection.ensure_connection()
    raw: sqlite3.Connection = connection.connection
    return raw


def test_a_closed_connection_is_the_next_threads(connect: MakeConnection) -> None:
    first = connect()
    raw = opened(first)
    first.close()
    found: list[sqlite3.Connection] = []
    thread = threading.Thread(target=lambda: found.append(opened(connect())))
    thread.start()
    thread.join()
    assert found == [raw]


def test_nobody_inherits_an_open_transaction(connect: MakeConnection) -> None:
    first = connect()
    raw = opened(first)
    first.set_autocommit(False)
    with first.cursor() as cursor:
        cursor.execute("CREATE TABLE half_done (id)")  # the driver commits it at once
        cursor.execute("INSERT INTO half_done VALUES (1)")
    first.close()
    second = connect()
    assert opened(second) is not raw
    with second.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM half_done")
        assert cursor.fetchone() == (0,)


def test_a_database_that_was_replaced_is_opened_anew(connect: MakeConnection, tmp_path: Path) -> None:
    first = connect()
    with first.cursor() as cursor:
        cursor.execute("CREATE TABLE of_the_old_one (id)")
    first.close()
    for path in tmp_path.glob("own.sqlite3*"):
        path.rename(tmp_path / f"old-{path.name}")
    assert connect().introspection.table_names() == []


def test_who_comes_when_all_are_in_use_waits_for_one(connect: MakeConnection) -> None:
    held = [connect() for _ in range(CONNECTIONS)]
    raws = [opened(one) for one in held]
    found: list[sqlite3.Connection] = []
    late = threading.Thread(target=lambda: found.append(opened(connect())))
    late.start()
    held[0].close()
    late.join()
    assert found == [raws[0]]


def test_who_has_waited_in_vain_goes_on_all_the_same(connect: MakeConnection) -> None:
    held = [connect() for _ in range(CONNECTIONS)]
    raws = [opened(one) for one in held]
    assert opened(connect()) not in raws  # after the second that the URL says


def test_a_thread_that_dies_keeps_nobody_waiting(connect: MakeConnection) -> None:
    gc.disable()  # what it would do sooner or later is not what they wait for
    try:
        for _ in range(CONNECTIONS):
            thread = threading.Thread(target=lambda: opened(connect(30)))
            thread.start()
            thread.join()
        started = time.monotonic()
        assert opened(connect(30))
        assert time.monotonic() - started < 20
    finally:
        gc.enable()


def test_another_thread_may_close_a_connection(connect: MakeConnection) -> None:
    held = [connect(30) for _ in range(CONNECTIONS)]
    raws = [opened(one) for one in held]
    held[0].inc_thread_sharing()
    closer = threading.Thread(target=held[0].close)
    closer.start()
    closer.join()
    started = time.monotonic()
    assert opened(connect(30)) is raws[0]
    assert time.monotonic() - started < 20
