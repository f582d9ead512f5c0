"""WebP: RIFF chunks and the frame's header (RFC 9649; RFC 6386 for the lossy frame)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .base import MAX_PARTS, NotAnImage, Size


def webp_size(data: bytes) -> Size:
    """The size of a WebP that holds a still picture, with every chunk whole.

    Args:
        data: The whole file; its signature has been looked at.

    Raises:
        NotAnImage: It is not a whole WebP.
    """
    canvas: Size | None = None
    frame: Size | None = None
    for kind, start, length in _chunks(data):
        if kind == b"VP8X" and start == 20:  # the extended format's header can only come first
            canvas = _canvas_size(data, start, length)
        elif kind in {b"VP8 ", b"VP8L"}:
            if frame is not None:
                raise NotAnImage("the WebP has more than one frame")
            frame = _vp8_size(data, start, length) if kind == b"VP8 " else _vp8l_size(data, start, length)
    if frame is None:
        raise NotAnImage("the WebP has no still picture")
    if canvas is not None and canvas != frame:
        raise NotAnImage("the WebP's canvas and its picture differ in size")
    return frame


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and length of each RIFF chunk's data, each of them whole."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise NotAnImage("the WebP is cut off")
    position = 12
    for _count in range(MAX_PARTS):
        if position >= end:
            return
        if position + 8 > end:
            raise NotAnImage("the WebP is damaged")
        kind, length = struct.unpack_from("<4sI", data, position)
        if position + 8 + length > end:
            raise NotAnImage("the WebP is damaged: a chunk is longer than the file")
        yield kind, position + 8, length
        position += 8 + length + length % 2
    raise NotAnImage("the WebP has too many chunks")


def _canvas_size(data: bytes, start: int, length: int) -> Size:
    """Width and height from VP8X: 24 bits each, less one."""
    if length < 10:
        raise NotAnImage("the WebP's header is broken")
    width = int.from_bytes(data[start + 4 : start + 7], "little") + 1
    return width, int.from_bytes(data[start + 7 : start + 10], "little") + 1


def _vp8_size(data: bytes, start: int, length: int) -> Size:
    """Width and height of a lossy key frame: 14 bits each, the upper two are a scale."""
    if length < 10:
        raise NotAnImage("the WebP's frame is broken")
    tag = int.from_bytes(data[start : start + 3], "little")
    is_key_frame, first_partition = not tag & 1, tag >> 5
    if not is_key_frame or data[start + 3 : start + 6] != b"\x9d\x01\x2a" or first_partition > length - 10:
        raise NotAnImage("the WebP's frame is broken")
    width, height = struct.unpack_from("<HH", data, start + 6)
    return width & 0x3FFF, height & 0x3FFF


def _vp8l_size(data: bytes, start: int, length: int) -> Size:
    """Width and height of a lossless frame: 14 bits each, less one, before the alpha hint and the version."""
    if length < 6 or data[start] != 0x2F:
        raise NotAnImage("the WebP's frame is broken")
    bits = int.from_bytes(data[start + 1 : start + 5], "little")
    if bits >> 29:
        raise NotAnImage("the WebP's frame is of an unknown version")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
