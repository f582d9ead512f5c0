"""What the three formats' modules share."""

from __future__ import annotations

#: More chunks or segments than this are an attack on the loop that walks them: 30 MB in 4 KB chunks are 7,500.
MAX_PARTS = 50_000

#: Width and height in pixels.
Size = tuple[int, int]


class NotAnImage(ValueError):
    """The bytes are not a whole PNG, JPEG or WebP within the limits. The message says why and holds none of them."""
