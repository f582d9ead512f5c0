"""A second admin site: its links stay on it."""

from __future__ import annotations

import re
import sys
import types

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import include, path, reverse
from pytest_django.fixtures import Settings

from images.admin import GeneratedImageAdmin
from images.models import GeneratedImage
from images.services import generate_image
from tests.fakes.background import finish_background
from tests.fakes.providers import FakeProvider

pytestmark = pytest.mark.django_db(transaction=True)

LINKS = re.compile(r'(?:href|src|action)="(/[^"]*)"')


@pytest.fixture
def image(fake_provider: FakeProvider, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> GeneratedImage:
    """An image in a project with two admin sites."""
    backstage = admin.AdminSite(name="backstage")
    backstage.register(GeneratedImage, GeneratedImageAdmin)
    module = types.ModuleType("two_sites")
    module.urlpatterns = [  # type: ignore[attr-defined]
        path("admin/", admin.site.urls),
        path("backstage/", backstage.urls),
        path("", include("images.urls")),
    ]
    monkeypatch.setitem(sys.modules, "two_sites", module)
    settings.ROOT_URLCONF = "two_sites"
    return generate_image(content_item_id="item", title="A title")


@pytest.mark.parametrize("site", ["admin", "backstage"])
def test_the_links_of_a_site_stay_on_it(admin_client: Client, image: GeneratedImage, site: str) -> None:
    def address(view: str, *args: object) -> str:
        return reverse(f"admin:images_generatedimage_{view}", args=args, current_app=site)

    other = {"admin": "/backstage/", "backstage": "/admin/"}[site]
    pages = [address(view) for view in ("changelist", "gallery", "usage", "add")]
    pages += [address("change", image.pk), f"{address('again')}?ids={image.pk}", address("delete", image.pk)]
    for page in pages:
        links = LINKS.findall(admin_client.get(page).text)
        assert any(link.startswith(f"/{site}/images/generatedimage/") for link in links), page
        assert [link for link in links if link.startswith(other)] == [], page


def test_what_is_made_on_a_site_is_shown_on_it(admin_client: Client, image: GeneratedImage) -> None:
    again = reverse("admin:images_generatedimage_again", current_app="backstage")
    lists = reverse("admin:images_generatedimage_changelist", current_app="backstage")
    chosen = admin_client.post(lists, {"action": "generate_again", "_selected_action": [str(image.pk)]})
    assert chosen["Location"] == f"{again}?ids={image.pk}"
    page = admin_client.post(chosen["Location"], {"token": "0" * 32}, follow=True)
    finish_background()
    [(address, _)] = page.redirect_chain
    assert address.startswith("/backstage/images/generatedimage/")
