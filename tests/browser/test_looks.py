"""Every page of ours at three widths, in two languages and both themes, with images of every kind.

Nothing is cut, nothing overlaps, axe finds nothing at all, and the keyboard reaches everything in few stops.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from django.contrib.auth.models import User
from playwright.sync_api import Page
from pytest_django import Settings

from images.models import GeneratedImage
from tests.browser.collection import make_collection
from tests.browser.conftest import NewWalker, Walker

LIST = "admin/images/generatedimage/"
BOXES = (Path(__file__).parent / "boxes.js").read_text()
#: Widths, and the theme that each is looked at in. Axe takes seconds: it looks at one of them in each language.
SIZES: list[tuple[int, Any]] = [(768, "dark"), (390, "dark"), (1440, "light"), (390, "light")]
AXE_SIZES = {"en-US": (1440, "light"), "ru-RU": (390, "dark")}
#: Colours change slowly in the admin; axe would see them half-way.
AT_ONCE = "*, *::before, *::after { transition: none !important; animation: none !important; }"
#: What REST framework's and Swagger UI's own templates do wrong. A page of ours has no exceptions.
FRAMEWORK_FAULTS = {
    "api/images/": {
        "button-name",  # the arrow beside GET
        "landmark-main-is-top-level",  # one main region within another
        "landmark-no-duplicate-main",
        "region",  # the breadcrumbs are in none
        "scrollable-region-focusable",  # the response, where it is wider than the window
    },
    "api/docs/": {
        "color-contrast",
        "heading-order",
        "landmark-one-main",
        "nested-interactive",
        "region",
        "scrollable-region-focusable",
    },
}
#: How often Tab is pressed at most until the first image of a page is reached, and on the way through the others.
STOPS = {LIST: 65, f"{LIST}gallery/": 65, f"{LIST}usage/": 60, "": 10, f"{LIST}add/": 30, "admin/": 30}


@pytest.fixture
def collection(site: str, demo: User, settings: Settings) -> list[GeneratedImage]:
    settings.IMAGES = {**settings.IMAGES, "CONTENT_ITEM_URL": "https://news.example/{content_item_id}"}
    return make_collection(demo)


def pages(images: list[GeneratedImage]) -> Iterator[str]:
    """Our pages, and of the images' own pages one of each kind."""
    yield from ("", "nowhere", "admin/", LIST, f"{LIST}gallery/", f"{LIST}usage/", f"{LIST}add/")
    ready, failed = images[0], next(image for image in images if image.status == "failed")
    yield from (
        f"{LIST}again/?ids={ready.pk},{failed.pk}",
        f"{LIST}{ready.pk}/delete/",
        f"{LIST}{ready.pk}/describe/",
    )
    kinds: dict[tuple[str, bool, bool], GeneratedImage] = {}
    for image in images:
        kinds.setdefault((image.status, image.started_at is None, len(image.content_item_id) > 200), image)
    yield from (f"{LIST}{image.pk}/change/" for image in kinds.values())
    yield from ("api/images/?limit=5", f"api/images/{ready.pk}", "api/docs/")


def axe(page: Page, allowed: set[str]) -> list[str]:
    results: dict[str, Any] = Axe().run(page).response
    return [
        f"{found['id']}: {node['html'][:200]}"
        for found in results["violations"]
        if found["id"] not in allowed
        for node in found["nodes"]
    ]


def allowed_on(path: str) -> set[str]:
    return next((faults for prefix, faults in FRAMEWORK_FAULTS.items() if path.startswith(prefix)), set())


def look(walker: Walker, path: str, locale: str) -> list[str]:
    """What is wrong with a page at the three widths."""
    page = walker.go(path)
    page.add_style_tag(content=AT_ONCE)
    found = []
    for width, theme in SIZES:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        if path != "api/docs/":
            found += [f"{width} {wrong}" for wrong in page.evaluate(BOXES)]
        if (width, theme) == AXE_SIZES[locale]:
            found += [f"{width} {theme} {wrong}" for wrong in axe(page, allowed_on(path))]
    return found


@pytest.mark.parametrize("locale", ["en-US", "ru-RU"])
def test_nothing_is_cut_nothing_overlaps_and_axe_finds_nothing(
    new_walker: NewWalker, site: str, collection: list[GeneratedImage], locale: str
) -> None:
    walker = new_walker(site, locale=locale)
    walker.sign_in()
    wrong = {path: found for path in pages(collection) if (found := look(walker, path, locale))}
    assert wrong == {}


FOCUSED = """() => {
    const it = document.activeElement;
    const box = it.getBoundingClientRect();
    // A date is one field with three stops.
    const seen = "stop" in it.dataset && it !== document.body && it !== window.lastStop;
    window.lastStop = it;
    it.dataset.stop = "";
    return {seen, visible: box.width > 0 && box.height > 0, done: it === document.body, image: it.matches(
        ".images-title, .images-tile, #figures ~ .images-scroll")};
}"""
REACHABLE = """() => [...document.querySelectorAll(
    "a[href], button, input:not([type=hidden]), select, textarea, summary")].filter((element) =>
    element.checkVisibility({checkVisibilityCSS: true}) && !element.disabled && element.tabIndex >= 0
    && !element.closest("details:not([open]) > :not(summary)") && !("stop" in element.dataset)
    && !(element.type === "radio" && !element.checked)).map((element) => element.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("path", STOPS)
def test_the_keyboard_reaches_everything_in_few_stops(
    new_walker: NewWalker, site: str, three_images: list[GeneratedImage], path: str
) -> None:
    walker = new_walker(site)
    walker.sign_in()
    page = walker.go(path)
    stops, hidden, first_image = 0, [], 0
    for stops in range(1, 151):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused["seen"]:  # once around: some pages begin in the middle
            break
        if not focused["done"] and not focused["visible"]:
            hidden.append(focused)
        if focused["image"] and not first_image:
            first_image = stops
    assert not hidden
    assert page.evaluate(REACHABLE) == []
    assert (first_image or stops) <= STOPS[path]
