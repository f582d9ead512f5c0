"""Small whole pictures in every format a provider may send, and files that only look like pictures."""

from __future__ import annotations

import io
import struct
import zlib
from functools import lru_cache

from PIL import Image

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!DOCTYPE html><html><body><script>alert(1)</script>This is no picture at all.</body></html>"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@lru_cache(maxsize=32)
def png(width: int, height: int, size: int = 0) -> bytes:
    """A valid PNG of one colour.

    Args:
        width: In pixels.
        height: In pixels.
        size: Bytes the file is to have; reached with a private chunk that every reader skips.
    """
    row = b"\x00" + b"\x2f\x6f\x9f" * width
    packed = zlib.compress(row * height, 1)
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    tail = _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")
    missing = size - len(head) - len(tail) - 12
    padding = _chunk(b"fiLl", b"\xa5\x3c\x0f" * (missing // 3) + b"\0" * (missing % 3)) if missing > 0 else b""
    return head + padding + tail


@lru_cache(maxsize=32)
def picture(kind: str, width: int, height: int, size: int = 0) -> bytes:
    """A valid `png`, `jpeg` or `webp` of one colour; only a PNG is filled up to `size` bytes."""
    if kind == "png":
        return png(width, height, size)
    file = io.BytesIO()
    Image.new("RGB", (width, height), (47, 111, 159)).save(file, kind.upper())
    return file.getvalue()
