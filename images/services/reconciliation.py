"""Comparing rows with files after a crash, a restored backup or a move, and putting right what differs.

Rows are read in windows of their primary key and files folder by folder, in groups, so memory does not grow with
their number. No transaction is held over a run: each repair stands for itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from itertools import islice

from django.db.models import Q
from django.utils import timezone

from .. import storage
from ..exceptions import StorageError
from ..local_files import FULL, READ_ONLY, local_path
from ..models import STALE_AFTER, GeneratedImage, GeneratedImageQuerySet, Status, image_storage
from ..storage import ROOT, has_picture_name, is_missing, is_plain_name, modified_at
from . import repair
from .database import rows
from .repair import Contents, look_into, possible_files, rescue

__all__ = ["Finding", "Kind", "reconcile", "rescue"]

#: How many rows or files are looked at together.
BATCH = 500
#: Everything but the long texts.
COLUMNS = ("pk", "status", "file", "file_stem", "size_bytes", "sha256", "deadline_at", "created_at", "started_at")
#: A half-written file that is older than this belongs to no generation any more.
LEFTOVER_AFTER = timedelta(hours=1)
#: Our own names have one folder below `draft-images/`; a few more may come from elsewhere.
MAX_DEPTH = 8

ALL_GONE = (
    f"There is no file at all under {ROOT}/, although the database knows of images. Most likely the disk is not "
    "mounted, so nothing was changed. If the files are really lost, allow it (accept_loss, --accept-loss)."
)
#: A disk that is full or read-only keeps files from being written, but not from being compared.
_STILL_THERE = (None, FULL, READ_ONLY)
_LEFTOVER = re.compile(r"\..*\.part", re.DOTALL)
_WITH_ROW = {Status.READY, Status.PENDING, Status.DELETING}

Progress = Callable[[str, int], None]
Count = Callable[[int], None]


class Kind(StrEnum):
    """What can be wrong between the rows and the files. The values are stable: scripts read them."""

    STALE = "stale"
    """A row is pending although its deadline is long past: its process was stopped."""
    UNRECORDED = "unrecorded"
    """A failed row's whole file lies there: it is paid for."""
    MISSING = "missing"
    """A ready row has no file."""
    DAMAGED = "damaged"
    """A row's file is no whole image."""
    CHANGED = "changed"
    """A ready row's file is a whole image, but not the one that the row describes."""
    HALF_DELETED = "half_deleted"
    """A deletion was interrupted."""
    ORPHAN = "orphan"
    """A whole image has no row."""
    NOT_AN_IMAGE = "not_an_image"
    """A file has no row and is no image that the API can serve."""
    LEFTOVER = "leftover"
    """A half-written file was left by a process that was stopped."""
    UNREADABLE = "unreadable"
    """The storage could not be asked about a file or a folder."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was wrong.

    Attributes:
        kind: What it is.
        image_id: The row it concerns; `None` for a file that had none.
        name: The file's name in the storage, or "".
        mended: Whether it has been put right. Always false in a dry run.
        sentence: What is the matter, and what is done about it or why it could not be.
    """

    kind: Kind
    image_id: uuid.UUID | None
    name: str
    mended: bool
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is wrong, and how to put it right.

    Attributes:
        kind: What it is.
        image_id: The row it concerns; `None` for a file that has none.
        name: The file's name in the storage, or "".
        sentence: What is the matter and what `repair` does about it.
        repair: Puts it right. Returns whether it did: false if another process had put it right or changed it.
            Raises `StorageError` if it cannot. `None` if only a person can help.
    """

    kind: Kind
    image_id: uuid.UUID | None = None
    name: str = ""
    sentence: str
    repair: Callable[[], bool] | None = None

    def finding(self, *, mended: bool, sentence: str = "") -> Finding:
        """What the caller is told; `sentence` replaces the problem's own."""
        return Finding(
            kind=self.kind, image_id=self.image_id, name=self.name, mended=mended, sentence=sentence or self.sentence
        )


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
    if its whole file had reached the storage (`image_generated` is sent) and fails if not
    (`image_generation_failed` is sent). Files without a row get one that has no owner.

    Args:
        apply: Put it right; without it nothing is changed.
        verify: Read every image and compare its size and digest with the row, too.
        delete_orphans: Remove files that have no row instead of giving them one.
        accept_loss: Go on if the database knows of images and the storage holds no file at all.
        progress: Called with the stage (`"rows"` or `"files"`) and how many of it have been looked at so far.

    Yields:
        What was wrong, one by one, each after its repair. What cannot be repaired is reported and does not stop the
        rest.

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
        finding = _repair(problem) if apply else problem.finding(mended=False)
        if finding:
            yield finding


def _repair(problem: Problem) -> Finding | None:
    """Put it right; `None` if another process has done so meanwhile."""
    if problem.repair is None:
        return problem.finding(mended=False)
    try:
        return problem.finding(mended=True) if problem.repair() else None
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


# --- what can be wrong with rows ---------------------------------------------------------------------------------


def row_problems(*, verify: bool, accept_loss: bool, count: Count) -> Iterator[Problem]:
    """Everything that is wrong with the rows.

    Args:
        verify: Read the ready rows' files, too.
        accept_loss: Ready rows may be without a single file.
        count: Called with the number of rows of each batch.

    Raises:
        StorageError: The disk has gone.
    """
    late = timezone.now() - STALE_AFTER
    for batch in _batches(rows().filter(status=Status.PENDING, deadline_at__lt=late), count):
        for row in batch:
            yield from _carefully(row, _stale)
    for batch in _batches(rows().filter(status=Status.DELETING), count):
        yield from map(_half_deleted, batch)
    look = partial(_ready, verify=verify)
    for batch in _batches(rows().filter(status=Status.READY), count):
        problems = [problem for row in batch for problem in _carefully(row, look)]
        if any(problem.kind == Kind.MISSING for problem in problems):
            check_storage(accept_loss=accept_loss)  # the disk may have gone since the run began
        yield from problems


def check_storage(*, accept_loss: bool) -> None:
    """Stop if the disk is not there, or holds nothing although there are images.

    Raises:
        StorageError: With the sentence for the operator.
    """
    refuse_missing_storage(rows_expect_files=not accept_loss and rows().filter(status=Status.READY).exists())


def row_problem(row: GeneratedImage, kind: Kind, sentence: str, repair_it: Callable[[], bool] | None) -> Problem:
    """A problem of a row."""
    return Problem(kind=kind, image_id=row.pk, name=row.file.name or "", sentence=sentence, repair=repair_it)


def _batches(wanted: GeneratedImageQuerySet, count: Count) -> Iterator[list[GeneratedImage]]:
    """Rows of one status in windows, newest first, which mending them does not shift.

    The order is that of the index on status and time: by primary key, a database may sort all rows for each window.
    """
    window = wanted = wanted.order_by("-created_at", "-pk").only(*COLUMNS)
    while batch := list(window[:BATCH]):
        yield batch
        last = batch[-1]
        older = Q(created_at__lt=last.created_at) | Q(pk__lt=last.pk)
        window = wanted.filter(older, created_at__lte=last.created_at)
        count(len(batch))


def _carefully(row: GeneratedImage, look: Callable[[GeneratedImage], Problem | None]) -> Iterator[Problem]:
    """What `look` finds, or that it could not look."""
    try:
        problem = look(row)
    except StorageError as err:
        problem = row_problem(row, Kind.UNREADABLE, err.message, None)
    if problem:
        yield problem


def _stale(row: GeneratedImage) -> Problem:
    """The process was stopped: either the picture reached the storage before, or it is lost."""
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


def _ready(row: GeneratedImage, *, verify: bool) -> Problem | None:
    name = row.file.name or ""
    contents = look_into(name) if verify and name else None
    if contents:
        return _differing(row, name, contents)
    if is_missing(name):
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


# --- what can be wrong with files --------------------------------------------------------------------------------


def file_problems(*, delete_orphans: bool, count: Callable[[int], None]) -> Iterator[Problem]:
    """Everything that is wrong with the files.

    Args:
        delete_orphans: Files without a row are to be removed.
        count: Called with the number of files of each group.
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
    """Whether the name is one that a row can keep and the API serves as a picture."""
    return has_picture_name(name) and storage.can_have_row(name)


def _rows_of(names: list[str]) -> dict[str, GeneratedImage]:
    """The rows to which files belong: they name them, or knew from the start what theirs would be called."""
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
        return _leftover(name)
    if row is None:
        return _orphan_to_remove(name) if delete_orphans and is_plain_name(name) else _orphan(name)
    # What is pending is being written, or was found with the rows; likewise what is being deleted.
    return None if row.status in _WITH_ROW else _unrecorded(row, name)


def _leftover(name: str) -> Problem | None:
    modified = modified_at(name) if _LEFTOVER.fullmatch(name.rpartition("/")[2]) else None
    if modified is None or timezone.now() - modified < LEFTOVER_AFTER:
        return None
    sentence = "A half-written file was left by a server that was stopped; it is removed."
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


def _orphan(name: str) -> Problem | None:
    contents = None
    if _can_have_row(name):
        contents = look_into(name)
        if contents is None:
            return None  # deleted since it was listed
    if contents and contents.info:
        sentence = "The image has no row; it gets one and belongs to nobody."
        return Problem(kind=Kind.ORPHAN, name=name, sentence=sentence, repair=partial(repair.adopt, name, contents))
    sentence = "The file has no row and is no whole PNG, JPEG or WebP image; it is left alone."
    return Problem(kind=Kind.NOT_AN_IMAGE, name=name, sentence=sentence)


def _orphan_to_remove(name: str) -> Problem:
    kind = Kind.ORPHAN if has_picture_name(name) else Kind.NOT_AN_IMAGE
    sentence = "The file has no row; it is removed."
    return Problem(kind=kind, name=name, sentence=sentence, repair=partial(repair.remove_orphan, name))


# --- which files there are ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file, or a folder that could not be listed (`error`)."""

    name: str
    error: StorageError | None = None


def refuse_missing_storage(*, rows_expect_files: bool) -> None:
    """Stop if the disk is not there: its files are not lost, and come back with it.

    Args:
        rows_expect_files: Whether there must be at least one file.

    Raises:
        StorageError: The media root is missing or does not answer, or is empty although rows have files.
    """
    problem = storage.storage_problem()
    if problem not in _STILL_THERE:
        raise StorageError(problem or "")
    if not rows_expect_files:
        return
    with contextlib.suppress(storage.NotListable):
        if not any(storage.list_folder(ROOT)):
            raise StorageError(ALL_GONE)


def walk(folder: str = ROOT, depth: int = MAX_DEPTH) -> Iterator[Entry]:
    """Every file below a folder; hidden folders and symbolic links to folders are left out.

    A folder that cannot be listed is an entry of its own and does not stop the rest.
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
            yield from walk(name, depth - 1)


def _is_link(folder: str) -> bool:
    """Whether a folder is a link to somewhere else: what lies there is not ours, and may lead back here."""
    path = local_path(image_storage(), folder)
    return path is not None and os.path.islink(path)
