"""Generations: how many a second, what they cost, and what else is answered while hundreds wait."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import requests

from benchmarks import servers
from benchmarks.folders import Sweeper
from benchmarks.processes import ROOT, Watch, running
from benchmarks.servers import Server


@dataclass(frozen=True, kw_only=True)
class Case:
    """So many at once, for a provider of such a latency.

    Attributes:
        at_once: Callers that ask at the same time.
        count: Images in all, in one round.
        latency: The provider's, in seconds.
        rounds: How often it is measured, the stacks taking turns.
    """

    at_once: int
    count: int
    latency: float
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """One stack in one case: medians over the rounds, but the peak over all of them.

    Attributes:
        succeeded: Answers of status 200, in the worst round.
        count: Images asked for in a round.
        per_second: Images a second, from the first request to the last answer.
        p50: The median time of an answer, in milliseconds.
        cpu_ms: CPU time of the server's process tree for each image.
        peak_mb: See `benchmarks.processes`.
    """

    succeeded: int
    count: int
    per_second: float
    p50: float
    cpu_ms: float
    peak_mb: float


def ask(base: str, at_once: int, count: int) -> dict[str, Any]:
    """Put load on a server; what the load generator reports."""
    url = f"{base}/api/images/generate"
    command = ["benchmarks.load", "generate", url, "--at-once", str(at_once), "--count", str(count)]
    return dict(json.loads(_run(command)))


def probe(url: str, seconds: float) -> list[float]:
    """The times of answers to GET requests, one after the other, in milliseconds."""
    outcome = json.loads(_run(["benchmarks.load", "probe", url, "--seconds", str(seconds)]))
    assert set(outcome["statuses"]) == {"200"}, outcome["statuses"]
    return [1000 * taken for taken in outcome["taken"]]


def _run(command: Sequence[str]) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The load generator failed: {done.stderr[-2000:]}")
    return done.stdout


def measure(case: Case, folder: Path, stacks: Mapping[str, Mapping[str, str]], *, floor: bool) -> dict[str, Result]:
    """Measure stacks beside each other: in each round every one has its turn.

    Args:
        case: What to do.
        folder: For files and databases.
        stacks: By name: the environment of a server of ours, or nothing for the baseline.
        floor: Measure the plain SDK in a loop of threads too.
    """
    rounds: dict[str, list[Result]] = {}
    with ExitStack() as stack:
        provider = stack.enter_context(servers.provider(folder, case.latency))
        running_servers = {
            name: stack.enter_context(_server(folder / name, provider.base, variables, case))
            for name, variables in stacks.items()
        }
        for server in running_servers.values():
            ask(server.base, min(case.at_once, 8), 16)  # every process has served before it counts
        stack.enter_context(Sweeper(folder))
        for _ in range(case.rounds):
            for name, server in running_servers.items():
                rounds.setdefault(name, []).append(_round(server, case))
            if floor:
                rounds.setdefault("SDK loop", []).append(_floor_round(folder, provider.base, case))
    return {name: _middle(results) for name, results in rounds.items()}


def _server(folder: Path, provider_url: str, variables: Mapping[str, str], case: Case) -> Any:
    folder.mkdir(exist_ok=True)
    if not variables:
        return servers.plain_django(folder, provider_url)
    return servers.ours(folder, provider_url, **{"IMAGE_MAX_CONCURRENCY": str(max(case.at_once, 16)), **variables})


def _round(server: Server, case: Case) -> Result:
    with Watch(server.pid) as watch:
        outcome = ask(server.base, case.at_once, case.count)
    return _result(case, watch, outcome["seconds"], outcome["taken"], outcome["statuses"].get("200", 0))


def _floor_round(folder: Path, provider_url: str, case: Case) -> Result:
    media = folder / "loop"
    media.mkdir(exist_ok=True)
    env = {**servers.sdk_environment(provider_url), "STORAGE_ROOT": str(media)}
    command = [sys.executable, "-m", "benchmarks.sdk_loop"]
    command += ["--threads", str(case.at_once), "--count", str(case.count)]
    with running(command, env, folder / "loop.log") as (process, _):
        assert process.stdin is not None
        assert process.stdout is not None
        with Watch(process.pid) as watch:
            process.stdin.write("go\n")
            process.stdin.flush()
            line = process.stdout.readline()
        outcome = json.loads(line)
    return _result(case, watch, outcome["seconds"], outcome["taken"], len(outcome["taken"]))


def _result(case: Case, watch: Watch, seconds: float, taken: Sequence[float], succeeded: int) -> Result:
    return Result(
        succeeded=succeeded,
        count=case.count,
        per_second=succeeded / seconds,
        p50=1000 * median(taken),
        cpu_ms=1000 * watch.usage.cpu_seconds / case.count,
        peak_mb=watch.usage.peak_mb,
    )


def _middle(results: Sequence[Result]) -> Result:
    return Result(
        succeeded=min(result.succeeded for result in results),
        count=results[0].count,
        per_second=median(result.per_second for result in results),
        p50=median(result.p50 for result in results),
        cpu_ms=median(result.cpu_ms for result in results),
        peak_mb=max(result.peak_mb for result in results),
    )


def while_waiting(
    folder: Path, waiting: int, seconds: float, hold: float, variables: Mapping[str, str]
) -> dict[str, list[float]]:
    """How long `/health` and the list take while `waiting` generations wait, and while nothing does.

    Args:
        folder: For files and the database.
        waiting: How many.
        seconds: How long to ask for each.
        hold: The provider's latency: long enough for all to be waiting, and for the asking.
        variables: The server's environment.

    Returns:
        By "what, when": milliseconds.
    """
    found: dict[str, list[float]] = {}
    paths = {"`/health`": "/health", "list": "/api/images/"}
    env = {"IMAGE_MAX_CONCURRENCY": str(waiting), **variables}
    with servers.provider(folder, hold) as provider, servers.ours(folder, provider.base, **env) as server:
        for name, path in paths.items():
            found[f"{name}, idle"] = probe(server.base + path, seconds)
        url = f"{server.base}/api/images/generate"
        command = [sys.executable, "-m", "benchmarks.load", "generate", url]
        command += ["--at-once", str(waiting), "--count", str(waiting)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as callers:
            _until_pending(server, waiting)
            for name, path in paths.items():
                found[f"{name}, while {waiting} wait"] = probe(server.base + path, seconds)
            outcome = json.loads(callers.communicate()[0])
        assert outcome["statuses"] == {"200": waiting}, outcome["statuses"]
    return found


def _until_pending(server: Server, waiting: int) -> None:
    """Until every generation is under way."""
    count = 0
    while count < waiting:
        time.sleep(0.1)
        found = requests.get(f"{server.base}/api/images/?status=pending", timeout=60).json()["count"]
        assert found >= count, "The first are answered before the last are under way: it takes a longer hold."
        count = found


def p99(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return quantiles(values, n=100)[98]
