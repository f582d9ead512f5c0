"""The files that `images.media` serves: found and opened in one step, and read from where they are asked for.

A file of this machine is opened without following links. From a bucket, whatever is asked for is one call, of which
only the bytes that are wanted are sent. Other storages are opened through Django's API.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from dataclasses import dataclass, replace
from typing import IO, Any, Protocol

from django.core.files.storage import Storage

from .bucket import LONGEST_KEY, Bucket, Content, bucket_of, is_not_there, real_size, status_of
from .file_names import ROOT
from .local_files import local_path, open_below

#: What is said of names that are too long, of symbolic links, sockets and devices: there is nothing to serve.
_NOT_SERVED = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.ENODEV}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for, so that a remote storage sends no more.

    Attributes:
        content: Whether bytes are wanted, and not only what is known of the file.
        byte_range: A single range that can be read, as in the header `Range`, or "".
        unless: An entity tag; a file that still has it need not be sent. "" if there is none.
    """

    content: bool = True
    byte_range: str = ""
    unless: str = ""


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
        modified: When it was last changed, in whole seconds since the epoch; `None` if the storage does not say.
    """

    size: int
    etag: str
    modified: int | None

    def part(self, start: int, length: int) -> FilePart | None:
        """The bytes from `start` on, to be closed by the caller; `None` if the storage cannot begin there."""

    def close(self) -> None:
        """Give back what was not handed out by `part`."""


def find_file(storage: Storage, path: str, wanted: Wanted) -> StoredFile | None:
    """The file at `path` below `draft-images/`, or `None` if there is no such file.

    Args:
        storage: Where to look.
        path: A plain one: `images.file_names.is_plain_path` has said so.
        wanted: What of the file is asked for.

    Raises:
        Exception: Whatever the storage raises if it cannot tell.
    """
    root, name = local_path(storage, ROOT), f"{ROOT}/{path}"
    if root is not None:
        return _find_local(root, path)
    bucket = bucket_of(storage)
    return _find_in_bucket(bucket, name, wanted) if bucket else _find_remote(storage, name, wanted)


# --- of this machine ---------------------------------------------------------------------------------------------


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
        descriptor = open_below(root, path.split("/"))
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


# --- in a bucket -------------------------------------------------------------------------------------------------


class _BucketFile:
    def __init__(self, bucket: Bucket, name: str, content: Content) -> None:
        self._bucket, self._name = bucket, name
        self._take(content)

    def _take(self, content: Content) -> None:
        self._content = content
        self.size, self.etag = content.size, content.etag or _etag(self._name, content.size, content.modified)
        self.modified = int(content.modified.timestamp()) if content.modified else None

    def part(self, start: int, length: int) -> FilePart | None:
        if not length:
            return FilePart(io.BytesIO(), 0)
        content = self._content
        if content.body is None or (content.is_part and (content.start, content.length) != (start, length)):
            self.close()  # a part of another version was asked for, so all of this one is sent
            byte_range = f"bytes={start}-{start + length - 1}" if length < self.size else ""
            self._take(self._bucket.get(self._name, byte_range=byte_range))
        content = self._content
        if (content.start, content.length) != (start, length):
            return None  # the bucket does not send parts
        self._content = replace(content, body=None)  # it is the part's now
        return FilePart(content.body, length)

    def close(self) -> None:
        if self._content.body is not None:
            self._content.body.close()


def _find_in_bucket(bucket: Bucket, name: str, wanted: Wanted) -> StoredFile | None:
    if len(name.encode("utf-8", "replace")) > LONGEST_KEY:
        return None
    try:
        if not wanted.content:
            return _BucketFile(bucket, name, bucket.head(name))
        content = bucket.get(name, byte_range=wanted.byte_range, unless=wanted.unless)
    except Exception as err:  # noqa: BLE001  (boto3's are made when it is loaded)
        if is_not_there(err, if_refused=True):
            return None
        content = _unsent(bucket, name, wanted, err)
    return _BucketFile(bucket, name, content)


def _unsent(bucket: Bucket, name: str, wanted: Wanted, err: Exception) -> Content:
    """What is known of a file that is there, although the bucket does not send it."""
    status, _code = status_of(err)
    if status == 304:
        return Content(size=0, etag=wanted.unless, modified=None)
    if status != 416:
        raise err
    size = real_size(err)
    return bucket.head(name) if size is None else Content(size=size, etag="", modified=None)


# --- in any other storage ----------------------------------------------------------------------------------------


class _RemoteFile:
    def __init__(self, storage: Storage, name: str, size: int, file: Any = None) -> None:
        self._storage, self._name, self._file = storage, name, file
        self.size, self.etag = size, _etag(name, size)
        self.modified: int | None = None  # it would be another call

    def part(self, start: int, length: int) -> FilePart | None:
        file = self._file or self._storage.open(self._name, "rb")
        self._file = file
        if start:
            if not file.seekable():
                return None
            file.seek(start)
        self._file = None
        return FilePart(file, length)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _find_remote(storage: Storage, name: str, wanted: Wanted) -> StoredFile | None:
    try:
        if not wanted.content:
            return _RemoteFile(storage, name, storage.size(name))
        file = storage.open(name, "rb")
        try:
            size = file.size
        except AttributeError:  # the file does not know
            size = storage.size(name)
        return _RemoteFile(storage, name, size, file)
    except FileNotFoundError:
        return None
    except Exception:
        if not storage.exists(name):  # storages differ in what they raise, but all can answer this
            return None
        raise


def _etag(*facts: Any) -> str:
    """An entity tag of a file in a storage that has none: another file never gets the same name."""
    digest = hashlib.sha256(" ".join(map(str, facts)).encode("utf-8", "surrogatepass")).hexdigest()
    return f'"{digest[:32]}"'
