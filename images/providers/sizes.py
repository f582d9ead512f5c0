"""Which size to ask OpenAI for: by the model's family and arithmetic, never by a list of models.

Facts: the GPT image models from 2 on take any size whose sides are multiples of 16; the 1.x models and
chatgpt-image-latest only three literals, the DALL-E models their own (openai/types/image_generate_params.py).
A name nobody has heard of is taken for a new model of the current kind.
"""

from __future__ import annotations

import math
import re

_STEP = 16

#: The area of 1536x864, the 16:9 size in OpenAI's documentation: what the default quality and price are for.
_LARGEST_AREA = 1536 * 864

# A family's name is followed by its end or by something that is not part of the number: gpt-image-10 is no 1.x.
_FAMILIES: tuple[tuple[re.Pattern[str], tuple[str, str, str]], ...] = (
    (re.compile(r"gpt-image-1(?!\d)|chatgpt-image-latest$"), ("1536x1024", "1024x1024", "1024x1536")),
    (re.compile(r"dall-e-3"), ("1792x1024", "1024x1024", "1024x1792")),
    (re.compile(r"dall-e-2"), ("1024x1024", "1024x1024", "1024x1024")),
)


def size_for(model: str, aspect_ratio: tuple[int, int]) -> str:
    """The size to ask `model` for, as `WIDTHxHEIGHT` in pixels.

    Args:
        model: The model's name; a gateway's prefix (`openai/…`) is ignored.
        aspect_ratio: Width and height as small whole numbers.

    Returns:
        The family's closest literal, or the largest size of exactly this ratio that is not above 1536x864 in area.
    """
    width, height = aspect_ratio
    name = model.rpartition("/")[2]
    for pattern, (wide, square, tall) in _FAMILIES:
        if pattern.match(name):
            return square if width == height else wide if width > height else tall
    return "{}x{}".format(*_exact(width, height))


def _exact(width: int, height: int) -> tuple[int, int]:
    """The largest multiple of the ratio whose sides are multiples of 16 and whose area fits."""
    common = math.gcd(width, height)
    unit_width, unit_height = width // common * _STEP, height // common * _STEP
    factor = math.isqrt(_LARGEST_AREA // (unit_width * unit_height))
    if factor == 0:  # A ratio such as 97:89 has no small multiple: the nearest one below, on the grid.
        scale = math.sqrt(_LARGEST_AREA / (width * height)) / _STEP
        return max(1, int(width * scale)) * _STEP, max(1, int(height * scale)) * _STEP
    return unit_width * factor, unit_height * factor
