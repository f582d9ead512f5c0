"""Programs that tests need beside Python's packages, each as a process of the test's own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

#: Seconds to wait for what has to come: far more than it takes, also where other work slows everything down.
PATIENCE = 90.0

Value = TypeVar("Value")


def need(found: object, what: str) -> None:
    """Skip the test where something is missing on this machine; in CI, where nothing may be missing, fail."""
    if not found:
        sentence = f"{what} is not there; the test needs it."
        if os.environ.get("CI_REQUIRE_ALL") == "1":
            pytest.fail(sentence)
        pytest.skip(sentence)


def until(look: Callable[[], Value], what: str, patience: float = PATIENCE) -> Value:
    """Look again and again until there is something; the last of it."""
    end = time.monotonic() + patience
    while not (value := look()):
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(0.05)
    return value


class Redis:
    """A Redis that keeps what it is told, on a socket file of its own, so that restarting it disturbs nobody."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="trygo-redis-"))  # pytest's own paths are too long for a socket
        self._socket = self._folder / "s"
        self.url = f"redis+socket://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with what it knew before, and wait until it answers."""
        options = ["--port", "0", "--unixsocket", str(self._socket), "--dir", str(self._folder)]
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(["redis-server", *options, *durable], stdout=log, stderr=log)
        until(self._answers, "Redis")

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(PATIENCE)
            self._process = None

    def close(self) -> None:
        """Stop it for good."""
        self.kill()
        shutil.rmtree(self._folder)

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return client.recv(100).startswith(b"+PONG")
        except OSError:
            return False


def listens(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False
