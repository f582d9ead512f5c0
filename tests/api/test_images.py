"""List, retrieve and delete; and whose images one gets to see."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import get_script_prefix, reverse, set_script_prefix
from django.utils import timezone
from rest_framework.test import APIClient

from images.models import GeneratedImage, absolute_url
from images.services import generate_image
from tests.conftest import client_for
from tests.fakes.providers import FakeProvider

pytestmark = pytest.mark.django_db


def make(user: User | None = None, **wanted: Any) -> GeneratedImage:
    return generate_image(**{"content_item_id": "item-1", "title": "A title", "user": user, **wanted})


def path_of(image: GeneratedImage) -> str:
    return image.get_absolute_url()


class TestList:
    def test_shows_the_newest_first_page_by_page(
        self, api: APIClient, user: User, fake_provider: FakeProvider
    ) -> None:
        made = [make(user, title=f"Title {number}") for number in range(5)]
        first = api.get("/api/images/?pageSize=3").json()
        second = api.get(first["next"].removeprefix("https://pics.example")).json()
        assert first["count"] == 5
        assert first["previous"] is None
        assert second["previous"] == "https://pics.example/api/images/?pageSize=3"
        listed = [row["id"] for row in first["results"] + second["results"]]
        assert listed == [str(image.pk) for image in reversed(made)]

    @pytest.mark.parametrize(
        ("query", "titles"),
        [
            ("contentItemId=item-2", {"two"}),
            ("variant=inline", {"three"}),
            ("status=failed", {"four"}),
            ("status=ready&contentItemId=item-1", {"one", "three"}),
        ],
    )
    def test_is_filtered(
        self, api: APIClient, user: User, fake_provider: FakeProvider, query: str, titles: set[str]
    ) -> None:
        make(user, title="one")
        make(user, title="two", content_item_id="item-2")
        make(user, title="three", variant="inline")
        GeneratedImage.objects.create(
            owner=user, content_item_id="item-1", title="four", status="failed", file_stem="f"
        )
        assert {row["title"] for row in api.get(f"/api/images/?{query}").json()["results"]} == titles

    @pytest.mark.parametrize("query", ["variant=poster", "status=lost", "contentItemId=%00"])
    def test_refuses_a_filter_that_means_nothing(self, api: APIClient, query: str) -> None:
        answer = api.get(f"/api/images/?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")

    def test_a_page_that_is_not_there_is_a_404(self, api: APIClient) -> None:
        assert api.get("/api/images/?page=7").json()["code"] == "not_found"

    def test_costs_three_queries_however_many_images(
        self, api: APIClient, user: User, fake_provider: FakeProvider, django_assert_num_queries: Any
    ) -> None:
        for _ in range(4):
            make(user)
        with django_assert_num_queries(4):  # the token, all, those being deleted, the page
            api.get("/api/images/")

    def test_a_pending_row_whose_deadline_is_long_past_is_shown_as_failed(self, api: APIClient, user: User) -> None:
        long_ago = timezone.now() - timedelta(hours=1)
        GeneratedImage.objects.create(
            owner=user, content_item_id="x", title="x", file_stem="s", started_at=long_ago, deadline_at=long_ago
        )
        [row] = api.get("/api/images/?status=failed").json()["results"]
        assert (row["status"], row["error"]["code"]) == ("failed", "internal_error")
        assert api.get("/api/images/?status=pending").json()["results"] == []


class TestOwnership:
    def test_a_user_sees_only_their_own_and_staff_see_all(
        self, api: APIClient, user: User, stranger: User, staff: User, fake_provider: FakeProvider
    ) -> None:
        mine, theirs, nobodys = make(user), make(stranger), make()
        assert [row["id"] for row in api.get("/api/images/").json()["results"]] == [str(mine.pk)]
        assert api.get(f"/api/images/{theirs.pk}").status_code == 404
        assert api.delete(f"/api/images/{theirs.pk}").status_code == 404
        seen = {row["id"] for row in client_for(staff).get("/api/images/").json()["results"]}
        assert seen == {str(mine.pk), str(theirs.pk), str(nobodys.pk)}

    def test_the_picture_of_somebody_else_survives_the_attempt(
        self, api: APIClient, stranger: User, fake_provider: FakeProvider
    ) -> None:
        image = make(stranger)
        api.delete(f"/api/images/item-1/{Path(image.file_name).name}")
        assert api.get(path_of(image)).status_code == 200

    def test_deleting_a_user_leaves_the_published_pictures(
        self, api: APIClient, stranger: User, fake_provider: FakeProvider
    ) -> None:
        image = make(stranger)
        stranger.delete()
        image.refresh_from_db()
        assert image.owner is None
        assert api.get(path_of(image)).status_code == 200


class TestAltText:
    @pytest.mark.parametrize(
        ("sent", "kept"),
        [("  Boats in\n the mist ", "Boats in the mist"), ("", ""), (None, None), ("é" * 250, "é" * 250)],
    )
    def test_a_person_describes_the_picture_or_marks_it_as_decorative(
        self, api: APIClient, user: User, fake_provider: FakeProvider, sent: Any, kept: Any
    ) -> None:
        image = make(user)
        assert api.get(f"/api/images/{image.pk}").json()["altText"] is None
        answer = api.patch(f"/api/images/{image.pk}", {"altText": sent}, format="json")
        assert (answer.status_code, answer.json()["altText"]) == (200, kept)
        assert api.get(f"/api/images/item-1/{Path(image.file_name).name}").json()["altText"] == kept
        assert GeneratedImage.objects.get().alt_text == kept

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"altText": "x" * 251}, "altText"),
            ({"altText": "a\x00b"}, "altText"),
            ({}, "altText"),
            ({"altText": "Boats", "title": "Other"}, "title"),
            (["altText"], "nonFieldErrors"),
        ],
    )
    def test_nothing_else_can_be_changed_and_what_is_wrong_is_named(
        self, api: APIClient, user: User, fake_provider: FakeProvider, body: Any, field: str
    ) -> None:
        image = make(user)
        answer = api.patch(f"/api/images/{image.pk}", body, format="json")
        assert (answer.status_code, list(answer.json()["details"])) == (400, [field])
        assert GeneratedImage.objects.get().alt_text is None

    def test_it_is_for_owners_and_staff(
        self, api: APIClient, stranger: User, staff: User, fake_provider: FakeProvider
    ) -> None:
        path, body = f"/api/images/{make(stranger).pk}", {"altText": "Boats"}
        assert api.patch(path, body, format="json").status_code == 404
        assert client_for(staff).patch(path, body, format="json").json()["altText"] == "Boats"

    def test_the_browsable_api_has_a_form_for_it(
        self, anonymous: APIClient, user: User, fake_provider: FakeProvider
    ) -> None:
        image = make(user)
        anonymous.force_login(user)
        page = anonymous.get(f"/api/images/{image.pk}", headers={"accept": "text/html"}).content.decode()
        assert 'data-method="PATCH"' in page
        assert "&quot;altText&quot;: null" in page


class TestDelete:
    def test_by_uuid(self, api: APIClient, user: User, fake_provider: FakeProvider, media_root: Path) -> None:
        image = make(user)
        answer = api.delete(f"/api/images/{image.pk}")
        assert answer.status_code == 200
        assert answer.json() == {"success": True, "id": str(image.pk)}
        assert api.get(path_of(image)).status_code == 404
        assert not [path for path in media_root.rglob("*") if path.is_file()]
        assert api.delete(f"/api/images/{image.pk}").status_code == 404

    @pytest.mark.parametrize("separator", ["/", "%2F"])
    @pytest.mark.parametrize("item", ["item-1", "../up", "an id with spaces", "a/b"])
    def test_by_the_old_form(
        self, api: APIClient, user: User, fake_provider: FakeProvider, separator: str, item: str
    ) -> None:
        image = make(user, content_item_id=item)
        file_name = Path(image.file_name).name
        answer = api.delete(f"/api/images/{item}{separator}{file_name}")
        assert answer.status_code == 200, answer.data
        assert answer.json() == {"success": True, "id": f"{item}/{file_name}"}
        assert api.get(path_of(image)).status_code == 404
        assert api.delete(f"/api/images/{item}{separator}{file_name}").status_code == 404

    def test_by_the_directory_in_the_pictures_address(
        self, api: APIClient, user: User, fake_provider: FakeProvider
    ) -> None:
        image = make(user, content_item_id="Статья")
        assert api.delete(f"/api/images/{image.file_name.removeprefix('draft-images/')}").status_code == 200

    @pytest.mark.parametrize(
        "asked", ["nonsense", "item-1/hero-1.png", "../../x", "%00", "a/%00", "item-1/", "x" * 5000]
    )
    def test_what_is_not_there_is_a_404(self, api: APIClient, asked: str) -> None:
        answer = api.delete(f"/api/images/{asked}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    def test_a_deletion_that_was_cut_off_is_finished_by_the_next(
        self, api: APIClient, user: User, fake_provider: FakeProvider
    ) -> None:
        image = make(user)
        GeneratedImage.objects.update(status="deleting")
        assert api.get(f"/api/images/{image.pk}").status_code == 404
        assert api.get("/api/images/").json()["count"] == 0
        assert api.delete(f"/api/images/{image.pk}").status_code == 200
        assert not GeneratedImage.objects.exists()

    def test_a_failed_image_can_be_deleted(self, api: APIClient, user: User, fake_provider: FakeProvider) -> None:
        fake_provider.will(KeyError())
        with pytest.raises(KeyError):
            make(user)
        assert api.delete(f"/api/images/{GeneratedImage.objects.get().pk}").status_code == 200


def test_unknown_paths_and_methods_get_the_error_body(api: APIClient) -> None:
    for method, url, status, code in [
        ("get", "/api/images/nothing/here/at/all", 404, "not_found"),
        ("put", "/api/images/", 405, "method_not_allowed"),
        ("get", "/api/images/generate", 405, "method_not_allowed"),
        ("post", "/api/images/0a0a", 405, "method_not_allowed"),
    ]:
        answer = getattr(api, method)(url)
        body = answer.json()
        assert (answer.status_code, body["code"]) == (status, code), url
        assert set(body) == {"error", "code", "retryable", "timestamp", "details"}


def test_any_accept_header_is_answered_in_json(api: APIClient) -> None:
    assert api.get("/api/images/", headers={"accept": "image/png"}).json()["count"] == 0


def test_the_browsable_api_is_shown_to_a_browser(
    anonymous: APIClient, user: User, fake_provider: FakeProvider
) -> None:
    make(user)
    anonymous.force_login(user)
    page = anonymous.get("/api/images/", headers={"accept": "text/html"})
    assert page.status_code == 200
    assert "text/html" in page["Content-Type"]
    assert "https://pics.example/media/draft-images/item-1/" in page.content.decode()


@pytest.mark.parametrize(
    ("public", "script", "address"),
    [
        ("https://x.example", "/", "https://x.example/api/images/"),
        ("https://x.example/pics", "/", "https://x.example/pics/api/images/"),
        ("https://x.example/pics", "/pics/", "https://x.example/pics/api/images/"),
        ("https://x.example/api", "/", "https://x.example/api/api/images/"),
        ("https://x.example/api", "/api/", "https://x.example/api/api/images/"),
    ],
)
def test_addresses_have_the_path_of_public_url_once_beside_their_own(
    settings: Any, public: str, script: str, address: str
) -> None:
    settings.IMAGES = {"PUBLIC_URL": public}
    before = get_script_prefix()
    set_script_prefix(script)
    try:
        assert absolute_url(reverse("images:image-list")) == address
    finally:
        set_script_prefix(before)
