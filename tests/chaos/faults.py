"""What goes wrong: processes are killed, the broker, the database and the disk go away."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from tests.load.postgres import Database
from tests.queue.installation import Installation, children
from tests.queue.services import Redis

Start = Callable[[ExitStack], "subprocess.Popen[bytes]"]


class Service:
    """A process that is started again whenever it ends, as systemd does it (`Restart=always`).

    Args:
        start: Starts it.
        has_worked: Whether what it has written since its start says that it was up.
    """

    def __init__(self, start: Start, has_worked: Callable[[], bool] = bool) -> None:
        self._start, self._lock, self._stack = start, threading.Lock(), ExitStack()
        self._has_worked = has_worked
        self.process = start(self._stack)

    def kill(self) -> None:
        """SIGKILL to all of it, and start it anew."""
        with self._lock:
            self._stack.close()
            self.process = self._start(self._stack)

    def revive(self) -> bool:
        """Start it anew if it has ended by itself. Returns whether it did so although it was up."""
        with self._lock:
            if self.process.poll() is None:
                return False
        had_worked = self._has_worked()
        self.kill()
        return had_worked

    def close(self) -> None:
        """End it for good."""
        with self._lock:
            self._stack.close()


class Faults:
    """All that can go wrong with an installation.

    Args:
        installation: Two web processes and two workers are started at once.
        redis: Its broker.
        database: Its database.

    Attributes:
        done: How often what was done.
        kills: How many SIGKILLs were sent, to the broker included.
        ended: Workers that had begun to work and ended without being killed.
    """

    def __init__(self, installation: Installation, redis: Redis, database: Database) -> None:
        self._installation, self._redis, self._database = installation, redis, database
        self.done: Counter[str] = Counter()
        self.kills = 0
        self.ended: list[str] = []
        self._stopping = threading.Event()
        self._log_sizes: dict[int, int] = {}
        self._web = Service(lambda stack: stack.enter_context(installation.web(processes=2)))
        self._workers = [
            Service(partial(self._start_worker, number), partial(self._was_ready, number)) for number in (1, 2)
        ]
        self._reviver = threading.Thread(target=self._revive)
        self._reviver.start()

    def close(self) -> None:
        """End everything."""
        self._stopping.set()
        self._reviver.join()
        for service in (self._web, *self._workers):
            service.close()

    def wreak(self, kinds: Counter[str], *, seconds: float, seed: int) -> None:
        """Do these faults in an order and at moments that the seed decides, within about `seconds`.

        On a machine that is busy otherwise they take longer; what has not begun in a third more time is left out.
        """
        chance = random.Random(seed)
        order = chance.sample(list(kinds.elements()), kinds.total())
        begun = time.monotonic()
        moments = sorted(chance.uniform(0.05, 1) * seconds for _ in order)
        for kind, moment in zip(order, moments, strict=True):
            if time.monotonic() > begun + seconds * 4 / 3:
                return
            time.sleep(max(0.0, begun + moment - time.monotonic()))
            getattr(self, f"_{kind}")(chance)
            self.done[kind] += 1

    # --- the faults -----------------------------------------------------------------------------------------

    def _worker(self, chance: random.Random) -> None:
        self.kills += 1
        chance.choice(self._workers).kill()

    def _web_process(self, chance: random.Random) -> None:
        with suppress(OSError):  # it has just ended
            os.kill(chance.choice(children(self._web.process)), signal.SIGKILL)
            self.kills += 1

    def _web_server(self, _chance: random.Random) -> None:
        self.kills += 1
        self._web.kill()

    def _broker(self, chance: random.Random) -> None:
        self.kills += 1
        self._redis.kill()
        time.sleep(chance.uniform(0, 4))
        self._redis.start()

    def _connections(self, _chance: random.Random) -> None:
        self._database.cut()

    def _database_away(self, chance: random.Random) -> None:
        with self._database.away():
            time.sleep(chance.uniform(1, 4))

    def _storage_away(self, chance: random.Random) -> None:
        with folder_away(self._installation.media):
            time.sleep(chance.uniform(1, 3))

    # --- processes ------------------------------------------------------------------------------------------

    def _start_worker(self, number: int, stack: ExitStack) -> subprocess.Popen[bytes]:
        self._log_sizes[number] = len(self._installation.log)
        options = ("--concurrency", "4", "--hostname", f"worker{number}@%h")
        return stack.enter_context(self._installation.worker(*options))

    def _was_ready(self, number: int) -> bool:
        written = self._installation.log[self._log_sizes[number] :]
        return re.search(rf"worker{number}@\S+ ready\.", written) is not None

    def _revive(self) -> None:
        while not self._stopping.wait(0.5):
            self._web.revive()
            for number, worker in enumerate(self._workers, 1):
                if worker.revive():
                    self.ended.append(f"worker {number}")


@contextmanager
def folder_away(folder: Path) -> Iterator[None]:
    """A disk that is not mounted: nothing below the folder can be read or written."""
    kept = folder.with_name(f"{folder.name}.away")
    folder.rename(kept)
    folder.touch()
    try:
        yield
    finally:
        folder.unlink()
        kept.rename(folder)
