"""What the queue has lost is published again from the rows; what nobody will finish is settled."""

from __future__ import annotations

import sys
import uuid
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone
from pytest_django.fixtures import Settings

from images import signals
from images.models import GeneratedImage
from images.services import generate_image_later, run_generation
from images.services.outbox import tend
from images.storage import save
from tests.fakes.providers import FakeProvider, png

pytestmark = pytest.mark.django_db(transaction=True)

WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)

queued: list[str] = []
is_down = False


def enqueue(image_id: str) -> None:
    if is_down:
        raise ConnectionError("amqp://user:password@broker")
    queued.append(image_id)


@pytest.fixture(autouse=True)
def _queue(fake_provider: FakeProvider, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    queued.clear()
    monkeypatch.setattr(sys.modules[__name__], "REPUBLISHES", True, raising=False)
    settings.IMAGES = {**settings.IMAGES, "QUEUE": f"{__name__}.enqueue"}


@pytest.fixture
def broker_is_down(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(sys.modules[__name__], "is_down", True)
    return monkeypatch


@pytest.fixture
def heard() -> Any:
    kinds: list[str] = []

    def hear(kind: str, **_: Any) -> None:
        kinds.append(kind)

    signals.queue_incident.connect(hear)
    yield kinds
    signals.queue_incident.disconnect(hear)


def waiting(age: timedelta = MINUTE, **values: Any) -> GeneratedImage:
    image = generate_image_later(**WANTED)
    queued.clear()
    GeneratedImage.objects.filter(pk=image.pk).update(created_at=timezone.now() - age, **values)
    image.refresh_from_db()
    return image


def test_a_row_that_waits_is_published_again_by_one_process_and_ever_less_often(heard: list[str]) -> None:
    image = waiting()
    assert (tend(), queued) == ({"republished": 1}, [str(image.pk)])
    assert (tend(), heard) == ({}, ["republished"])  # another worker, a moment later
    image.refresh_from_db()
    assert image.republish_at is not None
    assert image.republish_at - timezone.now() > 0.9 * MINUTE  # as long as it has waited so far
    run_generation(queued[0])
    run_generation(queued[0])
    image.refresh_from_db()
    assert image.status == "ready"


@pytest.mark.parametrize(
    ("age", "values"),
    [(timedelta(0), {}), (HOUR, {"republish_at": timezone.now() + HOUR}), (HOUR, {"status": "ready"})],
    ids=["new", "told to wait", "done"],
)
def test_a_row_that_is_not_due_is_left_alone(age: timedelta, values: dict[str, Any]) -> None:
    waiting(age, **values)
    assert (tend(), queued) == ({}, [])


def test_a_broker_that_is_down_at_the_commit_gets_the_row_later(broker_is_down: pytest.MonkeyPatch) -> None:
    with transaction.atomic():
        image = generate_image_later(**WANTED)
    GeneratedImage.objects.update(created_at=timezone.now() - MINUTE)
    with pytest.raises(ConnectionError):
        tend()
    broker_is_down.undo()
    assert (tend(), queued) == ({"republished": 1}, [str(image.pk)])


def test_a_row_that_no_worker_started_in_time_fails_and_says_so(heard: list[str]) -> None:
    image = waiting(deadline_at=timezone.now() - HOUR)
    failed: list[str] = []
    receiver = lambda error, **_: failed.append(error.code)  # noqa: E731
    signals.image_generation_failed.connect(receiver)
    assert (tend(), heard, failed, queued) == ({"expired": 1}, ["expired"], ["queue_unavailable"], [])
    image.refresh_from_db()
    assert (image.status, image.error_code) == ("failed", "queue_unavailable")


@pytest.mark.parametrize(
    ("has_file", "kind", "status"), [(True, "orphaned", "ready"), (False, "lost", "failed")], ids=["file", "none"]
)
def test_a_row_whose_worker_is_gone_is_settled(has_file: bool, kind: str, status: str, heard: list[str]) -> None:
    image = waiting(started_at=timezone.now() - HOUR, deadline_at=timezone.now() - HOUR)
    if has_file:
        save(image.file_stem, "png", png())
    assert (tend(), heard) == ({kind: 1}, [kind])
    image.refresh_from_db()
    assert (image.status, image.may_have_billed) == (status, not has_file)


def test_a_row_whose_worker_is_gone_may_be_made_again_if_the_operator_says_so(
    settings: Settings, fake_provider: FakeProvider
) -> None:
    settings.IMAGES = {**settings.IMAGES, "RETRY_LOST": True}
    image = waiting(started_at=timezone.now() - HOUR, deadline_at=timezone.now() + HOUR)
    assert (tend(), queued) == ({"lost": 1, "republished": 1}, [str(image.pk)])
    run_generation(queued[0])
    image.refresh_from_db()
    assert image.status == "ready"


def test_an_id_without_a_row_is_a_warning(heard: list[str], caplog: pytest.LogCaptureFixture) -> None:
    foreign = uuid.uuid4()
    run_generation(foreign)
    assert heard == ["unknown"]
    assert f"queue_unknown image={foreign}" in caplog.text
    assert [record.levelname for record in caplog.records if "queue_unknown" in record.getMessage()] == ["WARNING"]


def test_the_command_publishes_whatever_waits() -> None:
    """As after `celery purge`, when nobody wants to wait for the next time."""
    image, late = waiting(timedelta(0)), waiting(deadline_at=timezone.now() - HOUR)
    out = StringIO()
    call_command("republish_images", stdout=out)
    assert queued == [str(image.pk)]
    late.refresh_from_db()
    assert late.status == "failed"
    assert out.getvalue().splitlines() == ["Queued again: 1", "Not started in time, failed: 1"]
