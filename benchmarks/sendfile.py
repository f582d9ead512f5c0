"""The floor for files where there is no nginx: threads that call `sendfile(2)`, and no more HTTP than wrk needs.

`python -m benchmarks.sendfile FOLDER` prints its port.
"""

from __future__ import annotations

import os
import socketserver
import sys
from pathlib import Path


class Handler(socketserver.StreamRequestHandler):
    """One connection: GET requests, one after the other."""

    disable_nagle_algorithm = True
    root = Path()

    def handle(self) -> None:
        """Answer until the caller hangs up."""
        while line := self.rfile.readline():
            headers = list(iter(self.rfile.readline, b"\r\n"))
            unchanged = any(header.lower().startswith(b"if-none-match:") for header in headers)
            self._answer(line.split()[1].decode(), unchanged)

    def _answer(self, path: str, unchanged: bool) -> None:
        with (self.root / path.lstrip("/")).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if unchanged:
                self.wfile.write(b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n')
                return
            head = f'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: {size}\r\n\r\n'
            self.wfile.write(head.encode())
            sent = 0
            while sent < size:
                sent += os.sendfile(self.connection.fileno(), file.fileno(), sent, size - sent)


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 1024


def main() -> None:
    """Serve a folder until the process is stopped."""
    Handler.root = Path(sys.argv[1])
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
