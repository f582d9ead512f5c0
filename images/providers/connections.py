"""urllib3's connections and pools, with a total deadline, checked addresses and no stale reuse."""

from __future__ import annotations

import socket
import sys
import time
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, LocationParseError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

from .exchange import current_exchange
from .pacing import PacedResponse

#: A pooled connection that was idle for longer is not used again: the peer or a firewall may have dropped it
#: without a word, and a request that gets lost on it cannot be repeated, since it may have been billed.
MAX_IDLE_SECONDS = 15.0

#: A provider says nothing for up to 90 seconds; keepalive probes keep NAT gateways from forgetting the connection.
SOCKET_OPTIONS: list[tuple[int, int, int]] = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4))
        if hasattr(socket, name)  # Not everywhere under these names.
    ),
]


class GuardedHTTPConnection(HTTPConnection):
    """A connection whose every blocking step is watched by the current exchange's guard."""

    response_class = PacedResponse
    idle_since = 0.0
    _connect_until = 0.0

    def _new_conn(self) -> socket.socket:
        """Resolve once, have every address permitted, and connect to the first that answers in time.

        The name resolution itself is the operating system's and is bounded by its resolver's own timeout.
        """
        exchange = current_exchange()
        limit = self.timeout if isinstance(self.timeout, (int, float)) else 10.0
        addresses = self._resolve()
        if exchange is not None and exchange.permit is not None:
            for *_, address in addresses:
                exchange.permit(str(address[0]))
        # The limit counts for all addresses, the proxy's tunnel and the TLS handshake together.
        self._connect_until = time.monotonic() + limit
        error: OSError | None = None
        for family, kind, protocol, _, address in addresses:
            try:
                return self._dial(socket.socket(family, kind, protocol), address)
            except OSError as err:
                error = err
        if isinstance(error, TimeoutError):
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out.") from error
        raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error

    def _resolve(self) -> list[tuple[Any, ...]]:
        host = self._dns_host.strip("[]")
        try:
            return list(socket.getaddrinfo(host, self.port, allowed_gai_family(), socket.SOCK_STREAM))
        except socket.gaierror as err:
            raise NameResolutionError(self.host, self, err) from err
        except UnicodeError as err:
            raise LocationParseError(f"{host!r}, label empty or too long") from err

    def _dial(self, sock: socket.socket, address: Any) -> socket.socket:
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            self._hold(sock)
            sock.settimeout(self._connect_left())
            sock.connect(address)
            sock.settimeout(self._connect_left())
        except OSError:
            sock.close()
            raise
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock

    def _connect_left(self) -> float:
        # Never 0, which would make the socket non-blocking.
        return max(self._connect_until - time.monotonic(), 0.001)

    def _hold(self, sock: Any) -> None:
        exchange = current_exchange()
        # TLS inside TLS is not a socket; there the guard keeps the one below it, held since `_tunnel`.
        if exchange is not None and isinstance(sock, socket.socket):
            exchange.guard.hold(sock)

    def _tunnel(self) -> None:
        self._hold(self.sock)
        super()._tunnel()
        self.sock.settimeout(self._connect_left())

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request, as `urllib3.connection.HTTPConnection.request` does, once connected.

        Connecting comes first and apart, so that `Exchange.sent` says the truth.
        """
        if self.sock is None:
            self.connect()
        self._hold(self.sock)
        exchange = current_exchange()
        if exchange is not None:
            exchange.sent = True
        super().request(*args, **kwargs)


class GuardedHTTPSConnection(GuardedHTTPConnection, HTTPSConnection):
    """The same over TLS. A handshake is bounded by the socket's timeout as a whole, not byte by byte."""


class GuardedHTTPPool(HTTPConnectionPool):
    """A pool that forgets connections which were idle for too long, and closes surplus ones silently."""

    ConnectionCls = GuardedHTTPConnection

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)
        if time.monotonic() - getattr(connection, "idle_since", 0.0) > MAX_IDLE_SECONDS:
            connection.close()  # A closed connection opens itself again.
        return connection

    def _put_conn(self, conn: Any) -> None:
        exchange = current_exchange()
        if exchange is not None:
            exchange.guard.let_go()
        if conn is not None:
            conn.idle_since = time.monotonic()
            if self.pool is not None and self.pool.full():
                conn.close()
                return
        super()._put_conn(conn)


class GuardedHTTPSPool(GuardedHTTPPool, HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = GuardedHTTPSConnection


def guarded(manager: PoolManager) -> PoolManager:
    """Make `manager` use the connections of this module."""
    manager.pool_classes_by_scheme = {"http": GuardedHTTPPool, "https": GuardedHTTPSPool}
    return manager
