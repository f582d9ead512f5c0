"""Reading an answer's body to its end, with a limit on what it unpacks to."""

from __future__ import annotations

from urllib3 import BaseHTTPResponse

_CHUNK = 256 * 1024


class BodyTooLarge(Exception):
    """The body is, or says it is, larger than the limit."""


def read_body(response: BaseHTTPResponse, limit: int) -> bytes:
    """The whole body, uncompressed.

    Args:
        response: An answer whose body was not read yet.
        limit: The most bytes to accept, counted after decompression.

    Raises:
        BodyTooLarge: There is more; the connection is closed.
        urllib3.exceptions.HTTPError: It broke off, was reset, or cannot be decompressed.
    """
    encoded = bool(response.headers.get("content-encoding"))
    length = _declared_length(response)
    if length > limit:
        response.close()
        raise BodyTooLarge
    # A body of known size is read in one piece, so that it is not copied together from chunks. One that is
    # compressed is unpacked by at most a chunk at a time, so that a bomb is noticed before it goes off.
    piece = length if length and not encoded else _CHUNK
    parts: list[bytes] = []
    size = 0
    for part in response.stream(piece, decode_content=encoded):
        size += len(part)
        if size > limit:
            response.close()
            raise BodyTooLarge
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _declared_length(response: BaseHTTPResponse) -> int:
    """The Content-Length as urllib3 understood it, or 0 where there is none that counts."""
    return int(getattr(response, "length_remaining", None) or 0)
