"""Total deadlines: one thread that shuts a socket down when its time is over.

A socket's own timeout starts anew with every byte, so a peer that sends one byte a second is never late. Here a
blocked `recv` ends at the deadline whatever it waits for, because the connection under it is shut down.
"""

from __future__ import annotations

import heapq
import itertools
import socket
import threading
import time
from contextlib import suppress


class Guard:
    """Watches the socket that one exchange works with at the moment.

    Attributes:
        expired: The time ran out while the guard was watching.
    """

    def __init__(self) -> None:
        self.expired = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def hold(self, sock: socket.socket) -> None:
        """Watch `sock` from now on instead of the one before; an expired guard ends it at once."""
        with self._lock:
            self._socket = sock
            if self.expired:
                _shut_down(sock)

    def let_go(self) -> None:
        """Watch nothing: the socket goes back to the pool, or is closed."""
        with self._lock:
            self._socket = None

    def expire(self) -> None:
        """The time is over."""
        with self._lock:
            self.expired = True
            if self._socket is not None:
                _shut_down(self._socket)


def _shut_down(sock: socket.socket) -> None:
    # Unbound on purpose: SSLSocket.shutdown drops the TLS layer first, and the thread that is blocked in a read
    # would go on reading the encrypted bytes as if they were the answer.
    with suppress(OSError):  # It was closed or reset in the meantime, which is what we want.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Watchdog:
    """Expires guards at their time. Its daemon thread starts with the first guard."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Guard]] = []
        self._count = itertools.count()
        self._thread: threading.Thread | None = None

    def guard(self, at: float) -> Guard:
        """A guard that expires at `at` on the monotonic clock, in seconds."""
        guard = Guard()
        with self._changed:
            heapq.heappush(self._heap, (at, next(self._count), guard))
            # A forked child inherits the object but not the thread, hence the question whether it is alive.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="images-watchdog", daemon=True)
                self._thread.start()
            elif self._heap[0][2] is guard:
                self._changed.notify()
        return guard

    def _run(self) -> None:
        while True:
            self._next().expire()

    def _next(self) -> Guard:
        """Wait for the guard whose time comes first, and take it off the heap."""
        with self._changed:
            while not self._heap or self._heap[0][0] > time.monotonic():
                self._changed.wait(max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None)
            return heapq.heappop(self._heap)[2]


#: The watchdog of this process.
watchdog = Watchdog()
