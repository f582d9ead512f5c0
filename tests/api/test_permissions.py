"""What a caller may do in a project that has not said otherwise, and in one that has."""

from __future__ import annotations

from base64 import b64encode
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from pytest_django.fixtures import Settings
from rest_framework.permissions import BasePermission
from rest_framework.test import APIClient

from images.api.permissions import ImagePermissions
from images.models import GeneratedImage
from images.services import generate_image
from tests.conftest import client_for
from tests.fakes.providers import FakeProvider

URL = "/api/images/generate"
BODY = {"contentItemId": "42", "title": "A quiet harbour at dawn"}

pytestmark = pytest.mark.django_db


class NotTheirs(BasePermission):
    """A host's own rule for single images."""

    def has_object_permission(self, request: Any, view: Any, obj: GeneratedImage) -> bool:
        return obj.title != BODY["title"]


@pytest.fixture
def host(fake_provider: FakeProvider, settings: Settings) -> FakeProvider:
    """A project of somebody else's, which has set nothing about permissions."""
    settings.IMAGES = {key: value for key, value in settings.IMAGES.items() if key != "PERMISSION_CLASSES"}
    return fake_provider


def grant(user: User, *codenames: str) -> None:
    user.user_permissions.add(*Permission.objects.filter(codename__in=codenames))


def made_by(user: User | None) -> GeneratedImage:
    return generate_image(content_item_id="42", title=BODY["title"], user=user)


@pytest.mark.parametrize("url", [URL, "/api/images/"])
def test_generating_needs_the_permission_to_add_images(
    host: FakeProvider, api: APIClient, user: User, url: str
) -> None:
    refused = api.post(url, BODY, format="json")
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert "lacks the permission images.add_generatedimage" in refused.json()["error"]
    assert not host.requests
    assert not GeneratedImage.objects.exists()
    grant(user, "add_generatedimage")
    assert api.post(url, BODY, format="json").status_code in {200, 201}


def test_deleting_ones_own_needs_the_permission_to_delete_images(
    host: FakeProvider, api: APIClient, user: User, stranger: User
) -> None:
    own, other = made_by(user), made_by(stranger)
    refused = api.delete(f"/api/images/{own.pk}")
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert "lacks the permission images.delete_generatedimage" in refused.json()["error"]
    grant(user, "delete_generatedimage")
    assert api.delete(f"/api/images/{own.pk}").status_code == 200
    assert api.delete(f"/api/images/{other.pk}").status_code == 404


def test_changing_ones_own_needs_the_permission_to_change_images(
    host: FakeProvider, api: APIClient, user: User
) -> None:
    path, body = f"/api/images/{made_by(user).pk}", {"altText": "Boats in the mist"}
    refused = api.patch(path, body, format="json")
    assert "lacks the permission images.change_generatedimage" in refused.json()["error"]
    grant(user, "change_generatedimage")
    assert api.patch(path, body, format="json").status_code == 200


def test_reading_ones_own_needs_an_account_only(
    host: FakeProvider, api: APIClient, anonymous: APIClient, user: User, stranger: User
) -> None:
    own = made_by(user)
    made_by(stranger)
    assert [image["id"] for image in api.get("/api/images/").json()["results"]] == [str(own.pk)]
    assert api.get(f"/api/images/{own.pk}").status_code == 200
    answer = anonymous.get("/api/images/")
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


def test_staff_see_all_and_change_what_they_are_permitted_to(host: FakeProvider, staff: User, stranger: User) -> None:
    image, client = made_by(stranger), client_for(staff)
    assert client.get("/api/images/").json()["count"] == 1
    assert client.delete(f"/api/images/{image.pk}").status_code == 403
    grant(staff, "delete_generatedimage")
    assert client.delete(f"/api/images/{image.pk}").status_code == 200


def test_a_trusted_network_needs_no_permission(host: FakeProvider, anonymous: APIClient, settings: Settings) -> None:
    settings.IMAGES |= {"TRUSTED_NETWORKS": "10.0.0.0/8"}
    made = anonymous.post(URL, BODY, format="json", REMOTE_ADDR="10.1.2.3")
    assert made.status_code == 200
    assert anonymous.delete(f"/api/images/{made.json()['id']}", REMOTE_ADDR="10.1.2.3").status_code == 200


def test_a_user_model_without_permissions_has_none() -> None:
    journalist = SimpleNamespace(is_authenticated=True)
    asks = [SimpleNamespace(user=journalist, method=method) for method in ("GET", "POST", "DELETE")]
    assert [ImagePermissions().has_permission(ask, None) for ask in asks] == [True, False, False]  # type: ignore[arg-type]


def test_the_projects_own_permission_classes_replace_ours(
    host: FakeProvider, anonymous: APIClient, settings: Settings
) -> None:
    settings.IMAGES |= {"PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"]}
    made = anonymous.post(URL, BODY, format="json")
    assert made.status_code == 200
    # Without an account, what belongs to no account is not one's own.
    assert anonymous.get("/api/images/").json()["count"] == 0
    assert anonymous.delete(f"/api/images/{made.json()['id']}").status_code == 404


def test_a_permission_class_may_judge_single_images(
    host: FakeProvider, api: APIClient, user: User, settings: Settings
) -> None:
    settings.IMAGES |= {"PERMISSION_CLASSES": "tests.api.test_permissions.NotTheirs"}
    image = made_by(user)
    assert api.get(f"/api/images/{image.pk}").status_code == 403
    assert api.delete(f"/api/images/{image.pk}").status_code == 403
    assert GeneratedImage.objects.filter(pk=image.pk).exists()


def test_the_projects_own_authentication_classes_replace_ours(
    host: FakeProvider, anonymous: APIClient, api: APIClient, user: User, settings: Settings
) -> None:
    grant(user, "add_generatedimage")
    settings.IMAGES |= {"AUTHENTICATION_CLASSES": ["rest_framework.authentication.BasicAuthentication"]}
    assert api.post(URL, BODY, format="json").status_code == 401
    credentials = b64encode(b"ann:ann-password").decode()
    answer = anonymous.post(URL, BODY, format="json", headers={"authorization": f"Basic {credentials}"})
    assert answer.status_code == 200
    assert GeneratedImage.objects.get().owner == user


def test_this_project_lets_every_authenticated_caller_generate_and_delete(
    fake_provider: FakeProvider, api: APIClient
) -> None:
    made = api.post(URL, BODY, format="json")
    assert made.status_code == 200
    assert api.delete(f"/api/images/{made.json()['id']}").status_code == 200
