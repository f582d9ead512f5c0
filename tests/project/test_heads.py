"""Heads that are remembered are Django's own, and only for the same question about the same file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest
from django.core.files.base import ContentFile
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from pytest_django.fixtures import Settings

from images.models import image_storage
from trygo_backend import heads
from trygo_backend.heads import RememberedHeads

PATH = "/media/draft-images/item-1/hero-1.png"

pytestmark = pytest.mark.usefixtures("picture")

# No test here may use the database.


class Site:
    """The project behind the heads it remembers; counts what reaches Django."""

    def __init__(self) -> None:
        self.asked = 0
        self._django = get_wsgi_application()
        self._application = RememberedHeads(self._count)

    def _count(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.asked += 1
        return self._django(environ, start_response)

    def get(self, path: str = PATH, **environ: str) -> tuple[str, dict[str, str], bytes]:
        """Status line, headers and body."""
        request: dict[str, Any] = {"PATH_INFO": path, "HTTP_HOST": "testserver", "wsgi.file_wrapper": FileWrapper}
        request |= environ
        setup_testing_defaults(request)
        head: list[Any] = []
        answer = self._application(request, lambda *told: head.extend(told[:2]))
        body = b"".join(answer)
        if close := getattr(answer, "close", None):
            close()
        return head[0], dict(head[1]), body


@pytest.fixture(autouse=True)
def no_connections_closed() -> Iterator[None]:
    """A server looks at each request whether other tests' connections are to be closed, which asks the database."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def site() -> Site:
    return Site()


def test_the_second_answer_is_the_first_one_again(site: Site) -> None:
    first = site.get()
    assert first[0] == "200 OK"
    assert first[2] == b"\x89PNG picture"
    assert [site.get(), site.get(HTTP_USER_AGENT="another")] == [first, first]
    assert site.asked == 1


def test_so_is_the_one_that_nothing_has_changed(site: Site) -> None:
    etag = site.get()[1]["ETag"]
    first = site.get(HTTP_IF_NONE_MATCH=etag)
    assert (first[0], first[1]["ETag"], first[2]) == ("304 Not Modified", etag, b"")
    assert site.get(HTTP_IF_NONE_MATCH=etag) == first
    assert site.asked == 2
    assert site.get(HTTP_IF_NONE_MATCH='"other"') == site.get()  # another question, which Django answers
    assert site.asked == 3


def test_browsers_ask_by_date_too(site: Site) -> None:
    answer = site.get()[1]
    both = {"HTTP_IF_NONE_MATCH": answer["ETag"], "HTTP_IF_MODIFIED_SINCE": answer["Last-Modified"]}
    first = site.get(**both)
    assert first[0] == "304 Not Modified"
    assert site.get(**both) == first
    assert site.asked == 2


def test_the_files_of_other_storages_are_left_to_django(site: Site, settings: Settings) -> None:
    memory = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    settings.STORAGES = {**settings.STORAGES, "elsewhere": memory}
    settings.IMAGES = {**getattr(settings, "IMAGES", {}), "STORAGE": "elsewhere"}
    image_storage().save("draft-images/item-1/hero-1.png", ContentFile(b"\x89PNG remote"))
    etag = site.get()[1]["ETag"]
    for _ in range(2):
        assert site.get()[2] == b"\x89PNG remote"
        assert site.get(HTTP_IF_NONE_MATCH=etag)[0] == "304 Not Modified"
    assert site.asked == 5


def test_a_picture_that_was_replaced_is_asked_for_anew(site: Site, picture: Path) -> None:
    etag = site.get()[1]["ETag"]
    unchanged = site.get(HTTP_IF_NONE_MATCH=etag)
    other = picture.with_name("other.png")
    other.write_bytes(b"\x89PNG another picture")
    other.rename(picture)
    changed = site.get()
    assert changed[2] == b"\x89PNG another picture"
    assert changed[1]["ETag"] != etag
    assert changed[1]["Content-Length"] == "20"
    assert site.get(HTTP_IF_NONE_MATCH=etag)[0] == "200 OK" != unchanged[0]
    assert site.get() == changed


def test_a_picture_that_was_deleted_is_gone_and_can_come_back(site: Site, picture: Path) -> None:
    site.get()
    picture.unlink()
    assert site.get()[0] == "404 Not Found"
    picture.symlink_to("/etc/hostname")
    assert site.get()[0] == "404 Not Found"
    picture.unlink()
    picture.write_bytes(b"\x89PNG picture")
    assert site.get()[0] == "200 OK"


@pytest.mark.parametrize(
    "environ",
    [
        {"REQUEST_METHOD": "HEAD"},
        {"REQUEST_METHOD": "POST"},
        {"QUERY_STRING": "v=1"},
        {"HTTP_RANGE": "bytes=0-3"},
        {"HTTP_IF_MATCH": '"other"'},
        {"HTTP_ORIGIN": "https://www.example.com"},
        {"HTTP_COOKIE": "sessionid=any"},
        {"HTTP_AUTHORIZATION": "Token any"},
        {"HTTP_X_SOMETHING_NEW": "any"},
        {"HTTP_X_FORWARDED_PROTO": "https"},
        {"HTTP_HOST": "evil.example"},
        {"wsgi.url_scheme": "https"},
        {"PATH_INFO": "/media/draft-images/item-1/../item-1/hero-1.png"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_any_other_question_is_djangos(environ: dict[str, str], site: Site) -> None:
    site.get()
    before = site.asked
    site.get(**environ)
    assert site.asked == before + 1


def test_what_django_refuses_is_refused_again(site: Site) -> None:
    site.get()
    for _ in range(2):
        assert site.get(HTTP_HOST="evil.example")[0] == "400 Bad Request"


def test_https_is_asked_for_every_time(settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_HSTS_SECONDS = 3600
    site = Site()
    for _ in range(2):
        assert site.get(**{"wsgi.url_scheme": "https"})[1]["Strict-Transport-Security"] == "max-age=3600"
        assert site.get()[0] == "301 Moved Permanently"


def test_no_file_stays_open(site: Site) -> None:
    etag = site.get()[1]["ETag"]
    site.get(HTTP_IF_NONE_MATCH=etag)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        site.get()
        site.get(HTTP_IF_NONE_MATCH=etag)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_server_that_sends_no_files_is_left_to_django(site: Site) -> None:
    for _ in range(2):
        request: dict[str, Any] = {"PATH_INFO": PATH, "HTTP_HOST": "testserver"}
        setup_testing_defaults(request)
        assert b"".join(site._application(request, lambda *_: None)) == b"\x89PNG picture"
    assert site.asked == 2


def test_only_so_many_are_remembered_and_no_long_ones(
    site: Site, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "MOST", 2)
    paths = [f"/media/draft-images/item-1/{name}.png" for name in "abc"]
    for name in "abc":
        os.link(picture, picture.with_name(f"{name}.png"))
    for path in paths:
        site.get(path)
    assert site.asked == 3
    site.get(paths[2])
    assert site.asked == 3
    site.get(paths[0])  # the oldest had to go
    assert site.asked == 4
    for _ in range(2):
        site.get(HTTP_IF_NONE_MATCH='"x"' + 1000 * ", ")
    assert site.asked == 6
