"""Runs everything and prints tables in Markdown: `python -m benchmarks`, `python -m benchmarks --quick`."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Mapping
from contextlib import ExitStack
from statistics import median

from benchmarks import files, folders, nginx
from benchmarks.databases import postgresql
from benchmarks.generations import Case, Result, measure, p99, while_waiting

#: One process is the default, and as fast for a lone caller; the baseline has two (README).
_ONE, _TWO = {"WEB_CONCURRENCY": "1"}, {"WEB_CONCURRENCY": "2"}

_FULL = (
    Case(at_once=1, count=100, latency=0, rounds=3),
    Case(at_once=10, count=300, latency=0, rounds=3),
    Case(at_once=100, count=300, latency=1, rounds=3),
    Case(at_once=500, count=500, latency=1, rounds=2),
    Case(at_once=1000, count=1000, latency=1, rounds=2),
)
_QUICK = (
    Case(at_once=1, count=30, latency=0, rounds=1),
    Case(at_once=10, count=60, latency=0, rounds=1),
    Case(at_once=100, count=100, latency=1, rounds=1),
)


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, in under a minute")
    parser.add_argument("--only", choices=["generations", "memory", "waiting", "files"], help="one part")
    options = parser.parse_args()
    parts = {"generations": _generations, "memory": _memory, "waiting": _waiting, "files": _files}
    started = time.monotonic()
    _say(f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.release()}\n")
    for name, part in parts.items():
        if options.only in (None, name):
            with ExitStack() as stack:
                part(options.quick, stack)
    _say(f"Took {time.monotonic() - started:.0f} s.")


def _say(line: str) -> None:
    print(line, flush=True)


def _stacks(stack: ExitStack, quick: bool) -> dict[str, Mapping[str, str]]:
    """What is measured: nothing stands for the baseline, an environment for a server of ours."""
    stacks: dict[str, Mapping[str, str]] = {"plain Django": {}, "ours, SQLite": _TWO}
    if quick:
        return stacks
    stacks["ours, SQLite, 1 worker"] = _ONE
    url = stack.enter_context(postgresql())
    if url is None:
        _say("No PostgreSQL at BENCH_POSTGRES_URL: its rows are missing. On Debian: apt-get install postgresql.\n")
        return stacks
    return {**stacks, "ours, PostgreSQL": {**_TWO, "DATABASE_URL": url}}


def _generations(quick: bool, stack: ExitStack) -> None:
    _say("| at once | latency | stack | succeeded | images/s | | p50 ms | | CPU ms/image | | peak MB | |")
    _say("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for case in _QUICK if quick else _FULL:
        with ExitStack() as inner:
            folder = inner.enter_context(folders.temporary())
            results = measure(case, folder, _stacks(inner, quick), floor=not quick)
        for name, result in results.items():
            cells = _compared(result, results["plain Django"])
            _say(f"| {case.at_once} | {case.latency:g} s | {name} | {result.succeeded}/{result.count} | {cells} |")
    _say("")


def _compared(result: Result, baseline: Result) -> str:
    """The figures, each followed by its ratio to the baseline's."""
    pairs = [
        (f"{result.per_second:.1f}", result.per_second / baseline.per_second),
        (f"{result.p50:.1f}", result.p50 / baseline.p50),
        (f"{result.cpu_ms:.1f}", result.cpu_ms / baseline.cpu_ms),
        (f"{result.peak_mb:.0f}", result.peak_mb / baseline.peak_mb),
    ]
    return " | ".join(f"{text} | {ratio:.2f}x" for text, ratio in pairs)


def _memory(quick: bool, stack: ExitStack) -> None:
    """The defaults, which are made for 512 MB: nothing is set but the provider."""
    case = Case(at_once=100, count=100 if quick else 300, latency=1, rounds=1 if quick else 3)
    defaults = {"WEB_CONCURRENCY": "", "IMAGE_MAX_CONCURRENCY": ""}
    folder = stack.enter_context(folders.temporary())
    result = measure(case, folder, {"ours": defaults}, floor=False)["ours"]
    _say(f"100 at once, 1 s, with the defaults: peak {result.peak_mb:.0f} MB, {result.succeeded}/{result.count}.\n")


def _waiting(quick: bool, stack: ExitStack) -> None:
    waiting, seconds, hold = (50, 0.5, 3.0) if quick else (500, 3.0, 20.0)
    databases: dict[str, str | None] = {"SQLite": None}
    if not quick and (url := stack.enter_context(postgresql())):
        databases["PostgreSQL"] = url
    _say("| database | what | median ms | p99 ms |\n|---|---|---|---|")
    for name, url in databases.items():
        variables = {**_ONE, **({"DATABASE_URL": url} if url else {})}
        folder = stack.enter_context(folders.temporary())
        for what, taken in while_waiting(folder, waiting, seconds, hold, variables).items():
            _say(f"| {name} | {what} | {median(taken):.1f} | {p99(taken):.1f} |")
    _say("")


def _files(quick: bool, stack: ExitStack) -> None:
    if not files.is_installed():
        _say("No wrk: files are not measured. On Debian: apt-get install wrk.\n")
        return
    if not nginx.is_installed():
        _say("No nginx: plain sendfile(2) is the floor for files. On Debian: apt-get install nginx.\n")
    folder = stack.enter_context(folders.temporary())
    found = files.measure(folder, rounds=1 if quick else 3, seconds=1 if quick else 3)
    _say(f"| file | server | answers/s | of {files.floor()} | CPU µs/answer |\n|---|---|---|---|---|")
    for (server, what), served in sorted(found.items(), key=lambda item: item[0][1]):
        share = f"{served.per_second / found[files.floor(), what].per_second:.3f}x"
        _say(f"| {what} | {server} | {served.per_second:.0f} | {share} | {served.cpu_us:.0f} |")
    _say("")


if __name__ == "__main__":
    main()
