"""Django's storage seam, shown with an S3-compatible server: the app knows nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from django.test import Client
from pytest_django.fixtures import Settings
from rest_framework.test import APIClient

from images.models import GeneratedImage
from images.services import delete_image, generate_image
from images.services.importing import import_images
from images.services.reconciliation import Kind, reconcile
from images.storage import PROBE
from tests.fakes.providers import FakeProvider, png
from tests.storage_s3.server import BUCKET, S3Server
from trygo_backend.environment import Environment
from trygo_backend.scaling import file_storage

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with closing(S3Server(tmp_path_factory.mktemp("s3"))) as server:
        server.client().create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture(autouse=True)
def bucket(server: S3Server, settings: Settings, monkeypatch: pytest.MonkeyPatch, fake_provider: FakeProvider) -> Any:
    """The project's own configuration for a bucket, from the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    variables = {"S3_BUCKET": BUCKET, "S3_ENDPOINT_URL": server.url, "S3_REGION": "us-east-1"}
    settings.STORAGES = {**settings.STORAGES, "default": file_storage(Environment(variables))}
    client = server.client()
    yield client
    for name in names(client):
        client.delete_object(Bucket=BUCKET, Key=name)


def names(bucket: Any) -> list[str]:
    keys = [entry["Key"] for entry in bucket.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    return [key for key in keys if key != PROBE]


def path_of(image: GeneratedImage) -> str:
    return image.public_url().removeprefix("https://pics.example")


def test_a_picture_is_stored_with_its_type_and_its_address_is_ours(api: APIClient, bucket: Any) -> None:
    answer = api.post("/api/images/generate", {"contentItemId": "item-1", "title": "A title"}, format="json")
    assert answer.status_code == 200
    [name] = names(bucket)
    assert answer.json()["imageUrl"] == f"https://pics.example/media/{name}"
    assert bucket.head_object(Bucket=BUCKET, Key=name)["ContentType"] == "image/png"


def test_is_streamed_with_types_conditions_and_ranges(client: Client) -> None:
    path = path_of(generate_image(**WANTED))
    answer = client.get(path)
    assert (answer.status_code, b"".join(answer), answer["Content-Type"]) == (200, png(), "image/png")
    assert client.get(path, headers={"If-None-Match": answer["ETag"]}).status_code == 304
    part = client.get(path, headers={"Range": "bytes=1-3"})
    assert (part.status_code, b"".join(part)) == (206, b"PNG")
    assert client.head(path)["Content-Length"] == str(len(png()))
    assert client.get("/media/draft-images/item-1/none.png").status_code == 404


def test_is_fetched_from_a_signed_short_lived_address_where_that_is_wanted(
    client: Client, settings: Settings
) -> None:
    path = path_of(generate_image(**WANTED))
    settings.IMAGES |= {"MEDIA_DELIVERY": "redirect"}
    answer = client.get(path)
    assert (answer.status_code, answer["Cache-Control"]) == (302, "no-store")
    assert "X-Amz-Signature=" in answer["Location"]
    assert "X-Amz-Expires=300" in answer["Location"]
    fetched = requests.get(answer["Location"], timeout=30)
    assert (fetched.content, fetched.headers["Content-Type"]) == (png(), "image/png")
    assert client.head(path)["Content-Length"] == str(len(png()))  # the address is signed for GET alone
    assert client.get("/media/draft-images/item-1/none.png").status_code == 404


def test_the_address_in_the_answer_never_expires(client: Client, settings: Settings) -> None:
    settings.IMAGES |= {"MEDIA_DELIVERY": "redirect"}
    image = generate_image(**WANTED)
    assert "X-Amz" not in image.public_url()
    first, second = client.get(path_of(image))["Location"], client.get(path_of(image))["Location"]
    assert requests.get(first, timeout=30).content == requests.get(second, timeout=30).content == png()


@pytest.mark.parametrize("delivery", ["stream", "redirect", "accel"])
def test_a_deleted_picture_is_gone_at_once(client: Client, settings: Settings, bucket: Any, delivery: str) -> None:
    settings.IMAGES |= {"MEDIA_DELIVERY": delivery}
    image = generate_image(**WANTED)
    path = path_of(image)
    assert client.get(path).status_code in {200, 302}
    delete_image(image=image)
    assert names(bucket) == []
    assert client.get(path).status_code == 404


def test_reconciliation_finds_what_is_missing_and_what_belongs_to_nobody(bucket: Any) -> None:
    kept, lost = generate_image(**WANTED), generate_image(**WANTED)
    bucket.delete_object(Bucket=BUCKET, Key=lost.file_name)
    bucket.put_object(Bucket=BUCKET, Key="draft-images/item-2/hero-1763049170351.png", Body=png(32, 18))
    bucket.put_object(Bucket=BUCKET, Key="other-app/file.txt", Body=b"none of ours")
    found = {discrepancy.kind: discrepancy.mended for discrepancy in reconcile(apply=True, verify=True)}
    assert found == {Kind.MISSING: True, Kind.ORPHAN: True}
    lost.refresh_from_db()
    adopted = GeneratedImage.objects.get(content_item_id="item-2")
    assert (kept.status, lost.status, adopted.width) == ("ready", "failed", 32)
    assert "other-app/file.txt" in names(bucket)


def test_the_old_services_folder_is_imported_into_it(tmp_path: Path, bucket: Any, client: Client) -> None:
    old = tmp_path / "old" / "draft-images" / "item-3"
    old.mkdir(parents=True)
    (old / "hero-1763049170351.png").write_bytes(png())
    assert [done.outcome for done in import_images(directory=tmp_path / "old")] == ["imported"]
    assert names(bucket) == ["draft-images/item-3/hero-1763049170351.png"]
    assert b"".join(client.get("/media/draft-images/item-3/hero-1763049170351.png")) == png()


def test_a_server_that_is_gone_is_a_clear_error_and_tells_nothing_of_itself(
    client: Client, api: APIClient, settings: Settings
) -> None:
    image = generate_image(**WANTED)
    options = {**settings.STORAGES["default"]["OPTIONS"], "endpoint_url": "http://127.0.0.1:9"}
    settings.STORAGES = {**settings.STORAGES, "default": {**settings.STORAGES["default"], "OPTIONS": options}}
    assert client.get(path_of(image)).status_code == 503
    answer = api.post("/api/images/generate", {"contentItemId": "item-1", "title": "A title"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (500, "storage_error")
    assert BUCKET not in answer.text
