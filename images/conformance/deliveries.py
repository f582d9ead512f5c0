"""Ways of delivering an answer badly: each gets a proper one, and ends the connection in its own way."""

from __future__ import annotations

import gzip
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_DRIP_SECONDS = 0.05
_BOMB_BYTES = 16 * 1024 * 1024
_HUGE_PIECES = 1000


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


def head(answer: Answer, length: str) -> bytes:
    """The status line and the headers; `length` is the header line that frames the body."""
    lines = [f"HTTP/1.1 {answer.status} Fake", f"Content-Type: {answer.content_type}", length]
    lines += ["x-request-id: req_fake", *(f"{name}: {value}" for name, value in answer.headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _parts(answer: Answer) -> tuple[bytes, bytes]:
    return head(answer, f"Content-Length: {len(answer.body)}"), answer.body


def _until_gone(sock: socket.socket) -> None:
    """Wait for the client (or `ProviderServer.close`) to end the connection."""
    while sock.recv(4096):
        pass


def _drip(sock: socket.socket, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        sock.sendall(piece)
        time.sleep(_DRIP_SECONDS)


def _slices(data: bytes, size: int) -> Iterable[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def _hang(sock: socket.socket, _: Answer) -> None:
    """No answer at all, on a connection that stays open."""
    _until_gone(sock)


def _hang_body(sock: socket.socket, answer: Answer) -> None:
    """Half of the body, on a connection that stays open."""
    head, body = _parts(answer)
    sock.sendall(head + body[: len(body) // 2])
    _until_gone(sock)


def _slow_drip(sock: socket.socket, answer: Answer) -> None:
    """The body in 400 pieces, with pauses."""
    head, body = _parts(answer)
    sock.sendall(head)
    _drip(sock, _slices(body, max(1, len(body) // 400)))


def _drip_headers(sock: socket.socket, answer: Answer) -> None:
    """A whole status line, then one byte of a header after the other."""
    status, _, rest = _parts(answer)[0].partition(b"\r\n")
    sock.sendall(status + b"\r\n")
    _drip(sock, _slices(rest * 20, 1))


def _drip_unframed(sock: socket.socket, answer: Answer) -> None:
    """A body that is to end with the connection, in 400 pieces with pauses: cut off, it looks whole."""
    sock.sendall(head(answer, "Connection: close"))
    _drip(sock, _slices(answer.body, max(1, len(answer.body) // 400)))


def _reset(sock: socket.socket, _: Answer) -> None:
    """The connection is reset without an answer."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(sock.detach())  # Closing the object would first wait for the reader on top of it.


def _reset_body(sock: socket.socket, answer: Answer) -> None:
    """The connection is reset after half of the body."""
    head, body = _parts(answer)
    sock.sendall(head + body[: len(body) // 2])
    _reset(sock, answer)


def _close(sock: socket.socket, _: Answer) -> None:
    """The connection is closed without an answer."""


def _truncated_body(sock: socket.socket, answer: Answer) -> None:
    """The connection is closed after half of the body."""
    head, body = _parts(answer)
    sock.sendall(head + body[: len(body) // 2])


def _chunked(sock: socket.socket, answer: Answer) -> None:
    """A whole answer in chunks."""
    sock.sendall(head(answer, "Transfer-Encoding: chunked"))
    for piece in _slices(answer.body, 50_000):
        sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    sock.sendall(b"0\r\n\r\n")


def _huge(sock: socket.socket, answer: Answer) -> None:
    """A body of 250 MB, without a length that would give it away."""
    sock.sendall(head(answer, "Transfer-Encoding: chunked"))
    piece = b"40000\r\n" + b"A" * 0x40000 + b"\r\n"
    for _ in range(_HUGE_PIECES):
        sock.sendall(piece)


def _huge_declared(sock: socket.socket, answer: Answer) -> None:
    """A length of 200 MB, and no body."""
    sock.sendall(head(answer, "Content-Length: 200000000") + b"{")
    _until_gone(sock)


def _gzipped(sock: socket.socket, answer: Answer, body: bytes) -> None:
    packed = gzip.compress(body, 1)
    sock.sendall(head(answer, f"Content-Length: {len(packed)}\r\nContent-Encoding: gzip") + packed)


def _gzip(sock: socket.socket, answer: Answer) -> None:
    """A whole answer, compressed although that was not asked for."""
    _gzipped(sock, answer, answer.body)


def _gzip_bomb(sock: socket.socket, answer: Answer) -> None:
    """A compressed answer of 16 KB that unpacks to 16 MB."""
    _gzipped(sock, answer, b"A" * _BOMB_BYTES)


def _no_http(sock: socket.socket, _: Answer) -> None:
    """The greeting of a mail server."""
    sock.sendall(b"220 mail.example ESMTP ready\r\n\r\n")


def _interim(sock: socket.socket, answer: Answer) -> None:
    """Several interim answers with pauses between them, as gateways send to keep the line open."""
    for line in (
        "100 Continue",
        "102 Processing",
        "103 Early Hints\r\nLink: </a.css>",
        "102 Processing",
    ):
        sock.sendall(f"HTTP/1.1 {line}\r\n\r\n".encode())
        time.sleep(_DRIP_SECONDS)
    sock.sendall(b"".join(_parts(answer)))


def _interim_late(sock: socket.socket, answer: Answer) -> None:
    """An interim answer at once, and the real one after a second, when an impatient caller has left."""
    sock.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
    time.sleep(1.0)
    sock.sendall(b"".join(_parts(answer)))


def _interim_forever(sock: socket.socket, _: Answer) -> None:
    """Interim answers without an end."""
    while True:
        sock.sendall(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)


def _switching(sock: socket.socket, answer: Answer) -> None:
    """An answer that changes the protocol, which was not asked for."""
    sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
    sock.sendall(b"".join(_parts(answer)))


def _beyond_the_end(sock: socket.socket, answer: Answer) -> None:
    """A second answer right behind the first one."""
    sock.sendall(b"".join(_parts(answer)) * 2)


def _chunked_beyond_the_end(sock: socket.socket, answer: Answer) -> None:
    """The same, in chunks."""
    _chunked(sock, answer)
    _chunked(sock, answer)


def _close_announced(sock: socket.socket, answer: Answer) -> None:
    """A whole answer that announces the end of the connection."""
    sock.sendall(head(answer, f"Connection: close\r\nContent-Length: {len(answer.body)}") + answer.body)


def _unframed(sock: socket.socket, answer: Answer) -> None:
    """A body that ends with the connection."""
    sock.sendall(head(answer, "Connection: close") + answer.body)


def _cookie(sock: socket.socket, answer: Answer) -> None:
    """A whole answer that sets a cookie."""
    sock.sendall(head(answer, f"Content-Length: {len(answer.body)}\r\nSet-Cookie: a=b; Path=/") + answer.body)


def _brotli(sock: socket.socket, answer: Answer) -> None:
    """Compressed in a way that the client has not asked for."""
    sock.sendall(head(answer, f"Content-Length: {len(answer.body)}\r\nContent-Encoding: br") + answer.body)


#: Mode -> how it is delivered.
DELIVERIES: dict[str, Callable[[socket.socket, Answer], None]] = {
    "hang": _hang,
    "hang_body": _hang_body,
    "slow_drip": _slow_drip,
    "drip_headers": _drip_headers,
    "drip_unframed": _drip_unframed,
    "reset": _reset,
    "reset_body": _reset_body,
    "close": _close,
    "truncated_body": _truncated_body,
    "chunked": _chunked,
    "huge": _huge,
    "huge_declared": _huge_declared,
    "gzip": _gzip,
    "gzip_bomb": _gzip_bomb,
    "no_http": _no_http,
    "interim": _interim,
    "interim_late": _interim_late,
    "interim_forever": _interim_forever,
    "switching": _switching,
    "beyond_the_end": _beyond_the_end,
    "chunked_beyond_the_end": _chunked_beyond_the_end,
    "close_announced": _close_announced,
    "unframed": _unframed,
    "cookie": _cookie,
    "brotli": _brotli,
}

#: Modes after which the server keeps the connection open, whatever the client has asked for.
KEEP_OPEN = {"chunked", "gzip", "interim", "interim_late", "beyond_the_end", "chunked_beyond_the_end", "cookie"}
