"""The HTTP transport under both SDKs: urllib3's pool with a total deadline, a size limit and nothing hidden.

Neither SDK limits the time of a whole request or the size of an answer, and both follow redirects with the
prompt (one of them with the key). Here nothing is sent twice, no redirect is followed, and everything is over
at the deadline of the open `exchange`.
"""

from __future__ import annotations

import http.client
import threading

import httpx2
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    HTTPError,
    IncompleteRead,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from .base import Deadline
from .body import BodyTooLarge, read_body
from .exchange import Exchange, current_exchange, exchange
from .lifting import lift_images
from .outbound import Outbound

#: Seconds for name, TCP, tunnel and TLS together.
CONNECT_TIMEOUT = 10.0

#: Seconds for a request that is sent without an open exchange.
_DEFAULT_SECONDS = 90.0

# Set anew below, or no longer true once the body was read and unpacked. A cookie would be sent along with other
# callers' requests, and without a Location nobody above can follow a redirect.
_DROPPED_REQUEST_HEADERS = {"accept-encoding", "content-length", "transfer-encoding"}
_DROPPED_RESPONSE_HEADERS = {"content-encoding", "content-length", "transfer-encoding", "set-cookie", "location"}


class ResponseTooLarge(httpx2.RemoteProtocolError):
    """The answer is larger than the transport accepts."""


class ProviderTransport(httpx2.BaseTransport):
    """Sends each request once, under the deadline of the current `exchange`.

    Args:
        max_body_bytes: The largest answer to accept, after decompression.
        connect_timeout: Seconds until a connection has to stand.
    """

    def __init__(self, *, max_body_bytes: int, connect_timeout: float = CONNECT_TIMEOUT) -> None:
        self._max_body_bytes = max_body_bytes
        self._connect_timeout = connect_timeout
        self._outbound: Outbound | None = None
        self._lock = threading.Lock()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request` and read the whole answer.

        Raises:
            httpx2.ConnectError, httpx2.ConnectTimeout: Nothing was sent.
            httpx2.ReadTimeout: The deadline passed after something was sent.
            httpx2.ReadError, httpx2.RemoteProtocolError: The answer broke off or is not HTTP.
            ResponseTooLarge: It is larger than `max_body_bytes`.
            images.exceptions.ProviderNotConfigured: The trusted certificates cannot be read.
        """
        opened = current_exchange()
        if opened is not None:
            return self._answer(request, opened)
        with exchange(Deadline.after(_DEFAULT_SECONDS)) as opened:
            return self._answer(request, opened)

    def close(self) -> None:
        """Close the idle connections."""
        if self._outbound is not None:
            self._outbound.close()

    def _answer(self, request: httpx2.Request, opened: Exchange) -> httpx2.Response:
        # From here to the first byte of a large body we wait for others, holding no place.
        opened.working_set.give_back()
        try:
            response = self._send(request, opened)
            opened.status = response.status
            opened.headers = {name.lower(): value for name, value in response.headers.items()}
            headers = [
                (name, value) for name, value in opened.headers.items() if name not in _DROPPED_RESPONSE_HEADERS
            ]
            content = _content(response, self._max_body_bytes, opened)
        except BodyTooLarge as err:
            raise ResponseTooLarge("The answer is larger than accepted.", request=request) from err
        except HTTPError as err:
            raise _as_httpx(err, opened, request) from err
        if opened.guard.expired:
            # An answer that ends with its connection looks whole when the watchdog ended it.
            raise httpx2.ReadTimeout("The deadline passed.", request=request)
        return httpx2.Response(opened.status, headers=headers, content=content)

    def _send(self, request: httpx2.Request, opened: Exchange) -> BaseHTTPResponse:
        url = str(request.url)
        if request.url.scheme not in ("http", "https"):
            raise httpx2.UnsupportedProtocol("The address has to begin with http:// or https://.", request=request)
        left = opened.deadline.remaining
        if left <= 0:
            raise httpx2.ConnectTimeout("The deadline had passed before anything was sent.", request=request)
        headers = {name: value for name, value in request.headers.items() if name not in _DROPPED_REQUEST_HEADERS}
        return (
            self._pools()
            .manager_for(url)
            .urlopen(
                request.method,
                url,
                body=request.read() or None,
                # Images do not compress, and what is not compressed can be read in one piece.
                headers={**headers, "accept-encoding": "identity"},
                # The watchdog ends everything at the deadline; the read timeout only stands behind it.
                timeout=Timeout(connect=min(self._connect_timeout, left), read=left),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        )

    def _pools(self) -> Outbound:
        with self._lock:
            if self._outbound is None:
                self._outbound = Outbound()
            return self._outbound


def _content(response: BaseHTTPResponse, limit: int, opened: Exchange) -> bytes:
    kind = opened.headers.get("content-type", "").partition(";")[0].strip().lower()
    if opened.status == http.client.OK and kind.endswith("json"):
        # Called with nothing kept here, so that the text can go as soon as it is parsed.
        return lift_images(read_body(response, limit), opened)
    return read_body(response, limit)


def _as_httpx(err: HTTPError, opened: Exchange, request: httpx2.Request) -> httpx2.TransportError:
    """The httpx2 exception that says the same: the SDKs know no others."""
    text = str(err)
    # urllib3 counts a refused connection among its timeouts.
    slow = isinstance(err, (ReadTimeoutError, ConnectTimeoutError)) and not isinstance(err, NewConnectionError)
    late = slow or opened.guard.expired
    if not opened.sent:
        refused = httpx2.ConnectTimeout if late else httpx2.ConnectError
        return refused(text, request=request)
    if late:
        return httpx2.ReadTimeout("The deadline passed.", request=request)
    reason = err.args[1] if isinstance(err, ProtocolError) and len(err.args) > 1 else err
    # ConnectionResetError counts as a network error, RemoteDisconnected (its subclass in http.client) does not.
    if isinstance(reason, OSError) and not isinstance(reason, http.client.HTTPException):
        return httpx2.ReadError(text, request=request)
    if isinstance(reason, (http.client.HTTPException, IncompleteRead, DecodeError, ProtocolError)):
        return httpx2.RemoteProtocolError(text, request=request)
    return httpx2.ReadError(text, request=request)
