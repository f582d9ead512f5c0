"""How many generations may be under way at once in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..conf import conf
from ..exceptions import TooManyGenerations

#: Seconds after which a caller that was turned away may ask again: a good part of a generation's usual time.
RETRY_AFTER = 5

_lock = threading.Lock()
_taken = 0


@contextmanager
def generation_slot() -> Iterator[None]:
    """Hold one of the `IMAGE_MAX_CONCURRENCY` slots of this process.

    A caller is turned away at once rather than queued: a queue in memory would hide from everybody, the
    load balancer included, that this process is full.

    Raises:
        TooManyGenerations: All slots are taken.
    """
    global _taken
    with _lock:
        if _taken >= conf.max_concurrency:
            raise TooManyGenerations(retry_after=RETRY_AFTER)
        _taken += 1
    try:
        yield
    finally:
        with _lock:
            _taken -= 1


def slots_taken() -> int:
    """How many generations are under way in this process."""
    return _taken
