"""What can be wrong with rows: stopped, half deleted, without their file, with another file than they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from django.db.models import Q
from django.utils import timezone

from ...exceptions import StorageError
from ...models import STALE_AFTER, GeneratedImage, GeneratedImageQuerySet, Status
from ...storage import possible_names
from . import mending
from .contents import Contents, is_missing, look_into
from .findings import Kind, Problem
from .inventory import refuse_missing_storage

#: How many rows are fetched at once.
BATCH = 500
#: Everything but the long texts.
COLUMNS = ("pk", "status", "file", "file_stem", "size_bytes", "sha256", "deadline_at", "created_at", "started_at")

Count = Callable[[int], None]


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
    for batch in _batches(mending.rows().filter(status=Status.PENDING, deadline_at__lt=late), count):
        for row in batch:
            yield from _carefully(row, _stale)
    for batch in _batches(mending.rows().filter(status=Status.DELETING), count):
        yield from map(_half_deleted, batch)
    look = partial(_ready, verify=verify)
    for batch in _batches(mending.rows().filter(status=Status.READY), count):
        problems = [problem for row in batch for problem in _carefully(row, look)]
        if any(problem.kind == Kind.MISSING for problem in problems):
            check_storage(accept_loss=accept_loss)  # the disk may have gone since the run began
        yield from problems


def check_storage(*, accept_loss: bool) -> None:
    """Stop where the disk is not there, or holds nothing although there are images.

    Raises:
        StorageError: With the sentence for the operator.
    """
    refuse_missing_storage(rows_expect_files=not accept_loss and mending.rows().filter(status=Status.READY).exists())


def row_problem(row: GeneratedImage, kind: Kind, sentence: str, mend: Callable[[], bool] | None) -> Problem:
    """A problem of a row."""
    return Problem(kind=kind, image_id=row.pk, name=row.file.name or "", sentence=sentence, mend=mend)


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
    for name in _names(row):
        contents = look_into(name)
        if contents and contents.info:
            sentence = "The server was stopped after the file was stored; the image becomes ready."
            return row_problem(row, Kind.STALE, sentence, partial(mending.record_file, row, name, contents))
        if contents:
            broken.append(name)
    sentence = "The server was stopped while it made the image; the image counts as failed."
    return row_problem(row, Kind.STALE, sentence, partial(mending.fail_stopped, row, broken))


def _names(row: GeneratedImage) -> list[str]:
    """What the file of an unfinished row may be called."""
    return list(dict.fromkeys([*filter(None, [row.file.name]), *possible_names(row.file_stem)]))


def rescue(row: GeneratedImage) -> bool:
    """Let an unfinished row become ready where its whole file is in the storage; whether it did.

    For whoever comes upon a row whose process was stopped and is about to pay for the same picture again.

    Raises:
        StorageError: The storage cannot tell.
    """
    for name in _names(row):
        contents = look_into(name)
        if contents and contents.info:
            return mending.record_file(row, name, contents)
    return False


def _half_deleted(row: GeneratedImage) -> Problem:
    sentence = "The deletion was interrupted; it is finished."
    return row_problem(row, Kind.HALF_DELETED, sentence, partial(mending.finish_deletion, row))


def _ready(row: GeneratedImage, *, verify: bool) -> Problem | None:
    name = row.file.name or ""
    contents = look_into(name) if verify and name else None
    if contents:
        return _differing(row, name, contents)
    if is_missing(name):
        sentence = "The image's file is missing; the image counts as failed."
        return row_problem(row, Kind.MISSING, sentence, partial(mending.fail_missing, row))
    return None


def _differing(row: GeneratedImage, name: str, contents: Contents) -> Problem | None:
    if (contents.size, contents.sha256) == (row.size_bytes, row.sha256):
        return None
    if contents.info:
        sentence = "The file is a whole image, but not the one that the row describes; the row is corrected."
        return row_problem(row, Kind.CHANGED, sentence, partial(mending.correct, row, name, contents))
    sentence = "The file is damaged; it is removed and the image counts as failed."
    return row_problem(row, Kind.DAMAGED, sentence, partial(mending.fail_damaged, row, name))
