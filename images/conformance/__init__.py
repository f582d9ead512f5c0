"""The faults of real servers, to try on a provider of your own. Needs pytest.

    from images.conformance import ProviderConformance

    class TestAcme(ProviderConformance):
        def make_provider(self, base_url):
            return AcmeProvider({"api_key": self.key, "model": "acme-1", "base_url": base_url})

        def answer(self, image):
            return json.dumps({"image": base64.b64encode(image).decode()}).encode()

Each fault is played by a server on the loopback. The provider has to turn it into the right exception, in time, after
one request, and without its key or the server's words in what callers are told.
"""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from .. import exceptions as failures
from ..exceptions import ProviderFailure
from ..providers import Deadline, ImageProvider, ImageRequest
from ..testing import tiny_png
from .deliveries import DELIVERIES, Answer, head

__all__ = ["MODES", "FaultServer", "Mode", "ProviderConformance"]

#: Seconds that a provider gets if a fault makes it wait, and seconds after the deadline when it has to be back.
_SHORT, _LONG, _GRACE = 1.0, 20.0, 2.0
#: What the server says in its errors. Callers must not be told.
_UPSTREAM = "upstream-words"


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One way in which the server answers.

    Attributes:
        says: What happens, in a line.
        expected: The exceptions that are right, their subclasses included; empty if an image has to come back.
        answer: The whole answer; `None` for the proper one.
        delivery: A key of `DELIVERIES`, or "" to deliver the answer as it should be.
        waits: The provider waits until its deadline.
    """

    says: str
    expected: tuple[type[ProviderFailure], ...] = ()
    answer: Answer | None = None
    delivery: str = ""
    waits: bool = False


_ERROR, _BAD, _NONE = failures.ProviderError, failures.ProviderBadResponse, failures.ProviderNoImage
_REFUSED = failures.ProviderRefusedRequest


def _status(status: int, *expected: type[ProviderFailure], **more: Any) -> Mode:
    body = f'{{"error": {{"message": "{_UPSTREAM}"}}}}'.encode()
    return Mode(says=f"status {status}", expected=expected, answer=Answer(body, status, **more))


def _content(says: str, body: bytes, *expected: type[ProviderFailure]) -> Mode:
    return Mode(says=says, expected=expected or (_BAD,), answer=Answer(body))


def _fine(delivery: str) -> Mode:
    return Mode(says=_first_line(delivery), delivery=delivery)


def _late(delivery: str) -> Mode:
    return Mode(says=_first_line(delivery), expected=(failures.ProviderTimeout,), delivery=delivery, waits=True)


def _broken(delivery: str) -> Mode:
    return Mode(says=_first_line(delivery), expected=(_BAD, _ERROR), delivery=delivery)


def _first_line(delivery: str) -> str:
    return (DELIVERIES[delivery].__doc__ or delivery).partition("\n")[0]


#: What is played, by name.
MODES: dict[str, Mode] = {
    "ok": Mode(says="a proper answer"),
    **{mode: _fine(mode) for mode in ("chunked", "interim", "close_announced", "unframed")},
    "unreachable": Mode(says="nothing listens", expected=(failures.ProviderUnreachable,)),
    "http_400": _status(400, _REFUSED, _ERROR),
    "http_401": _status(401, failures.ProviderAuth),
    "http_403": _status(403, failures.ProviderAuth),
    "http_404": _status(404, failures.ProviderModelUnavailable, _REFUSED, _ERROR),
    "http_429": _status(429, failures.ProviderRateLimited, failures.ProviderQuotaExhausted),
    "http_500": _status(500, _ERROR),
    "http_502": Mode(
        says="status 502 with an HTML page, as proxies send it",
        expected=(_ERROR,),
        answer=Answer(f"<html>{_UPSTREAM}</html>".encode(), 502, content_type="text/html"),
    ),
    "http_503": _status(503, failures.ProviderOverloaded, _ERROR),
    "redirect": _status(307, _BAD, _ERROR, headers=(("Location", "/elsewhere"),)),
    "garbage": _content("status 200, and half of a JSON document", b'{"data": ['),
    "html": _content("status 200, and an HTML page", f"<html>{_UPSTREAM}</html>".encode()),
    "not_utf8": _content("status 200, and bytes that are no text", b'{"data": "\xff\xfe"}', _BAD, _NONE),
    "deep_json": _content("status 200, and JSON of 200,000 levels", b"[" * 200_000),
    "empty_body": _content("status 200, and nothing", b""),
    "empty_object": _content("status 200, and an empty object", b"{}", _BAD, _NONE),
    "null": _content("status 200, and null", b"null", _BAD, _NONE),
    "a_list": _content("status 200, and a list", b"[1, 2, 3]", _BAD, _NONE),
    **{mode: _late(mode) for mode in ("hang", "hang_body", "slow_drip", "drip_headers")},
    **{mode: _broken(mode) for mode in ("reset", "reset_body", "close", "truncated_body", "no_http", "huge")},
}


class FaultServer:
    """A server on the loopback that plays one mode. Start it with `with`.

    Args:
        mode: What it plays.
        body: The body of a proper answer.

    Attributes:
        url: Its address, without a slash at the end.
        requests: How many requests have arrived.
    """

    def __init__(self, mode: Mode, body: bytes) -> None:
        self.requests = 0
        self._answer = mode.answer or Answer(body)
        self._deliver: Callable[..., None] = DELIVERIES.get(mode.delivery, _deliver_whole)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultServer:
        threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def play(self, connection: Any) -> None:
        """Answer one request."""
        self.requests += 1
        self._deliver(connection, self._answer)


def _deliver_whole(connection: Any, answer: Answer) -> None:
    connection.sendall(head(answer, f"Connection: close\r\nContent-Length: {len(answer.body)}") + answer.body)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    owner: FaultServer


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        length = 0
        try:
            if not self.rfile.readline():
                return
            while (line := self.rfile.readline()) not in (b"\r\n", b"\n", b""):
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            self.rfile.read(length)
            self.server.owner.play(self.connection)
        except OSError:
            return  # The provider has hung up, as it should.


class ProviderConformance:
    """The tests of a provider: subclass it, and implement `make_provider` and `answer`.

    Attributes:
        key: Give it to the provider as its key. It must not show up in any exception.
        skip: Modes that the provider cannot stand, each with the reason.
    """

    key: ClassVar[str] = "conformance-key-0123456789abcdef"
    skip: ClassVar[dict[str, str]] = {}

    def make_provider(self, base_url: str) -> ImageProvider:
        """The provider, set up to ask the server at `base_url` (`http://127.0.0.1:port`)."""
        raise NotImplementedError

    def answer(self, image: bytes) -> bytes:
        """The body of a proper answer that holds `image`, in the vendor's own format."""
        raise NotImplementedError

    @pytest.mark.parametrize("mode", MODES)
    def test_a_servers_fault_becomes_the_right_exception(self, mode: str) -> None:
        """Play one mode, and look at what the provider makes of it."""
        if mode in self.skip:
            pytest.skip(self.skip[mode])
        image, played = tiny_png(160, 90), MODES[mode]
        seconds = _SHORT if played.waits else _LONG
        with FaultServer(played, self.answer(image)) as server:
            if mode == "unreachable":
                server.close()
            provider = self.make_provider(server.url)
            outcome = _outcome(provider, seconds)
        assert server.requests <= 1, f"{mode}: the provider has asked {server.requests} times"
        if not played.expected:
            assert outcome == image, f"{mode} ({played.says}) has to return the image, and gave {outcome!r}"
            return
        assert isinstance(outcome, played.expected), (
            f"{mode} ({played.says}) has to raise {' or '.join(kind.__name__ for kind in played.expected)}, "
            f"and gave {outcome!r}"
        )
        told = f"{outcome} {outcome!r}"
        assert self.key not in told, f"{mode}: the exception shows the key"
        for words in (_UPSTREAM, "127.0.0.1", "<html"):
            assert words not in told, f"{mode}: callers would be told what the server said ({words})"


def _outcome(provider: ImageProvider, seconds: float) -> bytes | BaseException:
    """The image or the exception; in a thread, since a provider without a deadline of its own may never return."""
    outcome: list[bytes | BaseException] = []
    request = ImageRequest(prompt="A red bicycle", title="A red bicycle", deadline=Deadline.after(seconds))

    def generate() -> None:
        try:
            outcome.append(provider.generate(request).data)
        except BaseException as err:  # noqa: BLE001 (judged in the test's own thread)
            outcome.append(err)

    thread = threading.Thread(target=generate, daemon=True)
    started = time.monotonic()
    thread.start()
    thread.join(seconds + _GRACE)
    assert outcome, f"the provider has not returned {time.monotonic() - started:.1f} s after a request of {seconds} s"
    return outcome[0]
