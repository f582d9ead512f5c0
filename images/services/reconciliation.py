"""Comparing rows with files after a crash, a restored backup or a move, and repairing the differences.

Rows are read in batches and files folder by folder, or from a bucket a thousand at a time, so memory use hardly grows
with their number: of each file in a bucket eight bytes are kept. Each repair is a transaction of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from array import array
from bisect import bisect_left
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from itertools import groupby, islice

from django.conf import settings
from django.db.models import Q
from django.utils import timezone
from django.utils.timezone import make_naive

from .. import storage
from ..bucket import ListedFile
from ..exceptions import StorageError
from ..file_names import ROOT, can_have_row, has_picture_name, is_plain_name, picture_of_note
from ..local_files import FULL, READ_ONLY, local_path
from ..models import STALE_AFTER, GeneratedImage, GeneratedImageQuerySet, Status, image_storage
from ..storage import is_missing, modified_at
from . import budgets, repair
from .database import rows
from .repair import Contents, look_into, possible_files, rescue

__all__ = ["Discrepancy", "Kind", "reconcile", "rescue"]

#: How many rows or files are examined together.
BATCH = 500
#: How many files without a row get one with the same statement.
ADOPTED_AT_ONCE = 100
#: Everything but the long texts.
COLUMNS = (
    "pk", "status", "file", "file_stem", "size_bytes", "sha256", "deadline_at", "created_at", "started_at",
    "provider", "content_credentials",
)  # fmt: skip
#: A half-written file older than this does not belong to a running generation.
LEFTOVER_AFTER = timedelta(hours=1)
#: How many folders deep to look. Our own names have one folder below `draft-images/`; imported ones may have more.
MAX_DEPTH = 8

ALL_GONE = (
    f"There is no file at all under {ROOT}/, although the database has images. Most likely the disk is not "
    "mounted, so nothing was changed. If the files are really lost, confirm that with accept_loss (--accept-loss)."
)
#: Files on a full or read-only disk cannot be written, but they can be compared.
_STILL_THERE = (None, FULL, READ_ONLY)
_LEFTOVER = re.compile(r"\..*\.part", re.DOTALL)
_WITH_ROW = {Status.READY, Status.PENDING, Status.DELETING}

Progress = Callable[[str, int], None]
Count = Callable[[int], None]


class Kind(StrEnum):
    """The kinds of discrepancies between rows and files. The values are stable: scripts read them."""

    STALE = "stale"
    """A row is still pending long past its deadline: its process was stopped."""
    UNRECORDED = "unrecorded"
    """A failed row's whole file is in the storage: it was paid for."""
    MISSING = "missing"
    """A ready row has no file."""
    DAMAGED = "damaged"
    """A row's file is not a whole image."""
    CHANGED = "changed"
    """A ready row's file is a whole image, but not the one that the row describes."""
    HALF_DELETED = "half_deleted"
    """A deletion was interrupted."""
    ORPHAN = "orphan"
    """A whole image has no row."""
    NOT_AN_IMAGE = "not_an_image"
    """A file has no row and is not an image that the API can serve."""
    LEFTOVER = "leftover"
    """A half-written file was left by a process that was stopped."""
    BUDGET = "budget"
    """The sums of a budget were not what the rows say, or a row that has ended still had a reservation."""
    UNREADABLE = "unreadable"
    """The storage could not read a file or a folder."""


@dataclass(frozen=True, kw_only=True)
class Discrepancy:
    """A difference between a row and a file.

    Attributes:
        kind: Its kind.
        image_id: The row's primary key; `None` for a file without a row.
        name: The file's name in the storage, or "".
        mended: Whether it has been repaired. Always false in a dry run.
        sentence: What is wrong, and what is done about it or why it could not be repaired.
    """

    kind: Kind
    image_id: uuid.UUID | None
    name: str
    mended: bool
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A discrepancy that has been found, and how to repair it.

    Attributes:
        kind: Its kind.
        image_id: The row's primary key; `None` for a file without a row.
        name: The file's name in the storage, or "".
        sentence: What is wrong, and what `repair` does about it.
        repair: Repairs it. Returns false if another process has repaired or changed it in the meantime. Raises
            `StorageError` if it cannot. `None` if only a person can help.
        contents: What an image without a row holds. Such images get their rows in groups, not one by one by `repair`.
        modified: When that image was last written, if the listing says so.
    """

    kind: Kind
    image_id: uuid.UUID | None = None
    name: str = ""
    sentence: str
    repair: Callable[[], bool] | None = None
    contents: Contents | None = None
    modified: datetime | None = None

    def discrepancy(self, *, mended: bool, sentence: str = "") -> Discrepancy:
        """What is reported to the caller; `sentence` replaces the problem's own."""
        return Discrepancy(
            kind=self.kind, image_id=self.image_id, name=self.name, mended=mended, sentence=sentence or self.sentence
        )


def reconcile(
    *,
    apply: bool = False,
    verify: bool = False,
    delete_orphans: bool = False,
    accept_loss: bool = False,
    progress: Progress | None = None,
) -> Iterator[Discrepancy]:
    """Find discrepancies between rows and files, and repair them.

    It can run while the server works, and any number of times. If a server was stopped during a generation, the image
    becomes ready if its whole file was stored (`image_generated` is sent), and fails otherwise
    (`image_generation_failed` is sent). A file without a row gets a row without an owner.

    Args:
        apply: Repair the discrepancies; otherwise nothing is changed.
        verify: Also read every image, compare its size and digest with the row, and look for Content Credentials in
            the images of earlier releases.
        delete_orphans: Remove files without a row instead of adopting them.
        accept_loss: Continue even if the database has images and the storage has no file at all.
        progress: Called with the stage (`"rows"` or `"files"`) and how many have been examined so far.

    Yields:
        Each discrepancy, after its repair. One that cannot be repaired is reported and does not stop the rest.

    Raises:
        images.exceptions.StorageError: The storage is not available; the rows are left as they are.
    """
    check_storage(accept_loss=accept_loss)
    count, names = _counter("rows", progress), names_in_bucket()
    problems = row_problems(verify=verify, accept_loss=accept_loss, apply=apply, count=count, names=names)
    yield from _discrepancies(problems, apply=apply)
    problems = file_problems(delete_orphans=delete_orphans, count=_counter("files", progress))
    yield from _discrepancies(problems, apply=apply)
    yield from _discrepancies(budget_problems(), apply=apply)


def _discrepancies(problems: Iterator[Problem], *, apply: bool) -> Iterator[Discrepancy]:
    if not apply:
        yield from (problem.discrepancy(mended=False) for problem in problems)
        return
    for are_orphans, group in groupby(problems, key=lambda problem: problem.contents is not None):
        handle = _adopt if are_orphans else _repair_each
        yield from filter(None, handle(group))


def _adopt(problems: Iterator[Problem]) -> Iterator[Discrepancy | None]:
    """Create the rows of images that have none, in groups."""
    while group := list(islice(problems, ADOPTED_AT_ONCE)):
        times = {problem.name: problem.modified for problem in group if problem.modified}
        outcomes = repair.adopt({problem.name: problem.contents for problem in group if problem.contents}, times)
        for problem in group:
            outcome = outcomes[problem.name]
            if isinstance(outcome, StorageError):
                yield problem.discrepancy(mended=False, sentence=outcome.message)
            else:
                yield problem.discrepancy(mended=True) if outcome else None


def _repair_each(problems: Iterator[Problem]) -> Iterator[Discrepancy | None]:
    return map(_repair, problems)


def _repair(problem: Problem) -> Discrepancy | None:
    """Repair a problem; `None` if another process has done so in the meantime."""
    if problem.repair is None:
        return problem.discrepancy(mended=False)
    try:
        return problem.discrepancy(mended=True) if problem.repair() else None
    except StorageError as err:
        return problem.discrepancy(mended=False, sentence=err.message)


def _counter(stage: str, progress: Progress | None) -> Callable[[int], None]:
    """A function that adds up the batches of a stage for `progress`."""
    seen = 0

    def count(number: int) -> None:
        nonlocal seen
        seen += number
        if progress:
            progress(stage, seen)

    return count


# --- problems of rows ---------------------------------------------------------------------------------------------


def row_problems(
    *, verify: bool, accept_loss: bool, apply: bool = False, count: Count, names: Container[str] = ()
) -> Iterator[Problem]:
    """The problems of rows.

    Args:
        verify: Also read the files of ready rows.
        accept_loss: Continue even if no ready row has a file.
        apply: Record what nobody has looked at in the files that are read. That is no problem, so none is reported.
        count: Called with the number of rows of each batch.
        names: Files that were listed a moment ago, so that nobody needs to look for them.

    Raises:
        StorageError: The disk is gone.
    """
    late = timezone.now() - STALE_AFTER
    for batch in _batches(rows().filter(status=Status.PENDING, deadline_at__lt=late), count):
        for row in batch:
            yield from _carefully(row, _stale)
    for batch in _batches(rows().filter(status=Status.DELETING), count):
        yield from map(_half_deleted, batch)
    look = partial(_ready, verify=verify, apply=apply, names=names)
    for batch in _batches(rows().filter(status=Status.READY), count):
        problems = [problem for row in batch for problem in _carefully(row, look)]
        if any(problem.kind == Kind.MISSING for problem in problems):
            check_storage(accept_loss=accept_loss)  # the disk may have been lost since the run began
        yield from problems


def check_storage(*, accept_loss: bool) -> None:
    """Make sure that the disk is available, and not empty although there are images.

    Raises:
        StorageError: It is not; with a sentence for the operator.
    """
    refuse_missing_storage(rows_expect_files=not accept_loss and rows().filter(status=Status.READY).exists())


def row_problem(row: GeneratedImage, kind: Kind, sentence: str, repair_it: Callable[[], bool] | None) -> Problem:
    """A problem of a row."""
    return Problem(kind=kind, image_id=row.pk, name=row.file.name or "", sentence=sentence, repair=repair_it)


def _batches(wanted: GeneratedImageQuerySet, count: Count) -> Iterator[list[GeneratedImage]]:
    """Rows of one status in batches, newest first. Repairing rows does not shift the batches.

    The order is that of the index on status and time; ordered by primary key, a database might sort all rows for each
    batch.
    """
    window = wanted = wanted.order_by("-created_at", "-pk").only(*COLUMNS)
    while batch := list(window[:BATCH]):
        yield batch
        last = batch[-1]
        older = Q(created_at__lt=last.created_at) | Q(pk__lt=last.pk)
        window = wanted.filter(older, created_at__lte=last.created_at)
        count(len(batch))


def _carefully(row: GeneratedImage, look: Callable[[GeneratedImage], Problem | None]) -> Iterator[Problem]:
    """The problem that `look` finds, or that the storage could not be read."""
    try:
        problem = look(row)
    except StorageError as err:
        problem = row_problem(row, Kind.UNREADABLE, err.message, None)
    if problem:
        yield problem


def _stale(row: GeneratedImage) -> Problem:
    """The process was stopped: its picture was either stored before that, or is lost."""
    broken = []
    for name in possible_files(row):
        contents = look_into(name)
        if contents and contents.info:
            sentence = "The server was stopped after the file was stored; the image becomes ready."
            return row_problem(row, Kind.STALE, sentence, partial(repair.record_file, row, name, contents))
        if contents:
            broken.append(name)
    sentence = "The server was stopped while it made the image; the image counts as failed."
    return row_problem(row, Kind.STALE, sentence, partial(repair.fail_stopped, row, broken))


def _half_deleted(row: GeneratedImage) -> Problem:
    sentence = "The deletion was interrupted; it is finished."
    return row_problem(row, Kind.HALF_DELETED, sentence, partial(repair.finish_deletion, row))


def _ready(row: GeneratedImage, *, verify: bool, apply: bool, names: Container[str]) -> Problem | None:
    name = row.file.name or ""
    contents = look_into(name) if verify and name else None
    if contents:
        problem = _differing(row, name, contents)
        if apply and not problem and row.content_credentials is None:
            repair.correct(row, name, contents)
        return problem
    if (verify or name not in names) and is_missing(name):
        sentence = "The image's file is missing; the image counts as failed."
        return row_problem(row, Kind.MISSING, sentence, partial(repair.fail_missing, row))
    return None


def _differing(row: GeneratedImage, name: str, contents: Contents) -> Problem | None:
    if (contents.size, contents.sha256) == (row.size_bytes, row.sha256):
        return None
    if contents.info:
        sentence = "The file is a whole image, but not the one that the row describes; the row is corrected."
        return row_problem(row, Kind.CHANGED, sentence, partial(repair.correct, row, name, contents))
    sentence = "The file is damaged; it is removed and the image counts as failed."
    return row_problem(row, Kind.DAMAGED, sentence, partial(repair.fail_damaged, row, name))


# --- problems of budgets ------------------------------------------------------------------------------------------


def budget_problems() -> Iterator[Problem]:
    """Reservations of rows that have ended, and sums that are not those of the rows. None without a budget."""
    for row in budgets.unsettled().iterator() if budgets.are_set() else ():
        sentence = "The image's generation has ended, but still holds a part of a budget; it is settled."
        yield row_problem(row, Kind.BUDGET, sentence, partial(budgets.settle, row))
    for budget in budgets.drifted():
        sentence = (
            f"The sums of {budget.spelling} for the {budget.kind} from {budget.starts_on} are not those of the rows; "
            "they are counted anew."
        )
        yield Problem(kind=Kind.BUDGET, sentence=sentence, repair=partial(budgets.recount, budget))


# --- problems of files --------------------------------------------------------------------------------------------


class Names:
    """Names of files, as their hashes: eight bytes each. Two of a million are alike once in 37 million runs."""

    def __init__(self) -> None:
        self._hashes, self._is_sorted = array("q"), True

    def add(self, name: str) -> None:
        """Add a name."""
        self._hashes.append(hash(name))
        self._is_sorted = False

    def __contains__(self, name: object) -> bool:
        if not self._is_sorted:
            self._hashes, self._is_sorted = array("q", sorted(self._hashes)), True
        wanted = hash(name)
        position = bisect_left(self._hashes, wanted)
        return position < len(self._hashes) and self._hashes[position] == wanted


def names_in_bucket() -> Names:
    """Every file of a bucket, with one call for a thousand; nothing if the storage is of another kind.

    If the bucket stops answering, the rest is missing, and each row's file is looked for.
    """
    names = Names()
    with contextlib.suppress(StorageError):
        for file in storage.list_bucket() or ():
            names.add(file.name)
    return names


def file_problems(*, delete_orphans: bool, count: Count) -> Iterator[Problem]:
    """The problems of files.

    Args:
        delete_orphans: Remove files without a row.
        count: Called with the number of files of each batch.
    """
    entries = walk()
    while group := list(islice(entries, BATCH)):
        found = _rows_of([entry.name for entry in group if _can_have_row(entry.name)])
        for entry in group:
            try:
                problem = _look(entry, found.get(entry.name), delete_orphans=delete_orphans)
            except StorageError as err:
                problem = Problem(kind=Kind.UNREADABLE, name=entry.name, sentence=err.message)
            if problem:
                yield problem
        count(len(group))


def _can_have_row(name: str) -> bool:
    """Whether a row can hold the name and the API serves it as a picture."""
    return has_picture_name(name) and can_have_row(name)


def _rows_of(names: list[str]) -> dict[str, GeneratedImage]:
    """The rows that files belong to, found by the file's name, or by `file_stem` if no file was recorded."""
    stems = {name: name.rpartition(".")[0] for name in names}
    known = rows().only(*COLUMNS).order_by("status")  # "ready" comes last and wins
    by_file = {row.file.name: row for row in known.filter(file__in=names)}
    others = {stem for name, stem in stems.items() if name not in by_file}
    by_stem = {row.file_stem: row for row in known.filter(file_stem__in=others)}
    found = {}
    for name, stem in stems.items():
        row = by_file.get(name) or by_stem.get(stem)
        if row and (row.file.name == name or row.status != Status.READY):
            found[name] = row
    return found


def _look(entry: Entry, row: GeneratedImage | None, *, delete_orphans: bool) -> Problem | None:
    name = entry.name
    if entry.error:
        raise entry.error
    if any(part.startswith(".") for part in name.split("/")):
        return _leftover(entry)
    if row is None:
        return _orphan_to_remove(name) if delete_orphans and is_plain_name(name) else _orphan(entry)
    # A pending row's file is being written, or was reported with the rows; the same holds for a deletion.
    return None if row.status in _WITH_ROW else _unrecorded(row, name)


def _leftover(entry: Entry) -> Problem | None:
    name = entry.name
    is_ours = _LEFTOVER.fullmatch(name.rpartition("/")[2])
    picture = picture_of_note(name)
    modified = (entry.modified or modified_at(name)) if is_ours or picture else None
    if modified is None or timezone.now() - modified < LEFTOVER_AFTER or (picture and not is_missing(picture)):
        return None
    sentence = "A half-written file was left by a server that was stopped; it is removed."
    if picture:
        sentence = "A note about a picture that is gone is left; it is removed."
    return Problem(kind=Kind.LEFTOVER, name=name, sentence=sentence, repair=partial(storage.remove_leftover, name))


def _unrecorded(row: GeneratedImage, name: str) -> Problem | None:
    """A file of a row that counts as failed."""
    contents = look_into(name)
    if contents is None:
        return None
    if contents.info:
        sentence = "The image counts as failed, but its whole file is here; it becomes ready."
        return row_problem(row, Kind.UNRECORDED, sentence, partial(repair.record_file, row, name, contents))
    sentence = "The file of a failed image is damaged; it is removed."
    return row_problem(row, Kind.DAMAGED, sentence, partial(repair.fail_damaged, row, name))


def _orphan(entry: Entry) -> Problem | None:
    name, contents = entry.name, None
    if _can_have_row(name):
        contents = look_into(name)
        if contents is None:
            return None  # deleted since it was listed
    if contents and contents.info:
        sentence = "The image has no row; it gets one without an owner."
        return Problem(kind=Kind.ORPHAN, name=name, sentence=sentence, contents=contents, modified=entry.modified)
    sentence = "The file has no row and is not a whole PNG, JPEG or WebP image; it is left alone."
    return Problem(kind=Kind.NOT_AN_IMAGE, name=name, sentence=sentence)


def _orphan_to_remove(name: str) -> Problem:
    kind = Kind.ORPHAN if has_picture_name(name) else Kind.NOT_AN_IMAGE
    sentence = "The file has no row; it is removed."
    return Problem(kind=kind, name=name, sentence=sentence, repair=partial(repair.remove_orphan, name))


# --- listing files ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file, or a folder that could not be listed (`error`). A bucket says when files were `modified`."""

    name: str
    error: StorageError | None = None
    modified: datetime | None = None


def refuse_missing_storage(*, rows_expect_files: bool) -> None:
    """Stop if the disk is not mounted: its files are not lost, and come back with it.

    Args:
        rows_expect_files: Whether there must be at least one file.

    Raises:
        StorageError: The media root is missing or does not answer, or is empty although rows have files.
    """
    problem = storage.disk_problem()
    if problem not in _STILL_THERE:
        raise StorageError(problem or "")
    if not rows_expect_files:
        return
    with contextlib.suppress(storage.NotListable):
        if not storage.holds_files():
            raise StorageError(ALL_GONE)


def walk() -> Iterator[Entry]:
    """Every file, without hidden folders and symbolic links to folders."""
    listed = storage.list_bucket()
    return _walk_folder(ROOT, MAX_DEPTH) if listed is None else _walk_bucket(listed)


def _walk_bucket(listed: Iterator[ListedFile]) -> Iterator[Entry]:
    try:
        for file in listed:
            folders = file.name.split("/")[1:-1]
            if len(folders) < MAX_DEPTH and not any(folder.startswith(".") for folder in folders):
                modified = file.modified if settings.USE_TZ else make_naive(file.modified)
                yield Entry(name=file.name, modified=modified)
    except StorageError as err:
        yield Entry(name=ROOT, error=err)


def _walk_folder(folder: str, depth: int) -> Iterator[Entry]:
    """Every file below a folder, without hidden folders and symbolic links to folders.

    A folder that cannot be listed is an entry with an error and does not stop the rest.
    """
    try:
        folders, files = storage.list_folder(folder)
    except StorageError as err:
        yield Entry(name=folder, error=err)
        return
    for file in files:
        yield Entry(name=f"{folder}/{file}")
    for inner in folders:
        name = f"{folder}/{inner}"
        if depth > 1 and not inner.startswith(".") and not _is_link(name):
            yield from _walk_folder(name, depth - 1)


def _is_link(folder: str) -> bool:
    """Whether a folder is a symbolic link, which may lead out of the storage or back into it."""
    path = local_path(image_storage(), folder)
    return path is not None and os.path.islink(path)
