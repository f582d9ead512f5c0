"""Single byte ranges of RFC 9110, section 14. Pure: header values and numbers in, numbers out."""

from __future__ import annotations

import re

from django.utils.http import parse_http_date_safe

#: One range, no list. The digits are bounded since Python refuses to read numbers of thousands of them.
_SINGLE = re.compile(r"bytes=[ \t]*([0-9]{0,40})-([0-9]{0,40})[ \t]*", re.IGNORECASE)


class UnsatisfiableRange(ValueError):
    """The range lies wholly beyond the end: the answer is 416."""


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """The part of a file that a `Range` header asks for.

    Args:
        header: The header's value, "" where there is none.
        size: The file's size in bytes.

    Returns:
        The first byte and the number of bytes; `None` where the whole file is to be sent: there is no header, it is
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
        header: The header's value, "" where there is none.
        etag: The file's strong tag, with its quotes. A weak one never matches.
        modified: The file's time of modification in whole seconds since the epoch, where it is known.
    """
    if not header or header == etag:
        return True
    if header.startswith(('"', "W/")):
        return False
    return modified is not None and parse_http_date_safe(header) == modified
