"""The view that serves images: conditional, single ranges, HEAD. No database, no login, no listing.

Only what lies under `draft-images/` is served. Whatever it is, it is inert in a browser: types other than pictures
are sent as downloads, nothing is sniffed, and the policy runs nothing. Under gunicorn local files go out through
`sendfile(2)`; elsewhere they are streamed in blocks of 64 KB.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import re
import stat
from collections.abc import AsyncIterator
from datetime import datetime
from typing import IO, Protocol
from urllib.parse import quote

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_not_required
from django.core.files.storage import Storage
from django.db import transaction
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase, ResponseHeaders
from django.utils.cache import get_conditional_response
from django.utils.http import http_date, parse_http_date_safe
from django.views.decorators.csrf import csrf_exempt

from .conf import conf
from .local_files import local_path, open_below
from .logs import log_event
from .models import image_storage
from .storage import ROOT, is_plain_path

logger = logging.getLogger("images")

_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "avif": "image/avif",
}
_PRECONDITIONS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE")
_SAFETY = {
    "X-Content-Type-Options": "nosniff",
    # Inline styles are the browser's own, with which it shows a picture in a tab.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",  # pages of other origins embed the pictures
}

#: How much is read at once if the server does not send the file by itself.
#: Larger blocks were not measurably faster, and each waiting thread holds one.
BLOCK_SIZE = 64 * 1024

#: What is said of names that are too long, of symbolic links, sockets and devices: there is nothing to serve.
_NOT_SERVED = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.ENODEV}


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
        modified: When it was last changed, in whole seconds since the epoch; `None` if the storage does not know.
    """

    size: int
    etag: str
    modified: int | None

    def part(self, start: int, length: int) -> FilePart | None:
        """The bytes from `start` on, to be closed by the caller; `None` if the storage cannot begin there."""

    def close(self) -> None:
        """Give back what was not handed out by `part`."""


class _FileResponse(FileResponse):
    """Streams a part of a file, or lets the server send it: Django hands a file to `wsgi.file_wrapper`."""

    block_size = BLOCK_SIZE

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The blocks under ASGI, each read in a thread. Django would read the whole file at once, with a warning."""
        if self.is_async:  # a middleware has replaced the content
            async for block in super().__aiter__():
                yield block
            return
        blocks = iter(self)
        read = sync_to_async(lambda: next(blocks, b""), thread_sensitive=False)
        while block := await read():
            yield block


@csrf_exempt  # it only reads: what is neither GET nor HEAD is a 405, with or without a cookie
@login_not_required
@transaction.non_atomic_requests
def serve(request: HttpRequest, path: str) -> HttpResponseBase:
    """Answer a request for a file.

    Args:
        request: GET or HEAD; any other method is answered with 405.
        path: What follows `draft-images/` in the address.

    Returns:
        200, 206, 304, 412 or 416 for a file that is there; 404 if there is no such file; 503 if the storage cannot
        tell, which is logged.
    """
    if request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD"])
    if not is_plain_path(path):
        return _refusal(404, "There is no such image.")
    try:
        file = find_file(image_storage(), path)
        if file is None:
            return _refusal(404, "There is no such image.")
        try:
            return _handed_off(path) or _answer(request, file, path)
        finally:
            file.close()
    except Exception as err:  # noqa: BLE001  (remote storages raise their SDK's own exceptions)
        trace = None if isinstance(err, OSError) else err
        log_event(logger, logging.ERROR, "media_failed", file=f"{ROOT}/{path}", error=repr(err), exc_info=trace)
        return _refusal(503, "The image cannot be read at the moment. Try again later.")


def _handed_off(path: str) -> HttpResponse | None:
    """The answer that lets the storage or nginx send the file, if that is configured."""
    response = hand_off(image_storage(), path)
    if response is None:
        return None
    headers = response.headers
    headers.setdefault("Cache-Control", conf.media_cache_control)
    _describe(headers, path)
    return response


def _answer(request: HttpRequest, file: StoredFile, path: str) -> HttpResponseBase:
    """The answer for a file that is there."""
    meta = request.META
    if any(name in meta for name in _PRECONDITIONS):
        early = get_conditional_response(request, file.etag, file.modified)
        if early is not None:  # nothing follows that could do harm, so it says as little as it may
            return _validated(early, file)
    if request.method == "HEAD":  # ranges are defined for GET alone
        return _whole(HttpResponse(), file, path)
    wanted = None
    if "HTTP_RANGE" in meta and if_range_holds(meta.get("HTTP_IF_RANGE", ""), file.etag, file.modified):
        try:
            wanted = parse_range(meta["HTTP_RANGE"], file.size)
        except UnsatisfiableRange:
            response = _refusal(416, "The file is shorter than that.")
            response.headers["Content-Range"] = f"bytes */{file.size}"
            return response
    part = file.part(*wanted) if wanted else None
    if wanted and part:
        return _partial(_FileResponse(part), file, path, *wanted)
    return _whole(_FileResponse(file.part(0, file.size) or ()), file, path)


def _whole(response: HttpResponseBase, file: StoredFile, path: str) -> HttpResponseBase:
    return _with_content(response, file, path, file.size)


def _partial(response: HttpResponseBase, file: StoredFile, path: str, start: int, length: int) -> HttpResponseBase:
    response.status_code = 206
    response.headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{file.size}"
    return _with_content(response, file, path, length)


def _with_content(response: HttpResponseBase, file: StoredFile, path: str, length: int) -> HttpResponseBase:
    """Add what describes the bytes that follow."""
    headers = response.headers
    headers["Content-Length"] = str(length)
    headers["Accept-Ranges"] = "bytes"
    if file.modified is not None:
        headers["Last-Modified"] = http_date(file.modified)
    _describe(headers, path)
    return _validated(response, file)


def _describe(headers: ResponseHeaders, path: str) -> None:
    """Add what a browser is to make of the file."""
    extension = path.rpartition(".")[2].lower()
    headers["Content-Type"] = _TYPES.get(extension, "application/octet-stream")
    if extension not in _TYPES:
        headers["Content-Disposition"] = "attachment"
    for name, value in _SAFETY.items():
        headers[name] = value


def _validated(response: HttpResponseBase, file: StoredFile) -> HttpResponseBase:
    """Add what every answer about a file says, also the one that it has not changed."""
    response.headers["ETag"] = file.etag
    response.headers["Cache-Control"] = conf.media_cache_control
    return response


def _refusal(status: int, sentence: str) -> HttpResponse:
    """An answer without a file. It must not be cached: the picture may be there, or gone, a moment later."""
    return HttpResponse(
        f"{sentence}\n",
        status=status,
        content_type="text/plain; charset=utf-8",
        headers={"Cache-Control": "no-store", **_SAFETY},
    )


# --- delivery by the storage or by nginx -------------------------------------------------------------------------


def hand_off(storage: Storage, path: str) -> HttpResponse | None:
    """The answer that makes the storage or nginx send a file, as `IMAGE_MEDIA_DELIVERY` says.

    Args:
        storage: Where the file is.
        path: What follows `draft-images/` in the address; plain, and there is such a file.

    Returns:
        The answer, or `None` if this process sends the bytes.

    Raises:
        Exception: Whatever the storage raises if it cannot sign an address.
    """
    delivery, name = conf.media_delivery, f"{ROOT}/{path}"
    if delivery == "stream":
        return None
    is_local = local_path(storage, name) is not None
    if delivery == "accel":
        return _accel(name) if is_local else None
    return None if is_local else _redirect(storage.url(name))


def _redirect(url: str) -> HttpResponse | None:
    if not url.startswith(("https://", "http://")):
        return None  # an address on this very server would lead in a circle
    # It must not be cached: the signature runs out, and the picture may be deleted.
    return HttpResponse(status=302, headers={"Location": url, "Cache-Control": "no-store"})


def _accel(name: str) -> HttpResponse:
    """nginx puts its own Content-Length, ETag and Last-Modified, and answers ranges and conditions by itself.

    A library for it (django-sendfile2) would be four settings of the host's for one header, and set others that we
    set better.
    """
    return HttpResponse(headers={"X-Accel-Redirect": quote(conf.media_accel_prefix + name)})


# --- ranges ------------------------------------------------------------------------------------------------------

#: One range, no list. The digits are bounded since Python refuses to read numbers of thousands of them.
_SINGLE = re.compile(r"bytes=[ \t]*([0-9]{0,40})-([0-9]{0,40})[ \t]*", re.IGNORECASE)


class UnsatisfiableRange(ValueError):
    """The range lies wholly beyond the end: the answer is 416."""


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """The part of a file that a `Range` header asks for.

    Args:
        header: The header's value, "" if there is none.
        size: The file's size in bytes.

    Returns:
        The first byte and the number of bytes; `None` if the whole file is to be sent: there is no header, it is
        malformed, or it asks for several ranges, all of which a server may ignore.

    Raises:
        UnsatisfiableRange: No byte of the file is in the range.
    """
    found = _SINGLE.fullmatch(header)
    if not found or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        return _suffix(int(last), size)
    start, end = int(first), int(last) if last else size - 1
    if last and end < start:
        return None
    if start >= size:
        raise UnsatisfiableRange
    return start, min(end, size - 1) - start + 1


def _suffix(length: int, size: int) -> tuple[int, int] | None:
    """The last `length` bytes."""
    if not length:
        raise UnsatisfiableRange
    if not size:
        return None  # satisfiable, but no `Content-Range` can express it
    return max(0, size - length), min(length, size)


def if_range_holds(header: str, etag: str, modified: int | None) -> bool:
    """Whether an `If-Range` header still names this file, so that its `Range` counts.

    Args:
        header: The header's value, "" if there is none.
        etag: The file's strong tag, with its quotes. A weak one never matches.
        modified: The file's time of modification in whole seconds since the epoch, if it is known.
    """
    if not header or header == etag:
        return True
    if header.startswith(('"', "W/")):
        return False
    return modified is not None and parse_http_date_safe(header) == modified


# --- finding and opening files -----------------------------------------------------------------------------------


def find_file(storage: Storage, path: str) -> StoredFile | None:
    """The file at `path` below `draft-images/`, or `None` if there is no such file.

    Args:
        storage: Where to look.
        path: A plain one: `images.storage.is_plain_path` has said so.

    Raises:
        Exception: Whatever the storage raises if it cannot tell.
    """
    root = local_path(storage, ROOT)
    return _find_remote(storage, f"{ROOT}/{path}") if root is None else _find_local(root, path)


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
