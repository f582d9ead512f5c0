"""PNG: chunks, their checksums and their order (the PNG specification, third edition)."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from .base import MAX_PARTS, NotAnImage, Size

SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Colour type -> bit depths allowed with it.
_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_CHUNK_TYPE = re.compile(rb"[A-Za-z]{4}")


def png_size(data: bytes) -> Size:
    """The size of a PNG whose chunks are whole and in an order that decoders accept.

    Args:
        data: The whole file; its signature has been looked at.

    Raises:
        NotAnImage: It is not a whole PNG.
    """
    chunks = _chunks(data)
    kind, start, length = next(chunks)
    if kind != b"IHDR":
        raise NotAnImage("the PNG does not begin with its header")
    width, height, colour = _header(data, start, length)
    before, has_pixels, has_palette = kind, False, False
    for kind, _start, length in chunks:
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            if has_pixels and before != b"IDAT":
                raise NotAnImage("the PNG's picture data is torn apart")
            has_pixels = has_pixels or length > 0
        elif kind == b"PLTE":
            if has_pixels or has_palette or colour in {0, 4} or not length or length % 3 or length > 768:
                raise NotAnImage("the PNG's palette is out of place")
            has_palette = True
        elif kind[0] < ord("a"):  # an upper-case first letter: decoders must understand it
            raise NotAnImage("the PNG has a critical chunk that is unknown or out of place")
        before = kind
    if not has_pixels or (colour == 3 and not has_palette):
        raise NotAnImage("the PNG has no picture data or lacks its palette")
    return width, height


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and length of each chunk's data up to and including IEND, each with its checksum verified."""
    view, position = memoryview(data), len(SIGNATURE)
    for _count in range(MAX_PARTS):
        if position + 12 > len(data):
            raise NotAnImage("the PNG is cut off")
        length, kind = struct.unpack_from(">I4s", data, position)
        checksum_at = position + 8 + length
        if checksum_at + 4 > len(data):
            raise NotAnImage("the PNG is cut off")
        if not _CHUNK_TYPE.fullmatch(kind):
            raise NotAnImage("the PNG is damaged")
        if zlib.crc32(view[position + 4 : checksum_at]) != struct.unpack_from(">I", data, checksum_at)[0]:
            raise NotAnImage("the PNG is damaged: a checksum does not fit")
        yield kind, position + 8, length
        if kind == b"IEND":
            return
        position = checksum_at + 4
    raise NotAnImage("the PNG has too many chunks")


def _header(data: bytes, start: int, length: int) -> tuple[int, int, int]:
    """Width, height and colour type from IHDR."""
    if length != 13:
        raise NotAnImage("the PNG's header is broken")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack_from(">IIBBBBB", data, start)
    if depth not in _DEPTHS.get(colour, set()) or compression or filtering or interlace > 1:
        raise NotAnImage("the PNG's header is broken")
    if width > 0x7FFFFFFF or height > 0x7FFFFFFF:
        raise NotAnImage("the PNG's header is broken")
    return width, height, colour
