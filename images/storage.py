"""Where files live: all that is asked of the storage, through Django's Storage API.

Everything lies under `draft-images/` of the storage that `IMAGES["STORAGE"]` names. A storage in a folder of this
machine gets its files renamed into place, so that a file that can be fetched is a whole file; any other is handed the
bytes, in one call. Whatever a storage raises leaves this module as `StorageError`, whose message never holds a path.

A media root that is missing is an error here: an empty folder on the wrong disk must not replace a disk that is not
mounted. Only the first image of all makes it, since no file can be lost yet.

Files are not forced to the platter (`fsync`): that would cost more than the rest of the request, and what a power cut
takes is found by comparing sizes and digests with the rows.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import logging
import os
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from datetime import datetime
from io import BytesIO
from itertools import islice
from typing import IO
from weakref import WeakKeyDictionary

from django.conf import settings
from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage
from django.db import router

from .bucket import Bucket, ListedFile, advice, bucket_of, is_not_there
from .conf import conf
from .exceptions import StorageError
from .file_names import ROOT, is_plain_path, new_token
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

#: A hidden file, which is never served, that shows whether a remote storage takes files.
PROBE = f"{ROOT}/.images-probe"
#: Seconds for which it counts that a remote storage has taken a file, and for which that it has not.
PROOF_LASTS, PROBLEM_LASTS = 60.0, 2.0

#: How local storages say that there is no such file.
_MISSING = (FileNotFoundError, NotADirectoryError)

_SENTENCES = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: "The file is larger than the disk or the process may hold. The operator should check its limits.",
    errno.EROFS: READ_ONLY,
    errno.EACCES: READ_ONLY,
    errno.EPERM: READ_ONLY,
    errno.ENOENT: GONE,
}
_NOT_STORED = "The storage refused the file or did not answer. The server's log has the reason."
_NOT_REMOVED = "The image's file could not be removed. The operator should check the disk (MEDIA_ROOT)."
_NOT_READ = "The file could not be read. The server's log has the reason."
_TOO_LARGE = "The file is larger than MAX_IMAGE_BYTES allows, so it was not looked at."
_LEFTOVER_NOT_REMOVED = "The half-written file could not be removed. The server's log has the reason."
_NOT_LISTED = "The folder could not be listed. The server's log has the reason."
_NOT_LISTABLE = "This storage cannot list its files, so those without a row cannot be found."


class NotListable(StorageError):
    """The storage knows no folders."""


# --- saving and removing -----------------------------------------------------------------------------------------


def save(stem: str, extension: str, data: bytes | IO[bytes], *, ask_first: bool = False) -> str:
    """Store `data` under `{stem}.{extension}`.

    Args:
        stem: As `file_stem` made it. It is unique, so a remote storage is not asked first whether the name is free,
            and storing the same file again does no harm.
        extension: Without a dot.
        data: The bytes, or a file that can be read from its beginning.
        ask_first: Ask nevertheless, since the name is not one of `file_stem`.

    Returns:
        The name that the storage gave the file: another than asked for if that one was taken.

    Raises:
        StorageError: It could not be stored. Nothing is left of it.
    """
    storage, name = image_storage(), f"{stem}.{extension}"
    with _storage_errors("save", name, StorageError.default_message):
        path = local_path(storage, name)
        if path is not None:
            return write_into_place(storage, name, path, data if isinstance(data, bytes) else _whole(data))
    return _save_remotely(storage if ask_first else _without_asking(storage), name, data)


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()  # of a BytesIO no copy


def spool(data: bytes) -> IO[bytes]:
    """The bytes of an image that is about to be stored, as a file to be closed by the caller.

    Returns:
        For a remote storage a file on the disk, so that no memory is held for as long as the storage takes. A
        `BytesIO` if images are stored in a folder of this machine, or if there is no room for temporary files.
    """
    file = BytesIO(data)
    return file if local_path(image_storage(), ROOT) is not None else move_to_disk(file)


def move_to_disk(file: IO[bytes]) -> IO[bytes]:
    """Move an image from memory into a temporary file, since storing it takes long.

    The file has no name, so nobody else can open it, and it is gone with this process, however that ends.

    Returns:
        The temporary file, to be closed by the caller; `file` itself if it is on the disk already, or if there is no
        room.
    """
    if not isinstance(file, BytesIO):
        return file
    with contextlib.ExitStack() as stack:
        try:
            moved = stack.enter_context(tempfile.TemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR))
            moved.write(file.getvalue())  # no copy
            moved.flush()
        except OSError as err:
            log_event(logger, logging.WARNING, "not_spooled", error=repr(err))
            return file
        stack.pop_all()  # the caller closes it
        file.close()  # which frees its memory
        return moved


def _save_remotely(storage: Storage, name: str, data: bytes | IO[bytes]) -> str:
    look = _look_at(image_storage())
    with _storage_errors("save", name, _NOT_STORED):
        try:
            if not isinstance(data, bytes):
                data.seek(0)
            saved = storage.save(name, ContentFile(data, name=name) if isinstance(data, bytes) else _Kept(data, name))
        except Exception:
            look.forget()
            raise
    look.remember(None)
    return saved


class _Kept(File):  # type: ignore[type-arg]
    """A file that a storage may close, as some do, without taking it from those who try again."""

    def close(self) -> None:
        """Leave it open."""


_twins: WeakKeyDictionary[Storage, Storage] = WeakKeyDictionary()


def _without_asking(storage: Storage) -> Storage:
    """The storage, or a copy of it that saves files under the very name that it is given.

    Django's `save` looks for a free name first. That is one more call, and a bucket that nobody may list refuses it.
    """
    if getattr(storage, "file_overwrite", False):  # django-storages asks nothing then
        return storage
    if storage not in _twins:
        twin = copy.copy(storage)
        twin.get_available_name = lambda name, max_length=None: name  # type: ignore[method-assign]
        _twins[storage] = twin
    return _twins[storage]


def remove(name: str) -> None:
    """Remove a file by the name that `save` returned. A file that is not there is fine: removing can be repeated.

    The content item's folder goes with its last file.

    Raises:
        StorageError: The file could not be removed, the disk it is on is not there, or `name` is not one of ours.
    """
    with _storage_errors("remove", name, _NOT_REMOVED):
        if not (name.startswith(f"{ROOT}/") and is_plain_path(name.removeprefix(f"{ROOT}/"))):
            raise StorageError(_NOT_REMOVED)  # the host's other uploads are not ours to remove
        _remove(name)


def remove_leftover(name: str) -> bool:
    """Remove a half-written file, whose hidden name `remove` refuses; whether it was there.

    Raises:
        StorageError: It could not be removed.
    """
    if is_missing(name):
        return False
    with _storage_errors("remove", name, _LEFTOVER_NOT_REMOVED):
        _remove(name)
    return True


def _remove(name: str) -> None:
    storage = image_storage()
    path = local_path(storage, name)
    if path is not None and not os.path.isdir(media_root(storage)):
        raise StorageError(GONE)  # a file on an unmounted disk comes back with it: it is not removed
    with contextlib.suppress(FileNotFoundError):
        storage.delete(name)
    if path is not None and name.count("/") > 1:
        remove_if_empty(os.path.dirname(path))


@contextlib.contextmanager
def _storage_errors(action: str, name: str, otherwise: str) -> Iterator[None]:
    """Turn whatever a storage raises into `StorageError`, and log it: its own message is for operators only.

    Every exception counts, since remote storages raise their SDK's own, which share no root but `Exception`.

    Args:
        action: What is done, for the log: `save` and `remove` write; `read`, `look` and `list` do not.
        name: The file or folder.
        otherwise: What callers are told if the error of a write does not tell more.
    """
    try:
        yield
    except Exception as err:
        trace = None if isinstance(err, OSError | StorageError) else err
        log_event(logger, logging.ERROR, "storage_failed", action=action, file=name, error=repr(err), exc_info=trace)
        if isinstance(err, StorageError):
            raise
        raise StorageError(_sentence(err, action) or otherwise) from err


def _sentence(err: Exception, action: str) -> str:
    """What a person can do about `err`; "" if nothing is known."""
    if isinstance(err, OSError):
        return _SENTENCES.get(err.errno or 0, "") if action in {"save", "remove"} else ""
    return advice(err, action, ROOT)


# --- looking before a provider is paid ---------------------------------------------------------------------------


def check_space(stem: str) -> None:
    """Look whether a file could be stored, before a provider is paid for it.

    A media root that is missing is made, at any depth, if no row has a file yet; nothing else is written there. It
    takes microseconds. A remote storage is asked once a minute, unless it has just taken an image.

    Args:
        stem: The file's name as `file_stem` made it.

    Raises:
        StorageError: The disk is full, not writable, or gone; or a remote storage does not take files.
    """
    problem = storage_problem(stem)
    if problem == GONE and _make_first_root():
        problem = storage_problem(stem)
    if problem:
        log_event(logger, logging.ERROR, "storage_failed", action="check", file=stem, error=problem)
        raise StorageError(problem)


def storage_problem(stem: str = f"{ROOT}/any") -> str | None:
    """What keeps files from being stored: one sentence without a path for the health endpoint, or `None`.

    Args:
        stem: A file's name without extension; without one, any image's.
    """
    storage = image_storage()
    if local_path(storage, ROOT) is None:
        return _look_at(storage).problem(storage)
    return disk_problem(stem)


def disk_problem(stem: str = f"{ROOT}/any") -> str | None:
    """As `storage_problem` for a folder of this machine; `None` for any other storage, which is not asked."""
    storage = image_storage()
    try:
        path = local_path(storage, stem)
        if path is None:
            return None
        return folder_problem(os.path.dirname(path), media_root(storage), conf.min_free_bytes)
    except OSError as err:  # a stale network mount, a broken disk
        return _sentence(err, "save") or StorageError.default_message


class _Look:
    """Whether a remote storage takes files, as far as this process knows. One thread at a time looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._problem: str | None = None
        self._until = 0.0

    def problem(self, storage: Storage) -> str | None:
        """What keeps files from being stored, or `None`; looked at again if the last time is long ago."""
        with self._lock:
            if time.monotonic() >= self._until:
                self.remember(_try_to_store(storage))
            return self._problem

    def remember(self, problem: str | None) -> None:
        """Keep what was seen; a problem only for a moment, so that its end is noticed soon."""
        self._problem, self._until = problem, time.monotonic() + (PROBLEM_LASTS if problem else PROOF_LASTS)

    def forget(self) -> None:
        """Look again the next time."""
        self._until = 0.0


_looks: WeakKeyDictionary[Storage, _Look] = WeakKeyDictionary()


def _look_at(storage: Storage) -> _Look:
    return _looks.setdefault(storage, _Look())


def look_again() -> None:
    """Ask a remote storage the next time, however short a while ago it was asked."""
    _look_at(image_storage()).forget()


def _try_to_store(storage: Storage) -> str | None:
    """Store a few bytes: only that tells whether a remote storage takes files. Returns the problem, or `None`.

    In a bucket it is one file, which is written over; other storages may refuse that, so there it is removed.
    """
    is_bucket = bucket_of(storage) is not None
    name = PROBE if is_bucket else f"{PROBE}-{new_token()}"
    try:
        with _storage_errors("save", name, _NOT_STORED):
            written = _without_asking(storage).save(name, ContentFile(b"Files can be stored here.\n", name=name))
    except StorageError as err:
        return err.message
    if not is_bucket:
        with contextlib.suppress(StorageError), _storage_errors("remove", written, _NOT_REMOVED):
            storage.delete(written)
    return None


def _make_first_root() -> bool:
    """Make the media root, unless rows say that files were there: then its disk has to be mounted."""
    if GeneratedImage.objects.using(router.db_for_write(GeneratedImage)).exclude(file="").exists():
        return False
    try:
        make_media_root(image_storage())
    except OSError as err:
        log_event(logger, logging.ERROR, "storage_failed", action="make_root", error=repr(err))
        return False
    return True


# --- looking at what is there ------------------------------------------------------------------------------------


def read(name: str) -> bytes | None:
    """A file's bytes; `None` if there is no such file, or a bucket refuses to say whether there is one.

    Raises:
        StorageError: It cannot be read, or is larger than `IMAGES["MAX_IMAGE_BYTES"]`.
    """
    limit = conf.max_image_bytes
    with _storage_errors("read", name, _NOT_READ):
        data = _read(image_storage(), name, limit + 1)
    if data is not None and len(data) > limit:
        raise StorageError(_TOO_LARGE)
    return data


def _read(storage: Storage, name: str, limit: int) -> bytes | None:
    bucket = bucket_of(storage)
    try:
        with contextlib.closing(bucket.get(name).body if bucket else storage.open(name, "rb")) as file:
            data: bytes = file.read(limit)
            return data
    except _MISSING:
        return None
    except OSError:
        raise
    except Exception as err:
        is_there = not is_not_there(err, if_refused=True) if bucket else storage.exists(name)
        if is_there:
            raise
        return None


def is_missing(name: str) -> bool:
    """Whether there is surely no such file.

    Raises:
        StorageError: The storage cannot tell. Django's local storage takes a file in a folder that it may not look
            into for missing; asking for the size tells the two apart.
    """
    if not name:
        return True
    storage = image_storage()
    with _storage_errors("look", name, _NOT_READ):
        if storage.exists(name):
            return False
        if local_path(storage, name) is None:
            return True
        with contextlib.suppress(*_MISSING):
            storage.size(name)
            return False
        return True


def modified_at(name: str) -> datetime | None:
    """When a file was last written, in Django's notion of now; `None` if the storage does not know.

    Raises:
        StorageError: The storage does not answer.
    """
    with _storage_errors("look", name, _NOT_READ):
        try:
            return image_storage().get_modified_time(name)
        except (*_MISSING, NotImplementedError):
            return None


def missing_among(names: Collection[str]) -> set[str]:
    """Those of some files that are surely not there: each is looked at, or in a bucket they are listed together.

    Raises:
        StorageError: The storage cannot tell.
    """
    bucket, unseen = bucket_of(image_storage()), set(names)
    if bucket and names:
        # It begins just before the first, and ends with the last or where looking at each is cheaper.
        after, last, most = min(names)[:-1], max(names), 1 + len(names) // 10
        with _storage_errors("list", ROOT, _NOT_LISTED):
            for page in islice(bucket.list(f"{ROOT}/", after=after), most):
                unseen -= {file.name for file in page}
                if page and page[-1].name >= last:
                    return unseen
    return {name for name in unseen if is_missing(name)}


def list_bucket() -> Iterator[ListedFile] | None:
    """Every file of a bucket, with one call for a thousand; `None` if the storage is of another kind.

    Iterating raises `StorageError` if the bucket cannot be listed.
    """
    bucket = bucket_of(image_storage())
    return _listed(bucket) if bucket else None


def _listed(bucket: Bucket) -> Iterator[ListedFile]:
    with _storage_errors("list", ROOT, _NOT_LISTED):
        for page in bucket.list(f"{ROOT}/"):
            yield from page


def holds_files() -> bool:
    """Whether there is anything at all under `draft-images/`.

    Raises:
        NotListable: The storage cannot list anything.
        StorageError: It cannot be listed.
    """
    listed = list_bucket()
    if listed is not None:
        return any(file.name != PROBE for file in listed)
    return any(list_folder(ROOT))


def list_folder(folder: str) -> tuple[list[str], list[str]]:
    """The sorted names of a folder's folders and files; none if it is not there.

    Raises:
        NotListable: The storage cannot list anything.
        StorageError: The folder cannot be listed.
    """
    with _storage_errors("list", folder, _NOT_LISTED):
        try:
            folders, files = image_storage().listdir(folder)
        except _MISSING:
            return [], []
        except NotImplementedError as err:
            raise NotListable(_NOT_LISTABLE) from err
    # Object stores may list the folder itself, as "".
    return sorted(filter(None, folders)), sorted(filter(None, files))
