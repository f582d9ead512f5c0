"""What becomes of generations that outlast the process they run in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..logs import log_event
from ..models import GeneratedImage, Status

logger = logging.getLogger("images")

_lock = threading.Lock()
_under_way: set[Any] = set()


@contextmanager
def under_way(image: GeneratedImage) -> Iterator[None]:
    """Remember that this process is making `image`, until the block ends."""
    with _lock:
        _under_way.add(image.pk)
    try:
        yield
    finally:
        with _lock:
            _under_way.discard(image.pk)


def abandon_generations() -> int:
    """Mark what this process is still making as failed: for a server whose time to stop gracefully is over.

    The rows would be `pending` until their deadline is long past, and their keys taken. A generation that does finish
    before the process ends becomes ready all the same: it is paid for.

    Returns:
        How many were marked.

    Raises:
        django.db.DatabaseError: The database does not answer.
    """
    from .repair import fail_stopped, rows  # it imports this package

    with _lock:
        keys = list(_under_way)
    marked = [fail_stopped(row, []) for row in rows().filter(pk__in=keys, status=Status.PENDING)]
    if marked:
        log_event(logger, logging.WARNING, "generations_abandoned", count=sum(marked))
    return sum(marked)
