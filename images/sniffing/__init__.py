"""Judging bytes: is this a whole PNG, JPEG or WebP, and how large is it?

"Whole" is verified, not decoded pixel by pixel: PNG by its chunks' checksums and order, JPEG by its segments, its
scans and the end marker, WebP by its RIFF sizes and its frame header. The work is done by `zlib` and `re` at C speed
on the bytes where they lie, without copies.

Bytes after the picture's own end are tolerated in all three: Google's JPEGs carry a gain map there, browsers ignore
them, and a picture that was paid for is not thrown away because of them. They are harmless where they are served
(`images.media`: fixed type, `nosniff`, a policy that runs nothing) and count towards the limit in bytes.

Each format has a module of its own, which names its source.
"""

from __future__ import annotations

from dataclasses import dataclass

from .base import NotAnImage
from .jpeg import jpeg_size
from .png import SIGNATURE as PNG_SIGNATURE
from .png import png_size
from .webp import webp_size

__all__ = ["ImageInfo", "NotAnImage", "inspect_image"]


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """What bytes turned out to be.

    Attributes:
        mime_type: `image/png`, `image/jpeg` or `image/webp`.
        extension: `png`, `jpg` or `webp`, without a dot.
        width: In pixels.
        height: In pixels.
    """

    mime_type: str
    extension: str
    width: int
    height: int


def inspect_image(data: bytes, *, max_bytes: int, max_pixels: int) -> ImageInfo:
    """Say what `data` is by looking at nothing but its bytes.

    Args:
        data: The whole file.
        max_bytes: The most bytes the file may have.
        max_pixels: The most pixels (width times height) the picture may have.

    Raises:
        NotAnImage: `data` is something else, is damaged or cut off, or exceeds a limit.
    """
    if len(data) > max_bytes:
        raise NotAnImage(f"it has {len(data)} bytes, more than the {max_bytes} allowed")
    if data.startswith(PNG_SIGNATURE):
        mime_type, extension, size = "image/png", "png", png_size(data)
    elif data.startswith(b"\xff\xd8"):
        mime_type, extension, size = "image/jpeg", "jpg", jpeg_size(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        mime_type, extension, size = "image/webp", "webp", webp_size(data)
    else:
        raise NotAnImage("it is neither PNG, JPEG nor WebP")
    width, height = size
    if not width or not height:
        raise NotAnImage("it has no width or no height")
    if width * height > max_pixels:
        raise NotAnImage(f"it has {width} x {height} pixels, more than the {max_pixels} allowed")
    return ImageInfo(mime_type=mime_type, extension=extension, width=width, height=height)
