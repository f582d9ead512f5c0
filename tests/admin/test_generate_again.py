"""Generating images again in the admin: after a confirmation, paid once, with the permission to."""

from __future__ import annotations

import re
import threading
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.test import Client
from django.urls import reverse

from images.admin.generate_again import MAX_AT_ONCE
from images.exceptions import BILLING_ADVICE, ProviderTimeout
from images.models import GeneratedImage, Status
from images.providers import ImageRequest
from images.services import generate_image
from tests.fakes.providers import FakeProvider, png

# The images are made by threads, which see what is committed.
pytestmark = pytest.mark.django_db(transaction=True)

LIST = reverse("admin:images_generatedimage_changelist")


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
    """Open the page that asks, and say yes."""
    return client.post(address, {"token": token_in(client.get(address).text)}, follow=True)


def test_the_new_image_has_the_same_input_and_owner(admin_client: Client, image: GeneratedImage, user: User) -> None:
    page = confirm(admin_client, again_address([image.pk]))
    new = GeneratedImage.objects.exclude(pk=image.pk).get()
    assert (new.content_item_id, new.title, new.description, new.variant) == ("item", "A title", "Long.", "inline")
    assert (new.owner, new.status) == (user, Status.READY)
    assert page.redirect_chain == [(reverse("admin:images_generatedimage_change", args=[new.pk]), 302)]
    assert "Made again:" in page.text
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
    assert len(fake_provider.requests) == 2
    assert LogEntry.objects.count() == 1


def test_a_failure_is_told_with_its_code(
    admin_client: Client, image: GeneratedImage, fake_provider: FakeProvider
) -> None:
    fake_provider.will(ProviderTimeout())
    page = confirm(admin_client, again_address([image.pk]))
    sentence = f"The image provider did not respond in time. Try again later. {BILLING_ADVICE}"
    assert f"A title: {sentence} (provider_timeout)" in page.text
    assert page.redirect_chain == [(LIST, 302)]


def test_several_are_made_in_parallel_and_without_a_servers_connection(
    admin_client: Client, image: GeneratedImage, fake_provider: FakeProvider
) -> None:
    other = generate_image(content_item_id="item", title="Another title")
    both = threading.Barrier(2)
    held: list[bool] = []

    def together(request: ImageRequest) -> bytes:
        both.wait(30)  # one after the other would wait until the timeout
        held.append(connections["default"].connection is not None)
        return png()

    fake_provider.will(together, together)
    chosen = [str(image.pk), str(other.pk)]
    page = admin_client.post(LIST, {"action": "generate_again", "_selected_action": chosen})
    confirm(admin_client, page["Location"])
    assert GeneratedImage.objects.filter(status=Status.READY).count() == 4
    kept = connections["default"].vendor == "sqlite"  # it has no server that could run out of connections
    assert held == [kept, kept]


def test_more_than_a_handful_is_refused_with_a_sentence(admin_client: Client, image: GeneratedImage) -> None:
    images = [generate_image(content_item_id="item", title="A title") for _ in range(MAX_AT_ONCE)]
    chosen = [str(one.pk) for one in [image, *images]]
    page = admin_client.post(LIST, {"action": "generate_again", "_selected_action": chosen}, follow=True)
    assert "At most 5 images can be made again at once." in page.text
    assert admin_client.get(again_address(chosen)).status_code == 404


def test_a_host_that_opens_a_transaction_for_each_request_can_use_it(
    admin_client: Client, image: GeneratedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    assert "Made again:" in confirm(admin_client, again_address([image.pk])).text


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
    assert "Made again:" in confirm(client, again_address([image.pk])).text


@pytest.mark.parametrize("ids", ["", "x", ",", "00000000-0000-4000-8000-000000000000"])
def test_unknown_images_are_not_made(admin_client: Client, ids: str) -> None:
    address = f"{reverse('admin:images_generatedimage_again')}?{urlencode({'ids': ids})}"
    assert admin_client.get(address).status_code == 404
