"""The whole project below a path of another server, as a proxy shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.browser.conftest import NewWalker, make_by_hand
from tests.fakes.ports import reserve_port, wait_until_listening

ROOT = Path(__file__).resolve().parents[2]
SUBPATH = "/pics"


@contextmanager
def project(folder: Path) -> Iterator[str]:
    """The production server below `/pics`; granian plays the proxy that takes the path off."""
    (folder / "stored").mkdir()
    with reserve_port() as kept:
        port = kept.getsockname()[1]
        base = f"http://127.0.0.1:{port}{SUBPATH}"
        environment = {
            "PATH": os.environ["PATH"],
            "DJANGO_SETTINGS_MODULE": "trygo_backend.settings",
            "SECRET_KEY": "only-for-tests",
            "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
            "STORAGE_ROOT": str(folder / "stored"),
            "IMAGE_PROVIDER": "placeholder",
            "PUBLIC_URL": base,
            "FORCE_SCRIPT_NAME": SUBPATH,
            "DJANGO_SUPERUSER_PASSWORD": "demo-password",
        }
        for command in (
            ("migrate", "-v0"),
            ("createsuperuser", "--no-input", "--username=demo", "--email=a@b.example"),
        ):
            subprocess.run([sys.executable, "manage.py", *command], cwd=ROOT, env=environment, check=True)
        options = [
            "--interface",
            "wsgi",
            "--port",
            str(port),
            "--url-path-prefix",
            SUBPATH,
            "--blocking-threads",
            "8",
        ]
        serve = [sys.executable, "-m", "granian", *options, "trygo_backend.wsgi:application"]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(serve, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        wait_until_listening(port, is_alive=lambda: server.poll() is None)
        yield base
    finally:
        server.terminate()
        server.wait(timeout=60)


@pytest.fixture
def page(tmp_path: Path, new_walker: NewWalker) -> Iterator[Page]:
    with project(tmp_path) as base:
        walker = new_walker(base)
        walker.log_in()
        walker.page.wait_for_url(f"{base}/admin/")
        yield walker.page


def test_a_project_below_a_path_works_from_the_front_page_to_a_deletion(page: Page) -> None:
    base = page.url.removesuffix("/admin/")
    missing: list[str] = []
    page.on("response", lambda answer: missing.append(answer.url) if answer.status == 404 else None)
    page.goto(f"{base}/")
    expect(page.get_by_role("status")).to_have_text("It works.")
    page.get_by_role("link", name="Browsable API").click()
    make_by_hand(page, item="item-1")
    picture = page.get_by_role("link", name=f"{base}/media/draft-images/item-1/")
    address = str(picture.get_attribute("href"))
    assert requests.get(address, timeout=30).headers["Content-Type"] == "image/png"
    page.goto(f"{base}/admin/")
    page.get_by_role("link", name="Generated images").click()
    page.get_by_role("link", name="Gallery").click()
    preview = page.locator(".images-gallery img")
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=preview.element_handle())
    page.locator(".images-tile").click()
    assert page.get_by_label("public address").input_value() == address
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator(".messagelist")).to_contain_text("was deleted, with its file")
    assert not missing
    assert requests.get(address, timeout=30).status_code == 404
