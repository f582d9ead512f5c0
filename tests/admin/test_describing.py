"""The alternative text in the admin: seen on an image's page, changed by who may change images."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from images.models import GeneratedImage
from images.services import generate_image, set_alt_text
from tests.fakes.providers import FakeProvider

pytestmark = pytest.mark.django_db


@pytest.fixture
def image(fake_provider: FakeProvider) -> GeneratedImage:
    return generate_image(content_item_id="1", title="A quiet harbour", context="<b>calm</b>")


def page(image: GeneratedImage, view: str = "change") -> str:
    return reverse(f"admin:images_generatedimage_{view}", args=[image.pk])


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"alt_text": " Boats\x1b in\r\n the\u202e mist "}, "Boats in the mist"),
        ({"alt_text": "", "decorative": "on"}, ""),
        ({"alt_text": ""}, None),
    ],
)
def test_a_person_describes_the_picture(
    admin_client: Client, image: GeneratedImage, sent: dict[str, str], kept: Any
) -> None:
    assert page(image, "describe") in admin_client.get(page(image)).content.decode()
    answer = admin_client.post(page(image, "describe"), sent, follow=True)
    assert answer.redirect_chain == [(page(image), 302)]
    image.refresh_from_db()
    assert image.alt_text == kept
    assert "decorative" in answer.content.decode() or kept != ""


def test_tags_in_a_text_are_shown_as_text(admin_client: Client, image: GeneratedImage) -> None:
    set_alt_text(image=image, alt_text='"><i>in mist')
    for address in (page(image), page(image, "describe"), reverse("images:image-detail", args=[image.pk])):
        shown = admin_client.get(address, headers={"accept": "text/html"}).text
        assert ("&lt;i&gt;in" in shown, "<i>in" in shown) == (True, False)


@pytest.mark.parametrize("sent", [{"alt_text": "x" * 251}, {"alt_text": "Boats", "decorative": "on"}])
def test_what_is_wrong_is_said_and_nothing_is_kept(
    admin_client: Client, image: GeneratedImage, sent: dict[str, str]
) -> None:
    answer = admin_client.post(page(image, "describe"), sent)
    assert answer.status_code == 200
    assert "errorlist" in answer.content.decode()
    image.refresh_from_db()
    assert image.alt_text is None


def test_who_may_only_look_gets_no_link_and_no_page(client: Client, staff: User, image: GeneratedImage) -> None:
    staff.user_permissions.add(Permission.objects.get(codename="view_generatedimage"))
    client.force_login(staff)
    assert page(image, "describe") not in client.get(page(image)).content.decode()
    assert client.post(page(image, "describe"), {"alt_text": "Boats"}).status_code == 403
    staff.user_permissions.add(Permission.objects.get(codename="change_generatedimage"))
    assert client.post(page(image, "describe"), {"alt_text": "Boats"}).status_code == 302


def test_scene_and_context_are_shown_as_text(admin_client: Client, image: GeneratedImage) -> None:
    GeneratedImage.objects.update(scene="<i>Boats</i>", scene_model="gpt-6-luna")
    shown = admin_client.get(page(image)).content.decode()
    for text in ("&lt;b&gt;calm&lt;/b&gt;", "&lt;i&gt;Boats&lt;/i&gt;", "gpt-6-luna"):
        assert text in shown
