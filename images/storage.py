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
import hashlib
import logging
import os
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.core.files.base import ContentFile
from django.db import router
from django.utils import timezone
from django.utils.text import slugify

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

logger = logging.getLogger("images")

#: The folder in the storage that holds every file of this app, and nothing else.
ROOT = "draft-images"

#: What `images.image_formats` can say an image is.
EXTENSIONS = ("png", "jpg", "webp")

_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
#: Names that Windows, and with it many a network share, takes for devices, with any extension.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")
#: 12 to 14 digits: years 1973 to 5138.
_TELLING_NAME = re.compile(r"(?P<variant>[a-z]+)-(?P<milliseconds>[0-9]{12,14})(?:-.*)?", re.DOTALL)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_SENTENCES = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: "The file is larger than the disk or the process may hold. The operator should check its limits.",
    errno.EROFS: READ_ONLY,
    errno.EACCES: READ_ONLY,
    errno.EPERM: READ_ONLY,
    errno.ENOENT: GONE,
}
_NOT_REMOVED = "The image's file could not be removed. The operator should check the disk (STORAGE_ROOT)."


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


# --- names -------------------------------------------------------------------------------------------------------


def safe_directory(content_item_id: str) -> str:
    """The name of the folder that keeps the images of one content item together.

    Plain ids (ASCII letters, digits, `.`, `_`, `-`, up to 200 characters) are kept to the letter. Any other becomes
    what is readable of it, a `~` and 16 hex digits of its SHA-256; since no plain id holds a `~`, the two never meet.

    Returns:
        One path segment of at most 200 ASCII characters, never empty, hidden, or special to an operating system.
    """
    is_plain = (
        _PLAIN_ID.fullmatch(content_item_id)
        and ".." not in content_item_id
        and not content_item_id.endswith(".")
        and not _DEVICE.fullmatch(content_item_id)
    )
    if is_plain:
        return content_item_id
    digest = hashlib.sha256(content_item_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{slugify(content_item_id)[:60].strip('-_')}~{digest}"


def new_token() -> str:
    """Twelve random hex digits: two images made in the same millisecond do not collide."""
    return secrets.token_hex(6)


def file_stem(*, content_item_id: str, variant: str, created_at: datetime, token: str) -> str:
    """An image's name in the storage, without the extension, which only its bytes can tell.

    Args:
        content_item_id: As the caller gave it.
        variant: `hero` or `inline`.
        created_at: Aware, or naive in the project's time zone (`USE_TZ = False`).
        token: From `new_token`.
    """
    if timezone.is_naive(created_at):
        created_at = timezone.make_aware(created_at, timezone.get_default_timezone())
    milliseconds = (created_at - _EPOCH) // timedelta(milliseconds=1)
    return f"{ROOT}/{safe_directory(content_item_id)}/{variant}-{milliseconds}-{token}"


def read_file_name(name: str) -> tuple[str, datetime] | None:
    """What an image's name tells: variant and time of creation. Names of the old service had no token.

    Args:
        name: Of a file, with or without its folders.

    Returns:
        The word in front, whatever it is, and the moment in UTC; `None` where the name is of another kind.
    """
    found = _TELLING_NAME.fullmatch(name.rpartition("/")[2].partition(".")[0])
    return (found["variant"], _EPOCH + timedelta(milliseconds=int(found["milliseconds"]))) if found else None


def is_plain_path(path: str) -> bool:
    """Whether `path`, which stands for what follows `draft-images/`, can only mean a visible file below that folder.

    No segment is empty, `.`, `..` or hidden, so neither other uploads nor half-written files can be named, and there
    is no backslash and no control character in it.
    """
    return not _UNSAFE.search(path) and all(part and not part.startswith(".") for part in path.split("/"))


def possible_names(stem: str) -> tuple[str, ...]:
    """Every name that the file of `stem` can have, for rows that do not know what became of it."""
    return tuple(f"{stem}.{extension}" for extension in EXTENSIONS)
