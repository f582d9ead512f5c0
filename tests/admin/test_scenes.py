"""Making an image again with the same scene, or with a new one."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings

from images.models import GeneratedImage
from images.providers import Deadline
from images.services import generate_image
from images.services.scenes import Scene, SceneBrief
from tests.fakes.background import finish_background
from tests.fakes.providers import FakeProvider

# The images are made by threads, which see what is committed.
pytestmark = pytest.mark.django_db(transaction=True)

_number = count(1)


class Counting:
    """Each scene is another one."""

    bills = False

    def write(self, *, brief: SceneBrief, deadline: Deadline) -> Scene:
        return Scene(text=f"Scene number {next(_number)}", alt_text="Boats")


@pytest.fixture
def image(fake_provider: FakeProvider, settings: Settings) -> GeneratedImage:
    settings.IMAGES = {**settings.IMAGES, "SCENE_WRITER": f"{__name__}.Counting"}
    return generate_image(content_item_id="item", title="A title", context="For children.")


def again(client: Client, image: GeneratedImage, **chosen: str) -> GeneratedImage:
    """Open the page that asks, say yes, and return what was made."""
    address = f"{reverse('admin:images_generatedimage_again')}?ids={image.pk}"
    page = client.get(address).text
    assert 'value="same"' in page
    fields: Any = dict(re.findall(r'type="hidden" name="(?!csrf)(\w+)" value="([^"]*)"', page))
    client.post(address, {**fields, **chosen})
    finish_background()
    return GeneratedImage.objects.exclude(pk=image.pk).get()


def test_the_same_scene(admin_client: Client, image: GeneratedImage) -> None:
    made = again(admin_client, image, scene="same")
    assert (made.scene, made.seed, made.prompt) == (image.scene, image.seed, image.prompt)
    assert made.context == "For children."


def test_a_new_scene(admin_client: Client, image: GeneratedImage) -> None:
    made = again(admin_client, image, scene="new")
    assert made.scene.startswith("Scene number")
    assert made.scene != image.scene
    assert made.seed != image.seed


def test_without_scenes_nothing_is_asked_about_them(
    admin_client: Client, image: GeneratedImage, settings: Settings
) -> None:
    settings.IMAGES = {name: value for name, value in settings.IMAGES.items() if name != "SCENE_WRITER"}
    page = admin_client.get(f"{reverse('admin:images_generatedimage_again')}?ids={image.pk}").text
    assert 'value="same"' not in page


def test_the_form_takes_a_context_and_is_filled_in_with_that_of_the_old_image(
    admin_client: Client, image: GeneratedImage
) -> None:
    page = admin_client.get(f"{reverse('admin:images_generatedimage_add')}?like={image.pk}").text
    assert re.search(r'<textarea name="context"[^>]*>\s*For children\.</textarea>', page)
