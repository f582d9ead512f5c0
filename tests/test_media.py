from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from django.core.files.base import ContentFile
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from images.models import image_storage
from tests.fakes.storages import BROKEN, COUNTING, IN_MEMORY, ONE_WAY, CountingStorage, use_storage

DATA = bytes(range(256)) * 1000
NAME = "item/hero-1763049170351.png"
URL = f"/media/draft-images/{NAME}"


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Server:
    """The whole project behind a real WSGI server on the loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    def request(self, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with make_server("127.0.0.1", 0, WSGIHandler(), handler_class=_QuietHandler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Server(running.server_port)
        running.shutdown()
        thread.join()


@pytest.fixture
def folder(media_root: Path) -> Path:
    folder = media_root / "draft-images" / "item"
    folder.mkdir(parents=True)
    (media_root / "draft-images" / NAME).write_bytes(DATA)
    return folder


# --- whole files ----------------------------------------------------------------------------------------------


def test_a_file_is_served_with_everything_a_browser_needs(server: Server, folder: Path) -> None:
    response, body = server.request(URL)

    assert (response.status, body) == (200, DATA)
    assert response.getheader("Content-Type") == "image/png"
    assert response.getheader("Content-Length") == str(len(DATA))
    assert response.getheader("Accept-Ranges") == "bytes"
    assert response.getheader("Cache-Control") == "no-cache"
    assert response.getheader("Content-Disposition") is None
    assert (response.getheader("ETag") or "").startswith('"')
    assert response.getheader("Last-Modified")
    assert response.getheader("X-Content-Type-Options") == "nosniff"
    assert (response.getheader("Content-Security-Policy") or "").startswith("default-src 'none'")
    assert response.getheader("Cross-Origin-Resource-Policy") == "cross-origin"
    assert response.getheader("Set-Cookie") is None


def test_the_addresses_of_models_lead_here() -> None:
    assert reverse("images:media", kwargs={"path": NAME}) == URL


def test_head_says_the_same_without_the_bytes(server: Server, folder: Path) -> None:
    got, _ = server.request(URL)
    response, body = server.request(URL, "HEAD", Range="bytes=0-9")

    assert (response.status, body) == (200, b"")
    for name in ("Content-Length", "Content-Type", "ETag", "Last-Modified", "Cache-Control", "Accept-Ranges"):
        assert response.getheader(name) == got.getheader(name)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_empty_file_is_served(server: Server, folder: Path, method: str) -> None:
    (folder / "empty.png").touch()
    response, body = server.request("/media/draft-images/item/empty.png", method)

    assert (response.status, body, response.getheader("Content-Length")) == (200, b"", "0")


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.png", "image/png"),
        ("a.jpg", "image/jpeg"),
        ("a.JPEG", "image/jpeg"),
        ("a.webp", "image/webp"),
        ("a.gif", "image/gif"),
        ("a.avif", "image/avif"),
    ],
)
def test_pictures_have_their_own_type(client: Client, folder: Path, name: str, content_type: str) -> None:
    (folder / name).write_bytes(b"x")
    response = client.get(f"/media/draft-images/item/{name}")

    assert response["Content-Type"] == content_type
    assert "Content-Disposition" not in response


@pytest.mark.parametrize("name", ["a.svg", "a.html", "a.xml", "a.js", "a", "png", "a.png.html", "a.exe"])
def test_anything_else_is_an_inert_download(client: Client, folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    response = client.get(f"/media/draft-images/item/{name}")

    assert response.status_code == 200
    assert response["Content-Type"] == "application/octet-stream"
    assert response["Content-Disposition"] == "attachment"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response["Content-Security-Policy"]


def test_names_of_other_alphabets_are_served(client: Client, media_root: Path) -> None:
    path = media_root / "draft-images" / "статья" / "deeper" / "обложка ~1.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)

    url = reverse("images:media", kwargs={"path": "статья/deeper/обложка ~1.png"})
    assert client.get(url).getvalue() == DATA


def test_the_operator_may_let_browsers_keep_files(settings: Settings, client: Client, folder: Path) -> None:
    settings.IMAGES = {"MEDIA_CACHE_CONTROL": "public, max-age=60"}

    assert client.get(URL)["Cache-Control"] == "public, max-age=60"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_other_methods_are_not_allowed(client: Client, folder: Path, method: str) -> None:
    response = client.generic(method, URL)

    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")


def test_atomic_requests_open_no_transaction_for_a_file(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This test is not marked for the database, so any query fails it.
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)

    assert client.get(URL).status_code == 200


# --- conditions -----------------------------------------------------------------------------------------------


def test_what_the_browser_has_is_not_sent_again(server: Server, folder: Path) -> None:
    first, _ = server.request(URL)
    tag, date = first.getheader("ETag") or "", first.getheader("Last-Modified") or ""

    for headers in (
        {"If_None_Match": tag},
        {"If_None_Match": f'"other", W/{tag}'},
        {"If_None_Match": "*"},
        {"If_Modified_Since": date},
        {"If_None_Match": tag, "If_Modified_Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"If_None_Match": tag, "Range": "bytes=0-9"},
    ):
        for method in ("GET", "HEAD"):
            response, body = server.request(URL, method, **headers)
            assert (response.status, body) == (304, b"")
            assert response.getheader("ETag") == tag
            assert response.getheader("Cache-Control") == "no-cache"


def test_what_has_changed_is_sent(server: Server, folder: Path) -> None:
    first, _ = server.request(URL)
    os.utime(folder / "hero-1763049170351.png", ns=(0, 1_000_000_000_000_000_001))
    response, body = server.request(URL, If_None_Match=first.getheader("ETag") or "")

    assert (response.status, body) == (200, DATA)
    assert response.getheader("ETag") != first.getheader("ETag")
    assert (
        server.request(URL, If_None_Match='"other"', If_Modified_Since="Fri, 01 Jan 2100 00:00:00 GMT")[0].status
        == 200
    )


def test_a_failed_precondition_is_412(server: Server, folder: Path) -> None:
    tag = server.request(URL)[0].getheader("ETag") or ""

    assert server.request(URL, If_Match='"other"')[0].status == 412
    assert server.request(URL, If_Unmodified_Since="Fri, 02 Jan 1970 00:00:00 GMT")[0].status == 412
    assert server.request(URL, If_Match=tag)[0].status == 200


# --- ranges ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-69999", 10, 70_000),
        ("bytes=255990-", 255_990, 256_000),
        ("bytes=-5", 255_995, 256_000),
    ],
)
def test_a_part_is_sent(server: Server, folder: Path, header: str, start: int, end: int) -> None:
    response, body = server.request(URL, Range=header)

    assert (response.status, body) == (206, DATA[start:end])
    assert response.getheader("Content-Range") == f"bytes {start}-{end - 1}/{len(DATA)}"
    assert response.getheader("Content-Length") == str(end - start)
    assert response.getheader("Content-Type") == "image/png"
    assert response.getheader("Cache-Control") == "no-cache"
    assert response.getheader("ETag")


def test_a_part_beyond_the_end_is_416(server: Server, folder: Path) -> None:
    response, _ = server.request(URL, Range="bytes=256000-")

    assert (response.status, response.getheader("Content-Range")) == (416, "bytes */256000")
    assert response.getheader("Cache-Control") == "no-store"


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "nonsense", "bytes=9-1"])
def test_several_parts_or_nonsense_get_the_whole(client: Client, folder: Path, header: str) -> None:
    response = client.get(URL, headers={"range": header})

    assert (response.status_code, response.getvalue()) == (200, DATA)


def test_a_part_of_another_version_gets_the_whole(client: Client, folder: Path) -> None:
    first = client.get(URL)
    for validator, status in ((first["ETag"], 206), (first["Last-Modified"], 206), ('"other"', 200)):
        assert client.get(URL, headers={"range": "bytes=0-9", "if-range": validator}).status_code == status


# --- storages elsewhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [IN_MEMORY, ONE_WAY])
def test_a_remote_storages_files_are_served(settings: Settings, client: Client, backend: str) -> None:
    use_storage(settings, backend)
    image_storage().save(f"draft-images/{NAME}", ContentFile(DATA))
    first = client.get(URL)

    assert (first.status_code, first.getvalue(), first["Content-Length"]) == (200, DATA, "256000")
    assert client.get(URL, headers={"if-none-match": first["ETag"]}).status_code == 304
    assert client.head(URL)["Content-Length"] == "256000"
    assert client.get(URL, headers={"range": "bytes=300000-"}).status_code == 416
    assert client.get(f"{URL}.png").status_code == 404
    part = client.get(URL, headers={"range": "bytes=1-70000"})
    expected = (206, DATA[1:70_001]) if backend == IN_MEMORY else (200, DATA)
    assert (part.status_code, part.getvalue()) == expected


@pytest.mark.parametrize("name", [NAME, "item/none.png"])
@pytest.mark.parametrize(("method", "call"), [("get", "open"), ("head", "size")])
def test_a_remote_storage_is_asked_once(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch, name: str, method: str, call: str
) -> None:
    use_storage(settings, COUNTING)
    image_storage().save(f"draft-images/{NAME}", ContentFile(DATA))
    calls: list[tuple[str, str]] = []
    monkeypatch.setattr(CountingStorage, "calls", calls)
    answer = getattr(client, method)(f"/media/draft-images/{name}", headers={"Range": "bytes=1-9"})
    assert answer.status_code == (404 if name != NAME else 206 if method == "get" else 200)
    assert calls == [(call, f"draft-images/{name}")]


def test_a_storage_out_of_order_is_a_503_that_tells_nothing(
    settings: Settings, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    use_storage(settings, BROKEN)
    response = client.get(URL)

    assert (response.status_code, response["Cache-Control"]) == (503, "no-store")
    assert b"bucket" not in response.content
    assert [record.levelname for record in caplog.records if record.name == "images"] == ["ERROR"]
