"""`make chaos`: an installation that works while everything around it breaks. At most five minutes.

Two web processes and two workers, PostgreSQL, Redis, a folder, and a provider with a rate limit. Workers, web
processes and the broker are killed, database connections cut, database and disk taken away. Then it is looked
whether a request got lost, was made twice or paid twice. The exit status is 1 if so.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psycopg

from tests.chaos.storm import FULL
from tests.load.postgres import ADMIN_URL


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=FULL.requests)
    parser.add_argument("--seconds", type=float, default=FULL.seconds, help="how long things break, up to 100")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed, the same faults")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the log")
    options = parser.parse_args()
    if problem := what_is_missing():
        sys.exit(problem)
    if not 1 <= options.seconds <= 100 or not 1 <= options.requests <= 9999:
        parser.error("--seconds goes up to 100, --requests up to 9999")
    storm = replace(FULL, requests=options.requests, seconds=options.seconds)
    faults = storm.faults.total()
    print(f"Seed {options.seed}; {storm.requests} requests and {faults} faults in {storm.seconds:.0f} s.", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="trygo-chaos-"))
    report = storm.run(folder, seed=options.seed)
    print(report)
    if options.keep or not report.holds:
        print(f"The log of all processes: {folder / 'log'}")
    else:
        shutil.rmtree(folder)
    sys.exit(not report.holds)


def what_is_missing() -> str:
    """What this machine lacks, in a sentence, or ""."""
    if not shutil.which("redis-server"):
        return "redis-server is missing. On Debian: apt install redis-server"
    try:
        psycopg.connect(ADMIN_URL, connect_timeout=5).close()
    except psycopg.OperationalError as err:
        reason = str(err).strip().splitlines()[0]
        return f"PostgreSQL cannot be used: {reason}. TEST_POSTGRES_URL names a server where databases may be made."
    return ""


if __name__ == "__main__":
    main()
