"""Whether the storage is there, and which files lie in it, through Django's Storage API."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from ...exceptions import StorageError
from ...local_files import FULL, READ_ONLY, local_path
from ...models import image_storage
from ...storage import ROOT, storage_problem
from .contents import MISSING, storage_errors

#: Our own names have one folder below `draft-images/`; a few more may come from elsewhere.
MAX_DEPTH = 8

NOT_LISTED = "The folder could not be listed. The server's log has the reason."
NOT_LISTABLE = "This storage cannot list its files, so those without a row cannot be found."
ALL_GONE = (
    f"There is no file at all under {ROOT}/, although the database knows of images. Most likely the disk is not "
    "mounted, so nothing was changed. If the files are really lost, allow it (accept_loss, --accept-loss)."
)
#: A disk that is full or read-only keeps files from being written, but not from being compared.
_STILL_THERE = (None, FULL, READ_ONLY)


class _NotListable(StorageError):
    """The storage knows no folders."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file, or a folder that could not be listed (`error`)."""

    name: str
    error: StorageError | None = None


def refuse_missing_storage(*, rows_expect_files: bool) -> None:
    """Stop where the disk is not there: its files are not lost, and come back with it.

    Args:
        rows_expect_files: Whether there must be at least one file.

    Raises:
        StorageError: The media root is missing or does not answer, or is empty although rows have files.
    """
    problem = storage_problem()
    if problem not in _STILL_THERE:
        raise StorageError(problem or "")
    if not rows_expect_files:
        return
    with contextlib.suppress(_NotListable):
        if not any(_list(ROOT)):
            raise StorageError(ALL_GONE)


def walk() -> Iterator[Entry]:
    """Every file under `draft-images/`, folder by folder; hidden folders and symbolic links to folders are left out.

    A folder that cannot be listed is an entry of its own and does not stop the rest.
    """
    yield from _walk(ROOT, MAX_DEPTH)


def _walk(folder: str, depth: int) -> Iterator[Entry]:
    try:
        folders, files = _list(folder)
    except StorageError as err:
        yield Entry(name=folder, error=err)
        return
    for file in files:
        yield Entry(name=f"{folder}/{file}")
    for inner in folders:
        name = f"{folder}/{inner}"
        if depth > 1 and not inner.startswith(".") and not _is_link(name):
            yield from _walk(name, depth - 1)


def _list(folder: str) -> tuple[list[str], list[str]]:
    """The sorted names of a folder's folders and files; none where it is not there."""
    with storage_errors("list", folder, NOT_LISTED):
        try:
            folders, files = image_storage().listdir(folder)
        except MISSING:
            return [], []
        except NotImplementedError as err:
            raise _NotListable(NOT_LISTABLE) from err
    # Object stores may list the folder itself, as "".
    return sorted(filter(None, folders)), sorted(filter(None, files))


def _is_link(folder: str) -> bool:
    """Whether a folder is a link to somewhere else: what lies there is not ours, and may lead back here."""
    path = local_path(image_storage(), folder)
    return path is not None and os.path.islink(path)
