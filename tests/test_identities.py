"""Ids, keys and file names are compared to the letter, on every database."""

from __future__ import annotations

import pytest
from django.db import connection
from rest_framework.test import APIClient

from images.models import GeneratedImage
from images.services import generate_image
from tests.fakes.providers import FakeProvider

pytestmark = pytest.mark.django_db

ALIKE = ["key-a", "Key-A", "kéy-a", "key-a.", "ke\u0301y-a"]


@pytest.mark.usefixtures("fake_provider")
def test_keys_that_look_alike_are_different_keys() -> None:
    made = {key: generate_image(content_item_id="item", title="A", idempotency_key=key).pk for key in ALIKE}
    assert len(set(made.values())) == len(ALIKE)
    again = {key: generate_image(content_item_id="item", title="A", idempotency_key=key).pk for key in ALIKE}
    assert again == made


@pytest.mark.usefixtures("fake_provider")
def test_scopes_that_look_alike_are_different_scopes() -> None:
    made = [
        generate_image(content_item_id="item", title="A", idempotency_key="key", idempotency_scope=scope).pk
        for scope in ALIKE
    ]
    assert len(set(made)) == len(ALIKE)


def test_content_items_that_look_alike_are_listed_and_deleted_apart(
    api: APIClient, fake_provider: FakeProvider
) -> None:
    addresses = {}
    for content_item in ("abc", "ABC", "äbc"):
        body = {"contentItemId": content_item, "title": "A quiet harbour"}
        addresses[content_item] = api.post("/api/images/generate", body, format="json").json()["imageUrl"]
    assert api.get("/api/images/", {"contentItemId": "ABC"}).json()["count"] == 1
    name = addresses["abc"].rpartition("/")[2]
    assert api.delete(f"/api/images/ABC/{name}").status_code == 404
    assert api.delete(f"/api/images/abc/{name}").status_code == 200
    assert set(GeneratedImage.objects.values_list("content_item_id", flat=True)) == {"ABC", "äbc"}


@pytest.mark.parametrize("lookup", ["iexact", "icontains", "istartswith", "iendswith"])
def test_a_look_up_that_ignores_case_still_does(lookup: str) -> None:
    GeneratedImage.objects.create(content_item_id="Item-A", title="A", file_stem="Item-A", file="Item-A")
    for field in ("content_item_id", "file"):
        assert GeneratedImage.objects.filter(**{f"{field}__{lookup}": "item-a"}).exists()
    assert not GeneratedImage.objects.filter(content_item_id="item-a").exists()


@pytest.mark.skipif(connection.vendor != "mysql", reason="Other databases compare to the letter by themselves.")
def test_the_columns_have_a_binary_collation_and_the_others_the_databases_own() -> None:
    with connection.cursor() as cursor:
        table = GeneratedImage._meta.db_table
        columns = connection.introspection.get_table_description(cursor, table)
    binary = {column.name for column in columns if str(column.collation or "").endswith("_bin")}
    identities = {"content_item_id", "file_stem", "file", "idempotency_scope", "idempotency_key"}
    assert identities <= binary
    assert not binary & {"title", "description", "provider"}
    assert not GeneratedImage.check(databases=["default"])
