"""Django's SQLite backend, with a few connections for any number of threads, as a pool has them for PostgreSQL.

A generation gives its connection back before the provider works and takes one again afterwards, and Django opens and
closes one around every request. With SQLite that costs more than the queries: reading the schema, registering some
sixty functions, and, whenever the last connection goes, folding the write-ahead log into the file (measured: 6.9 ms
of CPU for a generation's two writes, 1.5 with kept connections). One for each of a thousand waiting threads
would be cheap in CPU and dear in memory (a quarter of a megabyte and three open files each).

And SQLite knows no queue: whoever finds the database locked sleeps and tries again, and of a thousand that do, some
are unlucky until their time is over ("database is locked"). Here they wait for their turn.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import ReferenceType, ref

from django.db.backends.sqlite3 import base

#: Connections in use at once before others wait, and kept open while nobody uses them. A process writes one row at a
#: time whatever this is; the others serve readers.
CONNECTIONS = 8

#: A process, and the device and inode of a file: a database that was replaced, or inherited over a fork, is another.
_Identity = tuple[int, int, int]


class _Turn:
    """The right to use a connection, until it is given back or the thread that waited for it ends."""

    def __init__(self, free: threading.Semaphore, patience: float) -> None:
        self._free = free
        # One who waited in vain goes on all the same: SQLite itself sets no limit, and a thread that needs a second
        # connection must not wait for ever for those that it keeps waiting.
        self._held = free.acquire(timeout=patience)
        # A thread's own things go with it. The wrapper that uses the connection is part of a cycle, and stays until
        # the garbage collector comes by, for which those who wait here might wait in vain.
        vars(_threads).setdefault("turns", set()).add(self)

    def give_back(self) -> None:
        """Let the next one have it. Twice is fine."""
        vars(_threads).get("turns", set()).discard(self)
        self._release()

    def __del__(self) -> None:
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, False
        if held:
            self._free.release()


#: Holds each thread's turns.
_threads = threading.local()


class SharedConnections:
    """The connections of one database file that were opened with the same parameters."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._free = threading.Semaphore(CONNECTIONS)
        self._idle: list[tuple[_Identity, Any]] = []

    def turn(self, patience: float) -> _Turn:
        """Wait up to `patience` seconds until fewer than `CONNECTIONS` are in use."""
        return _Turn(self._free, patience)

    def take(self) -> Any | None:
        """An idle connection to the file that is there now, or `None`."""
        identity = self._identity()
        while True:
            try:
                known, connection = self._idle.pop()
            except IndexError:
                return None
            if known == identity:
                return connection

    def keep(self, connection: Any) -> bool:
        """Keep `connection` for the next one, unless there are enough; say whether it was kept."""
        identity = self._identity()
        if identity is None or len(self._idle) >= CONNECTIONS:
            return False
        self._idle.append((identity, connection))
        return True

    def _identity(self) -> _Identity | None:
        try:
            found = os.stat(self._path)
        except OSError:  # the file is gone: its connections are of no use to anybody
            return None
        return os.getpid(), found.st_dev, found.st_ino


_shared: dict[str, SharedConnections] = {}
_lock = threading.Lock()


class DatabaseWrapper(base.DatabaseWrapper):
    """Waits for its turn, takes an idle connection where there is one, and keeps its own when it is closed."""

    _connections: SharedConnections
    _turn: ReferenceType[_Turn] | None = None

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """An idle connection that was opened with the same parameters, or a new one."""
        if self.is_in_memory_db():
            return super().get_new_connection(conn_params)
        key = repr(sorted(self.settings_dict["OPTIONS"].items())) + str(conn_params["database"])
        with _lock:
            self._connections = _shared.setdefault(key, SharedConnections(str(conn_params["database"])))
        turn = self._connections.turn(float(conn_params.get("timeout", 5)))
        try:
            connection = self._connections.take() or super().get_new_connection(conn_params)
        except BaseException:
            turn.give_back()
            raise
        self._turn = ref(turn)
        return connection

    def _close(self) -> None:
        reusable = not (self.is_in_memory_db() or self.errors_occurred or self.connection.in_transaction)
        try:
            if not (reusable and self._connections.keep(self.connection)):
                super()._close()  # type: ignore[misc]
        finally:
            if self._turn and (turn := self._turn()):
                turn.give_back()
