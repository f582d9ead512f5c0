"""A short storm, so that what `make chaos` shows stays true; and the invariants see what contradicts them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.chaos.invariants import Row, judge
from tests.chaos.storm import SHORT
from tests.queue.services import need


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_paid_twice_while_everything_around_breaks(tmp_path: Path) -> None:
    need(shutil.which("redis-server"), "redis-server")
    report = SHORT.run(tmp_path, seed=20261128)
    assert report.holds, f"{report}\n{(tmp_path / 'log').read_text()[-20_000:]}"
    assert len(report.faults) > len(SHORT.faults) / 2, report
    assert sum(row.status == "ready" for row in report.rows) > SHORT.requests / 3, report


READY = Row("1", "A", "ready", "a.png", "")


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({}, set()),
        ({"accepted": {"A": {"2"}}}, {0}),
        ({"rows": [READY, READY._replace(id="2", file="b.png")], "files": {"a.png", "b.png"}}, {1}),
        ({"bill": {"A": 2}}, {2}),
        ({"files": set()}, {3}),
        ({"files": {"a.png", "b.png"}}, {3}),
        ({"rows": [READY, Row("2", "B", "pending", "", "")]}, {4}),
    ],
)
def test_the_invariants_see_what_contradicts_them(changes: dict[str, object], broken: set[int]) -> None:
    facts: dict[str, object] = {"rows": [READY], "accepted": {"A": {"1"}}, "bill": {"A": 1}, "files": {"a.png"}}
    verdicts = judge(**{**facts, **changes})  # type: ignore[arg-type]
    assert {number for number, verdict in enumerate(verdicts) if verdict.broken} == broken
