"""Callers who stall, workers that die, reloads: the server goes on answering."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from tests.fakes.provider_server import ProviderServer
from tests.load.callers import PATIENCE, Callers, server_for, until
from tests.project.test_server import running_server

PICTURE = "/media/draft-images/item-1/small.png"
LARGE = "/media/draft-images/item-1/large.png"
HEAD = "Host: localhost\r\nContent-Type: {type}\r\nContent-Length: 1000\r\n"
FORM = "application/x-www-form-urlencoded"

#: What strangers send before they fall silent, how many of them, and within how many seconds all is well again.
STALLS = {
    "half heads": ("GET /hea", 1000, 1),
    "half bodies": (f"POST /api/images/generate HTTP/1.1\r\n{HEAD.format(type='application/json')}\r\n{{", 300, 1),
    "half log-ins": (
        f"POST /admin/login/ HTTP/1.1\r\nCookie: csrftoken={'a' * 32}\r\n{HEAD.format(type=FORM)}\r\nusername",
        300,
        10,
    ),
    "unread pictures": (f"GET {LARGE} HTTP/1.1\r\nHost: localhost\r\n\r\n", 300, 10),
    "callers that do not hang up": ("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 100, 1),
    "what is not HTTP": ("GARBAGE\r\n\r\n", 100, 1),
}

#: How much longer everything may take on a machine that is busy otherwise.
SLOWNESS = 2


def port_of(base: str) -> int:
    return int(base.rpartition(":")[2])


def connect(base: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(base)), timeout=PATIENCE)


def workers_of(master: int) -> list[int]:
    """A master's workers, oldest first."""
    found = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return sorted(pid for pid in map(int, found) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())


def listening_sockets(base: str) -> set[str]:
    """Every socket that listens on the server's port: one for each worker."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port_of(base):04X}") and row[3] == "0A"}


def is_listening(worker: int, base: str) -> bool:
    """Whether a worker takes connections yet."""
    sockets = listening_sockets(base)
    try:
        return any(os.readlink(one) in sockets for one in Path(f"/proc/{worker}/fd").iterdir())
    except OSError:
        return False


@contextmanager
def serving(tmp_path: Path, **variables: str) -> Iterator[tuple[str, int]]:
    """A server all of whose workers are ready: its address and its master's process."""
    count = int(variables.get("WEB_CONCURRENCY", "1"))
    with running_server(tmp_path, **variables) as (base, process):
        until(lambda: _ready(process.pid, base, count), "every worker is there")
        yield base, process.pid


def _ready(master: int, base: str, count: int) -> bool:
    workers = workers_of(master)
    return len(workers) == count and all(is_listening(worker, base) for worker in workers)


@pytest.mark.slow
@pytest.mark.parametrize("what", STALLS)
def test_strangers_who_stall_do_not_stop_the_server(what: str, tmp_path: Path) -> None:
    sent, count, seconds = STALLS[what]
    with serving(tmp_path) as (base, _master), ExitStack() as stack:
        folder = tmp_path / "stored" / "draft-images" / "item-1"
        folder.mkdir(parents=True)
        (folder / "small.png").write_bytes(b"\x89PNG")
        with (folder / "large.png").open("wb") as large:
            large.truncate(30_000_000)
        assert requests.get(base + PICTURE, timeout=30).ok
        for _ in range(count):
            stranger = stack.enter_context(connect(base))
            stranger.sendall(sent.encode())
        started = time.monotonic()
        for path in ("/health", PICTURE):
            assert requests.get(base + path, timeout=PATIENCE).ok
        assert time.monotonic() - started < seconds * SLOWNESS


@pytest.mark.slow
def test_known_callers_who_stall_keep_only_the_api_busy(provider_server: ProviderServer, tmp_path: Path) -> None:
    variables = {"IMAGE_MAX_CONCURRENCY": "30"}
    body = {"contentItemId": "item-1", "title": "A quiet harbour at dawn"}
    with server_for(provider_server, tmp_path, **variables) as server:
        assert requests.get(f"{server.base}/health", timeout=PATIENCE).ok
        with ExitStack() as stack:
            for _ in range(30):
                stack.enter_context(connect(server.base)).sendall(STALLS["half bodies"][0].encode())
            until(lambda: _is_told_to_come_again(server.generate_url, body), "every place is taken")
            started = time.monotonic()
            assert requests.get(f"{server.base}/health", timeout=PATIENCE).ok
            assert requests.get(f"{server.base}/api/images/", timeout=PATIENCE).ok
            assert time.monotonic() - started < 1 * SLOWNESS
        until(lambda: requests.post(server.generate_url, json=body, timeout=PATIENCE).ok, "they have hung up")


def _is_told_to_come_again(url: str, body: dict[str, str]) -> bool:
    answer = requests.post(url, json=body, timeout=PATIENCE)
    assert answer.ok or (answer.json()["code"], answer.json()["retryable"]) == ("request_timeout", True)
    return not answer.ok


def test_a_request_is_not_told_the_servers_environment(tmp_path: Path) -> None:
    with serving(tmp_path, DEBUG="1", MARKER="of-the-process") as (base, _master):
        page = requests.get(f"{base}/nowhere", headers={"X-Own": "of-the-caller"}, timeout=30).text
    assert "of-the-process" not in page


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_other_serves_meanwhile(tmp_path: Path) -> None:
    with serving(tmp_path, WEB_CONCURRENCY="2") as (base, master):
        killed = workers_of(master)[0]
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(listening_sockets(base)) == 1, "its socket is gone, and with it what waited in that")
        for _ in range(20):
            assert requests.get(f"{base}/health", timeout=30).ok
        until(lambda: killed not in workers_of(master) and _ready(master, base, 2), "there is a successor")


@pytest.mark.slow
def test_a_reload_replaces_every_worker_and_finishes_what_is_under_way(
    provider_server: ProviderServer, tmp_path: Path
) -> None:
    with server_for(provider_server, tmp_path) as server:
        old = workers_of(server.process.pid)
        provider_server.hold()
        with Callers(server.generate_url, 3) as callers:
            provider_server.wait_for(3, PATIENCE)
            server.process.send_signal(signal.SIGHUP)
            until(lambda: set(workers_of(server.process.pid)) > set(old), "there is a successor")
            until(lambda: not is_listening(old[0], server.base), "the old one takes no more connections")
            assert requests.get(f"{server.base}/health", timeout=30).ok
            provider_server.release()
        assert callers.statuses == {"200": 3}
        until(lambda: not set(workers_of(server.process.pid)) & set(old), "the old one is gone")
        assert requests.get(f"{server.base}/health", timeout=30).ok


@pytest.mark.slow
def test_a_burst_of_500_generations_does_not_keep_health_waiting(tmp_path: Path) -> None:
    with ProviderServer(image_bytes=20_000) as provider:
        variables = {"IMAGE_MAX_CONCURRENCY": "500"}
        with server_for(provider, tmp_path, **variables) as server:
            provider.hold()
            with Callers(server.generate_url, 500) as callers:
                slowest = _slowest(server.base, until=lambda: len(provider.requests) >= 500)
                provider.release()
            assert callers.statuses == {"200": 500}
    assert slowest < 2 * SLOWNESS, f"{slowest:.1f} s"


def _slowest(base: str, *, until: Callable[[], bool]) -> float:
    slowest, end = 0.0, time.monotonic() + PATIENCE
    while not until() and time.monotonic() < end:
        started = time.monotonic()
        assert requests.get(f"{base}/health", timeout=PATIENCE).ok
        slowest = max(slowest, time.monotonic() - started)
        time.sleep(0.02)
    return slowest


def test_the_folder_that_processes_count_in_goes_with_the_server(tmp_path: Path) -> None:
    with running_server(tmp_path, IMAGE_METRICS="1", TMPDIR=str(tmp_path)) as (base, server):
        assert requests.get(f"{base}/health", timeout=30).ok
        assert list(tmp_path.glob("trygo-metrics-*"))
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0
    assert not list(tmp_path.glob("trygo-metrics-*"))
