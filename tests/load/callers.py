"""Many callers at once, and the server they call."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import NamedTuple, Self

from benchmarks import load
from tests.fakes.provider_server import ProviderServer
from tests.project.test_server import running_server

#: Seconds to wait for what has to come: far more than it takes, also where other work slows everything down.
PATIENCE = 60.0


class Server(NamedTuple):
    """A production server that asks the scripted provider, and lets this machine in without a token."""

    base: str
    process: Popen[str]
    folder: Path

    @property
    def generate_url(self) -> str:
        return f"{self.base}/api/images/generate"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def rows(self, columns: str = "status") -> list[tuple[str, ...]]:
        """Columns of every image, read past the server; of its SQLite database."""
        with sqlite3.connect(self.folder / "db.sqlite3", timeout=30) as connection:
            return connection.execute(f"SELECT {columns} FROM images_generatedimage").fetchall()

    def files(self) -> list[Path]:
        """Every stored file, half-written ones included."""
        return [path for path in (self.folder / "stored").rglob("*") if path.is_file()]


@contextmanager
def server_for(provider: ProviderServer, folder: Path, **variables: str) -> Iterator[Server]:
    """A server with one worker unless `variables` say otherwise."""
    wanted = {
        "IMAGE_PROVIDER": "openai",
        "OPENAI_API_KEY": "sk-secret",
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "IMAGE_TRUSTED_NETWORKS": "127.0.0.0/8",
        **variables,
    }
    with running_server(folder, **wanted) as (base, process):
        yield Server(base, process, folder)


class Callers:
    """Callers that ask for images in a thread of their own.

    Args:
        url: Where to ask.
        count: How many ask at once, each for one image.
    """

    def __init__(self, url: str, count: int) -> None:
        self._thread = threading.Thread(target=self._run, args=(url, count), daemon=True)
        self.outcome = load.Outcome()

    def _run(self, url: str, count: int) -> None:
        self.outcome = asyncio.run(load.generate(url, count, count))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:  # else they may never get their answers
            self._thread.join()

    @property
    def running(self) -> bool:
        """Whether somebody still waits for an answer."""
        return self._thread.is_alive()

    @property
    def statuses(self) -> dict[str, int]:
        """How often each HTTP status came; waits until all have their answers."""
        self._thread.join()
        return self.outcome.statuses


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"It did not come to this: {what}"
        time.sleep(0.02)
