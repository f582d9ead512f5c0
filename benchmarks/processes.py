"""Starting and stopping processes, and what they and their children cost, from `/proc`.

Memory is the sum of the tree's PSS ("proportional set size"): a page that several processes share (the interpreter,
libraries, what a master loaded before it forked) counts once in the sum. With RSS it would count once for each
process, and a server with more workers would look larger than it is. It is sampled ten times a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
_TICK = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a process tree took while it was watched.

    Attributes:
        cpu_seconds: User and system time.
        peak_mb: The largest memory seen, in megabytes (10^6 bytes).
    """

    cpu_seconds: float
    peak_mb: float


@contextmanager
def running(
    command: Sequence[str], env: Mapping[str, str], log: Path, *, pass_fds: Sequence[int] = ()
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a process in a session of its own, wait for its first line, and stop it in the end.

    Returns:
        The process and the line.

    Raises:
        RuntimeError: It ended without a line; the message is the end of its log.
    """
    with log.open("a") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            pass_fds=pass_fds,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"{' '.join(command)} did not start: {log.read_text()[-2000:]}")
        yield process, line
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        with contextlib.suppress(ProcessLookupError):  # nothing of its session is left, as it should be
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):  # it ended a moment ago
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """The user and system time of a process tree so far, its ended children's included."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / _TICK


def memory_mb(pid: int) -> float:
    """The tree's PSS at this moment."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total / 1e6


class Watch:
    """Watches a process tree from `with` to its end."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._peak = 0.0
        self._before = 0.0
        self.usage = Usage(cpu_seconds=0.0, peak_mb=0.0)

    def __enter__(self) -> Self:
        self._before = cpu_seconds(self._pid)
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        spent = cpu_seconds(self._pid) - self._before
        self._over.set()
        self._sampler.join()
        self._peak = max(self._peak, memory_mb(self._pid))
        self.usage = Usage(cpu_seconds=spent, peak_mb=self._peak)

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self._peak = max(self._peak, memory_mb(self._pid))
