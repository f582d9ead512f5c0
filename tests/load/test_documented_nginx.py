"""`docs/nginx.conf`, run as it stands: the same answers as without nginx, and the pictures from the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from benchmarks import nginx
from tests.project.test_server import running_server

ORIGIN = "https://www.example.com"
ITEM = "/media/draft-images/item-1"

pytestmark = pytest.mark.slow


class Site(NamedTuple):
    """A server and the nginx in front of it."""

    direct: str
    proxied: str
    media: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not nginx.is_installed():
        assert not os.environ.get("CI_REQUIRE_ALL"), "nginx is not installed"
        pytest.skip("nginx is not installed.")
    folder = tmp_path_factory.mktemp("site")
    media = folder / "stored"
    variables = {"IMAGE_TRUSTED_NETWORKS": "127.0.0.0/8", "TRUST_PROXY_HEADERS": "1", "FRONTEND_URL": ORIGIN}
    with (
        running_server(folder, **variables) as (base, _),
        nginx.as_documented(folder, media, base, origin=ORIGIN) as server,
    ):
        item = media / "draft-images" / "item-1"
        item.mkdir(parents=True)
        (item / "hero-1.png").write_bytes(b"\x89PNG picture")
        (item / "hero-2.svg").write_bytes(b"<svg/>")
        (item / ".hero-3.png.part").write_bytes(b"half")
        (media / "private.txt").write_text("private")
        yield Site(base, server.base, media)


def test_a_picture_has_the_same_headers_and_comes_from_the_disk(site: Site) -> None:
    direct = requests.get(f"{site.direct}{ITEM}/hero-1.png", headers={"Origin": ORIGIN}, timeout=30)
    proxied = requests.get(f"{site.proxied}{ITEM}/hero-1.png", headers={"Origin": ORIGIN}, timeout=30)
    assert proxied.content == direct.content == b"\x89PNG picture"
    assert proxied.headers["Server"].startswith("nginx")
    for name in (
        "Content-Type",
        "Content-Length",
        "Cache-Control",
        "X-Content-Type-Options",
        "Content-Security-Policy",
        "Cross-Origin-Resource-Policy",
        "Access-Control-Allow-Origin",
        "Accept-Ranges",
        "Last-Modified",
    ):
        assert proxied.headers[name] == direct.headers[name], name
    assert proxied.headers["Vary"].lower() == direct.headers["Vary"].lower()
    assert "Content-Disposition" not in proxied.headers
    # The app's tag holds more; nginx's tells who answered.
    assert proxied.headers["ETag"] != direct.headers["ETag"]


def test_conditions_ranges_and_head_work(site: Site) -> None:
    url = f"{site.proxied}{ITEM}/hero-1.png"
    tag = requests.get(url, timeout=30).headers["ETag"]
    unchanged = requests.get(url, headers={"If-None-Match": tag}, timeout=30)
    assert (unchanged.status_code, unchanged.content, unchanged.headers["Cache-Control"]) == (304, b"", "no-cache")
    part = requests.get(url, headers={"Range": "bytes=1-3"}, timeout=30)
    assert (part.status_code, part.content) == (206, b"PNG")
    head = requests.head(url, timeout=30)
    assert (head.status_code, head.headers["Content-Length"]) == (200, "12")


def test_what_is_no_picture_is_a_download(site: Site) -> None:
    answer = requests.get(f"{site.proxied}{ITEM}/hero-2.svg", timeout=30)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == "attachment"


@pytest.mark.parametrize(
    "path",
    [f"{ITEM}/none.png", f"{ITEM}/.hero-3.png.part", f"{ITEM}/", ITEM, "/media/private.txt", "/media/draft-images/"],
)
def test_what_is_not_there_for_everybody_is_the_apps_404(site: Site, path: str) -> None:
    answer = requests.get(site.proxied + path, timeout=30, allow_redirects=False)
    assert answer.status_code == 404
    if path.startswith("/media/draft-images"):
        expected = requests.get(site.direct + path, timeout=30).headers.get("Cache-Control")
        assert answer.headers.get("Cache-Control") == expected


def test_other_pages_may_not_read_it_and_other_methods_are_the_apps_affair(site: Site) -> None:
    url = f"{site.proxied}{ITEM}/hero-1.png"
    foreign = requests.get(url, headers={"Origin": "https://evil.example"}, timeout=30)
    assert "Access-Control-Allow-Origin" not in foreign.headers
    assert requests.post(url, timeout=30).status_code == 405
    preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    assert requests.options(url, headers=preflight, timeout=30).headers["Access-Control-Allow-Origin"] == ORIGIN


def test_a_deleted_picture_is_gone_at_once(site: Site) -> None:
    path = site.media / "draft-images" / "item-1" / "hero-4.png"
    path.write_bytes(b"\x89PNG")
    url = f"{site.proxied}{ITEM}/hero-4.png"
    assert requests.get(url, timeout=30).status_code == 200
    path.unlink()
    gone = requests.get(url, timeout=30)
    assert (gone.status_code, gone.headers["Cache-Control"]) == (404, "no-store")


def test_callers_through_nginx_are_never_taken_for_neighbours(site: Site) -> None:
    body = {"contentItemId": "item-1", "title": "A quiet harbour"}
    assert requests.post(f"{site.direct}/api/images/generate", json=body, timeout=60).status_code == 200
    refused = requests.post(f"{site.proxied}/api/images/generate", json=body, timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")
