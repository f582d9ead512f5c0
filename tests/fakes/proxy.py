"""A tiny HTTP proxy on the loopback: tunnels (CONNECT) and forwards (absolute addresses)."""

from __future__ import annotations

import select
import socket
import socketserver
import ssl
import threading
import time
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """The proxy. Start it with `with`.

    Attributes:
        asked: The request lines that reached it, without the version.
        headers: The headers of the last of them, names in lower case.
        refuse: Answer every request with 407.
        drip: Answer every request one byte at a time, without an end.

    Args:
        tls: Speak https with this context.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.drip = False
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        self.refuse = False
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    owner: Proxy


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def setup(self) -> None:
        if self.server.owner.tls is not None:
            self.request = self.server.owner.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self) -> None:
        method, target, version = self.rfile.readline().decode().split()
        head = b""
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            head += line
        owner = self.server.owner
        owner.asked.append(f"{method} {target}")
        owner.headers = dict(line.lower().split(": ", 1) for line in head.decode().splitlines())
        if owner.drip:
            self._drip()
            return
        if owner.refuse:
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        parts = urlsplit(target if "://" in target else f"//{target}")
        with socket.create_connection((parts.hostname or "", parts.port or 80), 5) as upstream:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Tunnel\r\n\r\n")
            else:
                body = self.rfile.read(int(owner.headers.get("content-length", 0)))
                upstream.sendall(f"{method} {parts.path} {version}\r\n".encode() + head + b"\r\n" + body)
            self._pipe(upstream)

    def _drip(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 Tunnel\r\nX-Drip: ")
        try:
            while True:
                self.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            return  # The client has had enough.

    def _pipe(self, upstream: socket.socket) -> None:
        other = {upstream: self.connection, self.connection: upstream}
        while True:
            for sock in select.select(list(other), [], [], 5)[0]:
                data = sock.recv(65536)
                while isinstance(sock, ssl.SSLSocket) and sock.pending():
                    data += sock.recv(65536)
                if not data:
                    return
                other[sock].sendall(data)
