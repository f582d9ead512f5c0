"""One core for a process whose threads take turns at Python's interpreter lock.

Only one of them runs Python at a time. Where they may run on several cores, each time that one reads, writes or waits
it wakes up another core, mostly in vain: a process on two idle cores serves fewer than half of the files that it
serves on one, and takes a third more CPU time for an image (measured, benchmarks/README.md). So a worker keeps to one
core. Where there are more cores than workers it moves when others take much of its own, as the system would have
moved it.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

#: Seconds between two looks at what the cores do: the least, and the most. They are drawn, as siblings that look at
#: the same moment would move to the same core, and move on together.
LOOK_SECONDS = 10.0, 20.0
#: The share of its core that others may take before a worker looks for another, and how much better that must be.
PATIENCE, GAIN = 0.25, 0.2


class Load(NamedTuple):
    """What a core has done since the machine started, in the system's ticks."""

    busy: int
    total: int


def read_loads(text: str) -> dict[int, Load]:
    """Each core's load, from the text of `/proc/stat` (proc_stat(5))."""
    found = {}
    for line in text.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdecimal():
            # user nice system idle iowait irq softirq; what is stolen by the host is nobody's work on this machine
            ticks = list(map(int, fields[:7]))
            found[int(name[3:])] = Load(busy=sum(ticks) - sum(ticks[3:5]), total=sum(ticks))
    return found


def better_core(core: int, own: float, before: dict[int, Load], after: dict[int, Load]) -> int | None:
    """The core to move to, or `None` to stay.

    Args:
        core: Where this process runs.
        own: The share of a core that it took itself, 0 to 1.
        before: The loads of the cores to choose from, at an earlier moment.
        after: The same now.
    """
    shares = {
        one: (after[one].busy - before[one].busy) / max(1, after[one].total - before[one].total)
        for one in before
        if one in after
    }
    if core not in shares or len(shares) < 2:
        return None
    others = shares.pop(core) - own
    idlest = min(shares, key=lambda one: shares[one])
    return idlest if others > PATIENCE and shares[idlest] < others - GAIN else None


class OneCore:
    """Keeps this process on one of the cores that it may run on.

    Args:
        number: Which one it begins with, counted among those.
        workers: How many processes of this server there are.
    """

    def __init__(self, number: int, workers: int) -> None:
        self._cores = sorted(os.sched_getaffinity(0))
        self.core = self._cores[number % len(self._cores)]
        self._may_move = workers < len(self._cores)
        self._move_to(self.core)
        self._look()

    def look(self) -> None:
        """Move if that is better; called often, it does something every ten to twenty seconds."""
        if not self._may_move or time.monotonic() < self._looked + self._patience:
            return
        before, looked, spent = self._loads, self._looked, self._spent
        self._look()
        own = (self._spent - spent) / (self._looked - looked)
        better = better_core(self.core, own, before, self._loads)
        if better is not None:
            self._move_to(better)

    def _look(self) -> None:
        self._looked, self._spent = time.monotonic(), time.process_time()
        self._patience = random.uniform(*LOOK_SECONDS)  # noqa: S311
        self._loads: dict[int, Load] = {}
        with suppress(OSError, ValueError):  # a container may show something else, and then nobody moves
            loads = read_loads(Path("/proc/stat").read_text())
            self._loads = {core: load for core, load in loads.items() if core in self._cores}

    def _move_to(self, core: int) -> None:
        self.core = core
        with suppress(OSError):  # no /proc, or the core was taken away from us
            os.sched_setaffinity(0, {core})
            for thread in os.listdir("/proc/self/task"):
                with suppress(ProcessLookupError):  # it has ended
                    os.sched_setaffinity(int(thread), {core})


def choices() -> int:
    """Between how many cores this process can choose; 0 on systems that do not know of it (all but Linux)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
