"""The view that serves images: conditional, single ranges, HEAD. No database, no login, no listing.

Only what lies under `draft-images/` is served. Whatever it is, it is inert in a browser: types other than pictures
are sent as downloads, nothing is sniffed, and the policy runs nothing. Under gunicorn local files go out through
`sendfile(2)`; elsewhere they are streamed in blocks of 64 KB.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from urllib.parse import quote

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_not_required
from django.core.files.storage import Storage
from django.db import transaction
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase, ResponseHeaders
from django.utils.cache import get_conditional_response
from django.utils.http import http_date, parse_etags, parse_http_date_safe
from django.views.decorators.csrf import csrf_exempt

from .conf import conf
from .file_names import ROOT, is_plain_path
from .local_files import local_path
from .logs import log_event
from .models import image_storage
from .stored_files import StoredFile, Wanted, find_file

logger = logging.getLogger("images")

_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "avif": "image/avif",
}
#: A tag as buckets make them. No other is passed on: a bucket refuses some that a caller can make up.
_BUCKETS_TAG = re.compile(r'(?:W/)?"[A-Za-z0-9-]{1,100}"')
_OTHER_CONDITIONS = {"HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE"}
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
        storage = image_storage()
        hands_off = is_handed_off(storage, request.method)
        file = find_file(storage, path, _wanted(request, is_sent=not hands_off))
        if file is None:
            return _refusal(404, "There is no such image.")
        try:
            return (_handed_off(path) if hands_off else None) or _answer(request, file, path)
        finally:
            file.close()
    except Exception as err:  # noqa: BLE001  (remote storages raise their SDK's own exceptions)
        trace = None if isinstance(err, OSError) else err
        log_event(logger, logging.ERROR, "media_failed", file=f"{ROOT}/{path}", error=repr(err), exc_info=trace)
        return _refusal(503, "The image cannot be read at the moment. Try again later.")


def _wanted(request: HttpRequest, *, is_sent: bool) -> Wanted:
    """What the storage is asked for, so that one call is enough and no more is sent than the caller gets.

    What a storage cannot judge, as several tags, is judged afterwards, from what it says of the file.
    """
    meta = request.META
    if request.method == "HEAD" or not is_sent:
        return Wanted(content=False)
    tags = parse_etags(meta.get("HTTP_IF_NONE_MATCH", ""))
    is_simple = len(tags) == 1 and _BUCKETS_TAG.fullmatch(tags[0]) and not _OTHER_CONDITIONS & meta.keys()
    return Wanted(
        byte_range=readable_range(meta.get("HTTP_RANGE", "")), unless=tags[0].removeprefix("W/") if is_simple else ""
    )


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


def is_handed_off(storage: Storage, method: str | None) -> bool:
    """Whether the storage or nginx sends the file. A storage's address is signed for one method, which is GET."""
    is_local = local_path(storage, ROOT) is not None
    return conf.media_delivery == ("accel" if is_local else "redirect") and (is_local or method == "GET")


def hand_off(storage: Storage, path: str) -> HttpResponse | None:
    """The answer that makes the storage or nginx send a file, as `IMAGE_MEDIA_DELIVERY` says.

    Args:
        storage: Where the file is.
        path: What follows `draft-images/` in the address; plain, and there is such a file.

    Returns:
        The answer, or `None` if this process sends the bytes after all.

    Raises:
        Exception: Whatever the storage raises if it cannot sign an address.
    """
    name = f"{ROOT}/{path}"
    return _accel(name) if conf.media_delivery == "accel" else _redirect(storage.url(name))


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


def readable_range(header: str) -> str:
    """A `Range` header as it can be passed on to a storage: a single range that may hold a byte, or ""."""
    found = _SINGLE.fullmatch(header)
    first, last = found.groups() if found else ("", "")
    if first:
        return f"bytes={first}-{last}" if not last or int(last) >= int(first) else ""
    return f"bytes=-{last}" if last and int(last) else ""


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
