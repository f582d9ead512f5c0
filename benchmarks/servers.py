"""The processes that are measured, and the provider they ask."""

from __future__ import annotations

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT, running

#: What both stacks get: as many workers as the machine of the targets has cores.
WORKERS = 2
#: The provider's answer: 1.5 MB of PNG, 2 MB of base64.
IMAGE_BYTES = 1_500_000


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server under measurement.

    Attributes:
        base: Its address without a trailing slash.
        pid: The root of its process tree.
    """

    base: str
    pid: int


@contextmanager
def provider(folder: Path, latency: float) -> Iterator[Server]:
    """A provider that answers every request after `latency` seconds."""
    command = [sys.executable, "-m", "tests.fakes.provider_server", "--image-bytes", str(IMAGE_BYTES)]
    with running([*command, "--latency", str(latency)], _environment(), folder / "provider.log") as (process, port):
        yield Server(base=f"http://127.0.0.1:{port}", pid=process.pid)


@contextmanager
def ours(folder: Path, provider_url: str, **variables: str) -> Iterator[Server]:
    """This project's production server, on SQLite unless `DATABASE_URL` says otherwise.

    The load comes from a trusted network, as the old callers do: the baseline asks for no token either.
    """
    media = folder / "media"
    env = {
        **sdk_environment(provider_url),
        "SECRET_KEY": "only-for-benchmarks",
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "STORAGE_ROOT": str(media),
        "IMAGE_PROVIDER": "openai",
        "IMAGE_TRUSTED_NETWORKS": "127.0.0.0/8",
        "FRONTEND_URL": "https://www.example.com",
        "BIND_ADDRESS": "127.0.0.1",
        "PORT": "0",
        "WEB_CONCURRENCY": str(WORKERS),
        **variables,
    }
    command = [sys.executable, "-m", "trygo_backend.server"]
    with running(command, env, folder / "ours.log") as (process, line):
        yield _answering(Server(base=line.rpartition(" ")[2], pid=process.pid), "/health")


@contextmanager
def plain_django(folder: Path, provider_url: str) -> Iterator[Server]:
    """The baseline, `plain_django.py`."""
    media = folder / "plain"
    media.mkdir()
    env = {**sdk_environment(provider_url), "STORAGE_ROOT": str(media)}
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        port, descriptor = listener.getsockname()[1], listener.fileno()
        os.set_inheritable(descriptor, True)
        options = (
            f"--worker-class gthread --workers {WORKERS} --threads 256 --bind fd://{descriptor} --no-control-socket"
        )
        code = (
            "import os, sys; print('starting', flush=True); "
            "os.execv(sys.executable, [sys.executable, '-m', 'gunicorn', *sys.argv[1:]])"
        )
        command = [sys.executable, "-c", code, *options.split(), "benchmarks.plain_django:application"]
        with running(command, env, folder / "plain.log", pass_fds=(descriptor,)) as (process, _):
            yield _answering(Server(base=f"http://127.0.0.1:{port}", pid=process.pid), "/")


@contextmanager
def sendfile(folder: Path, root: Path) -> Iterator[Server]:
    """The floor for files where there is no nginx, `sendfile.py`."""
    command = [sys.executable, "-m", "benchmarks.sendfile", str(root)]
    with running(command, _environment(), folder / "sendfile.log") as (process, port):
        yield Server(base=f"http://127.0.0.1:{port}", pid=process.pid)


def sdk_environment(provider_url: str) -> dict[str, str]:
    """What the official SDK reads by itself."""
    return {**_environment(), "OPENAI_API_KEY": "sk-benchmark", "OPENAI_BASE_URL": f"{provider_url}/v1"}


def _environment() -> dict[str, str]:
    """Nothing of the caller's settings, so that runs can be compared."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT)}


def _answering(server: Server, path: str) -> Server:
    """Wait until the server answers (its socket listens from the start, so this is one request), whatever it says."""
    try:
        urllib.request.urlopen(server.base + path, timeout=60).close()
    except urllib.error.HTTPError as err:
        err.close()
    return server
