"""When a worker leaves its core, and that all of its threads go along."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.project.test_serve import ROOT
from trygo_backend.cores import Load, better_core, read_loads

STAT = """\
cpu  400 10 90 1500 20 5 15 0 7 0
cpu0 100 10 40 800 20 5 5 20 7 0
cpu1 300 0 50 700 0 0 10 0 0 0
intr 12345 0 0
ctxt 999
"""


def test_loads_are_what_was_not_idle_and_not_waiting_for_a_disk() -> None:
    assert read_loads(STAT) == {0: Load(busy=160, total=980), 1: Load(busy=360, total=1060)}


@pytest.mark.parametrize(
    ("busy", "own", "wanted"),
    [
        ({0: 90, 1: 10}, 0.85, None),  # it is we who are busy
        ({0: 90, 1: 10}, 0.20, 1),
        ({0: 90, 1: 60}, 0.20, None),  # no better over there
        ({0: 90, 1: 60, 2: 5}, 0.20, 2),
        ({0: 25, 1: 0}, 0.05, None),  # that little can be borne
        ({1: 0, 2: 0}, 0.20, None),  # our own core is not among them
        ({0: 90}, 0.20, None),
        ({}, 0.20, None),
    ],
)
def test_it_moves_where_others_take_much_of_its_core(busy: dict[int, int], own: float, wanted: int | None) -> None:
    before = {core: Load(busy=1000, total=5000) for core in busy}
    after = {core: Load(busy=1000 + ticks, total=5100) for core, ticks in busy.items()}
    assert better_core(0, own, before, after) == wanted


def test_a_core_that_was_unplugged_is_not_chosen() -> None:
    before = {core: Load(busy=0, total=0) for core in (0, 1)}
    assert better_core(0, 0.0, before, {0: Load(busy=100, total=100)}) is None


_MOVE = """
import json, os, threading
from trygo_backend import cores

os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:2]))
mine = sorted(os.sched_getaffinity(0))
over = threading.Event()
threads = [threading.Thread(target=over.wait) for _ in range(3)]
threads[0].start()
core = cores.OneCore(0, 1)
for thread in threads[1:]:
    thread.start()
ids = [os.getpid(), *(thread.native_id for thread in threads)]
begun = [sorted(os.sched_getaffinity(one)) for one in ids]
cores.better_core = lambda own_core, own, before, after: mine[1]
core.look()  # it is too early
assert core.core == mine[0]
cores.LOOK_SECONDS = 0, 0
core._look()
core.look()
moved = [sorted(os.sched_getaffinity(one)) for one in ids]
over.set()
print(json.dumps([mine, begun, moved]))
"""


def test_all_threads_move_along() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MOVE], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    mine, begun, moved = json.loads(done.stdout)
    if len(mine) < 2:
        pytest.skip("There is only one core.")
    assert begun == [[mine[0]]] * 4
    assert moved == [[mine[1]]] * 4
