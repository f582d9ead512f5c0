"""A person at the front page, in the browsable API and in the API's documentation."""

from __future__ import annotations

import json
from urllib.parse import urljoin

import requests
from django.contrib.auth.models import User
from playwright.sync_api import expect
from pytest_django import Settings
from rest_framework.authtoken.models import Token

from images.exceptions import ProviderTimeout
from images.models import GeneratedImage
from tests.browser.conftest import PHONE, NewWalker, Walker, make_by_hand
from tests.fakes.providers import FakeProvider

API = "api/images/"

# --- the front page -------------------------------------------------------------------------------------


def test_the_front_page_says_that_it_works_and_leads_everywhere(site: str, demo: User, new_walker: NewWalker) -> None:
    walker = new_walker(site, viewport=PHONE)
    page = walker.go("")
    expect(page.get_by_role("status")).to_have_text("It works.")
    assert walker.findings() == []
    assert walker.overflow() <= 0
    for link in [str(link.get_attribute("href")) for link in page.get_by_role("link").all()]:
        assert requests.get(urljoin(walker.base, link), timeout=30).status_code in {200, 401}, link


def test_the_front_page_says_what_does_not_work(
    site: str, demo: User, settings: Settings, new_walker: NewWalker
) -> None:
    settings.IMAGES = {**settings.IMAGES, "PROVIDER": "gemini", "GEMINI_API_KEY": ""}
    walker = new_walker(site, color_scheme="dark")
    page = walker.go("")
    expect(page.get_by_role("status")).to_contain_text("The operator should check IMAGE_PROVIDER.")
    assert walker.findings() == []


def test_a_russian_reader_gets_russian_pages(site: str, demo: User, new_walker: NewWalker) -> None:
    walker = new_walker(site, locale="ru-RU")
    expect(walker.go("").get_by_role("status")).to_have_text("Работает.")
    page = walker.go("admin/login/")
    page.locator("#id_username").fill("demo")
    page.locator("#id_password").fill("demo-password")
    page.locator("#id_password").press("Enter")
    page.wait_for_url("**/admin/")
    page = walker.go("admin/images/generatedimage/usage/")
    expect(page.get_by_role("heading", level=1)).to_contain_text("татистика")
    assert walker.findings() == []


def test_a_page_that_is_not_there_is_a_page(site: str, demo: User, new_walker: NewWalker) -> None:
    walker = new_walker(site)
    expect(walker.go("nowhere").get_by_role("heading")).to_have_text("404")
    assert walker.findings() == []


# --- the browsable API ----------------------------------------------------------------------------------


def test_one_logs_in_to_the_browsable_api_after_a_wrong_password(
    site: str, demo: User, new_walker: NewWalker
) -> None:
    walker = new_walker(site)
    page = walker.go(API)
    expect(page.get_by_text("Authentication credentials were not provided.")).to_be_visible()
    page.get_by_role("link", name="Log in").click()
    walker.log_in(password="wrong", at="")
    expect(page.get_by_text("Please enter a correct username and password")).to_be_visible()
    walker.log_in(at="")
    expect(page.get_by_role("button", name="POST").first).to_be_visible()


def test_an_image_is_made_and_deleted_by_hand(walker: Walker) -> None:
    page = walker.go(API)
    make_by_hand(page)
    expect(page.get_by_text("HTTP 201 Created")).to_be_visible()
    image = GeneratedImage.objects.get()
    address = image.public_url()
    expect(page.get_by_role("link", name=address)).to_have_attribute("href", address)
    assert requests.get(address, timeout=30).ok
    page = walker.go(f"{API}{image.pk}")
    page.get_by_role("button", name="DELETE").click()
    page.locator("#deleteModal form button").click()  # hidden from assistive technology by the framework
    expect(page.get_by_text('"success": true')).to_be_visible()
    assert requests.get(address, timeout=30).status_code == 404


def test_errors_leave_the_page_whole(walker: Walker, fake_provider: FakeProvider) -> None:
    page = walker.go(API)
    make_by_hand(page, title=" ")
    expect(page.get_by_text("contentItemId and title are required")).to_be_visible()
    fake_provider.will(ProviderTimeout())
    make_by_hand(page)
    expect(page.get_by_text("HTTP 504 Gateway Timeout")).to_be_visible()
    expect(page.get_by_text("provider_timeout")).to_be_visible()
    make_by_hand(page)
    expect(page.get_by_text("HTTP 201 Created")).to_be_visible()


def test_a_session_alone_does_not_spend_money(walker: Walker, fake_provider: FakeProvider) -> None:
    """A page of another site could make the browser send it: the token against that must come along."""
    walker.go(API)
    status = walker.page.evaluate(
        """async (body) => {
            const headers = {"Content-Type": "application/json"};
            return (await fetch("/api/images/", {method: "POST", headers, body})).status;
        }""",
        json.dumps({"contentItemId": "a", "title": "b"}),
    )
    assert status == 403
    assert not fake_provider.requests


# --- the documentation ----------------------------------------------------------------------------------


def test_a_call_is_tried_from_the_documentation_with_a_token(site: str, demo: User, new_walker: NewWalker) -> None:
    token = Token.objects.create(user=demo).key
    page = new_walker(site).go("api/docs/")
    page.get_by_role("button", name="Authorize").click()
    scheme = page.locator(".auth-container", has_text="imagesToken")
    scheme.get_by_role("textbox").fill(token)
    scheme.get_by_role("button", name="Apply credentials").click()
    page.locator(".auth-container").first.get_by_role("button", name="Close").click()
    page.locator(".opblock-summary:has([data-path='/api/images/generate'])").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    answer = page.locator(".live-responses-table .response").first
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    expect(answer).to_contain_text("imageUrl")
    assert GeneratedImage.objects.get().owner == demo
