"""Attacks that cross several parts; those on one part stand beside its tests."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from pytest_django.fixtures import Settings
from rest_framework.test import APIClient

from images.conf import conf
from images.models import GeneratedImage
from images.providers import get_provider
from tests.conftest import client_for
from tests.fakes.provider_server import ProviderServer
from tests.fakes.providers import FakeProvider

URL = "/api/images/generate"
KEYS = {"OPENAI_API_KEY": "sk-secret-0123456789abcdef", "GEMINI_API_KEY": "AIzaSecret0123456789abcdef"}

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "hostile", ["a\r\nSet-Cookie: stolen=1", "a\nLocation: https://evil.example", "a\x0bX-Evil: 1"]
)
def test_nothing_a_caller_writes_becomes_a_header(api: APIClient, fake_provider: FakeProvider, hostile: str) -> None:
    for url in (URL, "/api/images/"):
        answer = api.post(url, {"contentItemId": hostile, "title": hostile}, format="json")
        assert answer.status_code in (200, 201)
        text = "\n".join(f"{name}: {value}" for name, value in answer.items())
        assert "evil" not in text.lower()
        assert "stolen" not in text + str(answer.cookies)
        picture = api.get(answer.json()["imageUrl"].removeprefix("https://pics.example"))
        assert "evil" not in str(picture.headers).lower()


@pytest.mark.parametrize("key", ["k\r\nX-Evil: 1", "k\nX-Evil: 1", "k\x00"])
def test_a_key_that_carries_a_header_is_refused(api: APIClient, fake_provider: FakeProvider, key: str) -> None:
    body = {"contentItemId": "1", "title": "x"}
    answer = api.post(URL, body, format="json", HTTP_IDEMPOTENCY_KEY=key)
    assert answer.status_code == 400
    assert "Evil" not in str(answer.headers)


def test_markup_in_a_title_stays_text_wherever_it_is_shown(fake_provider: FakeProvider, staff: User) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    made = client_for(staff).post(URL, {"contentItemId": hostile, "title": hostile}, format="json").json()
    staff.is_superuser = True
    staff.save()
    browser = APIClient()
    browser.force_login(staff)
    pages = ["/api/images/", f"/api/images/{made['id']}", reverse("admin:images_generatedimage_changelist")]
    pages.append(reverse("admin:images_generatedimage_change", args=[made["id"]]))
    for page in pages:
        shown = browser.get(page, headers={"accept": "text/html"})
        assert shown.status_code == 200, page
        assert "<script>alert(1)" not in shown.content.decode()
        assert "<img src=x" not in shown.content.decode()


@pytest.mark.parametrize("method", ["post", "delete"])
def test_a_page_of_somebody_else_cannot_use_a_session(fake_provider: FakeProvider, user: User, method: str) -> None:
    image = GeneratedImage.objects.create(owner=user, content_item_id="1", title="x", file_stem="draft-images/1/x")
    browser = APIClient(enforce_csrf_checks=True)
    browser.force_login(user)
    url = URL if method == "post" else f"/api/images/{image.pk}"
    answer = getattr(browser, method)(url, {"contentItemId": "1", "title": "x"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert GeneratedImage.objects.filter(pk=image.pk).exists()
    assert not fake_provider.requests


class TestKeys:
    @pytest.fixture
    def refusing(self, settings: Settings, provider_server: ProviderServer) -> ProviderServer:
        """Both providers refuse the key, and OpenAI's refusal repeats a part of it."""
        settings.IMAGES = {
            **KEYS,
            "PROVIDER": "openai,gemini",
            "OPENAI_BASE_URL": f"{provider_server.url}/v1",
            "GEMINI_API_BASE_URL": provider_server.url,
        }
        provider_server.script("http_401", "http_401")
        return provider_server

    def test_show_in_no_answer_row_log_or_page(
        self, refusing: ProviderServer, staff: User, caplog: pytest.LogCaptureFixture
    ) -> None:
        staff.is_superuser = True
        staff.save()
        with caplog.at_level("DEBUG"):
            answer = client_for(staff).post(URL, {"contentItemId": "1", "title": "x"}, format="json")
        assert answer.json()["code"] == "provider_auth"
        browser = APIClient()
        browser.force_login(staff)
        row = GeneratedImage.objects.get()
        page = browser.get(reverse("admin:images_generatedimage_change", args=[row.pk]))
        shown = [answer.content.decode(), caplog.text, str(GeneratedImage.objects.values()), page.content.decode()]
        assert len(refusing.requests) == 2
        for text in shown:
            for key in KEYS.values():
                assert key[:12] not in text

    def test_show_in_no_repr(self, refusing: ProviderServer) -> None:
        objects: list[Any] = [conf, *conf.provider_backends.values(), get_provider("openai"), get_provider("gemini")]
        for key in KEYS.values():
            assert key not in repr(objects)

    def test_travel_in_a_header_and_never_in_an_address(self, refusing: ProviderServer, api: APIClient) -> None:
        api.post(URL, {"contentItemId": "1", "title": "x"}, format="json")
        for request in refusing.requests:
            assert "secret" not in request.path.lower()
            assert "secret" not in request.body.decode().lower()
