"""What a person may type to name an image exactly."""

from __future__ import annotations

from urllib.parse import unquote
from uuid import UUID

from django.db.models import Q

#: The folder that every image's file name, and so its address, starts with.
FOLDER = "draft-images/"


def exact_matches(term: str) -> Q:
    """The condition that finds an image by its content item, its id or its address; each has an index."""
    condition = Q(content_item_id=term)
    if FOLDER in term:
        condition |= Q(file=unquote(term[term.index(FOLDER) :]))
    try:
        condition |= Q(pk=UUID(term))
    except ValueError:
        return condition
    return condition
