"""Comparing rows with files after a crash, a restored backup or a move, and putting right what differs.

Rows are read in windows of their primary key and files folder by folder, in groups, so memory does not grow with
their number. No transaction is held over a run: each mend stands for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...exceptions import StorageError
from .files import file_problems
from .findings import Finding, Kind, Problem
from .rows import check_storage, rescue, row_problems

__all__ = ["Finding", "Kind", "reconcile", "rescue"]

Progress = Callable[[str, int], None]


def reconcile(
    *,
    apply: bool = False,
    verify: bool = False,
    delete_orphans: bool = False,
    accept_loss: bool = False,
    progress: Progress | None = None,
) -> Iterator[Finding]:
    """Find where rows and files disagree, and put it right.

    It can run while the server works, and as often as one likes. An image whose server was stopped becomes ready
    where its whole file had reached the storage (`image_generated` is sent) and fails where not
    (`image_generation_failed` is sent). Files without a row get one that belongs to nobody.

    Args:
        apply: Put it right; without it nothing is changed.
        verify: Read every image and compare its size and digest with the row, too.
        delete_orphans: Remove files that have no row instead of giving them one.
        accept_loss: Go on where the database knows of images and the storage holds no file at all.
        progress: Called with the stage (`"rows"` or `"files"`) and how many of it have been looked at so far.

    Yields:
        What was wrong, one by one, each after its mending. What cannot be mended is told, and does not stop the rest.

    Raises:
        images.exceptions.StorageError: The storage is not there; the rows of its files are left as they are.
    """
    check_storage(accept_loss=accept_loss)
    problems = row_problems(verify=verify, accept_loss=accept_loss, count=_counter("rows", progress))
    yield from _findings(problems, apply=apply)
    problems = file_problems(delete_orphans=delete_orphans, count=_counter("files", progress))
    yield from _findings(problems, apply=apply)


def _findings(problems: Iterator[Problem], *, apply: bool) -> Iterator[Finding]:
    for problem in problems:
        finding = _mend(problem) if apply else problem.finding(mended=False)
        if finding:
            yield finding


def _mend(problem: Problem) -> Finding | None:
    """Put it right; `None` where somebody else has done so meanwhile."""
    if problem.mend is None:
        return problem.finding(mended=False)
    try:
        return problem.finding(mended=True) if problem.mend() else None
    except StorageError as err:
        return problem.finding(mended=False, sentence=err.message)


def _counter(stage: str, progress: Progress | None) -> Callable[[int], None]:
    """What adds up the batches of a stage for `progress`."""
    seen = 0

    def count(number: int) -> None:
        nonlocal seen
        seen += number
        if progress:
            progress(stage, seen)

    return count
