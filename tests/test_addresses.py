"""The address of an image's file, however it is asked for, and how it is served under ASGI."""

from __future__ import annotations

import asyncio
import sys
import types
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.core.files.base import ContentFile
from django.core.management import call_command
from django.test import AsyncClient
from pytest_django import Settings

from images.models import GeneratedImage, image_storage
from tests.fakes.storages import IN_MEMORY, use_storage

NAME = "draft-images/item/hero-1763049170351.png"
#: More than two blocks.
DATA = bytes(range(256)) * 600


@pytest.fixture
def image() -> GeneratedImage:
    """A ready image, which is in no database."""
    return GeneratedImage(status="ready", file=NAME)


@pytest.fixture
def no_urls(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project that does not include the app's URLs."""
    module = types.ModuleType("no_urls")
    module.urlpatterns = []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "no_urls", module)
    settings.ROOT_URLCONF = "no_urls"


@pytest.mark.parametrize(
    ("public_url", "address"),
    [("", f"/media/{NAME}"), ("https://pics.example", f"https://pics.example/media/{NAME}")],
)
def test_the_files_own_address_is_that_of_the_picture(
    image: GeneratedImage, settings: Settings, public_url: str, address: str
) -> None:
    settings.MEDIA_URL = "/uploads/"
    settings.IMAGES = {"PUBLIC_URL": public_url}
    assert image.file.url == image.public_url() == address


def test_without_a_file_there_is_no_address() -> None:
    with pytest.raises(ValueError, match="no file"):
        _ = GeneratedImage().file.url
    assert GeneratedImage().public_url() == ""


def test_without_the_apps_urls_it_is_the_storages_address(
    image: GeneratedImage, settings: Settings, no_urls: None
) -> None:
    settings.IMAGES = {}
    settings.MEDIA_URL = "https://cdn.example/uploads/"
    assert image.file.url == image.public_url() == f"https://cdn.example/uploads/{NAME}"
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": "django.core.files.storage.Storage"}}
    assert image.public_url() == ""
    with pytest.raises(ValueError, match="nothing serves it"):
        _ = image.file.url


@pytest.mark.django_db
def test_the_field_needs_no_migration() -> None:
    call_command("makemigrations", "images", check=True, dry_run=True, verbosity=0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("storage", ["folder", "memory"])
def test_under_asgi_pictures_are_streamed_in_blocks(settings: Settings, storage: str) -> None:
    if storage == "memory":
        use_storage(settings, IN_MEMORY)
    asyncio.run(_fetch(f"/media/{image_storage().save(NAME, ContentFile(DATA))}"))


async def _fetch(path: str) -> None:
    response: Any = await AsyncClient().get(path)
    assert b"".join([block async for block in response]) == DATA
    response.close()
    scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost")], "query_string": b""}
    server: Any = ApplicationCommunicator(get_asgi_application(), scope)  # type: ignore[no-untyped-call]
    await server.send_input({"type": "http.request", "body": b""})
    assert (await server.receive_output(5))["status"] == 200
    blocks = []
    while (message := await server.receive_output(5)).get("more_body"):
        blocks.append(message["body"])
    assert b"".join(blocks) == DATA
    assert len(blocks) == 3
    await server.wait()
