"""The transport under the SDKs: where it connects to, what a connection is good for, and when it gives up."""

from __future__ import annotations

import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from images import exceptions as failures
from images.providers.base import Deadline
from images.providers.http import Call, ResponseTooLarge, Transport, open_call, tls_context
from tests.fakes.certificates import loopback_certificate
from tests.fakes.provider_server import ProviderServer
from tests.fakes.proxy import Proxy
from tests.providers.conftest import GEMINI_KEY, OPENAI_KEY, MakeProvider, both, request_for

BODY = {"model": "m", "prompt": "p", "size": "64x64"}
HEADERS = {"Authorization": "Bearer sk-x"}


def post(
    url: str, seconds: float = 10.0, limit: int = 1_000_000, connect_timeout: float = 5.0
) -> tuple[httpx2.Response, Call]:
    transport = Transport(max_body_bytes=limit, connect_timeout=connect_timeout)
    with httpx2.Client(transport=transport) as client, open_call(Deadline.after(seconds)) as call:
        return client.post(f"{url}/v1/images/generations", json=BODY, headers=HEADERS), call


@contextmanager
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


# --- connections --------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("mode", ["ok", "interim", "beyond_the_end", "chunked_beyond_the_end", "close_announced"])
def test_a_connection_serves_one_call_and_no_other_caller_gets_what_comes_late_on_it(
    either_provider: MakeProvider, provider_server: ProviderServer, mode: str
) -> None:
    """Two callers whose pictures can be told apart: whatever came with the first one's answer, each gets its own."""
    provider = either_provider()
    provider_server.script(mode, "other_picture")
    first, second = provider.generate(request_for()).data, provider.generate(request_for()).data
    assert (len(first), len(second)) == (provider_server.image_bytes, provider_server.image_bytes + 1)
    assert len(provider_server.requests) == provider_server.connections == 2


@both
@pytest.mark.parametrize("mode", ["interim_late", "truncated_body", "switching"])
def test_an_answer_that_was_given_up_reaches_no_other_caller(
    either_provider: MakeProvider, provider_server: ProviderServer, mode: str
) -> None:
    provider = either_provider()
    provider_server.script(mode, "other_picture")
    with pytest.raises(failures.ProviderFailure):
        provider.generate(request_for(0.6))
    assert len(provider.generate(request_for()).data) == provider_server.image_bytes + 1


@both
def test_a_request_that_may_have_arrived_is_never_sent_again(
    either_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    provider_server.script("close", "reset", "ok")
    for _ in range(2):
        with pytest.raises(failures.ProviderBadResponse):
            either_provider().generate(request_for())
    assert len(provider_server.requests) == 2


@both
def test_cookies_of_one_answer_are_not_sent_with_the_next_request(
    either_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    provider = either_provider()
    provider_server.script("cookie")
    for _ in range(2):
        provider.generate(request_for())
    assert "cookie" not in provider_server.requests[1].headers


# --- errors -------------------------------------------------------------------------------------------------


def test_nothing_sent_is_a_connect_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(httpx2.ConnectError):
        post(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("hang", httpx2.ReadTimeout),
        # A reset that arrives while the request is being sent reads like the end of the stream.
        ("reset", (httpx2.ReadError, httpx2.RemoteProtocolError)),
        ("reset_body", (httpx2.ReadError, httpx2.RemoteProtocolError)),
        ("close", httpx2.RemoteProtocolError),
        ("truncated_body", httpx2.RemoteProtocolError),
        ("no_http", httpx2.RemoteProtocolError),
        ("huge", ResponseTooLarge),
    ],
)
def test_each_break_off_is_the_matching_httpx2_error(
    provider_server: ProviderServer, mode: str, expected: type[Exception] | tuple[type[Exception], ...]
) -> None:
    provider_server.script(mode)
    with pytest.raises(expected) as caught:
        post(provider_server.url, 0.6 if mode == "hang" else 10.0)
    assert type(caught.value) in (expected if isinstance(expected, tuple) else (expected,))


def test_an_answer_as_large_as_the_limit_passes_and_one_byte_more_does_not(provider_server: ProviderServer) -> None:
    provider_server.script("http_404", "http_404", "http_404")
    size = len(post(provider_server.url)[0].content)
    assert len(post(provider_server.url, limit=size)[0].content) == size
    with pytest.raises(ResponseTooLarge):
        post(provider_server.url, limit=size - 1)


def test_a_redirect_is_handed_on_as_it_is_and_not_followed(provider_server: ProviderServer) -> None:
    with ProviderServer() as elsewhere:
        provider_server.redirect_to = f"{elsewhere.url}/v1/images/generations"
        provider_server.script("redirect")
        response, call = post(provider_server.url)
        assert response.status_code == 307
        assert "location" not in response.headers
        assert call.status == 307
        assert not elsewhere.requests


@both
def test_no_key_is_sent_to_where_an_answer_redirects(
    either_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    with ProviderServer() as elsewhere:
        provider_server.redirect_to = elsewhere.url
        provider_server.script("redirect")
        with pytest.raises(failures.ProviderBadResponse):
            either_provider().generate(request_for())
        assert not elsewhere.connections
    assert len(provider_server.requests) == 1


def test_a_request_without_a_deadline_is_a_mistake(provider_server: ProviderServer) -> None:
    with httpx2.Client(transport=Transport(max_body_bytes=1_000_000)) as client, pytest.raises(RuntimeError):
        client.get(f"{provider_server.url}/v1/models/m", headers=HEADERS)
    assert not provider_server.connections


# --- TLS ----------------------------------------------------------------------------------------------------


@both
def test_a_certificate_of_ones_own_is_trusted(either_provider: MakeProvider, tls_server: ProviderServer) -> None:
    image = either_provider(base_url=f"{tls_server.url}/v1").generate(request_for())
    assert len(image.data) == tls_server.image_bytes


def test_an_unknown_certificate_is_not_trusted_and_nothing_is_sent(
    openai_provider: MakeProvider, tls_server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(failures.ProviderUnreachable):
        openai_provider(base_url=f"{tls_server.url}/v1").generate(request_for())
    assert not tls_server.requests


def test_certificates_that_cannot_be_read_name_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    with pytest.raises(failures.ProviderNotConfigured, match="REQUESTS_CA_BUNDLE") as caught:
        tls_context()
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("mode", ["hang", "hang_body", "slow_drip", "drip_headers"])
def test_the_deadline_holds_over_tls(tls_server: ProviderServer, openai_provider: MakeProvider, mode: str) -> None:
    provider = openai_provider(base_url=f"{tls_server.url}/v1")
    provider.generate(request_for())  # So that the time goes into the answer, not into the handshake.
    tls_server.script(mode)
    started = time.monotonic()
    with pytest.raises(failures.ProviderTimeout):
        provider.generate(request_for(0.6))
    assert time.monotonic() - started < 4


def test_a_handshake_that_drips_ends_in_time() -> None:
    """A TLS record is announced, and comes one byte at a time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(b"\x16\x03\x03\x40\x00")
                while True:
                    connection.sendall(b"\x02")
                    time.sleep(0.05)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        started = time.monotonic()
        with pytest.raises(httpx2.ConnectTimeout):
            post(f"https://127.0.0.1:{listener.getsockname()[1]}", connect_timeout=0.4)
        assert time.monotonic() - started < 4
        thread.join(5)


def test_a_name_that_is_not_resolved_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def getaddrinfo(*_: object, flags: int = 0, **__: object) -> list[object]:
        if not flags & socket.AI_NUMERICHOST:
            answered.wait(10)
        raise socket.gaierror("unknown")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    started = time.monotonic()
    with pytest.raises(httpx2.ConnectTimeout):
        post("http://slow.example", connect_timeout=0.3)
    assert time.monotonic() - started < 4
    answered.set()


def test_interim_answers_without_an_end_are_an_answer_that_is_too_large(provider_server: ProviderServer) -> None:
    provider_server.script("interim_forever")
    with pytest.raises(ResponseTooLarge):
        post(provider_server.url, 20.0)


def test_a_handshake_that_never_comes_ends_in_time() -> None:
    with silent_server() as address:
        started = time.monotonic()
        with pytest.raises(httpx2.ConnectTimeout):
            post(f"https://{address}", connect_timeout=0.3)
        assert time.monotonic() - started < 4


# --- proxies ------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy() as proxy:
        for name in ("http_proxy", "https_proxy", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://user:proxy-password@127.0.0.1:{proxy.port}")
        yield proxy


@both
def test_plain_http_is_forwarded(
    either_provider: MakeProvider, provider_server: ProviderServer, proxy: Proxy
) -> None:
    assert either_provider().generate(request_for()).data
    assert proxy.asked[0].startswith(f"POST {provider_server.url}/v1")
    assert proxy.headers["proxy-authorization"].startswith("basic ")


@both
def test_https_goes_through_a_tunnel_that_never_sees_the_key(
    either_provider: MakeProvider, tls_server: ProviderServer, proxy: Proxy
) -> None:
    assert either_provider(base_url=f"{tls_server.url}/v1").generate(request_for()).data
    assert proxy.asked == [f"CONNECT 127.0.0.1:{tls_server.port}"]
    seen = str(proxy.headers)
    assert "basic " in seen
    assert OPENAI_KEY.lower() not in seen
    assert GEMINI_KEY.lower() not in seen


@pytest.mark.parametrize("exempt", ["127.0.0.1", "127.0.0.0/8", "*"])
def test_no_proxy_is_honoured(
    openai_provider: MakeProvider, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, exempt: str
) -> None:
    monkeypatch.setenv("NO_PROXY", exempt)
    assert openai_provider().generate(request_for()).data
    assert not proxy.asked


def test_a_proxy_that_refuses_means_unreachable_and_its_password_stays_out_of_sight(
    openai_provider: MakeProvider, tls_server: ProviderServer, proxy: Proxy
) -> None:
    proxy.refuse = True
    with pytest.raises(failures.ProviderUnreachable) as caught:
        openai_provider(base_url=f"{tls_server.url}/v1").generate(request_for())
    assert "proxy-password" not in "".join(traceback.format_exception(caught.value))


def test_a_proxy_that_says_nothing_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server() as address:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:proxy-password@{address}")
        with pytest.raises(httpx2.ConnectTimeout) as caught:
            post("https://provider.example", connect_timeout=0.3)
    assert "proxy-password" not in "".join(traceback.format_exception(caught.value))


def test_a_proxy_of_an_unknown_kind_is_a_connect_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(httpx2.ConnectError):
        post("https://provider.example")


@pytest.mark.parametrize("seconds", [0.4, 10.0])
def test_a_proxy_that_drips_ends_in_time(
    openai_provider: MakeProvider, tls_server: ProviderServer, proxy: Proxy, seconds: float
) -> None:
    proxy.drip = True
    started = time.monotonic()
    with pytest.raises(failures.ProviderUnreachable):
        openai_provider(base_url=f"{tls_server.url}/v1", timeout_connect=0.4).generate(request_for(seconds))
    assert time.monotonic() - started < 4
    assert not tls_server.requests


@both
@pytest.mark.parametrize("over_tls", [True, False])
def test_a_proxy_may_speak_tls_itself(
    either_provider: MakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over_tls: bool
) -> None:
    context, trusted = loopback_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with ProviderServer(tls=context if over_tls else None) as server, Proxy(tls=context) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"https://user:proxy-password@127.0.0.1:{proxy.port}")
        provider = either_provider(base_url=f"{server.url}/v1")
        assert len(provider.generate(request_for()).data) == server.image_bytes
        assert len(proxy.asked) == 1
        server.script("slow_drip")
        started = time.monotonic()
        with pytest.raises(failures.ProviderTimeout):
            provider.generate(request_for(0.8))
        assert time.monotonic() - started < 4
