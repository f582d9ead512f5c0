"""`images.testing`, as the tests of a host use it."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.test import Client
from PIL import Image
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings
from rest_framework.test import APIClient

from images import exceptions
from images.models import GeneratedImage, Status
from images.services import generate_image, generate_image_later
from images.testing import Outbox, allow_real_providers, fake_images, image_outbox, tiny_png
from tests.fakes.provider_server import ProviderServer

__all__ = ["image_outbox"]

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parents[1]
BY_REMOTE_STORAGE = {"BACKEND": "tests.fakes.storages.BrokenStorage"}


def generate(**arguments: Any) -> GeneratedImage:
    return generate_image(**{"content_item_id": "42", "title": "A quiet harbour", **arguments})


def subclasses(root: type[exceptions.ImagesError]) -> list[type[exceptions.ImagesError]]:
    return [root, *(kind for below in root.__subclasses__() for kind in subclasses(below))]


OURS = [kind for kind in subclasses(exceptions.ImagesError) if kind.__module__ == exceptions.__name__]


def test_an_image_is_made_recorded_and_served(image_outbox: Outbox, settings: Settings) -> None:
    settings.IMAGES = {**settings.IMAGES, "PUBLIC_URL": ""}
    image = generate(variant="inline")
    [request] = image_outbox
    assert (request.title, request.variant, request.seed) == ("A quiet harbour", "inline", image.seed)
    assert "A quiet harbour" in request.prompt
    assert (image.status, image.provider, image.width, image.height) == (Status.READY, "fake", 4, 3)
    answer = Client().get(image.public_url())
    assert (answer.status_code, answer["Content-Type"]) == (200, "image/png")
    assert answer.getvalue() == image.file.read()


@pytest.mark.parametrize(("on", "scene"), [("openai", "A scene of A quiet harbour"), ("", "")])
def test_scenes_need_no_text_model_and_are_there_only_if_the_settings_have_them(
    settings: Settings, on: str, scene: str
) -> None:
    settings.IMAGES = {**settings.IMAGES, "SCENE_PROVIDER": on, "OPENAI_API_KEY": "sk-real"}
    with fake_images() as outbox:
        image = generate()
    assert (image.scene, outbox[0].scene, bool(image.alt_text)) == (scene, scene, bool(scene))


def test_the_api_and_the_command_use_it_too(image_outbox: Outbox, api: APIClient) -> None:
    body = {"contentItemId": "42", "title": "By the API"}
    assert api.post("/api/images/generate", body, format="json").status_code == 200
    call_command("generate_image", "--content-item", "42", "--title", "By the command", stdout=io.StringIO())
    assert [request.title for request in image_outbox] == ["By the API", "By the command"]


def test_files_are_kept_apart_and_removed(settings: Settings) -> None:
    settings.STORAGES = {**settings.STORAGES, "default": BY_REMOTE_STORAGE}
    with fake_images():
        path = Path(generate().file.path)
        assert path.is_file()
    assert not path.exists()
    assert GeneratedImage._meta.get_field("file").storage is not default_storage


def test_a_repeated_key_asks_no_provider(image_outbox: Outbox) -> None:
    assert generate(idempotency_key="k") == generate(idempotency_key="k")
    assert len(image_outbox) == 1


def test_images_differ_and_a_seed_repeats_one(image_outbox: Outbox) -> None:
    images = [generate(), generate(), generate(seed=7), generate(seed=7)]
    assert len({image.sha256 for image in images}) == 3


@pytest.mark.parametrize(
    "kind", [kind for kind in subclasses(exceptions.ImagesError) if kind.__module__ == exceptions.__name__]
)
def test_it_fails_on_command_with_every_exception(kind: type[exceptions.ImagesError], image_outbox: Outbox) -> None:
    image_outbox.fail_with(kind)
    with pytest.raises(kind):
        generate()
    assert generate().status == Status.READY
    assert [image.error_code for image in GeneratedImage.objects.order_by("created_at")] == [kind.code, ""]


def test_an_instance_keeps_its_sentence_and_fails_until_further_notice(image_outbox: Outbox) -> None:
    error = exceptions.ProviderRateLimited("Come back later.", retry_after=7)
    image_outbox.fail_with(error, times=None)
    for _ in range(2):
        with pytest.raises(exceptions.ProviderRateLimited, match="Come back later") as caught:
            generate()
        assert caught.value is not error
        assert caught.value.retry_after == 7
    image_outbox.fail_with(error, times=0)
    generate()
    assert len(image_outbox) == 3  # a failure is not tried again


def test_a_configured_queue_runs_in_the_process(
    settings: Settings, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    settings.IMAGES = {**settings.IMAGES, "QUEUE": "somewhere.that.is.not.there"}
    with fake_images() as outbox, django_capture_on_commit_callbacks(execute=True):
        image = generate_image_later(content_item_id="42", title="Later")
    image.refresh_from_db()
    assert image.status == Status.READY
    assert len(outbox) == 1


def test_a_project_names_the_provider_in_its_settings(settings: Settings) -> None:
    settings.IMAGES = {"PROVIDER": "fake", "PROVIDERS": {"fake": "images.testing.FakeProvider"}}
    assert generate().width == 16


# --- a test run spends nothing by accident ------------------------------------------------------------------


def test_a_provider_with_a_key_is_not_asked_in_a_test_run(settings: Settings) -> None:
    settings.IMAGES = {"PROVIDER": "openai", "OPENAI_API_KEY": "sk-real", "OPENAI_BASE_URL": "https://vendor.invalid"}
    with pytest.raises(exceptions.RealProviderError, match=r"'openai'.*fake_images\(\)"):
        generate()
    assert "sk-real" not in str(GeneratedImage.objects.get().__dict__)


def test_a_test_may_ask_real_providers_if_it_says_so(settings: Settings) -> None:
    settings.IMAGES = {"PROVIDER": "openai", "OPENAI_API_KEY": "sk-real", "OPENAI_BASE_URL": "https://vendor.invalid"}
    settings.IMAGES["DEADLINE"] = 2
    with allow_real_providers(), pytest.raises(exceptions.ProviderFailure):
        generate()


def test_a_scripted_server_on_the_loopback_costs_nothing(settings: Settings, provider_server: ProviderServer) -> None:
    settings.IMAGES = {"PROVIDER": "openai", "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{provider_server.url}/v1"}
    assert generate().status == Status.READY


# --- what it needs --------------------------------------------------------------------------------------------


def test_a_tiny_png_is_an_image() -> None:
    with Image.open(io.BytesIO(tiny_png(4, 3, (1, 2, 3)))) as picture:
        assert (picture.size, picture.convert("RGB").getpixel((3, 2))) == ((4, 3), (1, 2, 3))


def test_it_needs_neither_pillow_nor_pytest_nor_an_sdk() -> None:
    script = "\n".join(
        [
            "import sys",
            "for name in ('PIL', 'pytest', 'openai', 'google.genai'): sys.modules[name] = None",
            "import images.testing",
            "print(images.testing.tiny_png()[1:4])",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "b'PNG'\n", done.stderr


def test_the_documented_test_case_passes() -> None:
    page = (ROOT / "docs" / "python.md").read_text().partition("\n## Testing your code\n")[2]
    names: dict[str, Any] = {}
    exec(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0], names)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(names["IllustrationTests"]).run(result)
    assert (result.testsRun, result.errors, result.failures) == (2, [], [])
