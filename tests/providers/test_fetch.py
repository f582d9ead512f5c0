"""Fetching an image from an address that a provider sent: what is fetched, and what is not."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from images.exceptions import ProviderBadResponse, ProviderTimeout
from images.providers.base import Deadline
from images.providers.fetch import fetch_image, is_public
from tests.fakes.provider_server import ProviderServer
from tests.fakes.proxy import Proxy

ALLOWED = ("127.0.0.1", "localhost")


def fetch(url: str, seconds: float = 10.0, **changes: Any) -> bytes:
    return fetch_image(url, deadline=Deadline.after(seconds), **{"max_bytes": 400_000, **changes})


def test_a_file_is_fetched_once_without_anything_of_ours(tls_server: ProviderServer) -> None:
    data = fetch(f"{tls_server.url}/files/64x64.png?sig=1", allowed_hosts=ALLOWED)
    assert len(data) == tls_server.image_bytes
    (request,) = tls_server.requests
    assert request.path == "/files/64x64.png?sig=1"
    assert set(request.headers) == {"host", "accept", "accept-encoding", "connection", "user-agent"}


@pytest.mark.parametrize("mode", ["interim", "chunked", "gzip", "unframed"])
def test_other_ways_of_delivering_a_whole_file_work(provider_server: ProviderServer, mode: str) -> None:
    provider_server.script_files(mode, "other_picture")
    url = f"{provider_server.url}/files/64x64.png"
    assert len(fetch(url, allowed_hosts=ALLOWED)) == provider_server.image_bytes
    assert len(fetch(url, allowed_hosts=ALLOWED)) == provider_server.image_bytes + 1


@pytest.mark.parametrize("status", [204, 304, 307, 403, 404, 500])
def test_anything_but_a_200_is_a_bad_response_and_not_followed(provider_server: ProviderServer, status: int) -> None:
    provider_server.script_files("redirect" if status == 307 else f"http_{status}")
    with pytest.raises(ProviderBadResponse, match=str(status)) as caught:
        fetch(f"{provider_server.url}/files/64x64.png", allowed_hosts=ALLOWED)
    assert len(provider_server.requests) == 1
    assert "127.0.0.1" not in str(caught.value)


def test_a_connection_error_does_not_show_the_address() -> None:
    with pytest.raises(ProviderBadResponse) as caught:
        fetch("https://secret.files.invalid/secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://files.example/a.png",
        "ftp://files.example/a.png",
        "file:///etc/passwd",
        "//files.example/a.png",
        "files.example/a.png",
        "https://",
        "https://user:password@files.example/a.png",
        "https://user@files.example/a.png",
        "https://files.example:0/a.png",
        "https://files.example:99999/a.png",
        "https://[::1/a.png",
        "javascript:alert(1)",
        "",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://017700000001/",
        "https://127.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://①②⑦.0.0.1/",
        "https://localhost/",
        "https://localhost./",
        "https://app.localhost/",
        "https://metadata.google.internal/",
        "https://127.0.0.1:8443\\@files.example/",
    ],
)
def test_odd_and_inner_addresses_are_refused_before_anything_is_sent(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "connect", _never)
    with pytest.raises(ProviderBadResponse):
        fetch(url)


def _never(*_: object) -> None:
    raise AssertionError("A connection was tried.")


def test_a_name_that_resolves_to_an_inner_address_is_refused(
    provider_server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolve(monkeypatch, ["8.8.8.8", "127.0.0.1"])  # One bad address among good ones is enough.
    with pytest.raises(ProviderBadResponse, match="not allowed"):
        fetch(f"https://files.example:{provider_server.port}/files/64x64.png")
    assert provider_server.connections == 0


def test_the_name_is_resolved_only_once(provider_server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is harmless when checked and inside the network when connected to gains nothing."""
    asked = _resolve(monkeypatch, ["127.0.0.1"])
    url = f"http://files.example:{provider_server.port}/files/64x64.png"
    assert fetch(url, allowed_hosts=("files.example",)).startswith(b"\x89PNG")
    assert asked == ["files.example"]
    assert provider_server.requests[0].headers["host"] == f"files.example:{provider_server.port}"


def _resolve(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> list[str]:
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *_: Any, flags: int = 0, **__: Any) -> list[Any]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror("a name")
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_an_allowed_host_may_be_plain_http_inside_the_network(provider_server: ProviderServer) -> None:
    data = fetch(f"{provider_server.url}/files/64x64.png", allowed_hosts=ALLOWED)
    assert len(data) == provider_server.image_bytes


def test_passwords_from_a_netrc_file_are_not_sent(
    provider_server: ProviderServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    fetch(f"{provider_server.url}/files/64x64.png", allowed_hosts=ALLOWED)
    assert "authorization" not in provider_server.requests[0].headers


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("redirect", ProviderBadResponse),
        ("http_404", ProviderBadResponse),
        ("huge", ProviderBadResponse),
        ("huge_declared", ProviderBadResponse),
        ("gzip_bomb", ProviderBadResponse),
        ("reset", ProviderBadResponse),
        ("reset_body", ProviderBadResponse),
        ("truncated_body", ProviderBadResponse),
        ("close", ProviderBadResponse),
        ("hang", ProviderTimeout),
        ("hang_body", ProviderTimeout),
        ("slow_drip", ProviderTimeout),
        ("interim_late", ProviderTimeout),
        ("switching", ProviderBadResponse),
        ("brotli", ProviderBadResponse),
        ("drip_headers", ProviderTimeout),
        ("drip_unframed", ProviderTimeout),
    ],
)
def test_faults_of_the_file_server(provider_server: ProviderServer, mode: str, expected: type[Exception]) -> None:
    provider_server.script_files(mode)
    started = time.monotonic()
    with pytest.raises(expected):
        fetch(
            f"{provider_server.url}/files/64x64.png",
            0.6 if expected is ProviderTimeout else 10.0,
            allowed_hosts=ALLOWED,
        )
    assert time.monotonic() - started < 5
    assert len(provider_server.requests) == 1


def test_behind_a_proxy_the_target_is_still_checked(
    provider_server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        for host in ("localhost", "127.0.0.1", "0x7f000001"):
            with pytest.raises(ProviderBadResponse, match="not allowed"):
                fetch(f"https://{host}:{provider_server.port}/files/64x64.png")
        assert proxy.asked == []
        url = f"{provider_server.url}/files/64x64.png"
        assert fetch(url, allowed_hosts=ALLOWED).startswith(b"\x89PNG")
        assert proxy.asked == [f"GET {url}"]


@pytest.mark.parametrize(
    ("prefix", "spell"),
    [
        ("data:image/png;base64,", lambda text: text),
        ("DATA:image/PNG;charset=x;BASE64,", lambda text: text),
        ("data:;base64,", lambda text: text.rstrip("=")),
        ("data:image/png;base64,", lambda text: text.replace("+", "-").replace("/", "_").rstrip("=")),
        ("data:image/png;base64,", lambda text: text.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")),
        ("data:image/png;base64, ", lambda text: "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))),
    ],
    ids=["plain", "capitals", "unpadded", "url-safe", "percent", "lines"],
)
def test_a_data_address_is_decoded_in_place_in_any_spelling(prefix: str, spell: Callable[[str], str]) -> None:
    data = bytes(range(256)) * 3 + b"x"
    assert fetch(prefix + spell(base64.b64encode(data).decode())) == data


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,!!!",
        "data:image/png,picture",
        "data:",
        "data:image/png;base64," + "A" * 600_000,
    ],
)
def test_a_data_address_that_is_broken_or_too_large_is_a_bad_response(url: str) -> None:
    with pytest.raises(ProviderBadResponse):
        fetch(url)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00::1", "ff02::1", "fec0::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "2002:7f00:1::", "2002:a00:1::"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2001:0:4136:e378::1"),
    ],
)
def test_addresses_inside_some_network_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::808:808"],
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


def test_a_name_is_no_address() -> None:
    with pytest.raises(ValueError, match="example"):
        is_public("example.com")
