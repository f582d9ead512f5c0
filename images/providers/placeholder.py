"""`PlaceholderProvider`: pleasant pictures made on this machine, without a network, a key or a bill.

It is for demos, development and tests, and is only ever used where somebody chose it. Pictures say so in a corner.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

from ..exceptions import ProviderNotConfigured, ProviderTimeout
from .base import Deadline, ImageProvider, ImageRequest

#: The area every picture comes close to: that of 1536x864, in pixels.
TARGET_AREA = 1536 * 864

_NO_PILLOW = "The placeholder provider needs Pillow. The operator has to run: pip install 'trygo-images[placeholder]'"
_NO_FONT = "The placeholder provider's font is missing or damaged. The operator has to reinstall trygo-images."


def canvas_size(aspect_ratio: tuple[int, int]) -> tuple[int, int]:
    """Width and height in pixels for an aspect ratio: 1536x864 for 16:9 and 1280x960 for 4:3.

    The largest size of exactly that ratio whose sides are multiples of 16 and whose area is at most `TARGET_AREA`;
    where even the smallest such size is larger (1000:999, say), the nearest multiples of 16.

    Args:
        aspect_ratio: Width and height as positive whole numbers.
    """
    common = math.gcd(*aspect_ratio)
    width, height = aspect_ratio[0] // common, aspect_ratio[1] // common
    step = math.lcm(16 // math.gcd(width, 16), 16 // math.gcd(height, 16))
    times = math.isqrt(TARGET_AREA // (width * height * step * step))
    if times:
        return width * step * times, height * step * times
    ideal = math.sqrt(TARGET_AREA * width / height)
    return max(16, round(ideal / 16) * 16), max(16, round(TARGET_AREA / ideal / 16) * 16)


class PlaceholderProvider(ImageProvider):
    """Draws the title on a picture whose colours and shapes follow from the title and the seed. It has no options.

    The same title, seed and aspect ratio give the same picture; another title or seed gives another one.
    """

    @property
    def model(self) -> str:
        """Always `placeholder`."""
        return "placeholder"

    def call(self, payload: ImageRequest, deadline: Deadline) -> bytes:
        """Draw a PNG.

        Raises:
            ProviderTimeout: The deadline had passed before the start; drawing itself takes about 0.1 seconds.
            ProviderNotConfigured: Pillow is not installed, or the package's font is missing.
        """
        if deadline.remaining <= 0:
            raise ProviderTimeout
        with _installation_errors():
            return _draw_png(payload)

    def check(self) -> list[str]:
        """Whether Pillow and the font are there."""
        try:
            self.warm_up()
        except ProviderNotConfigured as err:
            return [err.message]
        return []

    def warm_up(self) -> None:
        """Import Pillow and open the font.

        Raises:
            ProviderNotConfigured: One of them is missing.
        """
        with _installation_errors():
            from ._placeholder_art import draw_background  # noqa: F401
            from ._placeholder_text import load_font

            load_font(24)


@contextmanager
def _installation_errors() -> Iterator[None]:
    try:
        yield
    except ImportError as err:
        raise ProviderNotConfigured(_NO_PILLOW) from err
    except OSError as err:
        raise ProviderNotConfigured(_NO_FONT) from err


def _draw_png(request: ImageRequest) -> bytes:
    # Imported here because Pillow is optional: a server that only asks real providers does not need it.
    from ._placeholder_art import choose_palette, draw_background
    from ._placeholder_text import draw_words

    # Bytes, because titles may hold halves of surrogate pairs. Nothing secret depends on these choices.
    rng = random.Random(f"{request.seed}:{request.title}".encode("utf-8", "surrogatepass"))  # noqa: S311
    palette = choose_palette(rng)
    picture = draw_background(rng, canvas_size(request.aspect_ratio), palette)
    draw_words(picture, request.title, palette.ink)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)  # twice as fast as the default and a fifth larger
    return buffer.getvalue()
