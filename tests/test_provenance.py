"""Where pictures come from: what rows and the API say of it, and that the vendor's bytes and marks stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from images.image_formats import NotAnImage, inspect_image
from images.models import GeneratedImage
from images.services import generate_image
from images.services.importing import import_images
from images.services.reconciliation import reconcile
from tests.fakes.pictures import manifest_store, picture, signed
from tests.fakes.providers import FakeProvider, RedSquare

AI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
FORMATS = ["png", "jpeg", "webp"]


class StockPhotos(RedSquare):
    """A provider of a host's own that asks no model."""

    source_type = "digitalCapture"


def has_manifest(data: bytes) -> bool:
    return inspect_image(data, max_bytes=len(data), max_pixels=10**9).content_credentials


def said(api: APIClient, image: GeneratedImage) -> tuple[Any, Any, Any]:
    """What the API says of an image."""
    body = api.get(f"/api/images/{image.pk}").json()
    return body["aiGenerated"], body["digitalSourceType"], body["contentCredentials"]


# --- manifests in bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [500, 150_000])
def test_a_manifest_is_found_where_its_format_has_it(kind: str, size: int) -> None:
    plain = picture(kind, 32, 18)
    assert not has_manifest(plain)
    assert has_manifest(signed(plain, manifest_store(signature_size=size)))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "other",
    [manifest_store("jpx4", "a 360° view"), b"", b"c2pa", b"\0\0\0\x10jumb", b"\0" * 40, b"see c2pa.org: jumb jumd"],
    ids=["other JUMBF", "empty", "short", "cut off", "zeros", "words"],
)
def test_what_only_lies_in_its_place_is_no_manifest(kind: str, other: bytes) -> None:
    assert not has_manifest(signed(picture(kind, 32, 18), other))


@pytest.mark.parametrize("kind", FORMATS)
def test_bytes_after_the_picture_are_not_looked_at(kind: str) -> None:
    assert not has_manifest(picture(kind, 32, 18) + manifest_store())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_that_is_cut_off_in_its_manifest_is_refused(kind: str) -> None:
    whole = signed(picture(kind, 32, 18))
    end = whole.index(b"c2pa.signature") + 400
    with pytest.raises(NotAnImage):
        has_manifest(whole[:end])


# --- what a generated image says --------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("kind", FORMATS)
def test_a_signed_picture_is_served_as_the_vendor_signed_it(
    api: APIClient, user: Any, fake_provider: FakeProvider, kind: str
) -> None:
    data = signed(picture(kind, 32, 18))
    fake_provider.will(data)
    image = generate_image(content_item_id="1", title="A harbour", user=user)
    assert b"".join(Client().get(image.get_absolute_url())) == data
    assert said(api, image) == (True, AI, True)
    assert (image.ai_generated, image.digital_source_type, image.content_credentials) == (True, AI, True)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("images.providers.placeholder.PlaceholderProvider", (False, AI.replace("trainedA", "a"), False)),
        (f"{__name__}.StockPhotos", (False, AI.replace("trainedAlgorithmicMedia", "digitalCapture"), False)),
        ("tests.fakes.providers.RedSquare", (True, AI, False)),
    ],
)
def test_a_provider_says_where_its_pictures_come_from(
    api: APIClient, user: Any, settings: Settings, backend: str, expected: tuple[Any, Any, Any]
) -> None:
    settings.IMAGES = {**settings.IMAGES, "PROVIDER": "mine", "PROVIDERS": {"mine": backend}}
    image = generate_image(content_item_id="1", title="A harbour", user=user)
    assert said(api, image) == expected


@pytest.mark.django_db
def test_without_a_picture_nothing_is_said(api: APIClient, user: Any) -> None:
    for status in ("pending", "failed"):
        image = GeneratedImage.objects.create(owner=user, status=status, file_stem=status, provider="openai")
        assert said(api, image) == (None, None, None)


@pytest.mark.django_db
@pytest.mark.parametrize(("provider", "ai"), [("openai", True), ("placeholder", False), ("", None)])
def test_a_row_of_an_earlier_release_tells_by_its_provider(provider: str, ai: bool | None) -> None:
    image = GeneratedImage(status="ready", file="draft-images/1/hero-1763049170351.png", provider=provider)
    assert (image.ai_generated, bool(image.digital_source_type)) == (ai, ai is not None)


# --- files that nobody saw being made ---------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("adopt", ["import", "reconcile"])
@pytest.mark.parametrize(
    ("name", "ai"),
    [("hero-1763049170351.png", True), ("inline-1763049170351-0123456789ab.png", True), ("holiday.png", None)],
)
def test_an_adopted_picture_is_ai_only_if_its_name_says_that_it_was_made_here(
    media_root: Path, adopt: str, name: str, ai: bool | None
) -> None:
    file = media_root / "draft-images" / "1" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(signed(picture("png", 32, 18)))
    list(import_images(directory=media_root) if adopt == "import" else reconcile(apply=True))
    image = GeneratedImage.objects.get()
    assert (image.ai_generated, image.digital_source_type) == (ai, AI if ai else "")
    assert image.content_credentials


@pytest.mark.django_db
def test_reconciliation_that_reads_every_file_looks_for_manifests_too(fake_provider: FakeProvider) -> None:
    fake_provider.will(signed(picture("png", 32, 18)))
    image = generate_image(content_item_id="1", title="A harbour")
    GeneratedImage.objects.update(content_credentials=None, source_type="")  # as an earlier release left it
    assert list(reconcile(verify=True)) == []
    image.refresh_from_db()
    assert image.content_credentials is None  # a dry run changes nothing
    assert list(reconcile(verify=True, apply=True)) == []
    image.refresh_from_db()
    assert image.content_credentials is True
