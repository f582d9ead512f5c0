"""What must not be served, and what must not be left open."""

from __future__ import annotations

import gc
import importlib
import os
import socket
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished
from django.db import close_old_connections
from django.http import HttpRequest
from django.test import Client, RequestFactory

from images.media import serve
from tests.test_media import DATA, NAME, URL, Server, folder, server

__all__ = ["folder", "server"]

gunicorn = importlib.import_module("gunicorn.http.wsgi")  # it has no types

SECRET = b"the host's other upload"


@pytest.fixture(autouse=True)
def _no_housekeeping() -> Iterator[None]:
    """These requests must not touch the database; a connection that an earlier test left open is not theirs."""
    request_finished.disconnect(close_old_connections)
    yield
    request_finished.connect(close_old_connections)


@pytest.fixture
def secret(media_root: Path, folder: Path) -> Path:
    """A file beside `draft-images`, one outside the media root, one half-written."""
    (media_root / "secret.png").write_bytes(SECRET)
    (media_root / "draft-images-private").mkdir()
    (media_root / "draft-images-private" / "secret.png").write_bytes(SECRET)
    (media_root.parent / "secret.png").write_bytes(SECRET)
    (folder / ".hero.png.0123.part").write_bytes(SECRET)
    return media_root.parent / "secret.png"


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "item/../../secret.png",
        "%2e%2e/secret.png",
        "%2E%2E%2Fsecret.png",
        "..%2fsecret.png",
        "..%5csecret.png",
        "..\\secret.png",
        "%252e%252e/secret.png",
        "..%c0%afsecret.png",
        "%c0%ae%c0%ae/secret.png",
        "..;/secret.png",
        "/secret.png",
        "//secret.png",
        "./../secret.png",
        "../../secret.png",
        "../draft-images-private/secret.png",
        "item/./hero-1763049170351.png",
        "item//hero-1763049170351.png",
        "item/hero-1763049170351.png/",
        "item/hero-1763049170351.png%00",
        "item/hero-1763049170351.png%00.png",
        "item/%00",
        "item%0a/hero-1763049170351.png",
        "item/hero-1763049170351.png%0a",
        "item/.hero.png.0123.part",
        "item/%2ehero.png.0123.part",
        "item/hero-1763049170351",
        "item/",
        "item",
        "",
        "missing/a.png",
        "item/missing.png",
        "x" * 3000,
        "a/" * 1000 + "b.png",
    ],
)
def test_nothing_else_is_served_however_it_is_spelled(server: Server, secret: Path, path: str) -> None:
    response, body = server.request(f"/media/draft-images/{path}")

    assert response.status == 404
    assert response.getheader("Cache-Control") == "no-store"
    assert body == b"There is no such image.\n"


def test_an_absolute_path_is_not_served(server: Server, secret: Path) -> None:
    for path in (str(secret), "/" + str(secret), f"%2f{secret}", f"file://{secret}"):
        assert server.request(f"/media/draft-images/{path}")[0].status == 404


def test_other_uploads_are_not_served(server: Server, secret: Path) -> None:
    for path in ("/media/secret.png", "/media/draft-images-private/secret.png", "/media/", "/secret.png"):
        response, body = server.request(path)
        assert response.status == 404
        assert SECRET not in body


def test_symbolic_links_are_not_followed(client: Client, media_root: Path, folder: Path, secret: Path) -> None:
    (folder / "file.png").symlink_to(secret)
    (folder / "upload.png").symlink_to(media_root / "secret.png")
    (folder.parent / "linked").symlink_to(secret.parent)
    (folder.parent / "alias").symlink_to(folder)

    for path in ("item/file.png", "item/upload.png", "linked/secret.png", "alias/hero-1763049170351.png"):
        assert client.get(f"/media/draft-images/{path}").status_code == 404


def test_the_images_own_folder_may_be_on_another_disk(client: Client, media_root: Path, folder: Path) -> None:
    folder.parent.rename(media_root.parent / "disk")
    (media_root / "draft-images").symlink_to(media_root.parent / "disk")

    assert client.get(URL).getvalue() == DATA


def test_pipes_and_sockets_are_not_served_and_do_not_hang(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(folder / "pipe.png")
    monkeypatch.chdir(folder)  # a socket's path may have no more than 108 characters
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        for name in ("pipe.png", "socket.png"):
            assert client.get(f"/media/draft-images/item/{name}").status_code == 404


def test_a_deleted_file_is_gone_at_once_also_for_who_has_it(client: Client, folder: Path) -> None:
    tag = client.get(URL)["ETag"]
    (folder / "hero-1763049170351.png").unlink()

    assert client.get(URL, headers={"if-none-match": tag}).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", URL, {}, 200),
        ("HEAD", URL, {}, 200),
        ("GET", URL, {"if-none-match": "*"}, 304),
        ("GET", URL, {"if-match": '"other"'}, 412),
        ("GET", URL, {"range": "bytes=1-2"}, 206),
        ("GET", URL, {"range": "bytes=999999-"}, 416),
        ("GET", URL + "/deeper", {}, 404),
        ("GET", "/media/draft-images/item", {}, 404),
    ],
)
@pytest.mark.django_db  # the end of a request looks at a connection that an earlier test has left open
def test_every_answer_closes_what_it_opened(
    client: Client, folder: Path, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    gc.collect()  # what earlier tests left open is not this one's
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        response = client.generic(method, path, headers=headers)
        assert response.status_code == status
        response.close()

    assert len(os.listdir("/proc/self/fd")) <= len(before)  # other tests' threads may close theirs meanwhile


def test_a_large_file_is_streamed_in_small_blocks(folder: Path) -> None:
    with open(folder / "large.png", "wb") as file:
        file.truncate(50_000_000)
    response: Iterable[bytes] = serve(_get("/large.png"), "item/large.png")
    tracemalloc.start()
    sent = sum(len(block) for block in response)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert sent == 50_000_000
    assert peak < 1_000_000


def _get(path: str) -> HttpRequest:
    return RequestFactory().get(path)


@pytest.mark.parametrize(("headers", "expected"), [({}, DATA), ({"range": "bytes=7-70006"}, DATA[7:70_007])])
@pytest.mark.django_db
def test_gunicorn_sends_files_by_itself(folder: Path, headers: dict[str, str], expected: bytes) -> None:
    ours, theirs = socket.socketpair()
    request = SimpleNamespace(method="GET", version=(1, 1), should_close=lambda: True)
    answer = gunicorn.Response(request, ours, SimpleNamespace(sendfile=True, is_ssl=False))
    environ = RequestFactory().get(URL, headers=headers).META | {"wsgi.file_wrapper": gunicorn.FileWrapper}
    body: Any = WSGIHandler()(environ, answer.start_response)
    descriptor = body.filelike.fileno()
    received = bytearray()
    with ours, theirs:
        ours.settimeout(10)
        theirs.settimeout(10)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
        assert answer.sendfile(body)
        body.close()
        ours.shutdown(socket.SHUT_WR)
        while block := theirs.recv(65536):
            received += block

    head, _, content = bytes(received).partition(b"\r\n\r\n")
    assert content == expected
    assert f"Content-Length: {len(expected)}".encode() in head
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_middleware_that_changes_the_content_is_not_bypassed(folder: Path) -> None:
    response: Any = serve(_get(URL), NAME)
    assert response.file_to_stream is not None
    response.streaming_content = [b"compressed"]

    assert response.file_to_stream is None
    response.close()
