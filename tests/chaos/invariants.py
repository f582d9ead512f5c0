"""What has to hold after all of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psycopg


class Row(NamedTuple):
    """A request as the database has it."""

    id: str
    title: str
    status: str
    file: str
    error_code: str


class Verdict(NamedTuple):
    """An invariant, and what contradicts it."""

    sentence: str
    broken: list[str]


def read_rows(database_url: str) -> list[Row]:
    """All rows."""
    with psycopg.connect(database_url, connect_timeout=10) as connection:
        query = "SELECT id::text, title, status, file, error_code FROM images_generatedimage ORDER BY created_at"
        return [Row(*found) for found in connection.execute(query)]


def stored_files(media: Path) -> set[str]:
    """The names of all files, without the half-written ones that a killed process leaves under a hidden name."""
    found = (path for path in media.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(media)) for path in found}


def judge(
    rows: list[Row], *, accepted: Mapping[str, set[str]], bill: Mapping[str, int], files: set[str]
) -> list[Verdict]:
    """Every invariant, broken or not.

    Args:
        rows: All rows.
        accepted: The ids that callers were given, by title.
        bill: How often each title was charged for.
        files: What the storage holds.
    """
    by_title: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_title[row.title].append(row)
    known, ready = {row.id for row in rows}, {row.file for row in rows if row.status == "ready"}
    lost = [f"{title}: {ids - known}" for title, ids in accepted.items() if ids - known]
    open_rows = [f"{row.id}: {row.status}" for row in rows if row.status not in {"ready", "failed"}]
    # A key whose request has failed is free, so a caller that asks again gets a row of its own.
    twice = [title for title, found in by_title.items() if sum(row.status != "failed" for row in found) > 1]
    shared = [name for name, count in Counter(row.file for row in rows if row.file).items() if count > 1]
    paid = [f"{title}: {count} times" for title, count in bill.items() if count > len(by_title[title])]
    unlike = [f"no row: {name}" for name in files - ready] + [f"no file: {name}" for name in ready - files]
    return [
        Verdict("Every accepted request has its row.", lost),
        Verdict("No request has two rows that live, and no two rows share a file.", twice + shared),
        Verdict("No provider was paid twice for one row.", paid),
        Verdict("The files and the ready rows are the same set.", unlike),
        Verdict("Every row is settled.", open_rows),
    ]
