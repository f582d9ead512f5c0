"""Where files live: saving and removing them through Django's Storage API.

Everything lies under `draft-images/` of the storage that `IMAGES["STORAGE"]` names. A storage in a folder of this
machine gets its files renamed into place, so that a file that can be fetched is a whole file; any other is handed the
bytes. Whatever a storage raises leaves this module as `StorageError`, whose message never holds a path.

A media root that is missing is an error here: an unmounted disk must not be replaced by an empty folder on the wrong
one. Only the first image of all makes it, since no file can be lost yet.

Files are not forced to the platter (`fsync`): that would cost more than the rest of the request, and what a power cut
takes is found by comparing sizes and digests with the rows.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator

from django.core.files.base import ContentFile
from django.db import router

from .conf import conf
from .exceptions import StorageError
from .local_files import (
    FULL,
    GONE,
    READ_ONLY,
    folder_problem,
    local_path,
    make_media_root,
    media_root,
    remove_if_empty,
    write_into_place,
)
from .logs import log_event
from .models import GeneratedImage, image_storage
from .names import ROOT, file_stem, is_plain_path, new_token, possible_names, safe_directory

__all__ = [
    "ROOT",
    "check_space",
    "file_stem",
    "is_plain_path",
    "new_token",
    "possible_names",
    "remove",
    "safe_directory",
    "save",
    "storage_problem",
]

logger = logging.getLogger("images")

_SENTENCES = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: "The file is larger than the disk or the process may hold. The operator has to look at its limits.",
    errno.EROFS: READ_ONLY,
    errno.EACCES: READ_ONLY,
    errno.EPERM: READ_ONLY,
    errno.ENOENT: GONE,
}
_NOT_REMOVED = "The image's file could not be removed. The operator has to look at the disk (STORAGE_ROOT)."


def save(stem: str, extension: str, data: bytes) -> str:
    """Store `data` under `{stem}.{extension}`.

    Returns:
        The name the storage gave the file; where that name was taken, another than asked for.

    Raises:
        StorageError: It could not be stored. Nothing is left of it.
    """
    storage, name = image_storage(), f"{stem}.{extension}"
    with _storage_errors("save", name, StorageError.default_message):
        path = local_path(storage, name)
        if path is None:
            return storage.save(name, ContentFile(data, name=name))
        return write_into_place(storage, name, path, data)


def remove(name: str) -> None:
    """Remove a file by the name that `save` returned. A file that is not there is fine: removing can be repeated.

    The content item's folder goes with its last file.

    Raises:
        StorageError: The file could not be removed, or the disk it is on is not there, or `name` is none of ours.
    """
    storage = image_storage()
    with _storage_errors("remove", name, _NOT_REMOVED):
        if not (name.startswith(f"{ROOT}/") and is_plain_path(name.removeprefix(f"{ROOT}/"))):
            raise StorageError(_NOT_REMOVED)  # the host's other uploads are not ours to remove
        path = local_path(storage, name)
        if path is not None and not os.path.isdir(media_root(storage)):
            raise StorageError(GONE)  # a file on an unmounted disk comes back with it: it is not removed
        with contextlib.suppress(FileNotFoundError):
            storage.delete(name)
        if path is not None and name.count("/") > 1:
            remove_if_empty(os.path.dirname(path))


def check_space(stem: str) -> None:
    """Look whether a file could be stored, before a provider is paid for it. It takes microseconds.

    A media root that is missing is made where no row has a file yet; nothing else is written.

    Args:
        stem: The file's name as `file_stem` made it.

    Raises:
        StorageError: The disk is full, not writable, or gone. Storages that are not local are not asked.
    """
    problem = storage_problem(stem)
    if problem == GONE and _make_first_root():
        problem = storage_problem(stem)
    if problem:
        log_event(logger, logging.ERROR, "storage_failed", action="check", file=stem, error=problem)
        raise StorageError(problem)


def _make_first_root() -> bool:
    """Make the media root where it is certain that it is not the mount point of a disk with images on it."""
    if GeneratedImage.objects.using(router.db_for_write(GeneratedImage)).exclude(file="").exists():
        return False
    try:
        make_media_root(image_storage())
    except OSError as err:
        log_event(logger, logging.ERROR, "storage_failed", action="make_root", error=repr(err))
        return False
    return True


def storage_problem(stem: str = f"{ROOT}/any") -> str | None:
    """What keeps files from being stored: one sentence without a path for the health endpoint, or `None`.

    Args:
        stem: A file's name without extension; without one, any image's.
    """
    storage = image_storage()
    try:
        path = local_path(storage, stem)
        if path is None:
            return None
        return folder_problem(os.path.dirname(path), media_root(storage), conf.min_free_bytes)
    except OSError as err:  # a stale network mount, a broken disk
        return _sentence(err) or StorageError.default_message


@contextlib.contextmanager
def _storage_errors(action: str, name: str, otherwise: str) -> Iterator[None]:
    """Turn whatever a storage raises into `StorageError`, and log it: its own message is for operators only.

    Every exception counts, since remote storages raise their SDK's own, which share no root but `Exception`.
    """
    try:
        yield
    except Exception as err:
        trace = None if isinstance(err, OSError | StorageError) else err
        log_event(logger, logging.ERROR, "storage_failed", action=action, file=name, error=repr(err), exc_info=trace)
        if isinstance(err, StorageError):
            raise
        raise StorageError(_sentence(err) or otherwise) from err


def _sentence(err: Exception) -> str:
    """What a person can do about `err`; "" where nothing is known."""
    return _SENTENCES.get(err.errno or 0, "") if isinstance(err, OSError) else ""
