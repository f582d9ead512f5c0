"""JPEG: segments, the frame's size, scans and the end marker (ITU-T T.81)."""

from __future__ import annotations

import re
import struct

from .base import MAX_PARTS, NotAnImage, Size

_MARKER = re.compile(rb"\xff++([\x01-\xfe])")
#: The first marker that is neither a stuffed zero, a restart nor a fill byte: there a scan ends.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_RESTARTS = range(0xD0, 0xD8)
#: Baseline, extended and progressive, which browsers show; the other frames (lossless, arithmetic) they do not.
_SHOWN_FRAMES = range(0xC0, 0xC3)
#: Every start of frame: C0 to CF without the tables (C4, CC) and the reserved C8.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def jpeg_size(data: bytes) -> Size:
    """The size of a JPEG that has one frame, at least one scan, and its end.

    Args:
        data: The whole file; its signature has been looked at.

    Raises:
        NotAnImage: It is not a whole JPEG.
    """
    size: Size | None = None
    has_scan, position = False, 2
    for _count in range(MAX_PARTS):
        found = _MARKER.match(data, position)
        if not found:
            raise NotAnImage("the JPEG is cut off or damaged")
        marker, position = found[1][0], found.end()
        if marker == _EOI:
            if size is None or not has_scan:
                raise NotAnImage("the JPEG has no picture data")
            return size
        if marker in {_SOI, _TEM} or marker in _RESTARTS:
            raise NotAnImage("the JPEG is damaged: a marker is out of place")
        end = _segment_end(data, position)
        if marker in _FRAMES:
            if size is not None:
                raise NotAnImage("the JPEG has more than one frame")
            size = _frame_size(data, marker, position, end)
        elif marker == _SOS:
            if size is None:
                raise NotAnImage("the JPEG has a scan before its frame")
            end = _scan_end(data, end)
            has_scan = True
        position = end
    raise NotAnImage("the JPEG has too many segments")


def _segment_end(data: bytes, position: int) -> int:
    """Where the segment ends whose two bytes of length are at `position`."""
    length = int.from_bytes(data[position : position + 2], "big")
    if length < 2 or position + length > len(data):
        raise NotAnImage("the JPEG is cut off or damaged")
    return position + length


def _frame_size(data: bytes, marker: int, position: int, end: int) -> Size:
    """Width and height from a start of frame."""
    if marker not in _SHOWN_FRAMES:
        raise NotAnImage("the JPEG is of a kind that browsers do not show")
    if end - position < 8:
        raise NotAnImage("the JPEG's frame is broken")
    precision, height, width, components = struct.unpack_from(">BHHB", data, position + 2)
    if precision != 8 or components not in {1, 3, 4} or end - position != 8 + 3 * components:
        raise NotAnImage("the JPEG's frame is broken or of a kind that browsers do not show")
    return width, height


def _scan_end(data: bytes, position: int) -> int:
    """Where the compressed data that begins at `position` ends: at the next real marker."""
    found = _SCAN_END.search(data, position)
    if not found:
        raise NotAnImage("the JPEG is cut off")
    if found.start() == position:
        raise NotAnImage("the JPEG has an empty scan")
    return found.start()
