"""One run: an installation, its callers, what goes wrong, and what is left afterwards."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.chaos.callers import Callers
from tests.chaos.faults import Faults
from tests.chaos.invariants import Row, Verdict, judge, read_rows, stored_files
from tests.chaos.vendor import Vendor
from tests.fakes.provider_server import ProviderServer
from tests.load.postgres import limited_database
from tests.queue.installation import Installation
from tests.queue.services import Redis

#: Short times, so that what was lost is known to be lost within a minute (their sum and 30 s).
DEADLINE, STORAGE_TIMEOUT = 8, 6
#: Seconds after a request's own time that the rows get to be settled: until it counts as failed, and a worker looks.
SETTLING = 60


@dataclass(frozen=True, kw_only=True)
class Report:
    """What happened, and what holds."""

    verdicts: list[Verdict]
    rows: list[Row]
    answers: Counter[str]
    faults: Counter[str]
    kills: int
    refused: int
    paid: int
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether no invariant is broken."""
        return not any(verdict.broken for verdict in self.verdicts)

    def __str__(self) -> str:
        """For people."""
        statuses = Counter(row.error_code or row.status for row in self.rows)
        lines = [
            f"Faults: {_listed(self.faults)}; {self.kills} SIGKILLs.",
            f"Callers were answered: {_listed(self.answers)}.",
            f"Provider: paid {self.paid}, refused {self.refused} over its limit.",
            f"Rows: {len(self.rows)}; {_listed(statuses)}.",
        ]
        for sentence, broken in self.verdicts:
            lines.append(f"{'BROKEN' if broken else 'holds '} {sentence}")
            lines += [f"       {item}" for item in broken[:20]]
        return "\n".join([*lines, f"{self.seconds:.0f} s."])


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


@dataclass(frozen=True, kw_only=True)
class Storm:
    """How bad it gets.

    Attributes:
        requests: How many callers ask.
        seconds: For how long they ask, and things break.
        queue_timeout: Seconds after which a request that no worker has started has failed.
        faults: How often what breaks; the names are those of `Faults`.
    """

    requests: int
    seconds: float
    faults: Counter[str]
    queue_timeout: int

    def run(self, folder: Path, *, seed: int) -> Report:
        """Run it.

        Args:
            folder: An empty one, for the files and the log.
            seed: Decides what breaks when, who asks how, and what the provider answers.
        """
        begun = time.monotonic()
        vendor = Vendor(per_second=max(3, round(self.requests / self.seconds)), seed=seed)
        with (
            ProviderServer(image_bytes=20_000) as provider,
            closing(Redis()) as redis,
            limited_database(80) as database,
            closing(Installation(folder, provider, redis.url, database.url, **self._variables())) as installation,
        ):
            provider.policy = vendor.policy
            redis.start()
            installation.manage("migrate", "--verbosity", "0")
            callers = Callers(installation)
            with closing(Faults(installation, redis, database)) as faults:
                plan = {"count": self.requests, "seconds": self.seconds, "seed": seed}
                asking = threading.Thread(target=callers.ask, kwargs=plan)
                asking.start()
                faults.wreak(self.faults, seconds=self.seconds, seed=seed)
                asking.join()
                rows = _settled(lambda: read_rows(database.url), self.queue_timeout + SETTLING)
        verdicts = judge(rows, accepted=callers.accepted, bill=vendor.bill, files=stored_files(installation.media))
        return Report(
            verdicts=[*verdicts, Verdict("No worker ended by itself.", faults.ended)],
            rows=rows,
            answers=callers.answers,
            faults=faults.done,
            kills=faults.kills,
            refused=vendor.refused,
            paid=vendor.bill.total(),
            seconds=time.monotonic() - begun,
        )

    def _variables(self) -> dict[str, str]:
        return {
            "IMAGE_DEADLINE": str(DEADLINE),
            "IMAGE_STORAGE_TIMEOUT": str(STORAGE_TIMEOUT),
            "IMAGE_QUEUE_TIMEOUT": str(self.queue_timeout),
            "DATABASE_POOL_SIZE": "3",
        }


#: What `make chaos` does.
FULL = Storm(
    requests=300,
    queue_timeout=60,
    seconds=90,
    faults=Counter(worker=12, web_process=5, web_server=3, broker=2, connections=6, database_away=2, storage_away=3),
)
#: What the tests do.
SHORT = Storm(
    requests=50,
    seconds=20,
    queue_timeout=25,
    faults=Counter(worker=3, web_process=1, web_server=1, broker=1, connections=2, database_away=1, storage_away=1),
)


def _settled(read: Callable[[], list[Row]], seconds: float) -> list[Row]:
    """The rows, once none is open, or when the time for that is over."""
    end, rows = time.monotonic() + seconds, []
    while time.monotonic() < end:
        try:
            rows = read()
        except psycopg.OperationalError:
            continue
        if rows and all(row.status in {"ready", "failed"} for row in rows):
            break
        time.sleep(0.5)
    return rows
