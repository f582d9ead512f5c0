"""Making an image in the admin: the form answers at once, and its image is made in the background, paid for once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from images.models import GeneratedImage, Status
from images.services import generate_image
from tests.fakes.background import finish_background
from tests.fakes.providers import FakeProvider, Gate

# The images are made by threads, which see what is committed.
pytestmark = pytest.mark.django_db(transaction=True)

ADD = reverse("admin:images_generatedimage_add")
INPUT = {"title": "A quiet harbour", "description": "At dawn.", "variant": "inline", "content_item_id": "guide-7"}


@pytest.fixture(autouse=True)
def _finished() -> Iterator[None]:
    yield
    finish_background()


def filled_in(client: Client, **other: str) -> dict[str, Any]:
    """What the form sends: its own token, and what was typed."""
    found = re.search(r'name="token" value="([^"]+)"', client.get(ADD).text)
    assert found
    return {"token": found[1], **INPUT, **other}


@pytest.mark.parametrize("atomic_requests", [False, True])
def test_the_form_leads_at_once_to_the_page_of_its_image(
    admin_client: Client,
    admin_user: User,
    fake_provider: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
    atomic_requests: bool,
) -> None:
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", atomic_requests)
    gate = Gate()
    fake_provider.will(gate)
    page = admin_client.post(ADD, filled_in(admin_client), follow=True)
    image = GeneratedImage.objects.get()
    assert page.redirect_chain == [(reverse("admin:images_generatedimage_change", args=[image.pk]), 302)]
    assert "“A quiet harbour” is being made." in page.text
    assert f'data-pending="{image.pk}"' in page.text
    assert (image.status, image.owner) == (Status.PENDING, admin_user)
    gate.open.set()
    finish_background()
    image.refresh_from_db()
    assert {name: getattr(image, name) for name in INPUT} == INPUT
    assert image.status == Status.READY
    assert LogEntry.objects.get().object_id == str(image.pk)


def test_the_same_page_sent_twice_pays_once_and_with_other_words_again(
    admin_client: Client, fake_provider: FakeProvider
) -> None:
    form = filled_in(admin_client)
    first, again = admin_client.post(ADD, form), admin_client.post(ADD, form)
    assert first["Location"] == again["Location"]
    admin_client.post(ADD, {**form, "title": "Another"})
    finish_background()
    assert (len(fake_provider.requests), LogEntry.objects.count()) == (2, 2)


def test_what_cannot_be_made_is_said_beside_its_field(admin_client: Client, fake_provider: FakeProvider) -> None:
    page = admin_client.post(ADD, filled_in(admin_client, title=" ", content_item_id="", variant="poster"))
    assert set(page.context["adminform"].errors) == {"title", "content_item_id", "variant"}
    assert 'value="inline"' in page.text  # what was typed is still there
    assert not GeneratedImage.objects.exists()


def test_the_form_can_start_from_another_image_and_names_the_price(
    admin_client: Client, fake_provider: FakeProvider, settings: Settings
) -> None:
    image = generate_image(
        content_item_id="guide-7", title="A quiet harbour", description="At dawn.", variant="inline"
    )
    settings.IMAGES = {**settings.IMAGES, "PRICES": {"test": {"image": 0.04}}}
    page = admin_client.get(ADD, {"like": str(image.pk)})
    for text in ('value="A quiet harbour"', "At dawn.", 'value="guide-7"', "A picture costs about $0.04."):
        assert text in page.text
    assert admin_client.get(ADD, {"like": "x"}).status_code == 200


def test_it_takes_the_permission_to_add_images(fake_provider: FakeProvider) -> None:
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_generatedimage"))
    client = Client()
    client.force_login(user)
    assert client.get(ADD).status_code == client.post(ADD, INPUT).status_code == 403
    assert "Make an image" not in client.get(reverse("admin:images_generatedimage_changelist")).text
