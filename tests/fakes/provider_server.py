"""A scripted image provider on the loopback that speaks both vendors' HTTP. The real SDKs talk to it.

In a test it plays one mode a request: `server.script("http_503", "ok")`, then `ok` for ever. The modes are the keys
of `answers.SPECIAL`, the error modes of `answers.error` (`http_500`, `quota`, …) and `deliveries.DELIVERIES`.
As a process it is the benchmarks' provider, or one to try things out on; `--help` lists the modes:
`python -m tests.fakes.provider_server --latency 1 --image-bytes 1500000`,
`python -m tests.fakes.provider_server --port 8099 --repeat http_503 azure_filter`,
`python -m tests.fakes.provider_server --texts refused hostile`.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self

from images.conformance.deliveries import DELIVERIES, KEEP_OPEN, Answer, head
from tests.fakes import answers
from tests.fakes.answers import Wish
from tests.fakes.models import model_answer
from tests.fakes.modes import ERRORS, MODES, TEXT_MODES
from tests.fakes.pictures import png
from tests.fakes.texts import text_answer

_GEMINI_SIZES = {"16:9": (1376, 768), "4:3": (1200, 896), "9:16": (768, 1376), "3:4": (896, 1200)}


@dataclass(frozen=True)
class Recorded:
    """A request as it arrived. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body, parsed; `None` where there is none."""
        return json.loads(self.body) if self.body else None


class ProviderServer:
    """The server. Start it with `with`, or with `start` and `close`.

    Args:
        port: 0 for any free one.
        latency: Seconds between a request and its answer.
        image_bytes: The size of the PNGs it generates.
        tls: Speak https with this context.

    Attributes:
        requests: Every request, in the order of arrival.
        connections: How many connections were accepted.
        redirect_to: Where the mode `redirect` points.
        policy: Decides the mode of each request for an image in place of the script.
        models: What is told about models that differ from the rest, by name (see `models.model_answer`).
        refusals: How many requests for an image came above the limit of `limit_rate`.
    """

    def __init__(
        self,
        port: int = 0,
        latency: float = 0.0,
        image_bytes: int = 150_000,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.tls = tls
        self.connections = 0
        self.latency = latency
        self.image_bytes = image_bytes
        self.redirect_to = "/elsewhere"
        self.requests: deque[Recorded] = deque(maxlen=10_000)
        self.models: dict[str, dict[str, Any]] = {}
        self._scripts: dict[str, deque[str]] = {
            "images": deque(),
            "files": deque(),
            "models": deque(),
            "texts": deque(),
        }
        self._repeat = self._repeat_texts = False
        self.refusals = 0
        self._rate, self._allowed = (0, 0.0), deque[float]()
        self.policy: Callable[[Recorded], str] | None = None
        self._changed = threading.Condition()
        self._gate = threading.Event()
        self._gate.set()
        self._server = _Server(("127.0.0.1", port), self)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def script(self, *modes: str, repeat: bool = False) -> None:
        """Play these modes, one a request, and then `ok`, or with `repeat` these again."""
        self._scripts["images"] = deque(modes)
        self._repeat = repeat

    def script_files(self, *modes: str) -> None:
        """The same for the files behind `url` answers."""
        self._scripts["files"] = deque(modes)

    def script_models(self, *modes: str) -> None:
        """The same for questions about models, which cost nothing."""
        self._scripts["models"] = deque(modes)

    def script_texts(self, *modes: str, repeat: bool = False) -> None:
        """The same for requests for a text (`modes.TEXT_MODES`, the error modes and `DELIVERIES`)."""
        self._scripts["texts"] = deque(modes)
        self._repeat_texts = repeat

    def requests_for(self, kind: str) -> list[Recorded]:
        """The requests for `texts`, or those for `images`."""
        posted = [request for request in self.requests if request.method == "POST"]
        return [request for request in posted if _is_text(request) == (kind == "texts")]

    def limit_rate(self, count: int, seconds: float) -> None:
        """Refuse requests for an image (429 with `Retry-After`) as long as `count` came within so many seconds."""
        self._rate = count, seconds

    def _over_limit(self) -> float:
        """Seconds until a request for an image may come; 0 if it may come now, which counts."""
        count, seconds = self._rate
        now = time.monotonic()
        with self._changed:
            while self._allowed and self._allowed[0] <= now - seconds:
                self._allowed.popleft()
            if not count or len(self._allowed) < count:
                self._allowed.append(now)
                return 0.0
            self.refusals += 1
            return self._allowed[0] + seconds - now

    def hold(self) -> None:
        """Let requests arrive, and answer none until `release`."""
        self._gate.clear()

    def release(self) -> None:
        self._gate.set()

    def wait_for(self, count: int, timeout: float = 10.0) -> None:
        """Wait until `count` requests have arrived since the start."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.requests) >= count, timeout)
        assert arrived, f"only {len(self.requests)} of {count} requests arrived"

    def end_connections(self) -> None:
        """End every connection that is open, as a server does with idle ones."""
        self._server.end_connections()

    def start(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True).start()
        return self

    def close(self) -> None:
        """Stop, and end every connection that is still open."""
        self._gate.set()
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- one request --------------------------------------------------------------------------------------

    def serve(self, sock: socket.socket, request: Recorded) -> bool:
        """Answer one request; say whether the connection stays open."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        mode = self._next_mode(request)
        if request.method == "POST":
            if seconds := self._over_limit():
                answer = answers.rate_limited(seconds)
                sock.sendall(head(answer, f"Content-Length: {len(answer.body)}") + answer.body)
                return True
            self._gate.wait(60)
            if self.latency:
                time.sleep(self.latency)
        deliver = DELIVERIES.get(mode)
        if _is_text(request):
            answer = text_answer(
                "gemini" if "generateContent" in request.path else "openai", "ok" if deliver else mode
            )
            if deliver is None:
                sock.sendall(head(answer, f"Content-Length: {len(answer.body)}") + answer.body)
                return True
            deliver(sock, answer)
            return mode in KEEP_OPEN
        wish = self._wish(request)
        if wish.api == "model":
            answer = model_answer(request.path, request.headers, "ok" if deliver else mode, self.models)
            if deliver is None:
                sock.sendall(head(answer, f"Content-Length: {len(answer.body)}") + answer.body)
                return True
            deliver(sock, answer)
            return mode in KEEP_OPEN
        if mode == "echo":
            answer = answers.echo(request.headers)
            sock.sendall(head(answer, f"Content-Length: {len(answer.body)}") + answer.body)
            return True
        if deliver is None:
            sock.sendall(_rendered(mode, wish, self.redirect_to))
            return True
        deliver(sock, _answer("ok", wish, self.redirect_to))
        return mode in KEEP_OPEN

    def _next_mode(self, request: Recorded) -> str:
        is_file = request.path.startswith("/files/")
        if request.method == "GET" and "/models" in request.path:
            return self._scripts["models"].popleft() if self._scripts["models"] else "ok"
        if not is_file and (request.method != "POST" or request.path.startswith("/elsewhere")):
            return "ok"
        if _is_text(request):
            mode = self._scripts["texts"].popleft() if self._scripts["texts"] else "ok"
            if self._repeat_texts:
                self._scripts["texts"].append(mode)
            return mode
        if self.policy and not is_file:
            return self.policy(request)
        try:
            mode = self._scripts["files" if is_file else "images"].popleft()
        except IndexError:  # The script is over.
            return "ok"
        if self._repeat and not is_file:
            self._scripts["images"].append(mode)
        return mode

    def _wish(self, request: Recorded) -> Wish:
        files, size = f"{self.url}/files", self.image_bytes
        if request.path.startswith("/files/"):
            width, height = map(int, (re.findall(r"(\d+)x(\d+)", request.path) or [(64, 64)])[0])
            return Wish("file", width, height, image_bytes=size)
        if request.method != "POST" or not request.body.startswith(b"{"):
            return Wish("model", 0, 0)
        if "generateContent" in request.path:
            config = request.json.get("generationConfig", {}).get("imageConfig", {})
            width, height = _GEMINI_SIZES.get(config.get("aspectRatio", ""), (1024, 1024))
            factor = 2 if config.get("imageSize") == "2K" else 1
            known = "x-goog-api-key" in request.headers
            return Wish("gemini" if known else "nobody", width * factor, height * factor, image_bytes=size)
        width, height = map(int, request.json.get("size", "1024x1024").split("x"))
        known = request.headers.get("authorization", "").startswith("Bearer ")
        kind = request.json.get("output_format", "png")
        return Wish("openai" if known else "nobody", width, height, kind, size, files)


def _is_text(request: Recorded) -> bool:
    """Whether a text is asked for, and not a picture."""
    if request.path.partition("?")[0].endswith("/chat/completions"):
        return True
    return "generateContent" in request.path and b'"responseMimeType"' in request.body


def _answer(mode: str, wish: Wish, redirect_to: str) -> Answer:
    if wish.api == "nobody":
        return Answer(b'{"error": {"message": "no key"}}', 401)
    if mode == "redirect":
        return Answer(b"{}", 307, (("Location", redirect_to),))
    if mode.startswith("http_") and wish.api == "file":
        return Answer(b"", int(mode[5:]), content_type="text/plain")
    if wish.api == "file":
        size = wish.image_bytes + (mode == "other_picture")
        return Answer(png(wish.width, wish.height, size), content_type="image/png")
    answer = answers.error(wish, mode) or answers.special(wish, mode)
    if answer is None:
        raise ValueError(f"The provider server knows no mode {mode!r} for {wish.api}.")
    return answer


@lru_cache(maxsize=64)
def _rendered(mode: str, wish: Wish, redirect_to: str) -> bytes:
    """A whole answer, built once: a benchmark asks for the same one a thousand times."""
    answer = _answer(mode, wish, redirect_to)
    return head(answer, f"Content-Length: {len(answer.body)}") + answer.body


class _Handler(socketserver.StreamRequestHandler):
    """One connection: requests one after the other, read with as little work as will do."""

    server: _Server
    disable_nagle_algorithm = True

    def setup(self) -> None:
        if self.server.owner.tls is not None:
            self.request = self.server.owner.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self) -> None:
        try:
            while (request := self._read()) is not None:
                if not self.server.owner.serve(self.connection, request):
                    return
        except OSError:
            return  # The client went away, which is what half of the modes are about.

    def _read(self) -> Recorded | None:
        first = self.rfile.readline(65536).split()
        if len(first) < 3:
            return None
        headers: dict[str, str] = {}
        while (line := self.rfile.readline(65536)) not in (b"\r\n", b"\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length", 0)))
        return Recorded(first[0].decode(), first[1].decode(), headers, body)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 4096  # A thousand callers may connect at the same moment.

    def __init__(self, address: tuple[str, int], owner: ProviderServer) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
            self.owner.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # A handshake that the client broke off is no fault here.
            super().handle_error(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        with self._lock:
            for sock in list(self._open):
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # Gone already.


def _lines(modes: Mapping[str, str]) -> str:
    return "\n".join(f"  {mode:24}{line}" for mode, line in modes.items())


def main() -> None:
    """Run as a process until it is killed; the first line of output is the port."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fakes.provider_server",
        description="A provider on the loopback that speaks OpenAI's and Gemini's HTTP and answers as it is told. It "
        "prints its port. Point OPENAI_BASE_URL at http://127.0.0.1:PORT/v1, GEMINI_API_BASE_URL at "
        "http://127.0.0.1:PORT/v1beta, and set any key.",
        epilog=f"modes:\n{_lines(MODES)}\n\nmodes of text models, beside the errors above:\n{_lines(TEXT_MODES)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("modes", nargs="*", metavar="MODE", help="played one a request, and then ok")
    parser.add_argument("--texts", nargs="+", default=[], metavar="MODE", help="the same for the model of scenes")
    parser.add_argument("--repeat", action="store_true", help="play the modes again and again")
    parser.add_argument("--port", type=int, default=0, help="by default, any free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--image-bytes", type=int, default=1_500_000, help="the size of the PNGs")
    options = parser.parse_args()
    unknown = [mode for mode in options.modes if mode not in MODES]
    unknown += [mode for mode in options.texts if mode not in {*TEXT_MODES, *ERRORS, *DELIVERIES}]
    if unknown:
        parser.error(f"there is no mode {unknown[0]!r}; --help lists them")
    server = ProviderServer(options.port, options.latency, options.image_bytes)
    server.script(*options.modes, repeat=options.repeat)
    server.script_texts(*options.texts, repeat=options.repeat)
    server.start()
    print(server.port, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
