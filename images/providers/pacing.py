"""Reading an answer's body only while holding a place (see `throttle`), and not holding it while it stalls."""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

from urllib3.util.wait import wait_for_read

from .exchange import Exchange, current_exchange

#: Bodies up to this many bytes (errors, refusals) are read without a place.
SMALL_BODY = 64 * 1024

#: Seconds a body may make us wait, in all, before its place is given back whenever it has nothing to read.
#: Long enough for the gaps of a healthy network, short enough that six stalled answers hold nobody up.
PATIENCE = 0.1

# Large reads go past the buffer; it only serves the headers and the size lines of chunks, and a thousand waiting
# threads have one each.
_BUFFER = 4096


class PacedReader(io.RawIOBase):
    """The raw stream under an answer: asks for a place before it reads from the socket."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, exchange: Exchange) -> None:
        super().__init__()
        self._raw = raw
        self._sock = sock
        # Not the exchange itself: a pooled connection remembers its last answer, and would remember the image.
        self._claim = exchange.working_set
        self._deadline = exchange.deadline
        self._patience = PATIENCE
        self.in_large_body = False

    def readable(self) -> bool:
        """Yes: `io.BufferedReader` wants to know."""
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        """Read what there is, as `io.RawIOBase.readinto` does.

        Raises:
            TimeoutError: The exchange's deadline passed while waiting for bytes or for a place.
        """
        if self.in_large_body:
            self.take_place()
        return self._raw.readinto(buffer)

    def take_place(self) -> None:
        """Hold a place as soon as there is something to read.

        Raises:
            TimeoutError: The exchange's deadline passed before.
        """
        claim, deadline = self._claim, self._deadline
        if not self._ready_soon():
            claim.give_back()
            if not wait_for_read(self._sock, deadline.remaining):
                raise TimeoutError("The answer stalled until the deadline.")
        if not claim.take(deadline.remaining):
            raise TimeoutError("No place to read in until the deadline.")

    def _ready_soon(self) -> bool:
        """Whether there is something to read, waiting for it as long as patience lasts and a place is held."""
        # Decrypted bytes may lie in the TLS layer, where polling the socket does not see them; TLS inside TLS
        # (a proxy that speaks TLS itself) does not tell, so there the place is simply kept.
        if not isinstance(self._sock, socket.socket):
            return True
        pending = getattr(self._sock, "pending", None)
        if (pending is not None and pending() > 0) or wait_for_read(self._sock, 0.0):
            return True
        if not self._claim.held or self._patience <= 0:
            return False
        started = time.monotonic()
        ready = wait_for_read(self._sock, self._patience)
        self._patience -= time.monotonic() - started
        return ready

    def close(self) -> None:
        """Close the stream under this one, too."""
        if not self.closed:
            self._raw.close()
        super().close()


class PacedResponse(http.client.HTTPResponse):
    """An `http.client.HTTPResponse` that reads through a `PacedReader` where an exchange is open."""

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._paced: PacedReader | None = None
        exchange = current_exchange()
        if exchange is not None:
            raw = self.fp.detach()
            self._paced = PacedReader(raw, sock, exchange)
            self.fp = io.BufferedReader(self._paced, _BUFFER)

    def begin(self) -> None:
        """Read the status line and the headers; what follows is paced if it is or may be large."""
        super().begin()
        if self._paced is not None:
            self._paced.in_large_body = self.length is None or self.length > SMALL_BODY

    def read(self, amt: int | None = None) -> bytes:
        """Read as `http.client.HTTPResponse.read` does, which makes room for all of a body before its first byte.

        A thread has its place before that: two megabytes for each that waits for one would fill the memory.
        """
        if self._paced is not None and self.length is not None and self.length > SMALL_BODY:
            self._paced.take_place()
        return super().read(amt)
