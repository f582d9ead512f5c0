"""gunicorn's threaded worker, and three things that it leaves open (gunicorn 27.0.1, `workers/gthread.py`).

- It waits for a caller who was told that the connection is closed to hang up too, up to two seconds, in the very
  thread that accepts everybody else's connections: five such callers stopped a worker for ten seconds (measured).
  Here the wait is one more event among the others.
- Workers that share a socket take from it whatever they can get, and of ten connections one may get eight. As the
  most generations at once is counted in each process, callers were turned away while another process had room. Here
  a worker that has more connections than another one first gives that one a moment to be faster.
- Threads of one process wake each other up across cores for nothing; here a worker keeps to one core (`cores.py`).
"""

from __future__ import annotations

import mmap
import os
import random
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from select import POLLIN, poll
from selectors import EVENT_READ
from socket import SHUT_WR, socket
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from .cores import OneCore, can_keep_to_one
from .environment import Environment

#: Seconds that a caller has for hanging up after the last answer; what he sends meanwhile is thrown away (RFC 9112,
#: section 9.6: without that he might lose the end of the answer).
HANG_UP_SECONDS = 2.0
#: How much of it, in bytes, before the connection is closed all the same.
HANG_UP_BYTES = 65536
#: How often, and for how many seconds each time, a worker lets one that has fewer connections go first. In vain that
#: costs a new connection five milliseconds, where the other process hangs.
TURNS, TURN_SECONDS = 5, 0.001


class Board:
    """How many connections each worker has, in memory that the master and all workers share.

    The master gives out the places, before it forks; a worker writes into its own and reads all of them. Each is one
    aligned machine word, so nobody reads half a number, and an old one does no harm.
    """

    #: Stands in a place that nobody needs to wait for.
    NOBODY = 2**32 - 1

    def __init__(self, places: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 4 * places)).cast("I")
        self._free = list(range(places))
        #: Drawn, so that not all servers of a machine begin with the same core.
        self.first_core = random.randrange(1024)  # noqa: S311
        for place in self._free:
            self._counts[place] = self.NOBODY

    def take_place(self) -> int | None:
        """The lowest place that is free; `None` where there are more workers than the board has places for."""
        self._free.sort()
        return self._free.pop(0) if self._free else None

    def give_back(self, place: int | None) -> None:
        """Free a place, of a worker that has ended."""
        if place is not None:
            self._counts[place] = self.NOBODY
            self._free.append(place)

    def write(self, place: int | None, count: int) -> None:
        """Note how many connections the worker of a place has."""
        if place is not None:
            self._counts[place] = count

    def least(self) -> int:
        """The smallest number of connections that a worker has; a very large one where nobody has written any."""
        return min(self._counts)


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
            # Twice as many, as a worker's successor may come before its end was noticed.
            Worker.board = Board(2 * self.cfg.workers)
        self._board = Worker.board
        self.place = self._board.take_place()
        self._farewells: deque[Farewell] = deque()
        self._one_core: OneCore | None = None

    def give_back_place(self) -> None:
        """In the master, when the worker has ended: nobody is to wait for it any more."""
        self._board.give_back(self.place)

    def init_process(self) -> None:
        """In the worker, before it makes threads, which inherit the cores."""
        if self.place is not None and can_keep_to_one() and Environment(os.environ).flag("WORKER_CPU_AFFINITY", True):
            self._one_core = OneCore(self.place, self.cfg.workers, self._board.first_core)
        super().init_process()

    def run(self) -> None:
        """Serve until the end. From now on this worker can be compared with the others."""
        self._board.write(self.place, self.nr_conns)
        super().run()

    def wait_for_and_dispatch_events(self, timeout: float | None) -> None:
        """Do what there is to do, and tell the others how many connections that left."""
        super().wait_for_and_dispatch_events(timeout)
        # A worker that stops has fewer and fewer, and takes no more.
        self._board.write(self.place, self.nr_conns if self.alive else Board.NOBODY)
        if self._one_core:
            self._one_core.look()

    def accept(self, listener: socket) -> None:
        """Take one connection, if no freer worker has been faster."""
        for _ in range(TURNS):
            if self.nr_conns <= self._board.least():
                break
            time.sleep(TURN_SECONDS)
            if not _is_waiting(listener):
                return
        super().accept(listener)

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
