"""The view that serves images: conditional, single ranges, HEAD. No database, no login, no listing.

Only what lies under `draft-images/` is served. Whatever it is, it is inert in a browser: types other than pictures
are sent as downloads, nothing is sniffed, and the policy runs nothing. Under gunicorn local files go out through
`sendfile(2)`; elsewhere they are streamed in blocks of 64 KB.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, StreamingHttpResponse
from django.http.response import HttpResponseBase, ResponseHeaders
from django.utils.cache import get_conditional_response
from django.utils.http import http_date

from .conf import conf
from .hand_off import hand_off
from .logs import log_event
from .models import image_storage
from .names import ROOT, is_plain_path
from .ranges import UnsatisfiableRange, if_range_holds, parse_range
from .stored_files import BLOCK_SIZE, LocalPart, StoredFile, find_file

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


class _FileResponse(StreamingHttpResponse):
    """Streams a part of a file; hands local files to the server's own file wrapper.

    Django's `FileResponse` knows no ranges, and measures and names the file once more.
    """

    block_size = BLOCK_SIZE
    #: Where Django's WSGI handler looks for something to give to `wsgi.file_wrapper`.
    file_to_stream: LocalPart | None = None

    def _set_streaming_content(self, value: Iterable[Any]) -> None:
        # Middleware that replaces the content (compression, say) must not be bypassed.
        self.file_to_stream = value if isinstance(value, LocalPart) else None
        super()._set_streaming_content(value)  # type: ignore[misc]


@login_not_required
@transaction.non_atomic_requests
def serve(request: HttpRequest, path: str) -> HttpResponseBase:
    """Answer a request for a file.

    Args:
        request: GET or HEAD; any other method is answered with 405.
        path: What follows `draft-images/` in the address.

    Returns:
        200, 206, 304, 412 or 416 for a file that is there; 404 where there is none; 503 where the storage cannot
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
        return _refusal(503, "The image cannot be read at the moment. Ask again later.")


def _handed_off(path: str) -> HttpResponse | None:
    """The answer that lets the storage or nginx send the file, where that is configured."""
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
    """An answer without a file. Nobody may keep it: the picture may be there, or gone, a moment later."""
    return HttpResponse(
        f"{sentence}\n",
        status=status,
        content_type="text/plain; charset=utf-8",
        headers={"Cache-Control": "no-store", **_SAFETY},
    )
