"""Generating images again in the admin: after a confirmation, paid once, with the permission to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.test import Client
from django.urls import reverse

from images.admin import generate_again
from images.exceptions import ProviderTimeout
from images.models import GeneratedImage, Status
from images.services import generate_image
from tests.fakes.background import finish_background
from tests.fakes.providers import FakeProvider, Gate

# The images are made by threads, which see what is committed.
pytestmark = pytest.mark.django_db(transaction=True)

LIST = reverse("admin:images_generatedimage_changelist")


@pytest.fixture(autouse=True)
def _finished() -> Iterator[None]:
    yield
    finish_background()


@pytest.fixture
def image(fake_provider: FakeProvider, user: User) -> GeneratedImage:
    return generate_image(content_item_id="item", title="A title", description="Long.", variant="inline", user=user)


def again_address(ids: list[Any]) -> str:
    """The page that asks whether to generate these images again."""
    query = urlencode({"ids": ",".join(str(pk) for pk in ids)})
    return f"{reverse('admin:images_generatedimage_again')}?{query}"


def client_with(*codenames: str) -> Client:
    """A client of a staff user with these permissions only."""
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


def token_in(html: str) -> str:
    found = re.search(r'name="token" value="(\w+)"', html)
    assert found
    return found[1]


def confirm(client: Client, address: str) -> Any:
    """Open the page that asks, say yes, and wait until the images are made."""
    html = client.get(address).text
    found = re.search(r'name="images" value="([\w,]+)"', html)
    assert found
    page = client.post(address, {"token": token_in(html), "images": found[1]}, follow=True)
    finish_background()
    return page


def test_the_new_image_has_the_same_input_and_owner_and_is_not_waited_for(
    admin_client: Client, image: GeneratedImage, user: User, fake_provider: FakeProvider
) -> None:
    gate = Gate()
    fake_provider.will(gate)
    html = admin_client.get(again_address([image.pk])).text
    page = admin_client.post(again_address([image.pk]), {"token": token_in(html)}, follow=True)
    new = GeneratedImage.objects.exclude(pk=image.pk).get()
    assert new.status == Status.PENDING
    assert page.redirect_chain == [(reverse("admin:images_generatedimage_change", args=[new.pk]), 302)]
    assert "“A title” is being made again." in page.text
    assert f'data-pending="{new.pk}"' in page.text
    assert "Make again" not in page.text  # as long as this one is not there
    assert "There is nothing to make again." in admin_client.get(again_address([new.pk])).text
    gate.open.set()
    finish_background()
    new.refresh_from_db()
    assert (new.content_item_id, new.title, new.description, new.variant) == ("item", "A title", "Long.", "inline")
    assert (new.owner, new.status) == (user, Status.READY)
    assert LogEntry.objects.get().object_id == str(new.pk)


def test_asking_spends_nothing(admin_client: Client, image: GeneratedImage, fake_provider: FakeProvider) -> None:
    page = admin_client.get(again_address([image.pk]))
    assert "This may cost money: test will be asked." in page.text
    admin_client.post(again_address([image.pk]))  # without the page's token it only asks again
    admin_client.post(again_address([image.pk]), {"token": "x"})
    assert len(fake_provider.requests) == 1


def test_the_same_page_sent_twice_pays_once(
    admin_client: Client, image: GeneratedImage, fake_provider: FakeProvider
) -> None:
    address = again_address([image.pk])
    token = token_in(admin_client.get(address).text)
    for _ in range(2):
        assert admin_client.post(address, {"token": token}).status_code == 302
    finish_background()
    assert len(fake_provider.requests) == 2
    assert LogEntry.objects.count() == 1


def test_a_failure_is_on_the_new_images_page(
    admin_client: Client, image: GeneratedImage, fake_provider: FakeProvider
) -> None:
    fake_provider.will(ProviderTimeout())
    [(address, _)] = confirm(admin_client, again_address([image.pk])).redirect_chain
    page = admin_client.get(address).text
    assert "no answer in time (provider_timeout)" in page
    assert "The image provider did not respond" in page


def test_all_that_failed_is_made_again_once(
    admin_client: Client, image: GeneratedImage, fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was tried again since, and what is still being made, is left out; the number and the price are told."""
    monkeypatch.setattr(generate_again, "MAX_AT_ONCE", 2)
    for title in ("one", "one", "two", "three"):
        fake_provider.will(ProviderTimeout())
        with pytest.raises(ProviderTimeout):
            generate_image(content_item_id="item", title=title)
    pending = GeneratedImage.objects.filter(title="three").get()
    GeneratedImage.objects.filter(pk=pending.pk).update(status=Status.PENDING)
    failed = f"{LIST}?status=failed"
    choice = {"action": "generate_again", "select_across": "1", "_selected_action": [str(image.pk)]}
    address = admin_client.post(failed, choice)["Location"]
    html = admin_client.get(address).text
    assert "2 new images will be made" in html
    assert "1 failed image is left out" in html
    assert "This may cost money: test will be asked." in html
    page = confirm(admin_client, address)
    assert page.redirect_chain == [(failed, 302)]
    assert "2 images are being made again." in page.text
    assert GeneratedImage.objects.filter(title__in=["one", "two"], status=Status.READY).count() == 2
    assert "There is nothing to make again." in admin_client.get(address).text
    assert len(fake_provider.requests) == 7


def test_an_image_that_was_requested_again_later_is_made_again_after_a_warning(
    admin_client: Client, image: GeneratedImage
) -> None:
    confirm(admin_client, again_address([image.pk]))
    assert "the same was requested again later" in admin_client.get(again_address([image.pk])).text
    confirm(admin_client, again_address([image.pk]))
    assert GeneratedImage.objects.count() == 3


def test_what_is_more_than_can_be_started_at_once_is_left_for_the_next_time(
    admin_client: Client, image: GeneratedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_image(content_item_id="item", title="Another title")
    monkeypatch.setattr(generate_again, "MAX_AT_ONCE", 1)
    html = admin_client.get(f"{reverse('admin:images_generatedimage_again')}?all=1").text
    assert "1 new image will be made" in html
    assert "1 more image is left for the next time." in html


def test_a_host_that_opens_a_transaction_for_each_request_can_use_it(
    admin_client: Client, image: GeneratedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    assert "is being made again." in confirm(admin_client, again_address([image.pk])).text


def test_a_user_who_may_only_view_spends_nothing(image: GeneratedImage, fake_provider: FakeProvider) -> None:
    client = client_with("view_generatedimage", "delete_generatedimage")
    address = again_address([image.pk])
    assert client.get(address).status_code == 403
    assert client.post(address, {"token": "0" * 32}).status_code == 403
    assert "generate_again" not in client.get(LIST).text
    assert "Make again" not in client.get(reverse("admin:images_generatedimage_change", args=[image.pk])).text
    assert len(fake_provider.requests) == 1


def test_a_user_who_may_add_images_may_make_them_again(image: GeneratedImage) -> None:
    client = client_with("view_generatedimage", "add_generatedimage")
    assert "is being made again." in confirm(client, again_address([image.pk])).text


@pytest.mark.parametrize("ids", ["", "x", ",", "00000000-0000-4000-8000-000000000000"])
def test_unknown_images_are_not_made(admin_client: Client, ids: str) -> None:
    address = f"{reverse('admin:images_generatedimage_again')}?{urlencode({'ids': ids})}"
    assert admin_client.get(address).status_code == 404
