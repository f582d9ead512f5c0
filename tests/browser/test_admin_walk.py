"""An operator finds, copies, makes again and deletes images in the admin."""

from __future__ import annotations

import re

import pytest
import requests
from django.contrib.auth.models import User
from playwright.sync_api import expect

from images.exceptions import ProviderTimeout
from images.models import GeneratedImage
from tests.browser.conftest import PATIENCE, NewWalker, Walker
from tests.fakes.providers import FakeProvider, Gate

LIST = "admin/images/generatedimage/"


def test_a_wrong_password_is_told_and_the_right_one_leads_in(site: str, demo: User, new_walker: NewWalker) -> None:
    walker = new_walker(site)
    walker.log_in(password="wrong")
    expect(walker.page.get_by_text("Please enter the correct username and password")).to_be_visible()
    walker.log_in(at="")
    walker.page.get_by_role("link", name="Generated images").click()
    expect(walker.page.get_by_role("link", name="Gallery")).to_be_visible()


def test_the_gallery_shows_previews_of_the_newest_first(walker: Walker, three_images: list[GeneratedImage]) -> None:
    page = walker.go(LIST)
    page.get_by_role("link", name="Gallery").click()
    tiles = page.locator(".images-gallery > li")
    expect(tiles).to_have_count(3)
    expect(tiles.first).to_contain_text("A night train")
    picture = tiles.first.locator("img")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())
    tiles.last.get_by_role("link", name="item-1").click()
    expect(tiles).to_have_count(2)
    expect(page.get_by_text("All images of the content item item-1.")).to_be_visible()
    page.get_by_role("link", name="List").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(2)
    page.get_by_role("link", name="Show all images").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(3)


def test_the_address_is_copied(walker: Walker, three_images: list[GeneratedImage]) -> None:
    walker.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = walker.go(f"{LIST}{three_images[0].pk}/change/")
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == three_images[0].public_url()
    page = walker.go(LIST)
    page.get_by_role("button", name="Copy address A night train").click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == three_images[2].public_url()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download A night train").click()
    assert download.value.suggested_filename.endswith(".png")


def test_without_scripts_the_address_can_be_copied_from_its_field(
    site: str, demo: User, three_images: list[GeneratedImage], new_walker: NewWalker
) -> None:
    walker = new_walker(site, java_script_enabled=False)
    walker.log_in()
    page = walker.go(f"{LIST}{three_images[0].pk}/change/")
    assert page.get_by_label("public address").input_value() == three_images[0].public_url()
    page.get_by_role("link", name="Make again").click()
    page.get_by_role("button", name="Make again").click()
    expect(page.get_by_text("“A quiet harbour” is being made again.")).to_be_visible()
    expect(page.locator(".images-picture")).to_be_visible(timeout=PATIENCE)  # the page refreshes by itself


def test_an_image_is_made_again_after_a_question(walker: Walker, three_images: list[GeneratedImage]) -> None:
    page = walker.go(f"{LIST}{three_images[0].pk}/change/")
    page.get_by_role("link", name="Make again").click()
    expect(page.get_by_text("This may cost money: test will be asked.")).to_be_visible()
    assert GeneratedImage.objects.count() == 3
    page.get_by_role("button", name="Make again").click()
    expect(page.get_by_text("“A quiet harbour” is being made again.")).to_be_visible()
    expect(page.locator(".images-picture")).to_be_visible(timeout=PATIENCE)
    newest = GeneratedImage.objects.first()
    assert newest is not None
    assert str(newest.pk) in page.url
    assert (newest.content_item_id, newest.owner) == ("item-1", three_images[0].owner)


def test_a_failed_generation_says_why_and_is_found_again(
    walker: Walker, three_images: list[GeneratedImage], fake_provider: FakeProvider
) -> None:
    fake_provider.will(ProviderTimeout())
    page = walker.go(f"{LIST}{three_images[0].pk}/change/")
    page.get_by_role("link", name="Make again").click()
    page.get_by_role("button", name="Make again").click()
    expect(page.locator(".field-what_to_do")).to_contain_text("Make it again.")
    page = walker.go(LIST)
    page.get_by_role("link", name="no answer in time").click()
    rows = page.locator("#result_list tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("no answer in time")


def test_an_image_is_made_with_the_form_and_its_page_and_its_row_refresh_by_themselves(
    walker: Walker, three_images: list[GeneratedImage], fake_provider: FakeProvider, new_walker: NewWalker
) -> None:
    gate = Gate()
    fake_provider.will(gate)
    page = walker.go(LIST)
    page.get_by_role("link", name="Make an image").click()
    page.get_by_label("Title").fill("A new picture")
    page.get_by_label("Content item").fill("item-3")
    page.get_by_role("button", name="Make the image").click()
    pill = page.locator(".images-empty .images-pill")
    expect(pill).to_contain_text("generating")
    other = page.context.new_page()
    other.goto(f"{walker.base}{LIST}")
    row = other.locator("#result_list tbody tr").first
    expect(row.locator(".images-pill")).to_contain_text("generating")
    row.locator(".action-select").check()
    expect(row.locator(".images-elapsed")).to_have_text(re.compile("^[3-9] s"))  # the seconds pass
    gate.open.set()
    expect(page.locator(".images-picture img")).to_be_visible()
    other.bring_to_front()
    expect(row.locator(".images-pill")).to_contain_text("ready")
    expect(row.get_by_role("button", name="Copy address")).to_be_visible()
    expect(row.locator(".action-select")).to_be_checked()


def test_the_gallery_counts_and_highlights_what_is_chosen(walker: Walker, three_images: list[GeneratedImage]) -> None:
    page = walker.go(f"{LIST}gallery/")
    tile = page.locator(".images-gallery > li").first
    plain = tile.evaluate("tile => getComputedStyle(tile).boxShadow")
    page.get_by_label("Choose A night train").check()
    expect(page.locator(".action-counter")).to_have_text("1 of 3 selected")
    assert tile.evaluate("tile => getComputedStyle(tile).boxShadow") != plain
    page.get_by_label("Select all on this page").check()
    expect(page.locator(".action-counter")).to_have_text("3 of 3 selected")
    page.get_by_label("Select all on this page").uncheck()
    expect(page.get_by_label("Choose A quiet harbour")).not_to_be_checked()


WRONG_BOXES = """() => {
    const wrong = [];
    const table = document.querySelector(".results");
    if (table.scrollWidth > table.clientWidth) { wrong.push(`table ${table.scrollWidth}`); }
    const rows = [...document.querySelectorAll("#result_list tbody tr")].map((row) => row.getBoundingClientRect());
    const heights = rows.map((row) => Math.round(row.height));
    if (getComputedStyle(document.querySelector("#result_list")).display === "table"
        && Math.max(...heights) - Math.min(...heights) > 4) { wrong.push(`heights ${heights}`); }
    const search = document.querySelector("#searchbar").getBoundingClientRect();
    if (search.width < 150) { wrong.push(`search ${search.width}`); }
    const filters = document.querySelector(".images-filters").getBoundingClientRect();
    const above = filters.height < 60 && filters.top < rows[0].top;
    if (window.innerWidth <= 1024 && !above) { wrong.push(`filters ${filters.top}`); }
    const cells = "#result_list td, #result_list th, .images-views li, #changelist-search > div > *";
    for (const cell of document.querySelectorAll(cells)) {
        const box = cell.getBoundingClientRect();
        if (box.right > window.innerWidth + 1) { wrong.push(`cut ${cell.className}`); }
    }
    return wrong;
}"""


@pytest.mark.parametrize("locale", ["en-US", "ru-RU"])
@pytest.mark.parametrize("width", [1440, 768, 390])
def test_nothing_of_the_list_is_cut_and_its_rows_are_alike(
    site: str, demo: User, three_images: list[GeneratedImage], new_walker: NewWalker, width: int, locale: str
) -> None:
    long = "An unbelievably long title of an image, " * 6
    attempts = [{"code": "provider_timeout"}] * 3
    fields = {"status": "failed", "error_code": "provider_timeout", "error_message": "Too slow. " * 40}
    GeneratedImage.objects.filter(pk=three_images[1].pk).update(**fields, title=long, attempts=attempts, file="")
    GeneratedImage.objects.filter(pk=three_images[0].pk).update(content_item_id="x" * 255, model="y" * 100)
    walker = new_walker(site, locale=locale, viewport={"width": width, "height": 900})
    walker.page.goto(f"{walker.base}admin/login/")
    walker.page.locator("[name=username]").fill("demo")
    walker.page.locator("[name=password]").fill("demo-password")
    walker.page.locator("[name=password]").press("Enter")
    walker.page.wait_for_url("**/admin/")
    page = walker.go(LIST)
    page.wait_for_load_state("networkidle")
    assert page.evaluate(WRONG_BOXES) == []
    for path in (LIST, f"{LIST}gallery/", f"{LIST}add/", *(f"{LIST}{image.pk}/change/" for image in three_images)):
        walker.go(path)
        assert walker.overflow() <= 0, path


def test_images_are_deleted_after_a_question_with_their_files(
    walker: Walker, three_images: list[GeneratedImage]
) -> None:
    address = three_images[2].public_url()
    assert requests.get(address, timeout=30).ok
    page = walker.go(f"{LIST}gallery/")
    page.get_by_label("Choose A night train").check()
    page.get_by_label("Action:").select_option(label="Delete selected images with their files")
    page.get_by_role("button", name="Go").click()
    expect(page.get_by_text("The picture's file and its public address go for good")).to_be_visible()
    assert requests.get(address, timeout=30).ok
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator(".messagelist")).to_contain_text("Successfully deleted 1 generated image")
    expect(page.locator(".images-gallery > li")).to_have_count(2)
    assert requests.get(address, timeout=30).status_code == 404


def test_everything_can_be_reached_with_the_keyboard_alone(
    walker: Walker, three_images: list[GeneratedImage]
) -> None:
    page = walker.go(f"{LIST}gallery/")
    reached: set[str] = set()
    for _ in range(150):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.innerText || document.activeElement.name || ''").strip())
        if page.evaluate("document.activeElement.matches('.images-tile')"):
            break
    assert {"LIST", "GALLERY", "USAGE"} <= {name.upper() for name in reached}
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(str(three_images[2].pk)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_the_pages_are_accessible_in_light_and_dark_wide_and_narrow(
    site: str, demo: User, three_images: list[GeneratedImage], new_walker: NewWalker, scheme: str, width: int
) -> None:
    GeneratedImage.objects.filter(pk=three_images[1].pk).update(
        status="failed", error_code="provider_timeout", error_message="Too slow.", file=""
    )
    walker = new_walker(site, color_scheme=scheme, viewport={"width": width, "height": 800})
    walker.log_in()
    pages = [LIST, f"{LIST}gallery/", f"{LIST}usage/", f"{LIST}again/?ids={three_images[0].pk}"]
    pages += [f"{LIST}{image.pk}/change/" for image in three_images[:2]]
    pages += [f"{LIST}add/", f"{LIST}{three_images[0].pk}/delete/"]
    problems = {}
    for path in pages:
        walker.go(path)
        if found := [*walker.findings(), *([f"overflow {walker.overflow()}"] if walker.overflow() > 0 else [])]:
            problems[path] = found
    assert not problems
