"""gunicorn's threaded worker, and three things that it leaves open (gunicorn 27.0.1, `workers/gthread.py`).

- It waits for a caller who was told that the connection is closed to hang up too, up to two seconds, in the very
  thread that accepts everybody else's connections: five such callers stopped a worker for ten seconds (measured).
  Here the wait is one more event among the others.
- Workers that share a socket take from it whatever they can get, and of ten connections one may get eight. As the
  most generations at once is counted in each process, callers were turned away while another process had room. Here
  a worker that has more to do than another one first gives that one a moment to be faster.
- Threads of one process wake each other up across cores for nothing; here a worker keeps to one core (`cores.py`).
"""

from __future__ import annotations

import mmap
import os
import random
import time
from collections import Counter, deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from select import POLLIN, poll
from selectors import EVENT_READ
from socket import SHUT_WR, socket
from typing import Any, NamedTuple

from gunicorn.workers.gthread import TConn, ThreadWorker

from .cores import OneCore, choices
from .environment import Environment

#: Seconds that a caller has for hanging up after the last answer; what he sends meanwhile is thrown away (RFC 9112,
#: section 9.6: without that he might lose the end of the answer).
HANG_UP_SECONDS = 2.0
#: How much of it, in bytes, before the connection is closed all the same.
HANG_UP_BYTES = 65536
#: For how many seconds a worker lets one that has less to do go first, and after how many it looks whether that one
#: has. Where the other hangs, it costs a new connection five milliseconds.
PATIENCE_SECONDS, TURN_SECONDS = 0.005, 0.001


class Seat(NamedTuple):
    """A worker's place on the board, and the number of the core that it begins with."""

    place: int
    core: int


class Board:
    """What each worker has to do, in memory that the master and all workers share.

    The master gives out the places, before it forks; a worker writes into its own and reads all of them. Each is one
    aligned machine word, so nobody reads half a number, and an old one does no harm.

    Args:
        places: How many there are.
        cores: How many cores there are to choose from.
    """

    #: Stands in a place that nobody needs to wait for.
    NOBODY = 2**64 - 1

    def __init__(self, places: int, cores: int) -> None:
        self._loads = memoryview(mmap.mmap(-1, 8 * places)).cast("Q")
        for place in range(places):
            self._loads[place] = self.NOBODY
        self._cores = cores
        self._taken: dict[int, int] = {}
        # Drawn, so that not all servers of a machine begin with the same core.
        self._first = random.randrange(max(1, cores))  # noqa: S311

    def take(self) -> Seat | None:
        """A free place and the core that the fewest have; `None` where there are more workers than places."""
        place = next((place for place in range(len(self._loads)) if place not in self._taken), None)
        if place is None:
            return None
        order = [(self._first + step) % max(1, self._cores) for step in range(max(1, self._cores))]
        used = Counter(self._taken.values())
        core = min(order, key=lambda one: used[one])
        self._taken[place] = core
        return Seat(place, core)

    def give_back(self, seat: Seat | None) -> None:
        """Free the place of a worker that has ended."""
        if seat is not None:
            self._loads[seat.place] = self.NOBODY
            del self._taken[seat.place]

    def write(self, seat: Seat | None, load: int) -> None:
        """Note how much the worker of a place has to do."""
        if seat is not None:
            self._loads[seat.place] = load

    def least(self) -> int:
        """How much the worker with the least has to do; a very large number where nobody has written any."""
        return min(self._loads)


@dataclass(eq=False, kw_only=True)
class Farewell:
    """A connection that is closed on our side.

    Attributes:
        conn: gunicorn's record of it.
        until: When to stop waiting for the caller, on the monotonic clock.
        thrown_away: Bytes that came meanwhile.
    """

    conn: TConn
    until: float
    thrown_away: int = 0


class Worker(ThreadWorker):
    """What `gunicorn_conf.worker_class` names. The class itself lives in the master and, forked, in each worker."""

    board: Board | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """In the master, before the fork."""
        super().__init__(*args, **kwargs)
        if Worker.board is None:
            # Twice as many, as at a reload the successors come before the others have gone.
            Worker.board = Board(2 * self.cfg.workers, choices())
        self._board = Worker.board
        self.seat = self._board.take()
        self._farewells: deque[Farewell] = deque()
        self._one_core: OneCore | None = None

    def give_back_place(self) -> None:
        """In the master, when the worker has ended: nobody is to wait for it any more."""
        self._board.give_back(self.seat)

    def init_process(self) -> None:
        """In the worker, before it makes threads, which inherit the cores."""
        wanted = Environment(os.environ).flag("WORKER_CPU_AFFINITY", True)
        if wanted and self.seat is not None and choices() > 1:
            self._one_core = OneCore(self.seat.core, self.cfg.workers)
        super().init_process()

    def run(self) -> None:
        """Serve until the end. From now on this worker can be compared with the others."""
        self._board.write(self.seat, self._load())
        super().run()

    def wait_for_and_dispatch_events(self, timeout: float | None) -> None:
        """Do what there is to do, and tell the others how much is left."""
        super().wait_for_and_dispatch_events(timeout)
        # A worker that stops has fewer and fewer, and takes no more.
        self._board.write(self.seat, self._load() if self.alive else Board.NOBODY)
        if self._one_core:
            self._one_core.look()

    def accept(self, listener: socket) -> None:
        """Take one connection, if no worker with less to do has been faster."""
        until = time.monotonic() + PATIENCE_SECONDS
        while self._load() > self._board.least() and time.monotonic() < until:
            time.sleep(TURN_SECONDS)
            if not _is_waiting(listener):
                return
        super().accept(listener)

    def _load(self) -> int:
        """Requests under way; between workers that have as many, open connections."""
        idle = len(self.keepalived_conns) + len(self.pending_conns) + len(self._farewells)
        return (self.nr_conns - idle << 32) + self.nr_conns

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        """Keep a connection for the next request as gunicorn does, and end it without waiting."""
        if not fs.cancelled() and fs.exception() is None and fs.result():
            super().finish_request(conn, fs)
            return
        farewell = Farewell(conn=conn, until=time.monotonic() + HANG_UP_SECONDS)
        try:
            conn.sock.shutdown(SHUT_WR)
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, EVENT_READ, partial(self._read_on, farewell))
        except (OSError, ValueError):  # the caller, or the thread that answered him, has closed it already
            self._close(conn)
        else:
            self._farewells.append(farewell)

    def _read_on(self, farewell: Farewell, client: socket) -> None:
        """Read what still comes on a connection that is closed on our side, until the caller closes it too."""
        try:
            data = client.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        farewell.thrown_away += len(data)
        if not data or farewell.thrown_away >= HANG_UP_BYTES:
            self._farewells.remove(farewell)
            self._end(farewell)

    def _end(self, farewell: Farewell) -> None:
        with suppress(OSError, KeyError, ValueError):
            self.poller.unregister(farewell.conn.sock)
        self._close(farewell.conn)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    def murder_pending(self) -> None:
        """Close what has waited for long enough; gunicorn calls this once a second at least."""
        super().murder_pending()
        now = time.monotonic()
        while self._farewells and self._farewells[0].until <= now:
            self._end(self._farewells.popleft())


def _is_waiting(listener: socket) -> bool:
    """Whether somebody waits to be accepted."""
    watch = poll()
    watch.register(listener, POLLIN)
    return bool(watch.poll(0))
