"""Hosts whose admin wears a skin: nothing of ours is hidden there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import NewWalker
from tests.fakes.ports import reserve_port, wait_until_listening
from tests.plugging.projects import Host, make_host

LIST = "admin/images/generatedimage/"
GRAPPELLI = """
from django.urls import include, path
urlpatterns = [path("grappelli/", include("grappelli.urls")), *urlpatterns]
"""


@dataclass(frozen=True)
class Skin:
    """How a project puts a skin on."""

    apps: tuple[str, ...]
    urls: str = ""


SKINS = {
    "unfold": Skin(("unfold",)),
    "jazzmin": Skin(("jazzmin",)),
    "grappelli": Skin(("grappelli",), GRAPPELLI),
}


@contextmanager
def running(host: Host) -> Iterator[str]:
    with reserve_port() as kept:
        port = kept.getsockname()[1]
    command = [host.python, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    with (host.folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=host.folder, env=host.env, stdout=log, stderr=log)
    try:
        wait_until_listening(port, is_alive=lambda: server.poll() is None)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=60)


def make_project(folder: Path, skin: Skin) -> Host:
    apps = f"INSTALLED_APPS = [*{skin.apps!r}, *INSTALLED_APPS]\n"
    host = make_host(
        folder, settings=apps, urls_before=skin.urls, newsroom=False, DJANGO_SUPERUSER_PASSWORD="demo-password"
    )
    host.run("manage.py", "migrate", "-v0")
    host.run("manage.py", "createsuperuser", "--noinput", "--username=demo", "--email=a@b.example")
    host.run("manage.py", "generate_image", "--content-item=42", "--title=A quiet harbour at dawn")
    return host


def seen(element: Locator) -> None:
    """It is on the screen, as large as a finger needs it, and nothing lies upon it."""
    expect(element).to_be_visible()
    element.click(trial=True)


@pytest.mark.parametrize("name", SKINS)
def test_nothing_of_ours_is_hidden_under_a_skin(tmp_path: Path, new_walker: NewWalker, name: str) -> None:
    pytest.importorskip(name)
    with running(make_project(tmp_path / "host", SKINS[name])) as base:
        walker = new_walker(base, viewport={"width": 1440, "height": 900})
        # Jazzmin's fonts are elsewhere.
        walker.page.route(lambda url: not url.startswith(base), lambda route: route.abort())
        walker.sign_in()
        page = walker.go(LIST)
        title = page.get_by_role("link", name="A quiet harbour at dawn", exact=True).first
        for link in ("List", "Gallery", "Usage", "Make an image", "Download"):
            seen(page.get_by_role("link", name=re.compile(f"^{link}")).first)
        seen(page.get_by_role("button", name=re.compile("^Copy address")))
        expect(page.locator(".images-pill")).to_have_text(re.compile("ready"))
        seen(title)
        title.click()
        for link in ("Make again", "Make with changes", "Delete"):
            seen(page.get_by_role("link", name=link).first)
        if (tab := page.get_by_role("tab", name="Details", exact=True)).count():  # Jazzmin shows one fieldset at once
            tab.click()
        seen(page.get_by_role("link", name="All images of this content item").first)
        page = walker.go(page.url.partition("#")[0])
        expect(page.locator(".images-picture img")).to_be_visible()
        page.get_by_role("link", name="Make again").first.click()
        seen(page.get_by_role("button", name="Make again"))
        page = walker.go(f"{LIST}gallery/")
        expect(page.locator(".images-gallery img")).to_be_visible()
        seen(page.locator(".images-tile"))
        page = walker.go(f"{LIST}add/")
        seen(page.locator("#id_title"))
        seen(page.get_by_role("button", name="Make the image"))
        page = walker.go(f"{LIST}usage/")
        expect(page.get_by_role("heading", name="By day")).to_be_visible()
        expect(page.locator(".images-totals")).to_be_visible()
        walker.go(LIST)
        page.locator(".images-title").first.click()
        page.get_by_role("link", name="Delete").first.click()
        seen(page.get_by_role("button", name="Delete for good"))
