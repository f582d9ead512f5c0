"""`IMAGE_MEDIA_DELIVERY=accel`: the app decides, a real nginx sends."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from django.test import Client
from pytest_django.fixtures import Settings

from tests.crash.server import migrated_database
from tests.fakes.provider_server import ProviderServer
from tests.nginx.server import Nginx
from tests.queue.installation import Installation
from tests.queue.services import PATIENCE, need

slow = pytest.mark.slow


@pytest.fixture
def installation(tmp_path: Path, provider_server: ProviderServer) -> Iterator[Installation]:
    need(shutil.which("nginx"), "nginx")
    database = f"sqlite:///{migrated_database(tmp_path)}"
    with (
        closing(Installation(tmp_path, provider_server, "", database, IMAGE_MEDIA_DELIVERY="accel")) as installation,
        installation.web(),
    ):
        yield installation


@slow
def test_nginx_sends_what_the_app_lets_it_send(installation: Installation, tmp_path: Path) -> None:
    made = installation.ask().json()
    path = urlsplit(made["imageUrl"]).path
    [file] = [found for found in (tmp_path / "stored").rglob("*") if found.is_file()]
    with closing(Nginx(installation.url, tmp_path / "stored")) as nginx:
        assert requests.get(installation.url + path, timeout=PATIENCE).content == b""  # the app itself sends nothing
        whole = nginx.get(path)
        assert (whole.status, whole.body, whole.headers["Content-Type"]) == (200, file.read_bytes(), "image/png")
        assert whole.headers["Cache-Control"] == "no-cache"
        assert whole.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in whole.headers["Content-Security-Policy"]
        assert "X-Accel-Redirect" not in whole.headers
        assert nginx.get(path, If_None_Match=whole.headers["ETag"]).status == 304
        part = nginx.get(path, Range="bytes=1-3")
        assert (part.status, part.body) == (206, b"PNG")
        assert nginx.get(path, "HEAD").headers["Content-Length"] == str(file.stat().st_size)
        assert nginx.get(f"/protected-media/{file.relative_to(tmp_path / 'stored')}").status == 404  # it is internal
        assert requests.delete(f"{installation.url}/api/images/{made['id']}", timeout=PATIENCE).status_code == 200
        assert nginx.get(path).status == 404


@pytest.mark.parametrize("path", ["../outside.png", "item/.hidden.png", "item/none.png", "link/a.png"])
def test_what_the_app_would_not_serve_is_not_handed_on(
    client: Client, settings: Settings, media_root: Path, path: str
) -> None:
    folder = media_root / "draft-images" / "item"
    folder.mkdir(parents=True)
    (media_root / "outside.png").touch()
    (folder / "a.png").touch()
    (folder / ".hidden.png").touch()
    (media_root / "draft-images" / "link").symlink_to(folder)
    settings.IMAGES = {"MEDIA_DELIVERY": "accel", "MEDIA_ACCEL_PREFIX": "/inside/"}
    assert client.get("/media/draft-images/item/a.png")["X-Accel-Redirect"] == "/inside/draft-images/item/a.png"
    answer = client.get(f"/media/draft-images/{path}")
    assert answer.status_code == 404
    assert "X-Accel-Redirect" not in answer


def test_names_are_escaped_as_nginx_reads_them(client: Client, settings: Settings, media_root: Path) -> None:
    folder = media_root / "draft-images" / "50% ж"
    folder.mkdir(parents=True)
    (folder / "a.png").touch()
    settings.IMAGES = {"MEDIA_DELIVERY": "accel"}
    answer = client.get("/media/draft-images/50%25%20%D0%B6/a.png")
    assert answer["X-Accel-Redirect"] == "/protected-media/draft-images/50%25%20%D0%B6/a.png"
