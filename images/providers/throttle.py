"""At most a few answers are read, decoded and stored at one moment in a process.

An image is two megabytes of text on its way in. What keeps a thousand simultaneous generations small is that
only a few of them are in this process's memory at all: the others' bytes wait in their sockets. A thread takes
a *place* with the first byte it reads of a large answer and keeps it until its `working_set` ends, so that
decoding, checking and writing the image are bounded as well. A thread that waits for the network holds no
place, so answers that stall never hold up the others.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: Places a process. Six kept both cores busy at 1,000 simultaneous answers without a larger heap (measured).
DEFAULT_PLACES = 6


class ReadingPlaces:
    """A fixed number of places to read in.

    Args:
        size: How many threads may read, decode and store at one moment.
    """

    def __init__(self, size: int = DEFAULT_PLACES) -> None:
        self._free = threading.BoundedSemaphore(size)

    def take(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a place; say whether there was one."""
        return self._free.acquire(timeout=max(timeout, 0.0))

    def give_back(self) -> None:
        """Free a place that was taken."""
        self._free.release()


#: The places of this process.
reading_places = ReadingPlaces()


class WorkingSet:
    """The claim of one thread on at most one place. Made by `working_set`."""

    def __init__(self, places: ReadingPlaces) -> None:
        self._places = places
        self.held = False

    def take(self, timeout: float) -> bool:
        """Hold a place, waiting up to `timeout` seconds; say whether it is held. Free when it already is."""
        if not self.held:
            self.held = self._places.take(timeout)
        return self.held

    def give_back(self) -> None:
        """Let the place go, where one is held: done before waiting for somebody else."""
        if self.held:
            self.held = False
            self._places.give_back()


_current: ContextVar[WorkingSet | None] = ContextVar("images_working_set", default=None)


@contextmanager
def working_set(places: ReadingPlaces | None = None) -> Iterator[WorkingSet]:
    """Bound the memory of everything done inside: painting, checking and storing one image.

    Entering costs nothing: the place is taken by the transport with the first byte of a large answer, and given
    back at the end of the outermost `working_set` of the thread, or when the thread sends another request.

    Args:
        places: Where to take it from; the process's own places by default.
    """
    outer = _current.get()
    if outer is not None:
        yield outer
        return
    claim = WorkingSet(places or reading_places)
    token = _current.set(claim)
    try:
        yield claim
    finally:
        _current.reset(token)
        claim.give_back()
