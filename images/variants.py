"""Variants: what pictures are for, and their shape. `hero`, `inline`, and those of `IMAGES["VARIANTS"]`.

A variant's name becomes part of file names and addresses, and a row keeps it when the variant has been taken away.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from .conf import conf

#: The built-in variants: width and height of the picture as small whole numbers.
BUILT_IN: Mapping[str, tuple[int, int]] = {"hero": (16, 9), "inline": (4, 3)}

#: The keys of an entry of `IMAGES["VARIANTS"]`.
KEYS = ("RATIO", "PURPOSE", "FRAMING")

#: Characters of a name, as in the column.
MAX_NAME = 16
#: How many times the longer side may be as long as the shorter one: no vendor makes pictures beyond that.
MAX_STRETCH = 8
#: Characters of a purpose or a framing, which become part of every prompt.
MAX_WORDS = 300

# No part begins with a digit: a file's name is `{variant}-{milliseconds}-{token}`, and this keeps it readable.
NAME = r"[a-z][a-z0-9_]*(?:-[a-z][a-z0-9_]*)*"
_NAME = re.compile(NAME)
_RATIO = re.compile(r"([1-9][0-9]{0,4}):([1-9][0-9]{0,4})")


def is_variant_name(name: Any) -> bool:
    """Whether a variant can be called so."""
    return isinstance(name, str) and len(name) <= MAX_NAME and bool(_NAME.fullmatch(name))


@dataclass(frozen=True, kw_only=True)
class OwnVariant:
    """A variant of `IMAGES["VARIANTS"]`.

    Attributes:
        name: As callers write it.
        ratio: The ratio as the operator wrote it, for example `1200:630`.
        aspect_ratio: The same as the smallest whole numbers, for example `(40, 21)`.
        purpose: What the image is for; continues "It is …" in the prompt.
        framing: How the picture is framed.
    """

    name: str
    ratio: str
    aspect_ratio: tuple[int, int]
    purpose: str
    framing: str


def own_variants() -> dict[str, OwnVariant]:
    """The variants of `IMAGES["VARIANTS"]` by their names.

    Raises:
        ImproperlyConfigured: An entry cannot be used; the message is a sentence that names it.
    """
    return {name: _parse(name, entry) for name, entry in conf.variant_entries.items()}


def variant_names() -> list[str]:
    """The names that callers may use, the built-in ones first.

    Raises:
        ImproperlyConfigured: As `own_variants`.
    """
    return [*BUILT_IN, *own_variants()]


def aspect_ratio_of(name: str) -> tuple[int, int] | None:
    """Width and height as small whole numbers; `None` if there is no such variant (any more).

    Raises:
        ImproperlyConfigured: As `own_variants`.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    own = own_variants().get(name)
    return own.aspect_ratio if own else None


def problems() -> Iterator[str]:
    """A sentence about every entry that cannot be used.

    Raises:
        ImproperlyConfigured: `IMAGES["VARIANTS"]` is not a dictionary.
    """
    for name, entry in conf.variant_entries.items():
        try:
            _parse(name, entry)
        except ImproperlyConfigured as err:
            yield str(err)


def _parse(name: Any, entry: Any) -> OwnVariant:
    entry = {"RATIO": entry} if isinstance(entry, str) else entry
    if problem := _name_problem(name):
        raise ImproperlyConfigured(f'IMAGES["VARIANTS"] has the name {str(name)[:40]!r}, which {problem}')
    if not isinstance(entry, Mapping):
        raise ImproperlyConfigured(f'IMAGES["VARIANTS"]["{name}"] must be a ratio or a dictionary.')
    ratio = entry.get("RATIO")
    width, height = _sides(name, ratio)
    framing = f"{width}:{height} {_orientation(width, height)}, the main subject clear of the edges"
    return OwnVariant(
        name=name,
        ratio=str(ratio),
        aspect_ratio=(width, height),
        purpose=_words(name, "PURPOSE", entry.get("PURPOSE", "an image of the article")),
        framing=_words(name, "FRAMING", entry.get("FRAMING", framing)),
    )


def _name_problem(name: Any) -> str:
    if name in BUILT_IN:
        return "is built in and cannot be changed."
    if is_variant_name(name):
        return ""
    if isinstance(name, str) and len(name) > MAX_NAME:
        return f"has more than {MAX_NAME} characters."
    return (
        "may only have lower-case letters, digits, underscores and hyphens, with a letter first and after a hyphen."
    )


def _sides(name: str, ratio: Any) -> tuple[int, int]:
    """Width and height of a ratio, as the smallest whole numbers."""
    spelling = f'IMAGES["VARIANTS"]["{name}"]["RATIO"]'
    found = _RATIO.fullmatch(ratio) if isinstance(ratio, str) else None
    if not found:
        raise ImproperlyConfigured(f'{spelling} must be width and height, for example "1200:630" or "1:1".')
    width, height = int(found[1]), int(found[2])
    if max(width, height) > MAX_STRETCH * min(width, height):
        raise ImproperlyConfigured(f"{spelling} makes one side more than {MAX_STRETCH} times as long as the other.")
    common = math.gcd(width, height)
    return width // common, height // common


def _orientation(width: int, height: int) -> str:
    return "square" if width == height else "landscape" if width > height else "portrait"


def _words(name: str, key: str, value: Any) -> str:
    """A part of the prompt: in double quotes stand only the article's own words."""
    is_fine = isinstance(value, str) and value.strip() and value.isprintable() and '"' not in value
    if not is_fine or len(value) > MAX_WORDS:
        raise ImproperlyConfigured(
            f'IMAGES["VARIANTS"]["{name}"]["{key}"] must be one line of at most {MAX_WORDS} characters, without '
            "double quotes."
        )
    return str(value).strip().rstrip(".")
