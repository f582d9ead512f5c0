"""The Celery task as it is declared and published; `tests/queue` runs it on real brokers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from celery import Celery, current_app
from celery.exceptions import Retry, SoftTimeLimitExceeded
from django.db import OperationalError
from django.utils import timezone
from pytest_django.fixtures import Settings

from images.queues.celery import enqueue, generate_task
from images.services import generate_image_later
from tests.fakes.providers import FakeProvider


@pytest.fixture
def app() -> Iterator[Celery]:
    """The current app, with a broker in this process."""
    before = current_app._get_current_object()
    app = Celery(broker="memory://", set_as_current=True)
    yield app
    before.set_current()


def test_its_time_limits_follow_from_the_deadline(app: Celery, settings: Settings) -> None:
    settings.IMAGES = {"DEADLINE": 50, "STORAGE_TIMEOUT": 30}
    enqueue("an-id")
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue("celery").get(timeout=5)
    assert message.headers["timelimit"] == [100, 90]


@pytest.mark.parametrize(
    ("outcome", "retries", "raised"),
    [(OperationalError(), 10, Retry), (OperationalError(), 1000, OperationalError), ([5.0], 1000, Retry)],
    ids=["database away", "for too long", "another worker at work"],
)
def test_a_task_comes_back_until_its_time_is_over(
    app: Celery, outcome: Any, retries: int, raised: type[Exception]
) -> None:
    generate_task.push_request(id="x", args=["an-id"], kwargs={}, retries=retries, called_directly=False)
    try:
        with mock.patch("images.queues.celery.run_generation", side_effect=outcome), pytest.raises(raised):
            generate_task.run("an-id")
    finally:
        generate_task.pop_request()


@pytest.mark.django_db(transaction=True)
def test_a_task_that_is_interrupted_settles_its_row(fake_provider: FakeProvider, settings: Settings) -> None:
    """Celery raises the error at any line, also where the run cannot record it."""
    settings.IMAGES = {**settings.IMAGES, "QUEUE": f"{__name__}.forget"}
    image = generate_image_later(content_item_id="item-1", title="A quiet harbour at dawn")

    def be_interrupted(*_: Any, **__: Any) -> None:
        type(image).objects.filter(pk=image.pk).update(started_at=timezone.now())
        raise SoftTimeLimitExceeded

    with (
        mock.patch("images.queues.celery.run_generation", be_interrupted),
        pytest.raises(SoftTimeLimitExceeded),
    ):
        generate_task(str(image.pk))
    image.refresh_from_db()
    assert (image.status, image.error_code) == ("failed", "internal_error")


def forget(image_id: str) -> None:
    """A queue that loses everything."""


def test_the_module_of_tasks_can_be_imported_without_celery() -> None:
    """As huey's and dramatiq's workers do with every app's `tasks`."""
    code = """
import sys
sys.modules["celery"] = None
import django
django.setup()
from django.core.checks import run_checks
from django.test import override_settings
import images.tasks
print([name for name in vars(images.tasks) if name in ("enqueue", "generate_task")])
with override_settings(IMAGES={"QUEUE": "celery"}):
    print([message.id for message in run_checks(tags=["images"]) if "QUEUE" in message.msg])
"""
    env = {"DJANGO_SETTINGS_MODULE": "tests.settings", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "['images.E014']"], done.stderr
