"""SIGKILL to the real server at every point of a generation and of a deletion."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.crash.fragile import HALF, PICTURE
from tests.crash.server import Server

pytestmark = pytest.mark.slow


def assert_every_promise_is_kept(server: Server) -> None:
    """No row claims a missing or damaged file, and what was half-written is not served."""
    for row in server.listed():
        if row["status"] == "ready":
            answer = requests.get(row["imageUrl"], timeout=60)
            assert (answer.status_code, answer.content) == (200, PICTURE)
    for path in server.media.rglob(".*"):
        assert server.get(f"/media/{path.relative_to(server.media)}").status_code == 404


def files(server: Server) -> list[str]:
    return [path.name for path in server.media.rglob("*") if path.is_file()]


def crash_while_generating(server: Server, point: str) -> None:
    with server.running(crash_at=point), ThreadPoolExecutor(1) as pool:
        caller = pool.submit(server.generate)
        if point == "while the provider works":
            server.wait_for("generating")
            server.kill()
        with pytest.raises(requests.ConnectionError):
            caller.result()


#: Where it crashes -> the size of the hidden file that is left.
LOST = {
    "before the provider is called": [],
    "while the provider works": [],
    "after the answer": [],
    "half-way through the file": [HALF],
    "before the file is renamed into place": [len(PICTURE)],
}
KEPT = {"after the file": "pending", "before the row is ready": "pending", "after the row is ready": "ready"}


@pytest.mark.parametrize("point", LOST)
def test_a_crash_before_the_file_is_there_leaves_a_failed_row_and_a_free_key(server: Server, point: str) -> None:
    crash_while_generating(server, point)
    assert server.statuses() == ["pending"]
    assert [path.stat().st_size for path in server.media.rglob(".*")] == LOST[point]
    with server.running():
        assert_every_promise_is_kept(server)
        assert server.generate().json()["code"] == "request_in_progress"
        server.let_time_pass()
        assert [row["status"] for row in server.listed()] == ["failed"]
        assert server.reconcile() == ["stale", *("leftover" for _ in LOST[point])]
        assert server.statuses() == ["failed"]
        assert files(server) == []
        paid = server.paid
        assert server.generate().status_code == 200
        assert server.paid == paid + 1
        assert_every_promise_is_kept(server)


@pytest.mark.parametrize("point", KEPT)
def test_a_crash_after_the_file_is_there_keeps_the_picture_that_was_paid_for(server: Server, point: str) -> None:
    crash_while_generating(server, point)
    assert server.statuses() == [KEPT[point]]
    with server.running():
        assert_every_promise_is_kept(server)
        server.let_time_pass()
        assert server.reconcile() == (["stale"] if KEPT[point] == "pending" else [])
        assert server.statuses() == ["ready"]
        assert_every_promise_is_kept(server)
        again = server.generate()
        assert again.headers["Idempotency-Replayed"] == "true"
        assert requests.get(again.json()["imageUrl"], timeout=60).content == PICTURE
        assert server.paid == 1


def crash_while_deleting(server: Server, point: str) -> dict[str, Any]:
    """The image as it was before."""
    with server.running(crash_at=point):
        made: dict[str, Any] = server.generate().json()
        with pytest.raises(requests.ConnectionError):
            server.delete(made["id"])
    return made


HALF_DELETED = [
    "after the mark is written",  # which commits itself
    "after the mark",
    "after the file is removed",
    "after the row goes and before the commit",
]


@pytest.mark.parametrize("finished_by", ["reconciliation", "the next DELETE"])
@pytest.mark.parametrize("point", HALF_DELETED)
def test_a_crash_half_way_through_a_deletion_is_finished(server: Server, point: str, finished_by: str) -> None:
    made = crash_while_deleting(server, point)
    assert server.statuses() == ["deleting"]
    with server.running():
        assert server.listed() == []
        if finished_by == "reconciliation":
            assert server.reconcile() == ["half_deleted"]
        else:
            assert server.delete(made["id"]).json() == {"success": True, "id": made["id"]}
        assert server.statuses() == files(server) == []
        assert requests.get(made["imageUrl"], timeout=60).status_code == 404
        assert server.delete(made["id"]).status_code == 404


def test_a_crash_before_a_deletion_has_begun_leaves_the_picture_whole(server: Server) -> None:
    crash_while_deleting(server, "before the mark is written")
    with server.running():
        assert server.statuses() == ["ready"]
        assert_every_promise_is_kept(server)


def test_a_crash_after_a_deletion_leaves_nothing(server: Server) -> None:
    crash_while_deleting(server, "after the row is gone")
    assert server.statuses() == files(server) == []
