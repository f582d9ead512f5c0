"""Storages on this machine's file system: writing beside the place and renaming into it, and looking for space."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from functools import reduce
from operator import or_

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, Storage

from .logs import log_event

logger = logging.getLogger("images")

#: A concurrent removal may take a folder between its making and the first file in it; never this often in a row.
_FOLDER_TRIES = 10

#: Errors of linking a file that copying can avoid.
_COPY_INSTEAD = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}

FULL = "The disk is full. The operator has to make room under the media root (MEDIA_ROOT)."
READ_ONLY = "The media root (MEDIA_ROOT) is not writable. The operator should check its permissions and its mount."
GONE = "The media root (MEDIA_ROOT) is missing. The operator has to mount its disk or create the folder."


def _flags(*names: str) -> int:
    """Flags of `os.open`, without those that this operating system does not have."""
    return reduce(or_, (getattr(os, name, 0) for name in names))


_FOLDER = _flags("O_DIRECTORY", "O_CLOEXEC", "O_PATH")
#: Without O_NONBLOCK, opening a named pipe would wait for ever. O_BINARY is for Windows.
_FILE = _flags("O_RDONLY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")
_NEW_FILE = _flags("O_WRONLY", "O_CREAT", "O_EXCL", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")


class _WrittenFile(File):  # type: ignore[type-arg]
    """A file that is complete on the disk: `FileSystemStorage` renames it into place, other storages read it."""

    def temporary_file_path(self) -> str:
        return str(self.name)


def local_path(storage: Storage, name: str) -> str | None:
    """A file's place in the file system, or `None` if the storage is not a folder of this machine.

    Only Django's `FileSystemStorage` and what is derived from it count: having a `path()` proves nothing, since
    `InMemoryStorage` has one too. Any other storage works through the Storage API.

    Raises:
        django.core.exceptions.SuspiciousFileOperation: The name leads out of the storage.
    """
    return storage.path(name) if isinstance(storage, FileSystemStorage) else None


def media_root(storage: Storage) -> str:
    """The folder of a local storage."""
    return os.path.dirname(storage.path("any"))


def write_into_place(storage: Storage, name: str, path: str, data: bytes) -> str:
    """Write beside the place, then let the storage rename, so that half a file is never seen.

    Args:
        storage: A local one.
        name: What the file is to be called.
        path: The place of `name`.
        data: All of it.

    Returns:
        The name the storage gave the file.

    Raises:
        OSError: Nothing is left of the file.
    """
    folder, file_name = os.path.split(path)
    temporary = os.path.join(folder, f".{file_name}.{secrets.token_hex(6)}.part")  # hidden names are never served
    was_there = os.path.lexists(path)
    try:
        _write(storage, temporary, data)
        with open(temporary, "rb") as handle:
            return storage.save(name, _WrittenFile(handle, name=temporary))
    except Exception:
        if not was_there:  # if renaming is refused, Django copies, and may stop half-way
            _discard(path)
        raise
    finally:
        _discard(temporary)


def link_into_place(storage: Storage, path: str, source: str) -> bool:
    """Give a whole file of the same disk a second name in the storage, without copying anything.

    Args:
        storage: A local one.
        path: The new place. Whatever lies there already stays.
        source: The file.

    Returns:
        Whether it could be done: another disk, another owner, or a file system without links must be copied from.

    Raises:
        OSError: It could not be done for a reason that copying does not help with, for example a missing media root.
    """
    _make_folders(storage, os.path.dirname(path))
    try:
        os.link(source, path, follow_symlinks=False)
    except OSError as err:
        if err.errno in _COPY_INSTEAD:
            return False
        raise
    try:
        if (mode := getattr(storage, "file_permissions_mode", None)) is not None:
            os.chmod(path, mode)
    except PermissionError:
        os.unlink(path)
        return False
    return True


def _discard(path: str) -> None:
    """Remove what must not stay. A failure is only logged: the error that led here says more to the caller."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as err:
        log_event(logger, logging.WARNING, "file_left_behind", file=path, errno=err.errno)


def _write(storage: Storage, path: str, data: bytes) -> None:
    """Write a new file and its folder. The file keeps the folder from being removed by others."""
    for attempt in range(1, _FOLDER_TRIES + 1):
        try:
            _make_folders(storage, os.path.dirname(path))
            descriptor = os.open(path, _NEW_FILE, 0o666)
            break
        except FileNotFoundError:
            if attempt == _FOLDER_TRIES or not os.path.isdir(media_root(storage)):
                raise
    with open(descriptor, "wb", buffering=0) as handle:
        rest = memoryview(data)
        while rest:  # one write does it, unless the disk fills up in its middle
            rest = rest[handle.write(rest) :]


def _make_folders(storage: Storage, folder: str) -> None:
    """Make the folders below the media root; never the root itself."""
    root, missing = media_root(storage), []
    while folder != root and not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    _make_all(storage, missing)


def make_media_root(storage: Storage) -> None:
    """Make the folder of a local storage and the missing ones above it, as Django's own storage would.

    Raises:
        OSError: It cannot be made. That it is there already is fine.
    """
    root = media_root(storage)
    _make_all(storage, list(_missing_folders(root)))


def _missing_folders(folder: str) -> Iterator[str]:
    """`folder` and those above it that do not exist, from the bottom up."""
    while not os.path.lexists(folder):
        yield folder
        folder = os.path.dirname(folder)


def _make_all(storage: Storage, missing: list[str]) -> None:
    """Make folders, the innermost of which comes first, with `FILE_UPLOAD_DIRECTORY_PERMISSIONS`."""
    mode = getattr(storage, "directory_permissions_mode", None)
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another thread made it just now
            os.mkdir(path)
            if mode is not None:
                os.chmod(path, mode)


def unwritable_reason(root: str) -> str:
    """Why no file could be stored in a media root, or "". One that is missing would be made, at any depth.

    Only making a file tells: permission bits say nothing about read-only mounts, or to root.

    Args:
        root: The folder, an absolute path.

    Returns:
        The operating system's reason, in lower case.
    """
    try:
        existing = next((os.path.dirname(path) for path in reversed(list(_missing_folders(root)))), root)
        with tempfile.TemporaryFile(dir=existing):
            return ""
    except OSError as err:
        return (err.strerror or type(err).__name__).lower()


def remove_if_empty(path: str) -> None:
    """Remove a folder unless it holds anything. It does not matter if it cannot be removed."""
    with contextlib.suppress(OSError):
        os.rmdir(path)


def folder_problem(folder: str, root: str, min_free_bytes: int) -> str | None:
    """What keeps a file from being written into `folder`, which need not exist yet, as a sentence without a path.

    Raises:
        OSError: The disk does not answer.
    """
    if not os.path.isdir(root):
        return GONE
    while folder != root and not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.access(folder, os.W_OK | os.X_OK):  # says no on a read-only mount too
        return READ_ONLY
    if shutil.disk_usage(folder).free < min_free_bytes or not _has_inodes(folder):
        return FULL
    return None


def _has_inodes(folder: str) -> bool:
    """Whether the disk takes one more file; some file systems do not count them and say zero of zero."""
    if not hasattr(os, "statvfs"):  # Windows
        return True
    usage = os.statvfs(folder)
    return not usage.f_files or usage.f_favail > 0


def open_below(root: str, parts: list[str]) -> int:
    """Open a file below `root`, following no symbolic link on the way; a descriptor.

    Raises:
        OSError: There is no such file, or a link is in the way.
    """
    if os.open not in os.supports_dir_fd:  # Windows
        return _open_path(root, parts)
    folder = os.open(root, _FOLDER)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(parts[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)


def _open_path(root: str, parts: list[str]) -> int:
    """`open_below` for systems that cannot open a file relative to an open folder."""
    path = root
    for part in parts:
        path = os.path.join(path, part)
        if not stat.S_ISDIR(os.lstat(path).st_mode) and (part is not parts[-1] or os.path.islink(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return os.open(path, _FILE)
