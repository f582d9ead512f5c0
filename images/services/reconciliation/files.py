"""What can be wrong with files: nobody's, not recorded, half-written, no images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import islice

from django.utils import timezone

from ...exceptions import StorageError
from ...models import GeneratedImage, Status
from ...storage import ROOT, is_plain_path
from . import adoption, mending
from .contents import look_into, modified_at, remove_leftover
from .findings import Kind, Problem
from .inventory import Entry, walk
from .rows import BATCH, COLUMNS, row_problem

#: A half-written file that is older than this belongs to no generation any more.
LEFTOVER_AFTER = timedelta(hours=1)
#: The longest name of a file, in characters, that a row can hold.
MAX_NAME = 400

_LEFTOVER = re.compile(r"\..*\.part", re.DOTALL)
_PICTURE = re.compile(r".+\.(?:png|jpe?g|webp)", re.IGNORECASE)
_WITH_ROW = {Status.READY, Status.PENDING, Status.DELETING}


def file_problems(*, delete_orphans: bool, count: Callable[[int], None]) -> Iterator[Problem]:
    """Everything that is wrong with the files.

    Args:
        delete_orphans: Files without a row are to be removed.
        count: Called with the number of files of each group.
    """
    entries = walk()
    while group := list(islice(entries, BATCH)):
        rows = _rows_of([entry.name for entry in group if _can_have_row(entry.name)])
        for entry in group:
            try:
                problem = _look(entry, rows.get(entry.name), delete_orphans=delete_orphans)
            except StorageError as err:
                problem = Problem(kind=Kind.UNREADABLE, name=entry.name, sentence=err.message)
            if problem:
                yield problem
        count(len(group))


def _can_have_row(name: str) -> bool:
    """Whether the name is one that the database can keep and the API serves as a picture."""
    return _is_plain(name) and len(name) <= MAX_NAME and bool(_PICTURE.fullmatch(name))


def _is_plain(name: str) -> bool:
    """Whether the name can be written in UTF-8 (Linux takes any bytes for one) and means the same everywhere."""
    return name == name.encode("utf-8", "ignore").decode() and is_plain_path(name.removeprefix(f"{ROOT}/"))


def _rows_of(names: list[str]) -> dict[str, GeneratedImage]:
    """The rows to which files belong: they name them, or knew from the start what theirs would be called."""
    stems = {name: name.rpartition(".")[0] for name in names}
    rows = mending.rows().only(*COLUMNS).order_by("status")  # "ready" comes last and wins
    by_file = {row.file.name: row for row in rows.filter(file__in=names)}
    others = {stem for name, stem in stems.items() if name not in by_file}
    by_stem = {row.file_stem: row for row in rows.filter(file_stem__in=others)}
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
        return _orphan_to_remove(name) if delete_orphans and _is_plain(name) else _orphan(name)
    # What is pending is being written, or was found with the rows; likewise what is being deleted.
    return None if row.status in _WITH_ROW else _unrecorded(row, name)


def _leftover(name: str) -> Problem | None:
    modified = modified_at(name) if _LEFTOVER.fullmatch(name.rpartition("/")[2]) else None
    if modified is None or timezone.now() - modified < LEFTOVER_AFTER:
        return None
    sentence = "A half-written file was left by a server that was stopped; it is removed."
    return Problem(kind=Kind.LEFTOVER, name=name, sentence=sentence, mend=partial(remove_leftover, name))


def _unrecorded(row: GeneratedImage, name: str) -> Problem | None:
    """A file of a row that counts as failed."""
    contents = look_into(name)
    if contents is None:
        return None
    if contents.info:
        sentence = "The image counts as failed, but its whole file is here; it becomes ready."
        return row_problem(row, Kind.UNRECORDED, sentence, partial(mending.record_file, row, name, contents))
    sentence = "The file of a failed image is damaged; it is removed."
    return row_problem(row, Kind.DAMAGED, sentence, partial(mending.fail_damaged, row, name))


def _orphan(name: str) -> Problem | None:
    contents = None
    if _can_have_row(name):
        contents = look_into(name)
        if contents is None:
            return None  # deleted since it was listed
    if contents and contents.info:
        sentence = "The image has no row; it gets one and belongs to nobody."
        return Problem(kind=Kind.ORPHAN, name=name, sentence=sentence, mend=partial(adoption.adopt, name, contents))
    sentence = "The file has no row and is no whole PNG, JPEG or WebP image; it is left alone."
    return Problem(kind=Kind.NOT_AN_IMAGE, name=name, sentence=sentence)


def _orphan_to_remove(name: str) -> Problem:
    kind = Kind.ORPHAN if _PICTURE.fullmatch(name) else Kind.NOT_AN_IMAGE
    sentence = "The file has no row; it is removed."
    return Problem(kind=kind, name=name, sentence=sentence, mend=partial(adoption.remove_orphan, name))
