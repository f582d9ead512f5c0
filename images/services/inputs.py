"""What a caller may ask for, checked once for every way in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..exceptions import InvalidRequest
from ..models import Variant

MAX_CONTENT_ITEM_ID = 255
MAX_TITLE = 500
MAX_DESCRIPTION = 100_000


@dataclass(frozen=True, kw_only=True)
class GenerationInput:
    """A checked request for one image."""

    content_item_id: str
    title: str
    description: str
    variant: str


def clean_input(*, content_item_id: Any, title: Any, description: Any, variant: Any) -> GenerationInput:
    """Check and normalise what a caller asks for.

    The content item's id is kept to the letter; title and description lose white space around them.

    Raises:
        InvalidRequest: With `details` for every field that is wrong.
    """
    problems: dict[str, list[str]] = {}
    values = {
        "content_item_id": _text(problems, "content_item_id", content_item_id, MAX_CONTENT_ITEM_ID),
        "title": _text(problems, "title", title, MAX_TITLE).strip(),
        "description": _text(problems, "description", description or "", MAX_DESCRIPTION, required=False).strip(),
        "variant": str(variant or Variant.HERO),
    }
    if values["variant"] not in Variant.values:
        problems["variant"] = [f"Choose one of: {', '.join(Variant.values)}."]
    if problems:
        sentences = [f"{name}: {' '.join(texts)}" for name, texts in problems.items()]
        raise InvalidRequest(" ".join(sentences), details=problems)
    return GenerationInput(**values)


def _text(problems: dict[str, list[str]], name: str, value: Any, maximum: int, *, required: bool = True) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        problems[name] = ["This must be a text."]
        return ""
    if required and not value.strip():
        problems[name] = ["This must not be blank."]
    elif len(value) > maximum:
        problems[name] = [f"This must be at most {maximum} characters long."]
    elif "\x00" in value or not _encodable(value):
        problems[name] = ["This must not hold null or surrogate characters."]
    return value


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
