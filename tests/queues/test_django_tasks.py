"""`IMAGES["QUEUE"] = "tasks"`: on `django.tasks` from Django 6.0 on, and on the package django-tasks before."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import django
import pytest
from django.db import transaction
from django.utils import timezone
from django.utils.module_loading import import_string
from pytest_django.fixtures import Settings
from rest_framework.test import APIClient

from images.exceptions import ContentRejected
from images.models import GeneratedImage
from images.queues.django_tasks import generate_task
from images.services import generate_image, generate_image_later
from tests.fakes.providers import FakeProvider

FRAMEWORK = "django.tasks" if django.VERSION >= (6,) else "django_tasks"
WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}

pytestmark = pytest.mark.django_db(transaction=True)


def use(settings: Settings, backend: str, **more: Any) -> None:
    settings.TASKS = {"default": {"BACKEND": backend}}
    settings.IMAGES = {**settings.IMAGES, "QUEUE": "tasks", **more}


@pytest.fixture(autouse=True)
def _immediate(fake_provider: FakeProvider, settings: Settings) -> None:
    use(settings, f"{FRAMEWORK}.backends.immediate.ImmediateBackend")


def test_with_an_immediate_backend_the_returned_row_is_ready(fake_provider: FakeProvider) -> None:
    image = generate_image_later(**WANTED)
    assert (image.status, image.mime_type, len(fake_provider.requests)) == ("ready", "image/png", 1)
    assert image.public_url()


def test_inside_a_transaction_the_row_is_ready_after_the_commit() -> None:
    with transaction.atomic():
        image = generate_image_later(**WANTED)
        assert image.status == "pending"
    assert image.status == "ready"


def test_a_generation_that_fails_shows_on_the_row_and_raises_nothing(fake_provider: FakeProvider) -> None:
    fake_provider.will(ContentRejected())
    image = generate_image_later(**WANTED)
    assert (image.status, image.error_code) == ("failed", "content_rejected")


def test_a_caller_that_would_not_have_waited_gets_the_image_or_the_error(
    fake_provider: FakeProvider, api: APIClient
) -> None:
    body = {"contentItemId": "item-1", "title": "A quiet harbour at dawn"}
    headers = {"Prefer": "respond-async"}
    made = api.post("/api/images/generate", body, format="json", headers=headers)
    assert (made.status_code, made.json()["status"]) == (200, "ready")
    fake_provider.will(ContentRejected())
    refused = api.post("/api/images/generate", body, format="json", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "content_rejected")


def test_a_plain_caller_is_served_by_it_if_workers_make_every_image(settings: Settings) -> None:
    use(settings, f"{FRAMEWORK}.backends.immediate.ImmediateBackend", RUN_ON_WORKERS=True)
    assert generate_image(**WANTED).status == "ready"


def test_a_backend_that_only_stores_leaves_the_row_pending(fake_provider: FakeProvider, settings: Settings) -> None:
    use(settings, f"{FRAMEWORK}.backends.dummy.DummyBackend")
    image = generate_image_later(**WANTED)
    backend: Any = generate_task.get_backend()
    [result] = backend.results
    assert (image.status, result.args, len(fake_provider.requests)) == ("pending", [str(image.pk)], 0)
    assert import_string(generate_task.module_path) is generate_task  # as a worker finds it


def test_an_attempt_while_another_worker_has_the_row_comes_back_when_its_time_is_over(settings: Settings) -> None:
    use(settings, f"{FRAMEWORK}.backends.dummy.DummyBackend")
    image = generate_image_later(**WANTED)
    backend: Any = generate_task.get_backend()
    [result] = backend.results
    GeneratedImage.objects.filter(pk=image.pk).update(started_at=timezone.now())
    result.worker_ids.extend(["the first", "the second"])
    context = type("Context", (), {"attempt": result.attempts})()
    generate_task.func(context, str(image.pk))
    [_, again] = backend.results
    assert (again.args, again.kwargs) == ([str(image.pk)], {"began": True})
    assert again.task.run_after > timezone.now()


def test_a_framework_that_is_not_there_is_an_error_that_says_what_to_install() -> None:
    code = """
import sys
sys.modules["django.tasks"] = sys.modules["django_tasks"] = None
import django
from django.core.checks import run_checks
from django.test import override_settings
django.setup()
with override_settings(IMAGES={"QUEUE": "tasks"}):
    [message] = [message for message in run_checks(tags=["images"]) if "QUEUE" in message.msg]
print(message.id, "pip install django-tasks" in message.hint)
"""
    env = {"DJANGO_SETTINGS_MODULE": "tests.settings", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["images.E014", "True"], done.stderr
