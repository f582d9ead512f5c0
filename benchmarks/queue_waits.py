"""How long requests wait in the queue: the simulation behind the table in docs/scaling.md.

    .venv/bin/python -m benchmarks.queue_waits

Requests come at random (a Poisson process), are taken up in their order by the first free place, and take as long as
providers take: half under 20 s, nine in ten under 40 s (log-normal), none longer than the deadline of 90 s.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections.abc import Iterator

MEDIAN, NINTH_DECILE, DEADLINE = 20.0, 40.0, 90.0
REQUESTS = 50_000
PLACES = (20, 40, 100, 200)
LOADS = (0.5, 0.7, 0.8, 0.9, 0.95)


def durations(random_: random.Random) -> Iterator[float]:
    """Seconds that generations take."""
    sigma = math.log(NINTH_DECILE / MEDIAN) / 1.2816  # the normal distribution's ninth decile
    while True:
        yield min(MEDIAN * random_.lognormvariate(0, sigma), DEADLINE)


def mean_duration() -> float:
    """Seconds that a generation takes on average."""
    source = durations(random.Random(0))
    return statistics.fmean(next(source) for _ in range(REQUESTS))


def waits(places: int, per_second: float) -> list[float]:
    """Seconds that requests wait for one of so many places, in ascending order."""
    random_ = random.Random(1)
    source, free, now, found = durations(random_), [0.0] * places, 0.0, []
    for _ in range(REQUESTS):
        now += random_.expovariate(per_second)
        begins = max(now, free[0])
        heapq.heapreplace(free, begins + next(source))
        found.append(begins - now)
    return sorted(found)


def main() -> None:
    """Print the table."""
    mean = mean_duration()
    print(f"A generation takes {mean:.1f} s on average.\n")
    print("| places | load | images a minute | wait at all | wait, 95 of 100 | wait, 99 of 100 |")
    print("|---|---|---|---|---|---|")
    for places in PLACES:
        for load in LOADS:
            per_second = load * places / mean
            found = waits(places, per_second)
            at_all = sum(wait > 0 for wait in found) / len(found)
            tail = " | ".join(f"{found[int(len(found) * share)]:.0f} s" for share in (0.95, 0.99))
            print(f"| {places} | {load:.0%} | {60 * per_second:.0f} | {at_all:.0%} | {tail} |")


if __name__ == "__main__":
    main()
