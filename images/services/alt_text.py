"""Alternative texts: words for those who cannot see a picture."""

from __future__ import annotations

from typing import Any

from ..exceptions import ImageNotFound, InvalidRequest
from ..models import MAX_ALT_TEXT, GeneratedImage, Status
from .database import rows
from .prompts import visible_line
from .request import check_text


def set_alt_text(*, image: GeneratedImage, alt_text: str | None) -> GeneratedImage:
    """Change the alternative text of an image.

    Args:
        image: Its row, which is updated in place as well.
        alt_text: What is seen, in the language of the article, up to 250 characters. "" marks the picture as
            decorative: screen readers pass over it. `None` says that there is no text.

    Returns:
        The same row.

    Raises:
        images.exceptions.InvalidRequest: The text is too long, or holds null characters.
        images.exceptions.ImageNotFound: The image has been deleted.
    """
    cleaned = None if alt_text is None else clean_alt_text(alt_text)
    if not rows().filter(pk=image.pk).exclude(status=Status.DELETING).update(alt_text=cleaned):
        raise ImageNotFound
    image.alt_text = cleaned
    return image


def clean_alt_text(text: Any) -> str:
    """A person's text in one line, without control and invisible characters.

    Raises:
        images.exceptions.InvalidRequest: See `set_alt_text`.
    """
    problems: dict[str, list[str]] = {}
    line = visible_line(check_text(problems, "alt_text", text, None, required=False))
    if len(line) > MAX_ALT_TEXT:
        problems["alt_text"] = [f"This must be at most {MAX_ALT_TEXT} characters long."]
    if problems:
        raise InvalidRequest(f"alt_text: {problems['alt_text'][0]}", details=problems)
    return line
