"""The project as it runs on several machines: web processes and workers around a broker and a database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from celery import Celery

from tests.fakes.ports import reserve_port, wait_until_listening
from tests.fakes.provider_server import ProviderServer
from tests.queue.services import PATIENCE, until

ROOT = Path(__file__).resolve().parents[2]
QUEUE = "images"

_FILL = """
from datetime import timedelta
from django.utils import timezone
from images.models import GeneratedImage
from images.queues.celery import enqueue
now, hour = timezone.now(), timedelta(hours=1)
rows = [
    GeneratedImage(
        content_item_id="item", title="A title", prompt="A harbour", file_stem=f"draft-images/item/hero-{{number}}",
        seed=1, created_at=now, deadline_at=now + hour,
    )
    for number in range({count})
]
for row in GeneratedImage.objects.bulk_create(rows):
    enqueue(str(row.pk))
"""


class Installation:
    """Web processes and workers, all of the real project, started and killed as the test likes.

    Args:
        folder: An empty one.
        provider: Whom they ask.
        broker: The broker's address.
        database: `DATABASE_URL`; its tables are there.
        variables: More of the environment.

    Attributes:
        code: The folder with the code; another release's, if a test says so.
    """

    def __init__(self, folder: Path, provider: ProviderServer, broker: str, database: str, **variables: str) -> None:
        self.code = ROOT
        self._log, self.media = folder / "log", folder / "stored"
        self.media.mkdir()
        self.provider, self.broker = provider, broker
        self._socket = reserve_port()
        self._port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "DJANGO_SETTINGS_MODULE": "trygo_backend.settings",
            "SECRET_KEY": "only-for-tests",
            "DATABASE_URL": database,
            "STORAGE_ROOT": str(self.media),
            "MIGRATE_ON_START": "0",
            "IMAGE_TRUSTED_NETWORKS": "127.0.0.1/32",
            "IMAGE_PROVIDER": "openai",
            "OPENAI_API_KEY": "sk-secret",
            "OPENAI_BASE_URL": f"{provider.url}/v1",
            "CELERY_BROKER_URL": broker,
            "CELERY_QUEUE": QUEUE,
            **variables,
        }

    def close(self) -> None:
        """Give back the socket."""
        self._socket.close()

    @property
    def log(self) -> str:
        """What all processes wrote."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def paid(self) -> int:
        """How often the provider was asked for an image."""
        return sum(request.method == "POST" for request in self.provider.requests)

    # --- processes ------------------------------------------------------------------------------------------

    @contextmanager
    def web(self, processes: int = 1) -> Iterator[subprocess.Popen[bytes]]:
        """A web server that answers, in a process group of its own."""
        variables = {"PORT": str(self._port), "BIND_ADDRESS": "127.0.0.1", "WEB_CONCURRENCY": str(processes)}
        with self._process("-m", "trygo_backend.server", **variables) as process:
            wait_until_listening(self._port, is_alive=lambda: process.poll() is None)
            yield process

    @contextmanager
    def worker(self, *options: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker, in a process group of its own; `variables` are its own, too."""
        checks_first = (self.code / "trygo_backend" / "worker.py").exists()  # as all releases but the first do
        program = ("trygo_backend.worker",) if checks_first else ("celery", "-A", "trygo_backend", "worker")
        command = ("-m", *program, "--loglevel", "INFO", *options)
        with self._process(*command, **variables) as process:
            yield process

    @contextmanager
    def _process(self, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.code,
                env={**self.environment, **variables},
                start_new_session=True,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            kill(process)

    def manage(self, *arguments: str) -> str:
        """Run a command of `manage.py` that has to succeed; what it printed."""
        done = self.run_manage(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run_manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `manage.py`."""
        return self.run("manage.py", *arguments)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments until it ends."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.code,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def let_time_pass(self, image_id: str, *fields: str) -> None:
        """Long enough for these moments of a row to be long past."""
        code = "from images.models import GeneratedImage as I; import datetime as d; n = d.datetime.now(d.UTC)"
        changes = ", ".join(f"{field}=n - d.timedelta(hours=1)" for field in fields)
        self.manage("shell", "-v", "0", "-c", f"{code}; I.objects.filter(pk='{image_id}').update({changes})")

    def deliver(self, image_id: str) -> None:
        """Put the image's task into the queue once more."""
        Celery(broker=self.broker).send_task("images.generate_image", args=[image_id], queue=QUEUE)

    def fill_queue(self, count: int) -> None:
        """Let so many requests wait for which nobody waits, as if they had just been sent."""
        self.manage("shell", "-v", "0", "-c", _FILL.format(count=count))

    def purge(self) -> None:
        """Lose every task that waits, as a broker does that keeps nothing."""
        with Celery(broker=self.broker).connection_for_write() as connection:
            connection.default_channel.queue_purge(QUEUE)

    # --- callers --------------------------------------------------------------------------------------------

    def ask(self, title: str = "A title", **headers: str) -> requests.Response:
        """Ask for an image; header names are written with underscores."""
        body = {"contentItemId": "item-1", "title": title}
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(f"{self.url}/api/images/generate", json=body, headers=sent, timeout=PATIENCE)

    def queue(self, title: str = "A title", **headers: str) -> str:
        """Ask for an image that may follow; its id."""
        answer = self.ask(title, Prefer="respond-async", **headers)
        assert answer.status_code == 202, answer.text + self.log
        return str(answer.json()["id"])

    def look(self, image_id: str) -> dict[str, Any]:
        """The image as the API shows it."""
        found: dict[str, Any] = requests.get(f"{self.url}/api/images/{image_id}", timeout=PATIENCE).json()
        return found

    def ended(self, image_id: str) -> dict[str, Any]:
        """The image, once it is no longer pending."""
        found = {"last": self.look(image_id)}

        def has_ended() -> bool:
            found["last"] = self.look(image_id)
            return bool(found["last"]["status"] != "pending")

        try:
            until(has_ended, f"the end of {json.dumps(found['last'])}")
        except AssertionError as err:
            raise AssertionError(f"{err}\n{self.log}") from err
        return found["last"]

    def marker(self) -> None:
        """Another image, made after all that was queued before: what was going to happen has happened."""
        assert self.ended(self.queue("A marker"))["status"] == "ready"


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that a process has started."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in found.split()]


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and all that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)
