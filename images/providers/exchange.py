"""One request to a provider and what came of it, shared by the transport below the SDK and the provider above.

An SDK sees neither the total deadline nor the bytes that were taken out of its answer. Both sides meet in the
`Exchange` that the provider's `call` opens around the SDK's call, in the same thread.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from .base import Deadline
from .throttle import WorkingSet, working_set
from .watchdog import watchdog

_REQUEST_ID_LENGTH = 128


class Exchange:
    """What the transport knows about one call.

    Attributes:
        deadline: When everything has to be over.
        working_set: The thread's claim on a place to read in.
        permit: Asked about every IP address before any is connected to; raises to refuse it.
        sent: Whether any byte of a request may have left: only then can anything have been billed.
        status: The answer's HTTP status, `None` before there is one.
        headers: The answer's headers, names in lower case.
        images: Images the transport took out of the answer, decoded, in the answer's order.
    """

    def __init__(self, deadline: Deadline, claim: WorkingSet, permit: Callable[[str], None] | None = None) -> None:
        self.deadline = deadline
        self.working_set = claim
        self.permit = permit
        self.sent = False
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.images: list[bytes] = []
        self.guard = watchdog.guard(deadline.at)
        self._lifted: dict[str | bytes, bytes] = {}

    @property
    def request_id(self) -> str:
        """The provider's own name for the request (`x-request-id`), or ""."""
        return safe_id(self.headers.get("x-request-id"))

    def lift(self, data: bytes) -> str:
        """Keep an image aside and return the short base64 text that stands for it in the SDK's answer."""
        stand_in = f"lifted:{len(self.images)}".encode()
        token = base64.b64encode(stand_in).decode()
        self.images.append(data)
        # OpenAI's SDK hands the text on, Google's decodes it first: both are to be recognised.
        self._lifted[token] = self._lifted[stand_in] = data
        return token

    def restore(self, stand_in: str | bytes) -> bytes | None:
        """The image that `stand_in` (the text, or its decoded bytes) stands for, or `None`."""
        return self._lifted.get(stand_in)


_current: ContextVar[Exchange | None] = ContextVar("images_exchange", default=None)


def current_exchange() -> Exchange | None:
    """The innermost open exchange of this thread."""
    return _current.get()


@contextmanager
def exchange(deadline: Deadline, *, permit: Callable[[str], None] | None = None) -> Iterator[Exchange]:
    """Open an exchange around one call; it brings its own `working_set` where none is open.

    Args:
        deadline: The total deadline over connecting, sending, headers and body.
        permit: See `Exchange.permit`.
    """
    with working_set() as claim:
        opened = Exchange(deadline, claim, permit)
        token = _current.set(opened)
        try:
            yield opened
        finally:
            _current.reset(token)
            opened.guard.let_go()


def safe_id(value: object) -> str:
    """A provider's identifier as something that can be logged and stored: short, printable ASCII, or ""."""
    if not isinstance(value, str):
        return ""
    return "".join(char for char in value if "!" <= char <= "~")[:_REQUEST_ID_LENGTH]
