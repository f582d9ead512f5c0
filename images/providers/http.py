"""The HTTP transport under both SDKs and under fetched files: `httpcore2`, with our limits at its sockets.

`httpcore2` speaks HTTP and reaches the network through a backend. Ours gives every step (name lookup, connect,
tunnel, TLS, each write and each read) the rest of one total deadline, so a response that drips in byte by byte ends
in time as well. It limits the size of responses, checks the IP addresses it connects to, and lets only a few
responses into memory at a time.

Each request has its own connection, which is closed afterwards. So nothing that a server sends late, twice or after
the end of a response can reach another caller, and no request is lost on a stale connection. An image takes seconds;
the extra handshake takes milliseconds. Nothing is sent twice, no redirect is followed, and no cookie is kept.
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

#: Seconds for name lookup, TCP, tunnel and TLS together.
CONNECT_TIMEOUT = 10.0

#: How many responses a process reads, decodes and stores at once; the bytes of the others wait in their sockets. Six
#: kept both cores busy with 1,000 simultaneous responses without enlarging the heap (measured).
responses_in_memory = threading.BoundedSemaphore(6)
#: The same for responses of more than LARGE bytes, which are in memory twice: as text and as bytes.
large_responses_in_memory = threading.BoundedSemaphore(1)
SMALL, LARGE = 64 * 1024, 8 * 1024 * 1024
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # from malloc.h

#: Seconds in total that a response may stall while it holds a reservation. After that it gives the reservation up
#: whenever it stalls.
PATIENCE = 0.1
#: Bytes read at once by a thread without a reservation, and by one with a reservation.
_SMALL_READ, _LARGE_READ = 4096, 256 * 1024

#: Room for headers and interim answers, in bytes.
_HEAD = 1024 * 1024

# These are set below, or no longer true once the body has been read and decompressed. A cookie would be sent with
# other callers' requests, and without a Location no layer above can follow a redirect.
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
    """The response is larger than the transport accepts."""


# --- one call -------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Call:
    """What the transport and the provider above the SDK know about one call, in the same thread.

    Attributes:
        deadline: When the call has to be finished. It is put off for an answer that has begun to arrive.
        permit: Asked about every IP address before any is connected to; raises to refuse it.
        proxied: Whether the request goes through a proxy.
        sent: Whether any byte of a request may have been sent: only then can anything have been billed.
        status: The response's HTTP status, or `None` before it arrives.
        headers: The response's headers, names in lower case.
    """

    deadline: Deadline
    permit: Callable[[str], None] | None = None
    proxied: bool = False
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
    """Treat everything that is sent inside the block as one call, under one total deadline.

    Args:
        deadline: For connecting, sending, and receiving headers and body.
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


# --- few responses in memory ------------------------------------------------------------------------------------


class Reservation:
    """The semaphores that a thread holds for the one response it has in memory."""

    def __init__(self) -> None:
        self._held: list[threading.BoundedSemaphore] = []

    def __bool__(self) -> bool:
        return bool(self._held)

    def acquire(self, until: float, *, large: bool) -> None:
        """Reserve memory for a response, waiting until `until` (monotonic clock) at most.

        Raises:
            TimeoutError: No memory became free in time.
        """
        if large:
            _return_large_buffers()
        for semaphore in (responses_in_memory, large_responses_in_memory)[: 1 + large]:
            if semaphore not in self._held:
                if not semaphore.acquire(timeout=max(0.0, until - time.monotonic())):
                    raise TimeoutError("Too many responses were in memory until the deadline.")
                self._held.append(semaphore)

    def release(self) -> None:
        """Release everything, before waiting for something else."""
        while self._held:
            self._held.pop().release()


_reservation: ContextVar[Reservation | None] = ContextVar("images_reservation", default=None)


@contextmanager
def bounded_memory() -> Iterator[Reservation]:
    """Bound the memory of everything done inside: reading, decoding, checking and storing one image.

    Entering costs nothing. The reservation is made with the first bytes of a response's body. It is released at the
    end of the thread's outermost `bounded_memory`, when the thread sends another request, or while the response
    stalls.
    """
    outer = _reservation.get()
    if outer is not None:
        yield outer
        return
    reservation = Reservation()
    token = _reservation.set(reservation)
    try:
        yield reservation
    finally:
        _reservation.reset(token)
        reservation.release()


@lru_cache(maxsize=1)
def _use_few_heaps() -> None:
    """Make all threads share two heaps, as Python's threads take turns anyway.

    The GNU C library gives each of many threads a heap of its own, and keeps some megabytes of freed buffers in each:
    after 1,000 simultaneous images 350 MB instead of 160 (measured, at the same speed).
    """
    _set_malloc(_M_ARENA_MAX, 2)


@lru_cache(maxsize=1)
def _return_large_buffers() -> None:
    """Return the freed buffers of large responses to the system.

    The C library treats the largest buffer that was ever freed as typical, and then keeps up to twice as much in each
    heap. Fixed thresholds prevent that; they lie above what an ordinary image needs.
    """
    _set_malloc(_M_MMAP_THRESHOLD, LARGE // 2)
    _set_malloc(_M_TRIM_THRESHOLD, LARGE)


def _set_malloc(parameter: int, value: int) -> None:
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # Other C libraries do not have this call.
            ctypes.CDLL(None).mallopt(parameter, value)


# --- the transport ----------------------------------------------------------------------------------------------


class Transport(httpx2.BaseTransport):
    """Sends each request once, within the `open_call` around it.

    Args:
        max_body_bytes: The largest response body to accept, before and after decompression.
        connect_timeout: Seconds within which a connection has to be established.
    """

    def __init__(self, *, max_body_bytes: int, connect_timeout: float = CONNECT_TIMEOUT) -> None:
        _use_few_heaps()
        self._max_body_bytes = max_body_bytes
        self._connect_timeout = connect_timeout

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request` and read the whole response.

        Raises:
            httpx2.ConnectError, httpx2.ConnectTimeout: Nothing was sent.
            httpx2.ReadTimeout: The deadline passed after something was sent.
            httpx2.ReadError, httpx2.RemoteProtocolError: The response broke off or is not HTTP.
            ResponseTooLarge: It is larger than `max_body_bytes`.
            images.exceptions.ProviderNotConfigured: The trusted certificates cannot be read.
        """
        call = _call.get()
        if call is None:
            raise RuntimeError("A request was sent outside of open_call().")
        with bounded_memory() as reservation:
            reservation.release()  # Until a large body begins to arrive, this thread only waits.
            network = _Network(call, reservation, self._max_body_bytes, self._connect_timeout)
            try:
                return self._send(request, call, network)
            except (httpcore2.TimeoutException, TimeoutError) as err:
                late = httpx2.ReadTimeout if call.sent else httpx2.ConnectTimeout
                raise late(str(err), request=request) from err
            except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError) as err:
                raise _translated(err, call)(str(err), request=request) from err

    def _send(self, request: httpx2.Request, call: Call, network: _Network) -> httpx2.Response:
        proxy = proxy_for(str(request.url))
        call.proxied = proxy is not None
        with _pool_for(request.url, proxy, network) as pool:
            response = pool.handle_request(_prepared(request, call))
            call.deadline = call.deadline.for_answer()
            call.status = response.status
            call.headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
            }
            try:
                if response.status < 200:  # 101: `httpcore2` skips all other interim responses.
                    raise httpcore2.RemoteProtocolError("The response switches protocols, which was not requested.")
                content = network.read_body(response)
            finally:
                response.close()
        headers = [(name, value) for name, value in call.headers.items() if name not in _DROPPED_RESPONSE_HEADERS]
        return httpx2.Response(call.status, headers=headers, content=content)


def _prepared(request: httpx2.Request, call: Call) -> httpcore2.Request:
    """The request as it is sent. It sets `call.sent` just before its first byte leaves."""

    def trace(event: str, info: Mapping[str, Any]) -> None:
        if event == "http11.send_request_headers.started" and info["request"].method != b"CONNECT":
            call.sent = True

    url, body = request.url, request.read()
    headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _DROPPED_REQUEST_HEADERS]
    # Images are compressed already.
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
    """The httpx2 exception that says the same; the SDKs know no others."""
    if not call.sent:
        return httpx2.ConnectError
    return httpx2.ReadError if isinstance(err, httpcore2.NetworkError) else httpx2.RemoteProtocolError


def _pool_for(url: httpx2.URL, proxy: str | None, network: _Network) -> httpcore2.ConnectionPool:
    """A pool for one connection to `url`, direct or through `proxy`."""
    try:
        through = _proxy(proxy) if proxy else None
    except ValueError as err:
        raise httpcore2.ProxyError("The proxy's address cannot be used; only http and https proxies can.") from err
    # Loading the certificates takes a tenth of a second and some megabytes, which plain http does not need.
    context = tls_context() if url.scheme == "https" else None
    return httpcore2.ConnectionPool(
        ssl_context=context, proxy=through, max_connections=1, max_keepalive_connections=0, network_backend=network
    )


def proxy_for(url: str) -> str | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY (CIDRs too) name for `url`, if any."""
    if sys.platform == "linux" and not any(os.environ.get(name) for name in _PROXY_VARIABLES):
        return None  # Other operating systems may have proxy settings of their own.
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
    """The TLS settings for every outgoing connection, built once for each bundle.

    If `SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE` names a bundle (a file or a directory), only that is trusted. Otherwise
    the operating system's certificates and certifi's are trusted together: the former include a company's own
    authority, the latter are there in slim containers, too.

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


class _Network(httpcore2.NetworkBackend):
    """The network as one request sees it, with that request's limits on time, size and memory."""

    def __init__(self, call: Call, reservation: Reservation, limit: int, connect_timeout: float) -> None:
        self._call = call
        self._reservation = reservation
        self._limit = limit
        self._connect_until = min(time.monotonic() + connect_timeout, call.deadline.at)
        self._received = 0
        self._patience = PATIENCE
        self._in_body = self._is_large = False

    @property
    def left(self) -> float:
        """Seconds left for the current step.

        Raises:
            TimeoutError: There is no time left.
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
        """Resolve the name once, ask `permit` about every address, and connect to the first that answers."""
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
        """Read what has arrived; for a large body, hold a reservation except while the body stalls."""
        data = self._receive_soon(sock) if self._reservation else None
        if data is None:
            sock.settimeout(self.left)
            data = sock.recv(_SMALL_READ)
            if self._in_body:
                self._reservation.acquire(self._call.deadline.at, large=self._is_large)
        self._received += len(data)
        if self._received > self._limit + _HEAD:
            raise ResponseTooLarge("The response is larger than accepted.")
        return data

    def _receive_soon(self, sock: socket.socket) -> bytes | None:
        """Read while holding the reservation; if that takes too long, release it and return `None`.

        The limit is for all waits of a response together, so one that drips in loses its reservation as well.
        """
        started = time.monotonic()
        sock.settimeout(min(self.left, max(self._patience, 0.001)))
        try:
            return _read_large(sock)
        except TimeoutError:
            self._reservation.release()
            return None
        finally:
            self._patience -= time.monotonic() - started

    def read_body(self, response: httpcore2.Response) -> bytes:
        """The whole body, decompressed.

        Raises:
            ResponseTooLarge: There is more than the limit.
        """
        length = int(self._call.headers.get("content-length") or -1)
        if length > self._limit:
            raise ResponseTooLarge("The response is larger than accepted.")
        self._in_body = not 0 <= length <= SMALL
        self._is_large = length > LARGE
        parts: list[bytes] = []
        size = 0
        for part in _unpacked(response.iter_stream(), self._call.headers.get("content-encoding", ""), self._limit):
            parts.append(part)
            size += len(part)
            if size > self._limit:
                raise ResponseTooLarge("The response is larger than accepted.")
            if size > LARGE and not self._is_large:
                self._is_large = True
                self._reservation.acquire(self._call.deadline.at, large=True)
        return b"".join(parts)


class _Stream(httpcore2.NetworkStream):
    """A socket that never waits longer than the call may take. It ignores the timeouts that `httpcore2` passes."""

    def __init__(self, sock: socket.socket, network: _Network) -> None:
        self._sock = sock
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # Large bodies are read in pieces larger than `max_bytes`: the parser takes them, with a tenth of the calls.
        with _errors(httpcore2.ReadTimeout, httpcore2.ReadError):
            return self._network.receive(self._sock)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _errors(httpcore2.WriteTimeout, httpcore2.WriteError):
            self._sock.settimeout(self._network.left)
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
                self._sock.settimeout(self._network.left)  # For the whole handshake, not for each of its reads.
                return _Stream(ssl_context.wrap_socket(self._sock, server_hostname=server_hostname), self._network)
            except OSError:
                self.close()
                raise

    def get_extra_info(self, info: str) -> Any:
        return None  # `httpcore2` asks this only for HTTP/2 and for reusing connections.


class _TLSInTLS(httpcore2.NetworkStream):
    """TLS inside TLS, which Python's sockets cannot do by themselves."""

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


def _read_large(sock: socket.socket) -> bytes:
    """Read a large piece. TLS returns 16 KB at a time, so what has arrived is joined."""
    data = sock.recv(_LARGE_READ)
    if not data or not isinstance(sock, ssl.SSLSocket):
        return data
    pieces, size = [data], len(data)
    sock.settimeout(0)
    with suppress(ssl.SSLWantReadError):
        while size < _LARGE_READ and (data := sock.recv(_LARGE_READ - size)):
            pieces.append(data)
            size += len(data)
    return b"".join(pieces)


@contextmanager
def _errors(late: type[Exception], broken: type[Exception]) -> Iterator[None]:
    """Translate socket errors into the exceptions that `httpcore2` documents."""
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
            answer.put(socket.gaierror(socket.EAI_NONAME, f"The host's name cannot be looked up: {err}"))

    threading.Thread(target=look_up, name="images-resolver", daemon=True).start()
    try:
        found = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("The name was not resolved in time.") from None
    if isinstance(found, OSError):
        raise found
    return found


def _unpacked(pieces: Iterable[bytes], encoding: str, limit: int) -> Iterator[bytes]:
    """The pieces, decompressed; one piece never yields more than `limit` bytes and one.

    Raises:
        httpcore2.RemoteProtocolError: The compression is neither gzip nor deflate, or the data is damaged.
    """
    if encoding.strip().lower() in ("", "identity"):
        yield from pieces
        return
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        raise httpcore2.RemoteProtocolError("The response is compressed in a way that was not requested.")
    unpack = zlib.decompressobj(wbits=47)  # gzip or zlib, whichever it is
    try:
        for piece in pieces:
            yield unpack.decompress(piece, limit + 1)
    except zlib.error as err:
        raise httpcore2.RemoteProtocolError("The response is damaged.") from err
    if not unpack.eof:
        raise httpcore2.RemoteProtocolError("The response is cut off.")
