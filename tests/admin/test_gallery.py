"""The gallery, and its previews: small, for the admin alone, and safe whatever is on the disk."""

from __future__ import annotations

import io
import struct
import sys
import uuid
import zlib
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.test import Client
from django.urls import reverse
from PIL import Image
from pytest_django import Settings

from images.admin import gallery
from images.exceptions import ProviderTimeout
from images.models import GeneratedImage, Status, image_storage
from images.services import generate_image
from tests.fakes.providers import FakeProvider, png

pytestmark = pytest.mark.django_db

GALLERY = reverse("admin:images_generatedimage_gallery")


def stored(data: bytes, extension: str = "png") -> GeneratedImage:
    """A ready image with this file, whatever it is."""
    stem = f"draft-images/item/hero-{uuid.uuid4().hex}"
    image = GeneratedImage(
        content_item_id="item", title="A title", status=Status.READY, file_stem=stem, sha256="ab" * 32
    )
    image.file.name = image_storage().save(f"{stem}.{extension}", ContentFile(data))
    image.save(force_insert=True)
    return image


def address(image: GeneratedImage) -> str:
    return reverse("admin:images_generatedimage_preview", args=[image.pk])


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (1536, 1024)) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind)
    return out.getvalue()


def declared(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is this large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    small = png()
    return small[:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + small[33:]


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "I;16"), ("JPEG", "RGB"), ("JPEG", "CMYK"),
     ("WEBP", "RGBA")],
)  # fmt: skip
def test_a_preview_is_a_small_jpeg(admin_client: Client, kind: str, mode: str) -> None:
    response = admin_client.get(address(stored(encoded(kind, mode))))
    assert (response.status_code, response["Content-Type"]) == (200, "image/jpeg")
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Content-Security-Policy"] == "default-src 'none'"
    assert response["Cache-Control"] == "private, max-age=3600"
    with Image.open(io.BytesIO(response.content)) as preview:
        assert (preview.format, preview.size) == ("JPEG", (240, 160))


def test_a_preview_that_the_browser_has_is_not_made_again(admin_client: Client) -> None:
    image = stored(png())
    etag = admin_client.get(address(image))["ETag"]
    image_storage().delete(str(image.file.name))  # so that making it again would fail
    response = admin_client.get(address(image), headers={"If-None-Match": etag})
    assert (response.status_code, response.content) == (304, b"")


def test_previews_need_a_user_who_may_view_images(client: Client) -> None:
    response = client.get(address(stored(png())))
    assert response.status_code == 302
    assert response["Location"].startswith(reverse("admin:login"))


def test_previews_are_only_read(admin_client: Client) -> None:
    url = address(stored(png()))
    assert admin_client.head(url).status_code == 200
    assert admin_client.post(url).status_code == 405


def test_there_is_no_preview_of_what_does_not_exist(admin_client: Client) -> None:
    gone, failed = stored(png()), stored(png())
    image_storage().delete(str(gone.file.name))
    GeneratedImage.objects.filter(pk=failed.pk).update(status=Status.FAILED)
    unknown = reverse("admin:images_generatedimage_preview", args=[uuid.uuid4()])
    for url in (address(gone), address(failed), unknown):
        assert admin_client.get(url).status_code == 404


@pytest.mark.parametrize(
    "data",
    [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", png()[:45], encoded("JPEG")[:400], encoded("WEBP")[:60],
     encoded("GIF", "P"), encoded("TIFF"), declared(100_000, 100_000), declared(2**31 - 1, 2**31 - 1)],
    ids=["empty", "svg", "cut png", "cut jpeg", "cut webp", "gif", "tiff", "huge", "largest"],
)  # fmt: skip
def test_a_broken_file_or_a_decompression_bomb_has_no_preview(admin_client: Client, data: bytes) -> None:
    assert admin_client.get(address(stored(data))).status_code == 404


def test_an_image_above_the_limit_on_pixels_has_no_preview(admin_client: Client, settings: Settings) -> None:
    settings.IMAGES = {"MAX_IMAGE_PIXELS": 16 * 9 - 1}
    assert admin_client.get(address(stored(png(16, 9)))).status_code == 404


def test_an_image_that_is_costly_to_decode_is_shown_as_it_is(admin_client: Client) -> None:
    image = stored(declared(5000, 4001))
    response = admin_client.get(address(image))
    assert (response.status_code, response["Location"]) == (302, image.get_absolute_url())


def test_without_pillow_the_picture_itself_is_shown(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    image = stored(png())
    response = admin_client.get(address(image))
    assert (response.status_code, response["Location"]) == (302, image.get_absolute_url())


def test_no_more_than_two_are_made_at_once(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "PATIENCE", 0)
    url = address(stored(png()))
    with gallery._turns, gallery._turns:
        busy = admin_client.get(url)
    assert (busy.status_code, busy.has_header("Retry-After"), busy.has_header("ETag")) == (503, True, False)
    for _ in range(3):  # every turn was given back
        assert admin_client.get(url).status_code == 200


def test_turns_are_given_back_after_failures(admin_client: Client, media_root: Path) -> None:
    url = address(stored(b"broken"))
    assert [admin_client.get(url).status_code for _ in range(3)] == [404] * 3


def test_the_gallery_keeps_search_filters_and_actions(
    admin_client: Client, user: User, fake_provider: FakeProvider
) -> None:
    image = generate_image(content_item_id="item", title="A title", user=user)
    fake_provider.will(ProviderTimeout())
    with pytest.raises(ProviderTimeout):
        generate_image(content_item_id="item", title="<b>Another</b>")
    page = admin_client.get(GALLERY, {"content_item_id": "item"})
    assert [tile.image.title for tile in page.context["cl"].tiles] == ["<b>Another</b>", "A title"]
    assert "no answer in time" in page.text
    assert "<b>Another" not in page.text
    assert page.text.count("/preview/") == 1
    assert admin_client.get(GALLERY, {"content_item_id": "other"}).context["cl"].tiles == []
    chosen = {"action": "delete_selected", "_selected_action": [str(image.pk)], "post": "yes"}
    filtered = f"{GALLERY}?content_item_id=item"
    assert admin_client.post(filtered, chosen)["Location"] == filtered
    assert not GeneratedImage.objects.filter(pk=image.pk).exists()
