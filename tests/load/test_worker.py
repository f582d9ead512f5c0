"""What gunicorn's worker leaves open and ours closes: who is waited for, who accepts, which core."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import requests
from gunicorn.app.base import BaseApplication
from gunicorn.config import Config
from gunicorn.workers.gthread import TConn

from tests.load.callers import PATIENCE, until
from tests.project.test_serve import running_server
from trygo_backend import worker as worker_module
from trygo_backend.worker import HANG_UP_SECONDS, Board, Worker

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def connect(base: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])), timeout=PATIENCE)


def ask(connection: socket.socket, *headers: str) -> bytes:
    """Ask for `/health` and read until the end of the answer's body."""
    connection.sendall("\r\n".join(["GET /health HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())
    answer = b""
    while not answer.endswith(b"}"):
        part = connection.recv(4096)
        assert part, answer
        answer += part
    return answer


def workers_of(pid: int) -> list[int]:
    """A master's workers, oldest first."""
    return sorted(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@contextmanager
def serving(tmp_path: Path, **variables: str) -> Iterator[tuple[str, list[int], int]]:
    """A server all of whose workers are ready: its address, the workers and the master."""
    with running_server(tmp_path, **variables) as (base, process):
        count = int(variables.get("WEB_CONCURRENCY", "1"))
        log = tmp_path / "log"
        until(lambda: log.read_text().count("Booting worker") == count, "every worker is there")
        assert requests.get(f"{base}/health", timeout=30).ok
        yield base, workers_of(process.pid), process.pid


def test_callers_that_do_not_hang_up_hold_up_nobody(tmp_path: Path) -> None:
    with serving(tmp_path) as (base, _workers, _master), ExitStack() as stack:
        started = time.monotonic()
        for _ in range(10):
            lazy = stack.enter_context(connect(base))
            assert b"\r\nConnection: close\r\n" in ask(lazy, "Connection: close")
        assert requests.get(f"{base}/health", timeout=PATIENCE).ok
        # gunicorn's own worker waits for one after the other.
        assert time.monotonic() - started < 5 * HANG_UP_SECONDS
        # What such a caller still sends is thrown away, and then he is forgotten.
        until(lambda: _is_closed(lazy), "the server closes its side for good")


def _is_closed(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"x")
    except OSError:
        return True
    return False


def test_a_caller_who_sends_without_end_is_cut_off(tmp_path: Path) -> None:
    with serving(tmp_path) as (base, _workers, _master), connect(base) as endless:
        ask(endless, "Connection: close")
        with pytest.raises(ConnectionError):
            endless.sendall(bytes(1_000_000_000))


def test_workers_share_the_connections(tmp_path: Path) -> None:
    with serving(tmp_path, WEB_CONCURRENCY="2") as (base, workers, _master):
        until(lambda: _all_have_served(base, workers), "both workers are ready")
        until(lambda: _is_shared(base, workers), "both workers have a good part of what was opened one by one")


def _is_shared(base: str, workers: list[int]) -> bool:
    """Open connections; whether no worker got more than three of four. On a machine that does nothing else: half."""
    with ExitStack() as stack:
        for _ in range(40):
            ask(stack.enter_context(connect(base)))
        shares = [_connections(base, worker) for worker in workers]
    until(lambda: not any(_connections(base, worker) for worker in workers), "the connections are closed")
    return min(shares) >= 10


def _all_have_served(base: str, workers: list[int]) -> bool:
    """Open a few connections and look whether each of the workers has taken one."""
    with ExitStack() as stack:
        for _ in range(8):
            ask(stack.enter_context(connect(base)))
        busy = [_connections(base, worker) for worker in workers]
    until(lambda: not any(_connections(base, worker) for worker in workers), "the connections are closed")
    return all(busy)


def _connections(base: str, pid: int) -> int:
    """How many of a server's connections a process of it has open."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f":{int(base.rpartition(':')[2]):04X}"
    listening = "0A"
    ours = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] != listening}
    return len(ours.intersection(_descriptors(pid)))


def _descriptors(pid: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed a moment ago
            yield os.readlink(descriptor)


def test_a_worker_that_hangs_or_dies_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    with serving(tmp_path, WEB_CONCURRENCY="2") as (base, workers, master):
        until(lambda: _all_have_served(base, workers), "both workers are ready")
        os.kill(workers[0], signal.SIGSTOP)
        with ExitStack() as stack:
            # It looks free for ever: connections go to the other one all the same.
            for _ in range(20):
                ask(stack.enter_context(connect(base)))
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: workers[0] not in workers_of(master) and len(workers_of(master)) == 2, "there is a successor")
        until(lambda: _all_have_served(base, workers_of(master)), "the successor takes its share")


@pytest.mark.skipif(len(CORES) < 2, reason="There is only one core.")
@pytest.mark.parametrize(
    ("count", "setting", "wanted"),
    [
        pytest.param(2, "", {1: 2}, id="a worker for each core"),
        pytest.param(2, "0", {2: 2}, id="switched off"),
        pytest.param(1, "", {1: 1}, id="one worker", marks=pytest.mark.slow),
        pytest.param(3, "", {1: 3}, id="more workers than cores", marks=pytest.mark.slow),
    ],
)
def test_each_keeps_to_a_core(count: int, setting: str, wanted: dict[int, int], tmp_path: Path) -> None:
    variables = {"WEB_CONCURRENCY": str(count), "WORKER_CPU_AFFINITY": setting}
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(CORES[:2]))  # the same on a larger machine
    try:
        with serving(tmp_path, **variables) as (_base, workers, _master):
            until(lambda: _sizes(workers) == wanted, "every worker is where it belongs")
            assert len(set.union(*map(os.sched_getaffinity, workers))) == min(count, 2)
    finally:
        os.sched_setaffinity(0, everywhere)


def _sizes(workers: list[int]) -> Counter[int]:
    """How many workers may run on so many cores."""
    return Counter(len(os.sched_getaffinity(worker)) for worker in workers)


def test_a_reload_and_a_death_leave_each_core_its_worker(tmp_path: Path) -> None:
    if len(CORES) < 2:
        pytest.skip("There is only one core.")
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(CORES[:2]))
    try:
        with serving(tmp_path, WEB_CONCURRENCY="2") as (base, workers, master):
            os.kill(master, signal.SIGHUP)
            until(lambda: _has_two_apart(master, without=workers), "both have a successor")
            youngest = workers_of(master)[-1]
            os.kill(youngest, signal.SIGKILL)
            until(lambda: _has_two_apart(master, without=[*workers, youngest]), "the successor has the free core")
            assert requests.get(f"{base}/health", timeout=30).ok
    finally:
        os.sched_setaffinity(0, everywhere)


def _has_two_apart(master: int, *, without: list[int]) -> bool:
    """Whether there are two workers, each on a core of its own, and none of those named."""
    workers = workers_of(master)
    if len(workers) != 2 or set(workers) & set(without):
        return False
    with suppress(ProcessLookupError):
        cores = [os.sched_getaffinity(worker) for worker in workers]
        return [len(one) for one in cores] == [1, 1] and cores[0] != cores[1]
    return False


def test_a_board_has_places_for_so_many_and_forgets_who_has_gone() -> None:
    board = Board(2, cores=4)
    first, second = board.take(), board.take()
    assert first is not None
    assert second is not None
    assert (first.place, second.place, board.take()) == (0, 1, None)
    board.write(first, 3)
    board.write(second, 5)
    board.write(None, 0)
    assert board.least() == 3
    board.write(first, Board.NOBODY)
    assert board.least() == 5
    board.write(first, 3)
    board.give_back(first)
    assert board.least() == 5
    board.give_back(None)
    assert board.take() == first


def test_the_core_that_the_fewest_have_is_next() -> None:
    board = Board(8, cores=2)
    seats = [seat for seat in (board.take() for _ in range(4)) if seat]
    assert [seat.core for seat in seats] == [seats[0].core, 1 - seats[0].core] * 2
    board.give_back(seats[0])
    board.give_back(seats[1])
    board.give_back(seats[3])
    successor = board.take()
    assert successor is not None
    assert (successor.place, successor.core) == (0, seats[3].core)
    assert Board(1, cores=0).take() == (0, 0)  # where nobody knows of cores


class Watched(Board):
    """A board that tells when it is looked at."""

    def __init__(self) -> None:
        super().__init__(2, cores=0)
        self.was_read = threading.Event()

    def least(self) -> int:
        self.was_read.set()
        return super().least()


class Accepting(Worker):
    """A worker that has one request under way and keeps what it accepts."""

    def __init__(self, board: Board) -> None:
        self.accepted: list[TConn] = []
        Worker.board = board
        try:
            super().__init__(1, os.getpid(), [], Application(), 30, Config(), logging.getLogger("tests"))
        finally:
            Worker.board = None
        self.nr_conns = 1

    def enqueue_req(self, conn: TConn) -> None:
        self.accepted.append(conn)


class Application(BaseApplication):
    """Nothing that would be served."""

    def load_config(self) -> None:
        """There is nothing to load."""


@pytest.mark.parametrize("other", ["is faster", "hangs", "has as much to do"])
def test_who_has_more_to_do_lets_others_go_first(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Watched()
    worker = Accepting(board)
    load = worker._load()
    board.write(board.take(), load if other == "has as much to do" else 0)
    monkeypatch.setattr(worker_module, "PATIENCE_SECONDS", 0.05 if other == "hangs" else PATIENCE)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        with socket.create_connection(listener.getsockname()):
            if other == "is faster":
                taken = pool.submit(_take_one, listener, board.was_read)
            listener.setblocking(other != "is faster")
            worker.accept(listener)
            if other == "is faster":
                taken.result(PATIENCE)
        for conn in worker.accepted:
            conn.sock.close()
    assert len(worker.accepted) == (0 if other == "is faster" else 1)


def _take_one(listener: socket.socket, moment: threading.Event) -> None:
    assert moment.wait(PATIENCE)
    listener.accept()[0].close()
