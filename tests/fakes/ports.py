"""Ports for servers that tests start, stop and start again."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


def reserve_port() -> socket.socket:
    """A socket that keeps a free port of the loopback for servers of this user; it takes no connections."""
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    kept.bind(("127.0.0.1", 0))
    return kept


def wait_until_listening(port: int, *, is_alive: Callable[[], bool], patience: float = 120.0) -> None:
    """Wait until a server accepts connections.

    Raises:
        AssertionError: It ended, or took too long.
    """
    end = time.monotonic() + patience
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert is_alive(), "The server has ended."
            assert time.monotonic() < end, "The server does not listen."
            time.sleep(0.02)
        else:
            return
