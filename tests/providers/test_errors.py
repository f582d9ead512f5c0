"""Every fault a provider can have, from the real SDK on a real socket to the exception of this app."""

from __future__ import annotations

import logging
import socketserver
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import exceptions as failures
from images.exceptions import ProviderFailure
from images.providers import Deadline, errors
from images.providers.fetch import fetch_image
from tests.fakes.certificates import loopback_certificate
from tests.fakes.provider_server import ProviderServer
from tests.fakes.proxy import Proxy
from tests.providers.conftest import GEMINI_KEY, OPENAI_KEY, MakeProvider, both, request_for

Failure = type[ProviderFailure]

STATUSES: dict[str, Failure] = {
    "http_500": failures.ProviderError,
    "http_502": failures.ProviderError,
    "http_504": failures.ProviderError,
    "http_503": failures.ProviderOverloaded,
    "http_529": failures.ProviderOverloaded,
    "http_400": failures.ProviderRefusedRequest,
    "http_413": failures.ProviderRefusedRequest,
    "http_422": failures.ProviderRefusedRequest,
    "http_401": failures.ProviderAuth,
    "http_403": failures.ProviderAuth,
    "http_402": failures.ProviderQuotaExhausted,
    "http_404": failures.ProviderModelUnavailable,
    "http_408": failures.ProviderError,
    "http_409": failures.ProviderError,
    "http_429": failures.ProviderRateLimited,
    "quota": failures.ProviderQuotaExhausted,
    "redirect": failures.ProviderBadResponse,
}
CONTENT: dict[str, Failure] = {
    "content_policy": failures.ContentRejected,
    "safety_block": failures.ContentRejected,
    "empty": failures.ProviderNoImage,
    "empty_body": failures.ProviderNoImage,
    "null_data": failures.ProviderNoImage,
    "garbage": failures.ProviderBadResponse,
    "garbage_large": failures.ProviderBadResponse,
    "garbage_bytes": failures.ProviderBadResponse,
    "garbage_html": failures.ProviderBadResponse,
    "deep_json": failures.ProviderBadResponse,
    "bad_base64": failures.ProviderBadResponse,
    "bad_base64_large": failures.ProviderBadResponse,
}
REPORTED: dict[str, Failure] = {
    "reported_moderation": failures.ContentRejected,
    "reported_rate": failures.ProviderRateLimited,
    "reported_number": failures.ProviderRateLimited,
    "reported_quota": failures.ProviderQuotaExhausted,
    "reported_key": failures.ProviderAuth,
    "reported_model": failures.ProviderModelUnavailable,
    "reported_unknown": failures.ProviderError,
    "azure_filter": failures.ContentRejected,
    "wrapped_refusal": failures.ContentRejected,
    "wrapped_refusal_500": failures.ContentRejected,
    "wrapped_quota": failures.ProviderQuotaExhausted,
    "no_plan": failures.ProviderQuotaExhausted,
    "azure_task": failures.ContentRejected,
    "azure_policy": failures.ContentRejected,
    "router_words": failures.ContentRejected,
    "detail": failures.ProviderRefusedRequest,
}
DELIVERY: dict[str, Failure] = {
    "hang": failures.ProviderTimeout,
    "hang_body": failures.ProviderTimeout,
    "slow_drip": failures.ProviderTimeout,
    "drip_headers": failures.ProviderTimeout,
    "drip_unframed": failures.ProviderTimeout,
    "reset": failures.ProviderBadResponse,
    "reset_body": failures.ProviderBadResponse,
    "close": failures.ProviderBadResponse,
    "truncated_body": failures.ProviderBadResponse,
    "no_http": failures.ProviderBadResponse,
    "huge": failures.ProviderBadResponse,
    "huge_declared": failures.ProviderBadResponse,
    "gzip_bomb": failures.ProviderBadResponse,
}
ONLY_OPENAI: dict[str, Failure] = {
    "billing": failures.ProviderQuotaExhausted,
    "content_policy_legacy": failures.ContentRejected,
    "no_such_model": failures.ProviderModelUnavailable,
    "a_list": failures.ProviderBadResponse,
    "odd_shape": failures.ProviderBadResponse,
    "odd_items": failures.ProviderNoImage,
    "azure_flags": failures.ContentRejected,
    "flagged": failures.ContentRejected,
    "router_flagged": failures.ContentRejected,
    "router_raw": failures.ContentRejected,
    "bare_rate": failures.ProviderRateLimited,
    "bare_moderation": failures.ContentRejected,
    "bare_detail": failures.ProviderError,
}
ONLY_GEMINI: dict[str, Failure] = {
    "bad_key": failures.ProviderAuth,
    "location": failures.ProviderAuth,
    "blocked_rating": failures.ContentRejected,
    "no_image": failures.ProviderNoImage,
    "image_other": failures.ProviderNoImage,
    "text_only": failures.ProviderNoImage,
    "continuation": failures.ProviderNoImage,
    "odd_items": failures.ProviderBadResponse,
}
SHARED = STATUSES | CONTENT | REPORTED | DELIVERY
CASES = [
    *(("openai", mode, failure) for mode, failure in (SHARED | ONLY_OPENAI).items()),
    *(("gemini", mode, failure) for mode, failure in (SHARED | ONLY_GEMINI).items()),
]


@pytest.mark.parametrize(
    ("either_provider", "mode", "expected"), CASES, indirect=["either_provider"], ids=lambda value: str(value)[:24]
)
def test_each_fault_becomes_its_exception_after_a_single_request(
    either_provider: MakeProvider,
    provider_server: ProviderServer,
    caplog: pytest.LogCaptureFixture,
    mode: str,
    expected: Failure,
) -> None:
    caplog.set_level(logging.DEBUG)
    provider, seconds = either_provider(), 10.0
    if expected is failures.ProviderTimeout:
        provider.generate(request_for())  # With a connection at hand, a short deadline is enough on a busy machine.
        provider_server.requests.clear()
        seconds = 0.5
    provider_server.script(mode)
    started = time.monotonic()

    with pytest.raises(ProviderFailure) as caught:
        provider.generate(request_for(seconds))

    assert type(caught.value) is expected
    assert time.monotonic() - started < 5
    assert len(provider_server.requests) == 1
    shown = [str(caught.value), repr(caught.value), repr(provider), caplog.text]
    shown += traceback.format_exception(caught.value)
    assert not [text for text in shown if OPENAI_KEY in text or GEMINI_KEY in text]
    for upstream in ("<html", "Request failed", "127.0.0.1", "site-packages"):
        assert upstream not in str(caught.value)


@pytest.mark.parametrize(
    ("failure", "code", "retry_same", "failover", "may_have_billed"),
    [
        (failures.ContentRejected, "content_rejected", False, False, False),
        (failures.ProviderError, "provider_error", False, True, True),
        (failures.ProviderRefusedRequest, "provider_error", False, True, False),
        (failures.ProviderUnreachable, "provider_unreachable", True, True, False),
        (failures.ProviderBadResponse, "provider_bad_response", False, True, True),
        (failures.ProviderNoImage, "provider_no_image", False, True, True),
        (failures.ProviderNotConfigured, "provider_not_configured", False, True, False),
        (failures.ProviderAuth, "provider_auth", False, True, False),
        (failures.ProviderModelUnavailable, "provider_model_unavailable", False, True, False),
        (failures.ProviderQuotaExhausted, "provider_quota_exhausted", False, True, False),
        (failures.ProviderRateLimited, "provider_rate_limited", True, True, False),
        (failures.ProviderOverloaded, "provider_overloaded", True, True, False),
        (failures.ProviderTimeout, "provider_timeout", False, True, True),
    ],
)
def test_what_may_be_tried_after_a_failure_is_as_the_contract_says(
    failure: Failure, code: str, retry_same: bool, failover: bool, may_have_billed: bool
) -> None:
    assert failure.code == code
    assert (failure.retry_same, failure.failover, failure.may_have_billed) == (retry_same, failover, may_have_billed)


def _cause_in(caplog: pytest.LogCaptureFixture) -> str:
    lines = [record.getMessage() for record in caplog.records if record.name == "images.providers"]
    [line] = [line for line in lines if line.startswith(("provider_unreachable ", "image_not_fetched "))]
    return line.partition("cause=")[2].split()[0]


UNREACHABLE = [
    ("refused", "http://127.0.0.1:{free}/v1", "", "the connection was refused"),
    ("name", "http://no-such-host.invalid/v1", "", "name could not be looked up"),
    ("certificate", "https://127.0.0.1:{tls}/v1", "", "certificate was not accepted"),
    ("tls", "https://127.0.0.1:{plain}/v1", "", "no encrypted connection"),
    ("proxy", "https://127.0.0.1:{tls}/v1", "127.0.0.1:{refusing}", "proxy did not connect"),
    ("proxy_refused", "https://127.0.0.1:{tls}/v1", "127.0.0.1:{free}", "proxy could not be reached"),
    ("proxy_name", "https://127.0.0.1:{tls}/v1", "no-such-host.invalid:1", "proxy could not be reached"),
    ("proxy", "https://127.0.0.1:{tls}/v1", "socks5", "proxy did not connect"),
]


class _Plain(socketserver.BaseRequestHandler):
    """Answers a TLS handshake in plain HTTP, as a server does that is asked at the wrong port."""

    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Ports on the loopback: of nothing, of plain HTTP, of a certificate that is unknown, of a proxy that refuses."""
    context, _ = loopback_certificate(tmp_path)
    with ProviderServer() as gone:
        free = gone.port
    with (
        ProviderServer(tls=context) as tls,
        Proxy() as proxy,
        socketserver.TCPServer(("127.0.0.1", 0), _Plain) as plain,
    ):
        threading.Thread(target=plain.serve_forever, args=(0.005,), daemon=True).start()
        proxy.refuse = True
        yield {"free": free, "plain": plain.server_address[1], "tls": tls.port, "refusing": proxy.port}
        plain.shutdown()


def _set_proxy(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    if proxy:
        url = "socks5://user:proxy-password@host:1" if proxy == "socks5" else f"http://user:proxy-password@{proxy}"
        monkeypatch.setenv("HTTPS_PROXY", url)


@both
@pytest.mark.parametrize(("cause", "url", "proxy", "words"), UNREACHABLE)
def test_what_is_unreachable_says_why(
    either_provider: MakeProvider,
    ports: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cause: str,
    url: str,
    proxy: str,
    words: str,
) -> None:
    _set_proxy(monkeypatch, proxy.format(**ports))
    with pytest.raises(failures.ProviderUnreachable, match=words) as caught:
        either_provider(base_url=url.format(**ports)).generate(request_for())
    assert _cause_in(caplog) == cause
    for upstream in ("proxy-password", "127.0.0.1", "invalid"):
        assert upstream not in str(caught.value)
    assert "proxy-password" not in caplog.text


@pytest.mark.parametrize(("cause", "url", "proxy", "words"), [row for row in UNREACHABLE if row[0] != "name"])
def test_a_file_that_cannot_be_fetched_says_why(
    ports: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cause: str,
    url: str,
    proxy: str,
    words: str,
) -> None:
    _set_proxy(monkeypatch, proxy.format(**ports))
    with pytest.raises(failures.ProviderBadResponse, match=words):
        fetch_image(url.format(**ports), deadline=Deadline.after(10), max_bytes=1000, allowed_hosts=("127.0.0.1",))
    assert _cause_in(caplog) == cause
    assert "proxy-password" not in caplog.text


@both
def test_nothing_listening_is_unreachable(either_provider: MakeProvider, provider_server: ProviderServer) -> None:
    provider = either_provider()
    provider_server.close()
    with pytest.raises(failures.ProviderUnreachable) as caught:
        provider.generate(request_for())
    assert "BASE_URL" in str(caught.value)


@both
def test_an_unknown_host_is_unreachable(either_provider: MakeProvider) -> None:
    with pytest.raises(failures.ProviderUnreachable):
        either_provider(base_url="http://no-such-host.invalid/v1").generate(request_for())


@both
def test_a_deadline_that_has_passed_sends_nothing(
    either_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    with pytest.raises(failures.ProviderTimeout):
        either_provider().generate(request_for(0))
    assert not provider_server.requests


@both
@pytest.mark.parametrize("mode", ["not_an_image", "svg", "wrong_mime", "truncated_image"])
def test_bytes_are_handed_on_as_they_are_for_the_caller_to_judge(
    either_provider: MakeProvider, provider_server: ProviderServer, mode: str
) -> None:
    provider_server.script(mode)
    starts = {"not_an_image": b"<!DOCTYPE", "svg": b"<?xml", "wrong_mime": b"\xff\xd8", "truncated_image": b"\x89PNG"}
    assert either_provider().generate(request_for()).data.startswith(starts[mode])


@both
def test_a_rate_limit_says_when_to_come_back(either_provider: MakeProvider, provider_server: ProviderServer) -> None:
    provider_server.script("http_429")
    with pytest.raises(failures.ProviderRateLimited) as caught:
        either_provider().generate(request_for())
    assert caught.value.retry_after == 2.0
    assert caught.value.request_id == "req_fake"


@both
def test_a_refused_request_leaves_one_line_in_the_log(
    either_provider: MakeProvider, provider_server: ProviderServer, caplog: pytest.LogCaptureFixture
) -> None:
    provider_server.script("http_400")
    with pytest.raises(failures.ProviderRefusedRequest):
        either_provider().generate(request_for())
    lines = [record.getMessage() for record in caplog.records if record.name == "images.providers"]
    assert len(lines) == 1
    assert lines[0].startswith("provider_refused ")
    assert "status=400" in lines[0]
    assert "request_id=req_fake" in lines[0]
    assert "bicycle" not in lines[0]


@both
@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("garbage_html", "it is an HTML page"),
        ("garbage", "it is JSON that is damaged"),
        ("odd_shape", "it is JSON of another shape"),
        ("bad_base64", "it is JSON whose base64 is damaged"),
    ],
)
def test_a_response_that_is_not_understood_is_called_by_what_it_is(
    either_provider: MakeProvider,
    provider_server: ProviderServer,
    caplog: pytest.LogCaptureFixture,
    mode: str,
    words: str,
) -> None:
    provider_server.script(mode)
    with pytest.raises(failures.ProviderBadResponse, match=words):
        either_provider().generate(request_for())
    [line] = [record.getMessage() for record in caplog.records if record.name == "images.providers"]
    assert line.startswith("provider_bad_response ")
    assert words in line


@both
@pytest.mark.parametrize("mode", ["detail", "error_text", "error_list", "error_plain"])
def test_the_log_says_what_was_objected_to_whatever_the_shape_of_the_body(
    either_provider: MakeProvider, provider_server: ProviderServer, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    provider_server.script(mode)
    with pytest.raises(failures.ProviderRefusedRequest):
        either_provider().generate(request_for())
    [line] = [record.getMessage() for record in caplog.records if record.name == "images.providers"]
    assert "size 1536x864 is not supported" in line


@both
@pytest.mark.parametrize("mode", ["data_prefix", "base64_urlsafe", "base64_lines"])
def test_a_picture_is_not_thrown_away_for_the_spelling_of_its_base64(
    either_provider: MakeProvider, provider_server: ProviderServer, mode: str
) -> None:
    provider_server.image_bytes += 1  # so that there is something to pad
    provider_server.script(mode)
    assert len(either_provider().generate(request_for()).data) == provider_server.image_bytes


def test_secrets_and_line_breaks_in_a_vendors_message_do_not_reach_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    vendor = errors.Vendor(name="OpenAI", key="K", model="M", base_url="U")
    message = f"No\nwith {OPENAI_KEY} or {GEMINI_KEY} " + "x" * 1000
    errors.refused(vendor, "some-model", errors.Refusal(status=400, message=message), None)
    (record,) = caplog.records
    assert OPENAI_KEY not in record.getMessage()
    assert GEMINI_KEY not in record.getMessage()
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 500


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 99 Oct 2015 07:28:00 GMT"}, None),
    ],
)
def test_a_hint_to_wait_is_read_in_each_notation(headers: dict[str, str], expected: float | None) -> None:
    assert errors.retry_after(headers) == expected
