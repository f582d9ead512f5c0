"""An operator finds, copies, makes again and deletes images in the admin."""

from __future__ import annotations

import re

import pytest
import requests
from django.contrib.auth.models import User
from playwright.sync_api import expect

from images.exceptions import ProviderTimeout
from images.models import GeneratedImage
from tests.browser.conftest import NewWalker, Walker
from tests.fakes.providers import FakeProvider

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
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == three_images[0].public_url()


def test_without_scripts_the_address_can_be_copied_from_its_field(
    site: str, demo: User, three_images: list[GeneratedImage], new_walker: NewWalker
) -> None:
    walker = new_walker(site, java_script_enabled=False)
    walker.log_in()
    page = walker.go(f"{LIST}{three_images[0].pk}/change/")
    assert page.get_by_label("public address").input_value() == three_images[0].public_url()
    page.get_by_role("link", name="Make again").click()
    page.get_by_role("button", name="Make again").click()
    expect(page.get_by_text("Made again: A quiet harbour")).to_be_visible()


def test_an_image_is_made_again_after_a_question(walker: Walker, three_images: list[GeneratedImage]) -> None:
    page = walker.go(f"{LIST}{three_images[0].pk}/change/")
    page.get_by_role("link", name="Make again").click()
    expect(page.get_by_text("This may cost money: test will be asked.")).to_be_visible()
    assert GeneratedImage.objects.count() == 3
    page.get_by_role("button", name="Make again").click()
    expect(page.get_by_text("Made again: A quiet harbour")).to_be_visible()
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
    expect(page.locator(".messagelist")).to_contain_text("did not respond in time. Try again later.")
    expect(page.locator(".messagelist")).to_contain_text("(provider_timeout)")
    page.get_by_role("link", name="no answer in time").click()
    rows = page.locator("#result_list tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("no answer in time (provider_timeout)")
    expect(rows).to_contain_text("test provider_timeout")  # who was asked, and what came of it


def test_images_are_deleted_after_a_question_with_their_files(
    walker: Walker, three_images: list[GeneratedImage]
) -> None:
    address = three_images[2].public_url()
    assert requests.get(address, timeout=30).ok
    page = walker.go(f"{LIST}gallery/")
    page.get_by_label("Choose A night train").check()
    page.get_by_label("Action:").select_option(label="Delete selected images with their files")
    page.get_by_role("button", name="Go").click()
    expect(page.get_by_text("Are you sure you want to delete the selected")).to_be_visible()
    assert requests.get(address, timeout=30).ok
    page.get_by_role("button", name="Yes, I’m sure").click()
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
    problems = {}
    for path in pages:
        walker.go(path)
        if found := [*walker.findings(), *([f"overflow {walker.overflow()}"] if walker.overflow() > 0 else [])]:
            problems[path] = found
    assert not problems
