"""A real Chromium that walks through the pages as a person would."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from images.models import GeneratedImage
from images.services import generate_image
from tests.fakes.providers import FakeProvider

try:
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
    from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
except ImportError as err:  # an environment that was made before they were needed
    if os.environ.get("CI_REQUIRE_ALL"):
        raise
    pytest.skip(f"{err.name} is not installed: make test installs it", allow_module_level=True)

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
#: Milliseconds that a page may take for what the test waits for. The machine may be busy.
PATIENCE = 30_000
PHONE = {"width": 375, "height": 740}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser takes seconds to start: `make test` leaves these tests out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


def chromium() -> str:
    """The path of Debian's Chromium; skips the test, or fails it where everything is required."""
    path = shutil.which("chromium")
    if path is None:
        reason = "the pages are walked through with Chromium (apt install chromium)"
        if os.environ.get("CI_REQUIRE_ALL"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium with an empty profile."""
    path = chromium()
    patch = pytest.MonkeyPatch()
    # Playwright keeps an event loop in this thread, where Django would refuse to use the database.
    patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
            yield browser
            browser.close()
    finally:
        patch.undo()


@dataclass
class Walker:
    """A person in front of a browser.

    Attributes:
        page: The tab they look at.
        base: The address that relative ones start from.
        errors: What went wrong within pages, in scripts and in their requests.
    """

    page: Page
    base: str
    errors: list[str]

    def go(self, path: str) -> Page:
        """Open a page and wait until it is there."""
        self.page.goto(urljoin(self.base, path))
        return self.page

    def log_in(self, username: str = "demo", password: str = "demo-password", at: str = "admin/login/") -> None:
        """Fill in the form for logging in and send it."""
        if at:
            self.go(at)
        self.page.get_by_label("Username").fill(username)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_label("Password").press("Enter")

    def sign_in(self) -> None:
        """Log in whatever the page's language is, and wait until that is done."""
        self.go("admin/")
        self.page.locator("[name=username]").fill("demo")
        self.page.locator("[name=password]").fill("demo-password")
        self.page.locator("[name=password]").press("Enter")
        self.page.wait_for_url("**/admin/")

    def findings(self) -> list[str]:
        """What axe finds on this page that is serious or critical."""
        # Django's search field is labelled by a picture with a text of its own, which axe does not count.
        results: dict[str, Any] = Axe().run(self.page, context={"exclude": ["#searchbar"]}).response
        return [
            f"{found['id']}: {node['html'][:200]}"
            for found in results["violations"]
            if found["impact"] in {"serious", "critical"}
            for node in found["nodes"]
        ]

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def make_by_hand(page: Page, *, item: str = "by-hand", title: str = "A quiet harbour") -> None:
    """Ask for an image in the browsable API, with its form."""
    form = page.locator("form.images-generate")
    form.locator("[name=contentItemId]").fill(item)
    form.locator("[name=title]").fill(title)
    form.get_by_role("button", name="Generate").click()


NewWalker = Callable[..., Walker]


@pytest.fixture
def new_walker(browser: Browser) -> Iterator[NewWalker]:
    """Makes people, each with cookies of their own; in the end no page may have had an error in a script."""
    contexts: list[BrowserContext] = []
    walkers: list[Walker] = []

    def make(base: str, **options: Any) -> Walker:
        context = browser.new_context(**{"locale": "en-US", "reduced_motion": "reduce", **options})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        walker = Walker(context.new_page(), f"{base}/", [])
        walker.page.on("pageerror", lambda error: walker.errors.append(str(error)))
        walkers.append(walker)
        return walker

    yield make
    for context in contexts:
        context.close()
    assert not [error for walker in walkers for error in walker.errors]


@pytest.fixture
def site(live_server: LiveServer, fake_provider: FakeProvider, settings: Settings) -> str:
    """The project on the loopback, with the test's fake provider."""
    settings.IMAGES = {**settings.IMAGES, "PUBLIC_URL": live_server.url}
    return str(live_server.url)


@pytest.fixture
def demo(transactional_db: None) -> User:
    return User.objects.create_superuser("demo", password="demo-password")


@pytest.fixture
def walker(site: str, demo: User, new_walker: NewWalker) -> Walker:
    """An operator who is logged in."""
    walker = new_walker(site)
    walker.log_in()
    walker.page.wait_for_url("**/admin/")
    return walker


@pytest.fixture
def three_images(site: str, demo: User) -> list[GeneratedImage]:
    """Two of one content item and one of another; the last one is the newest."""
    wanted = [("item-1", "A quiet harbour"), ("item-1", "An old lighthouse"), ("item-2", "A night train")]
    return [generate_image(content_item_id=item, title=title, user=demo) for item, title in wanted]
