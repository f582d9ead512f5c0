"""The production server as processes of its own, on a database and a media folder of its own, to be killed."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.fakes.ports import reserve_port, wait_until_listening

ROOT = Path(__file__).resolve().parents[2]
MANAGE = [sys.executable, "manage.py"]
PATIENCE = 60


class Server:
    """An installation; `running` starts its server, as often as the test likes, always at the same address.

    Args:
        folder: An empty one.
        database: A migrated SQLite database to begin with.

    Attributes:
        media: The media root.
        url: The address.
        process: The server that runs, or ran last.
    """

    def __init__(self, folder: Path, database: Path) -> None:
        self.media = folder / "stored"
        self.media.mkdir()
        self._bill, self._log, self._database = folder / "bill", folder / "log", folder / "db.sqlite3"
        shutil.copy(database, self._database)
        self._socket = reserve_port()
        self._port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._told, self._says = (_named_pipe(folder / name) for name in ("tells", "hears"))
        self._environment = {
            **environment(self._database, self.media),
            "BIND_ADDRESS": "127.0.0.1",
            "PORT": str(self._port),
            "CRASH_TELLS": str(folder / "tells"),
            "CRASH_HEARS": str(folder / "hears"),
            "CRASH_BILL": str(self._bill),
        }

    def close(self) -> None:
        """Give back what the test holds."""
        self._socket.close()
        for descriptor in (self._told, self._says):
            os.close(descriptor)

    @contextmanager
    def running(self, crash_at: str = "") -> Iterator[None]:
        """Run the server, which kills itself at the point `crash_at`; it is killed at the end in any case."""
        command = [sys.executable, "-m", "trygo_backend.server"]
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**self._environment, "CRASH_AT": crash_at},
                start_new_session=True,  # a process group of its own, so that one signal reaches all of it
                stdout=log,
                stderr=log,
            )
        try:
            wait_until_listening(self._port, is_alive=lambda: self.process.poll() is None, patience=PATIENCE)
            yield
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to every process of the server."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        assert self.process.wait(PATIENCE) == -signal.SIGKILL, self.log

    @property
    def log(self) -> str:
        """What the servers wrote."""
        return self._log.read_text()

    @property
    def paid(self) -> int:
        """How often the provider was asked."""
        return len(self._bill.read_text().splitlines()) if self._bill.exists() else 0

    def wait_for(self, word: str) -> None:
        """Wait until the server has come to a point that it tells."""
        ready, _, _ = select.select([self._told], [], [], PATIENCE)
        assert ready, f"the server never came to {word!r}: {self.log}"
        assert os.read(self._told, 100).decode() == f"{word}\n"

    def let_provider_finish(self) -> None:
        """Let a provider that was asked for something "that waits" answer."""
        os.write(self._says, b"!")

    # --- what callers and operators do ----------------------------------------------------------------------

    def generate(self, title: str = "A title", key: str = "key-1") -> requests.Response:
        """Ask for an image."""
        body = {"contentItemId": "item-1", "title": title}
        headers = {"Idempotency-Key": key}
        return requests.post(f"{self.url}/api/images/generate", json=body, headers=headers, timeout=PATIENCE)

    def delete(self, image_id: str) -> requests.Response:
        """Delete an image."""
        return requests.delete(f"{self.url}/api/images/{image_id}", timeout=PATIENCE)

    def get(self, path: str) -> requests.Response:
        """Get anything."""
        return requests.get(self.url + path, timeout=PATIENCE)

    def listed(self) -> list[dict[str, Any]]:
        """The content item's images, newest first."""
        rows: list[dict[str, Any]] = self.get("/api/images/?contentItemId=item-1").json()["results"]
        return rows

    def statuses(self) -> list[str]:
        """The rows' statuses as the database has them, oldest first."""
        return [status for (status,) in self._sql("SELECT status FROM images_generatedimage ORDER BY created_at")]

    def let_time_pass(self) -> None:
        """Long enough for every deadline to be long past and every half-written file to be old."""
        self._sql("UPDATE images_generatedimage SET deadline_at = '2000-01-01 00:00:00'")
        for path in self.media.rglob(".*"):
            os.utime(path, times=(0, 0))

    def reconcile(self) -> list[str]:
        """The kinds of what `reconcile_images` found and mended."""
        command = [*MANAGE, "reconcile_images", "--apply", "--verify", "--json"]
        done = subprocess.run(command, cwd=ROOT, env=self._environment, capture_output=True, text=True, check=True)
        return [found["kind"] for found in map(json.loads, done.stdout.splitlines()) if "kind" in found]

    def _sql(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self._database, timeout=PATIENCE)) as connection, connection:
            return connection.execute(statement).fetchall()


def _named_pipe(path: Path) -> int:
    """Both ends of a new pipe, so that nobody who opens it has to wait for the other side."""
    os.mkfifo(path)
    return os.open(path, os.O_RDWR)


def environment(database: Path, media: Path) -> dict[str, str]:
    """The environment of an installation that trusts its own machine."""
    return {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "tests.crash.settings",
        "SECRET_KEY": "only-for-tests",
        "DATABASE_URL": f"sqlite:///{database}",
        "STORAGE_ROOT": str(media),
        "IMAGE_TRUSTED_NETWORKS": "127.0.0.1/32",
        "MIGRATE_ON_START": "0",
    }


def migrated_database(folder: Path) -> Path:
    """A new database with all its tables."""
    database = folder / "migrated.sqlite3"
    command = [*MANAGE, "migrate", "--verbosity", "0"]
    subprocess.run(command, cwd=ROOT, env=environment(database, folder), check=True)
    return database
