"""The picture behind a placeholder's title: a soft gradient with large, calm shapes on it.

Needs Pillow. Every choice comes from one `random.Random` and only through its `random()`, whose sequence Python
promises to keep, so one seed gives one picture on every machine. The colours are chosen in OKLCH, where lightness
is what the eye sees: all of a dark picture stays below 0.55 and all of a light one above 0.80, which leaves the
ink of either a contrast of at least 4.5 to 1 wherever the title lies.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

#: Shapes are drawn at twice the size and reduced, because Pillow draws their edges without smoothing.
_OVERSAMPLING = 2
_GRID_COLUMNS, _GRID_ROWS = 4, 3


@dataclass(frozen=True, kw_only=True)
class Palette:
    """The colours of one picture.

    Attributes:
        grid: The gradient's fixed points, row by row, 4 by 3.
        shapes: Colours for the shapes, from the most distant to the nearest one.
        accent: The colour of the one shape that stands out.
        ink: The colour of the text.
    """

    grid: tuple[Colour, ...]
    shapes: tuple[Colour, ...]
    accent: Colour
    ink: Colour


def between(rng: random.Random, low: float, high: float) -> float:
    """A number from `low` to `high`."""
    return low + (high - low) * rng.random()


def oklch(lightness: float, chroma: float, hue: float) -> Colour:
    """An sRGB colour, 0 to 255 a channel, from OKLCH; what sRGB cannot show is clipped.

    Args:
        lightness: 0 (black) to 1 (white).
        chroma: 0 (grey) to about 0.3.
        hue: Degrees.

    Source: Björn Ottosson, "A perceptual color space for image processing" (2020).
    """
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        _srgb(4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short),
        _srgb(-1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short),
        _srgb(-0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short),
    )


def _srgb(linear: float) -> int:
    linear = min(1.0, max(0.0, linear))
    value = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return round(value * 255)


def choose_palette(rng: random.Random) -> Palette:
    """Neighbouring hues: deep colours under white ink, or light ones under dark ink."""
    dark = rng.random() < 0.6
    start, drift = _hues(rng, dark)
    top, bottom, chroma = (0.33, 0.52, 0.105) if dark else (0.95, 0.86, 0.065)
    far, near = (0.50, 0.29) if dark else (0.91, 0.82)
    columns, rows = _GRID_COLUMNS - 1, _GRID_ROWS - 1
    grid = tuple(
        oklch(
            top + (bottom - top) * row / rows,
            chroma,
            start + drift * (0.6 * column / columns + 0.4 * row / rows) + between(rng, -8, 8),
        )
        for row in range(_GRID_ROWS)
        for column in range(_GRID_COLUMNS)
    )
    return Palette(
        grid=grid,
        shapes=tuple(oklch(far + (near - far) * i / 3, chroma * 1.1, start + drift * i / 3) for i in range(4)),
        accent=oklch(0.54, 0.12, start + drift * 1.3) if dark else oklch(0.88, 0.09, start + drift * 1.3),
        ink=(255, 255, 255) if dark else oklch(0.27, 0.05, start),
    )


def _hues(rng: random.Random, dark: bool) -> tuple[float, float]:
    """The first hue and the way to the last one, in degrees.

    A dark picture goes from teal over blue and violet to red, in either direction: dark yellows and greens look
    muddy. A light one may have any hue.
    """
    drift = between(rng, 45, 95)
    start = between(rng, 185, 375 - drift) if dark else between(rng, 0, 360)
    return (start, drift) if rng.random() < 0.5 else (start + drift, -drift)


def draw_background(rng: random.Random, size: tuple[int, int], palette: Palette) -> Image.Image:
    """An RGB picture of `size` (width and height in pixels) without any text."""
    scaled = (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING)
    gradient = Image.new("RGB", (_GRID_COLUMNS, _GRID_ROWS))
    for index, colour in enumerate(palette.grid):
        gradient.putpixel((index % _GRID_COLUMNS, index // _GRID_COLUMNS), colour)
    # A gradient has no edges to smooth: computing it at its final size and doubling the pixels is much faster.
    picture = gradient.resize(size, Image.Resampling.BICUBIC).resize(scaled, Image.Resampling.NEAREST)
    compose = _COMPOSITIONS[int(rng.random() * len(_COMPOSITIONS))]
    compose(ImageDraw.Draw(picture, "RGBA"), rng, scaled, palette)
    return picture.reduce(_OVERSAMPLING)


# --- compositions: what lies on the gradient --------------------------------------------------------------


def _disc(draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, colour: tuple[int, ...]) -> None:
    x, y = centre
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _wave(rng: random.Random, width: int, level: float, height: float) -> list[tuple[float, float]]:
    """Points of a gentle line across the picture around `level`, swinging by about `height`; pixels."""
    first, second = between(rng, 0, math.tau), between(rng, 0, math.tau)
    periods = between(rng, 0.6, 1.3)
    steps = 96
    return [
        (
            width * i / steps,
            level
            + height * math.sin(first + math.tau * periods * i / steps)
            + height * 0.35 * math.sin(second + math.tau * periods * 2.3 * i / steps),
        )
        for i in range(steps + 1)
    ]


def _hills(draw: ImageDraw.ImageDraw, rng: random.Random, size: tuple[int, int], palette: Palette) -> None:
    """A sun over four ranges of hills."""
    width, height = size
    sun = (width * between(rng, 0.62, 0.88), height * between(rng, 0.2, 0.42))
    radius = height * between(rng, 0.1, 0.17)
    _disc(draw, sun, radius * 1.5, (*palette.accent, 80))
    _disc(draw, sun, radius, palette.accent)
    for index, colour in enumerate(palette.shapes):
        line = _wave(rng, width, height * (0.58 + 0.115 * index), height * between(rng, 0.03, 0.07))
        draw.polygon([*line, (width, height), (0, height)], fill=colour)


def _discs(draw: ImageDraw.ImageDraw, rng: random.Random, size: tuple[int, int], palette: Palette) -> None:
    """Large translucent discs that overlap."""
    width, height = size
    for index in range(6):
        centre = (width * (index + between(rng, -0.2, 1.2)) / 6, height * between(rng, -0.05, 1.05))
        _disc(draw, centre, height * between(rng, 0.22, 0.52), (*palette.shapes[index % len(palette.shapes)], 130))


def _ribbons(draw: ImageDraw.ImageDraw, rng: random.Random, size: tuple[int, int], palette: Palette) -> None:
    """Broad ribbons that flow across."""
    width, height = size
    for index, colour in enumerate(palette.shapes):
        level = height * (0.12 + 0.24 * index)
        upper = _wave(rng, width, level, height * between(rng, 0.06, 0.12))
        lower = _wave(rng, width, level + height * between(rng, 0.2, 0.32), height * between(rng, 0.06, 0.12))
        draw.polygon([*upper, *reversed(lower)], fill=(*colour, 140))


def _rings(draw: ImageDraw.ImageDraw, rng: random.Random, size: tuple[int, int], palette: Palette) -> None:
    """Wide rings around a point near one corner."""
    width, height = size
    x = between(rng, -0.05, 0.15) if rng.random() < 0.5 else between(rng, 0.85, 1.05)
    y = between(rng, -0.1, 0.1) if rng.random() < 0.5 else between(rng, 0.9, 1.1)
    centre = (width * x, height * y)
    step = height * between(rng, 0.2, 0.28)
    for index in range(5, 0, -1):
        _disc(draw, centre, step * index, (*palette.shapes[(5 - index) % len(palette.shapes)], 120))


_COMPOSITIONS: tuple[Callable[[ImageDraw.ImageDraw, random.Random, tuple[int, int], Palette], None], ...] = (
    _hills,
    _discs,
    _ribbons,
    _rings,
)
