"""The HTTP transport under both SDKs and under fetched files: `httpcore2`, with our limits at its sockets.

`httpcore2` speaks HTTP and reaches the network through a backend. Ours gives every wait (name, connect, tunnel, TLS,
each write and each read) what is left of one total deadline, so that an answer which drips in byte by byte ends as
well. It counts what arrives, checks the addresses that it connects to, and lets few answers into memory at a time.

A connection serves one request. It is opened for it and closed after it, so whatever a server sends late, twice or
beyond the end of an answer cannot become another caller's answer, and no request is lost on a connection that has
gone stale. An image takes seconds; the handshake this costs takes milliseconds. Nothing is sent twice, no redirect is
followed, and no cookie is kept.
"""

from __future__ import annotations

import ctypes
import os
import queue
import socket
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import certifi
import httpcore2
import httpx2
from requests.utils import get_auth_from_url, get_environ_proxies, select_proxy

from ..exceptions import ProviderNotConfigured

if TYPE_CHECKING:
    from .base import Deadline

#: Seconds for name, TCP, tunnel and TLS together.
CONNECT_TIMEOUT = 10.0

#: Answers read, decoded and stored at one moment in a process; the others' bytes wait in their sockets. Six kept both
#: cores busy at 1,000 simultaneous answers without a larger heap (measured).
answers_in_memory = threading.BoundedSemaphore(6)
#: The same for answers of more than LARGE bytes, which count twice: as text and as bytes.
large_answers_in_memory = threading.BoundedSemaphore(1)
SMALL, LARGE = 64 * 1024, 8 * 1024 * 1024
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # from malloc.h

#: Seconds that an answer may make the others wait, in all, before it is read without a place whenever it stalls.
PATIENCE = 0.1
#: Bytes read at once by a thread that has no place, and by one that has.
_SIP, _GULP = 4096, 256 * 1024

#: Room for headers and interim answers, in bytes.
_HEAD = 1024 * 1024

# Set anew below, or no longer true once the body was read and unpacked. A cookie would be sent along with other
# callers' requests, and without a Location nothing above can follow a redirect.
_DROPPED_REQUEST_HEADERS = {b"accept-encoding", b"connection", b"content-length", b"transfer-encoding"}
_DROPPED_RESPONSE_HEADERS = {"content-encoding", "content-length", "transfer-encoding", "set-cookie", "location"}

_PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
_BUNDLE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

# A provider says nothing for up to 90 seconds; keepalive probes keep NAT gateways from forgetting the connection.
_SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4))
        if hasattr(socket, name)  # Not everywhere under these names.
    ),
]


class ResponseTooLarge(httpx2.RemoteProtocolError):
    """The answer is larger than the transport accepts."""


# --- one call -------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Call:
    """What the transport and the provider above the SDK know about one call, in the same thread.

    Attributes:
        deadline: When everything has to be over.
        permit: Asked about every IP address before any is connected to; raises to refuse it.
        sent: Whether any byte of a request may have left: only then can anything have been billed.
        status: The answer's HTTP status, `None` before there is one.
        headers: The answer's headers, names in lower case.
    """

    deadline: Deadline
    permit: Callable[[str], None] | None = None
    sent: bool = False
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def request_id(self) -> str:
        """The provider's own name for the request (`x-request-id`), or ""."""
        return safe_id(self.headers.get("x-request-id"))


_call: ContextVar[Call | None] = ContextVar("images_call", default=None)


@contextmanager
def open_call(deadline: Deadline, *, permit: Callable[[str], None] | None = None) -> Iterator[Call]:
    """Everything that is sent inside is one call, under one total deadline.

    Args:
        deadline: Over connecting, sending, headers and body.
        permit: See `Call.permit`.
    """
    call = Call(deadline=deadline, permit=permit)
    token = _call.set(call)
    try:
        with bounded_memory():
            yield call
    finally:
        _call.reset(token)


def safe_id(value: object) -> str:
    """A provider's identifier as something that can be logged and stored: short, printable ASCII, or ""."""
    if not isinstance(value, str):
        return ""
    return "".join(char for char in value if "!" <= char <= "~")[:128]


# --- few answers in memory --------------------------------------------------------------------------------------


class _Places:
    """The places that a thread holds for the one answer it has in memory."""

    def __init__(self) -> None:
        self._held: list[threading.BoundedSemaphore] = []

    def __bool__(self) -> bool:
        return bool(self._held)

    def take(self, until: float, *, large: bool) -> None:
        """Hold a place, and the one for large answers as well if this is one.

        Raises:
            TimeoutError: There was none until the moment `until` of the monotonic clock.
        """
        if large:
            _return_large_buffers()
        for place in (answers_in_memory, large_answers_in_memory)[: 1 + large]:
            if place not in self._held:
                if not place.acquire(timeout=max(0.0, until - time.monotonic())):
                    raise TimeoutError("Too many answers were in memory until the deadline.")
                self._held.append(place)

    def give_back(self) -> None:
        """Let go what is held, before waiting for something else."""
        while self._held:
            self._held.pop().release()


_places: ContextVar[_Places | None] = ContextVar("images_places", default=None)


@contextmanager
def bounded_memory() -> Iterator[_Places]:
    """Bound the memory of everything done inside: reading, decoding, checking and storing one image.

    Entering costs nothing. The place is taken with the first bytes of an answer's body and given back at the end of
    the thread's outermost `bounded_memory`, when the thread sends another request, or while the answer stalls.
    """
    outer = _places.get()
    if outer is not None:
        yield outer
        return
    places = _Places()
    token = _places.set(places)
    try:
        yield places
    finally:
        _places.reset(token)
        places.give_back()


@lru_cache(maxsize=1)
def _use_few_heaps() -> None:
    """Have all threads share two heaps, as Python's threads take turns anyway.

    The GNU C library gives each of many threads a heap of its own, and keeps some megabytes of freed buffers in each:
    after 1,000 simultaneous images 350 MB instead of 160 (measured, at the same speed).
    """
    _set_malloc(_M_ARENA_MAX, 2)


@lru_cache(maxsize=1)
def _return_large_buffers() -> None:
    """Have the freed buffers of large answers returned to the system.

    The C library takes the largest buffer that was ever freed for the usual case, and then keeps up to twice as much
    in each heap. Fixed thresholds end that; they lie above what an ordinary image needs.
    """
    _set_malloc(_M_MMAP_THRESHOLD, LARGE // 2)
    _set_malloc(_M_TRIM_THRESHOLD, LARGE)


def _set_malloc(parameter: int, value: int) -> None:
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # Another C library: it has no such call.
            ctypes.CDLL(None).mallopt(parameter, value)


# --- the transport ----------------------------------------------------------------------------------------------


class Transport(httpx2.BaseTransport):
    """Sends each request once, within the `open_call` around it.

    Args:
        max_body_bytes: The largest answer to accept, before and after decompression.
        connect_timeout: Seconds until a connection has to stand.
    """

    def __init__(self, *, max_body_bytes: int, connect_timeout: float = CONNECT_TIMEOUT) -> None:
        _use_few_heaps()
        self._max_body_bytes = max_body_bytes
        self._connect_timeout = connect_timeout

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request` and read the whole answer.

        Raises:
            httpx2.ConnectError, httpx2.ConnectTimeout: Nothing was sent.
            httpx2.ReadTimeout: The deadline passed after something was sent.
            httpx2.ReadError, httpx2.RemoteProtocolError: The answer broke off or is not HTTP.
            ResponseTooLarge: It is larger than `max_body_bytes`.
            images.exceptions.ProviderNotConfigured: The trusted certificates cannot be read.
        """
        call = _call.get()
        if call is None:
            raise RuntimeError("A request was sent outside of open_call().")
        with bounded_memory() as places:
            places.give_back()  # From here to the first byte of a large body we wait for others.
            exchange = _Exchange(call, places, self._max_body_bytes, self._connect_timeout)
            try:
                return self._send(request, call, exchange)
            except (httpcore2.TimeoutException, TimeoutError) as err:
                late = httpx2.ReadTimeout if call.sent else httpx2.ConnectTimeout
                raise late(str(err), request=request) from err
            except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError) as err:
                raise _translated(err, call)(str(err), request=request) from err

    def _send(self, request: httpx2.Request, call: Call, exchange: _Exchange) -> httpx2.Response:
        with _pool_for(request.url, exchange) as pool:
            response = pool.handle_request(_prepared(request, call))
            call.status = response.status
            call.headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
            }
            try:
                if response.status < 200:  # 101: `httpcore2` passes over all other interim answers.
                    raise httpcore2.RemoteProtocolError("The answer switches protocols, which was not asked for.")
                content = exchange.read_body(response)
            finally:
                response.close()
        headers = [(name, value) for name, value in call.headers.items() if name not in _DROPPED_RESPONSE_HEADERS]
        return httpx2.Response(call.status, headers=headers, content=content)


def _prepared(request: httpx2.Request, call: Call) -> httpcore2.Request:
    """The request as it goes out, and `call.sent` set when its first byte does."""

    def trace(event: str, info: Mapping[str, Any]) -> None:
        if event == "http11.send_request_headers.started" and info["request"].method != b"CONNECT":
            call.sent = True

    url, body = request.url, request.read()
    headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _DROPPED_REQUEST_HEADERS]
    # Images do not compress, and what is not compressed needs no unpacking.
    headers += [(b"Accept-Encoding", b"identity"), (b"Connection", b"close")]
    if body or request.method not in ("GET", "HEAD"):
        headers.append((b"Content-Length", str(len(body)).encode()))
    return httpcore2.Request(
        method=request.method,
        url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=headers,
        content=body,
        extensions={"trace": trace},
    )


def _translated(err: Exception, call: Call) -> type[httpx2.TransportError]:
    """The httpx2 exception that says the same: the SDKs know no others."""
    if not call.sent:
        return httpx2.ConnectError
    return httpx2.ReadError if isinstance(err, httpcore2.NetworkError) else httpx2.RemoteProtocolError


def _pool_for(url: httpx2.URL, exchange: _Exchange) -> httpcore2.ConnectionPool:
    """The way to `url`, for one connection: direct, or through the proxy that the environment names."""
    proxy = proxy_for(str(url))
    try:
        through = _proxy(proxy) if proxy else None
    except ValueError as err:
        raise httpcore2.ConnectError("The proxy's address cannot be used; only http and https proxies can.") from err
    # Certificates take a tenth of a second and some megabytes to load: not for plain http on the loopback.
    context = tls_context() if url.scheme == "https" else None
    return httpcore2.ConnectionPool(
        ssl_context=context, proxy=through, max_connections=1, max_keepalive_connections=0, network_backend=exchange
    )


def proxy_for(url: str) -> str | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY (CIDRs too) name for `url`, if any."""
    if sys.platform == "linux" and not any(os.environ.get(name) for name in _PROXY_VARIABLES):
        return None  # Elsewhere the system may have settings of its own.
    proxy = select_proxy(url, get_environ_proxies(url))
    if not proxy:
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _proxy(url: str) -> httpcore2.Proxy:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http proxy")
    auth = get_auth_from_url(url)
    return httpcore2.Proxy(
        url=urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path="/", query="", fragment="")),
        auth=tuple(text.encode() for text in auth) if auth[0] else None,  # type: ignore[arg-type]
        ssl_context=tls_context() if parts.scheme == "https" else None,
    )


def tls_context() -> ssl.SSLContext:
    """The TLS settings for every connection out, built once for each bundle.

    A bundle named by `SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE` (a file or a directory) is trusted alone; else the
    operating system's certificates and certifi's together, so that slim containers work as well as
    companies that add their own authority to the system.

    Raises:
        ProviderNotConfigured: The bundle cannot be read.
    """
    variable = next((name for name in _BUNDLE_VARIABLES if os.environ.get(name)), "")
    try:
        return _context(os.environ.get(variable, ""))
    except OSError as err:
        raise ProviderNotConfigured(f"The certificates named by {variable or 'certifi'} cannot be read.") from err


@lru_cache(maxsize=4)
def _context(bundle: str) -> ssl.SSLContext:
    if bundle:
        if os.path.isdir(bundle):
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


# --- the network ------------------------------------------------------------------------------------------------


class _Exchange(httpcore2.NetworkBackend):
    """One request on its way: its time, its bytes and its place in memory."""

    def __init__(self, call: Call, places: _Places, limit: int, connect_timeout: float) -> None:
        self._call = call
        self._places = places
        self._limit = limit
        self._connect_until = min(time.monotonic() + connect_timeout, call.deadline.at)
        self._received = 0
        self._patience = PATIENCE
        self._in_body = self._is_large = False

    @property
    def left(self) -> float:
        """Seconds left for the current step.

        Raises:
            TimeoutError: There are none.
        """
        left = (self._call.deadline.at if self._call.sent else self._connect_until) - time.monotonic()
        if left <= 0:
            raise TimeoutError("The deadline passed.")
        return left

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Resolve once, have every address permitted, and connect to the first that answers."""
        error: Exception = OSError("The name has no address.")
        with _errors(httpcore2.ConnectTimeout, httpcore2.ConnectError):
            found = _resolve(host, port, self.left)
            if self._call.permit is not None:
                for *_, address in found:
                    self._call.permit(str(address[0]))
            for position, (family, kind, protocol, _, address) in enumerate(found):
                sock = socket.socket(family, kind, protocol)
                try:
                    for option in _SOCKET_OPTIONS:
                        sock.setsockopt(*option)
                    sock.settimeout(self.left / (len(found) - position))
                    sock.connect(address)
                    return _Stream(sock, self)
                except OSError as err:
                    sock.close()
                    error = err
            raise error

    def receive(self, sock: socket.socket) -> bytes:
        """Read what there is, in a place if it belongs to a large body, but without one while it stalls."""
        data = self._receive_soon(sock) if self._places else None
        if data is None:
            sock.settimeout(self.left)
            data = sock.recv(_SIP)
            if self._in_body:
                self._places.take(self._call.deadline.at, large=self._is_large)
        self._received += len(data)
        if self._received > self._limit + _HEAD:
            raise ResponseTooLarge("The answer is larger than accepted.")
        return data

    def _receive_soon(self, sock: socket.socket) -> bytes | None:
        """Read while holding the place; `None`, and the place given back, if that would take too long.

        All waits of an answer are paid from one purse, so that one which drips loses its place as well.
        """
        started = time.monotonic()
        sock.settimeout(min(self.left, max(self._patience, 0.001)))
        try:
            return _gulp(sock)
        except TimeoutError:
            self._places.give_back()
            return None
        finally:
            self._patience -= time.monotonic() - started

    def read_body(self, response: httpcore2.Response) -> bytes:
        """The whole body, unpacked.

        Raises:
            ResponseTooLarge: There is more than the limit.
        """
        length = int(self._call.headers.get("content-length") or -1)
        if length > self._limit:
            raise ResponseTooLarge("The answer is larger than accepted.")
        self._in_body = not 0 <= length <= SMALL
        self._is_large = length > LARGE
        parts: list[bytes] = []
        size = 0
        for part in _unpacked(response.iter_stream(), self._call.headers.get("content-encoding", ""), self._limit):
            parts.append(part)
            size += len(part)
            if size > self._limit:
                raise ResponseTooLarge("The answer is larger than accepted.")
            if size > LARGE and not self._is_large:
                self._is_large = True
                self._places.take(self._call.deadline.at, large=True)
        return b"".join(parts)


class _Stream(httpcore2.NetworkStream):
    """A socket whose every wait ends with the call. The timeouts that `httpcore2` passes play no part."""

    def __init__(self, sock: socket.socket, exchange: _Exchange) -> None:
        self._sock = sock
        self._exchange = exchange

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # Large bodies come in more than `max_bytes` at once: a tenth of the steps in Python, for the same parser.
        with _errors(httpcore2.ReadTimeout, httpcore2.ReadError):
            return self._exchange.receive(self._sock)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _errors(httpcore2.WriteTimeout, httpcore2.WriteError):
            self._sock.settimeout(self._exchange.left)
            self._sock.sendall(buffer)

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        with _errors(httpcore2.ConnectTimeout, httpcore2.ConnectError):
            if isinstance(self._sock, ssl.SSLSocket):  # A tunnel through a proxy that speaks TLS itself.
                return _TLSInTLS(self, ssl_context, server_hostname)
            try:
                self._sock.settimeout(self._exchange.left)  # For the whole handshake, not for each of its reads.
                return _Stream(ssl_context.wrap_socket(self._sock, server_hostname=server_hostname), self._exchange)
            except OSError:
                self.close()
                raise

    def get_extra_info(self, info: str) -> Any:
        return None  # `httpcore2` asks for what HTTP/2 and the reuse of connections need.


class _TLSInTLS(httpcore2.NetworkStream):
    """TLS over a stream that has TLS already, which Python's sockets cannot wrap."""

    def __init__(self, below: _Stream, context: ssl.SSLContext, hostname: str | None) -> None:
        self._below = below
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        self._run(self._tls.do_handshake)

    def _run(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                result, done = step(), True
            except ssl.SSLWantReadError:
                result, done = None, False
            if pending := self._outgoing.read():
                self._below.write(pending)
            if done:
                return result
            if data := self._below.read(64 * 1024):
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _errors(httpcore2.ReadTimeout, httpcore2.ReadError):
            return bytes(self._run(lambda: self._tls.read(max_bytes)))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _errors(httpcore2.WriteTimeout, httpcore2.WriteError):
            while buffer:
                buffer = buffer[self._run(lambda: self._tls.write(buffer)) :]  # noqa: B023 (called at once)

    def close(self) -> None:
        self._below.close()

    def get_extra_info(self, info: str) -> Any:
        return None


def _gulp(sock: socket.socket) -> bytes:
    """Read a large piece. TLS hands out 16 KB at a time, so there it is put together from what has arrived."""
    data = sock.recv(_GULP)
    if not data or not isinstance(sock, ssl.SSLSocket):
        return data
    pieces, size = [data], len(data)
    sock.settimeout(0)
    with suppress(ssl.SSLWantReadError):
        while size < _GULP and (data := sock.recv(_GULP - size)):
            pieces.append(data)
            size += len(data)
    return b"".join(pieces)


@contextmanager
def _errors(late: type[Exception], broken: type[Exception]) -> Iterator[None]:
    """Turn what sockets raise into what `httpcore2` promises to raise."""
    try:
        yield
    except TimeoutError as err:
        raise late(str(err)) from err
    except OSError as err:
        raise broken(str(err)) from err


def _resolve(host: str, port: int, seconds: float) -> list[Any]:
    """The addresses of a host. A name is looked up in a thread, since the system's resolver has no time limit."""
    with suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    answer: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answer.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except OSError as err:
            answer.put(err)
        except UnicodeError as err:
            answer.put(OSError(f"The host's name cannot be looked up: {err}"))

    threading.Thread(target=look_up, name="images-resolver", daemon=True).start()
    try:
        found = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("The name was not resolved in time.") from None
    if isinstance(found, OSError):
        raise found
    return found


def _unpacked(pieces: Iterable[bytes], encoding: str, limit: int) -> Iterator[bytes]:
    """The pieces without their compression; one piece never unpacks to more than `limit` and a byte.

    Raises:
        httpcore2.RemoteProtocolError: It is compressed in another way than gzip, or is damaged.
    """
    if encoding.strip().lower() in ("", "identity"):
        yield from pieces
        return
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        raise httpcore2.RemoteProtocolError("The answer is compressed in a way that was not asked for.")
    unpack = zlib.decompressobj(wbits=47)  # gzip or zlib, whichever it is
    try:
        for piece in pieces:
            yield unpack.decompress(piece, limit + 1)
    except zlib.error as err:
        raise httpcore2.RemoteProtocolError("The answer is damaged.") from err
    if not unpack.eof:
        raise httpcore2.RemoteProtocolError("The answer is cut off.")
