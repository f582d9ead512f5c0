"""Finding stored files and reading parts of them, for `images.media`.

Local files are opened segment by segment without following symbolic links, so nothing outside `draft-images/` can be
reached, whatever lies in it; that folder itself may be a link to another disk. Files of other storages are read
through Django's Storage API.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from datetime import datetime
from typing import IO, Protocol

from django.core.files.storage import Storage

from .local_files import local_path
from .names import ROOT

#: How much is read at once where the server does not send the file by itself.
BLOCK_SIZE = 64 * 1024

#: What is said of names that are too long, of symbolic links, sockets and devices: there is nothing to serve.
_NOT_SERVED = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.ENODEV}

_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", 0)
#: Without O_NONBLOCK, opening a named pipe would wait for ever.
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class FilePart:
    """A file from where it stands, up to `length` bytes: what a WSGI server streams.

    Args:
        file: Open and positioned at the first byte.
        length: The number of bytes to give.
    """

    def __init__(self, file: IO[bytes] | io.RawIOBase, length: int) -> None:
        self._file = file
        self._rest = length

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, or all that is left; empty at the end."""
        wanted = self._rest if size < 0 else min(size, self._rest)
        data = self._file.read(wanted) or b"" if wanted else b""
        self._rest -= len(data)
        return data

    def __iter__(self) -> FilePart:
        return self

    def __next__(self) -> bytes:
        if block := self.read(BLOCK_SIZE):
            return block
        raise StopIteration

    def close(self) -> None:
        """Close the file. Closing twice is fine."""
        self._file.close()


class LocalPart(FilePart):
    """A part of a file of this machine, which gunicorn sends with `sendfile(2)`."""

    def fileno(self) -> int:
        """The descriptor, positioned at the part's first byte."""
        return self._file.fileno()


class StoredFile(Protocol):
    """A file that is there.

    Attributes:
        size: In bytes.
        etag: A strong entity tag, with its quotes.
        modified: When it was last changed, in whole seconds since the epoch; `None` where the storage does not know.
    """

    size: int
    etag: str
    modified: int | None

    def part(self, start: int, length: int) -> FilePart | None:
        """The bytes from `start` on, to be closed by who asked; `None` where the storage cannot begin there."""

    def close(self) -> None:
        """Give back what was not handed out by `part`."""


def find_file(storage: Storage, path: str) -> StoredFile | None:
    """The file at `path` below `draft-images/`, or `None` where there is none.

    Args:
        storage: Where to look.
        path: A plain one: `images.names.is_plain_path` has said so.

    Raises:
        Exception: Whatever the storage raises where it cannot tell.
    """
    root = local_path(storage, ROOT)
    return _find_remote(storage, f"{ROOT}/{path}") if root is None else _find_local(root, path)


# --- files of this machine ------------------------------------------------------------------------------------


class _LocalFile:
    def __init__(self, descriptor: int, found: os.stat_result) -> None:
        self._descriptor = descriptor
        self.size = found.st_size
        self.modified: int | None = found.st_mtime_ns // 1_000_000_000
        self.etag = f'"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"'

    def part(self, start: int, length: int) -> FilePart:
        if start:
            os.lseek(self._descriptor, start, os.SEEK_SET)
        part = LocalPart(io.FileIO(self._descriptor), length)
        self._descriptor = -1  # it is the part's now
        return part

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _find_local(root: str, path: str) -> StoredFile | None:
    try:
        descriptor = _open_below(root, path.split("/"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as err:
        if err.errno in _NOT_SERVED:
            return None
        raise
    found = os.fstat(descriptor)
    file = _LocalFile(descriptor, found)
    if stat.S_ISREG(found.st_mode):
        return file
    file.close()
    return None


def _open_below(root: str, parts: list[str]) -> int:
    """Open a file below `root`, following no symbolic link on the way; a descriptor."""
    folder = os.open(root, _FOLDER)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(parts[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)


# --- files of other storages ----------------------------------------------------------------------------------


class _RemoteFile:
    def __init__(self, storage: Storage, name: str, size: int, modified: datetime | None) -> None:
        self._storage, self._name = storage, name
        self.size = size
        self.modified = int(modified.timestamp()) if modified else None
        digest = hashlib.sha256(f"{name} {size} {modified}".encode("utf-8", "surrogatepass")).hexdigest()
        self.etag = f'"{digest[:32]}"'

    def part(self, start: int, length: int) -> FilePart | None:
        file = self._storage.open(self._name, "rb")
        if start:
            if not file.seekable():
                file.close()
                return None
            file.seek(start)
        return FilePart(file, length)

    def close(self) -> None:
        """Nothing is open before a part is."""


def _find_remote(storage: Storage, name: str) -> StoredFile | None:
    try:
        return _RemoteFile(storage, name, storage.size(name), _modified(storage, name))
    except FileNotFoundError:
        return None
    except Exception:
        if not storage.exists(name):  # storages differ in what they raise, but all can answer this
            return None
        raise


def _modified(storage: Storage, name: str) -> datetime | None:
    try:
        return storage.get_modified_time(name)
    except NotImplementedError:
        return None
