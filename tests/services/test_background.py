"""Images that nobody waits for: made by a few threads of the process, each paid for once, and none of them lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.utils import timezone
from pytest_django import Settings

from images.exceptions import InvalidRequest, ProviderTimeout
from images.models import GeneratedImage, Status
from images.providers import ImageRequest
from images.services import background
from images.services.background import MAX_THREADS, resume, start_generations
from images.services.request import GenerationRequest
from tests.fakes.background import finish_background
from tests.fakes.providers import FakeProvider, Gate, png

# The images are made by threads, which see what is committed.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _finished() -> Iterator[None]:
    yield
    finish_background()


def wanted(number: int, key: str = "") -> list[GenerationRequest]:
    titles = [f"Title {n}" for n in range(number)]
    return [
        GenerationRequest(content_item_id="item", title=title, idempotency_key=f"{key}{title}" if key else None)
        for title in titles
    ]


def test_the_row_is_there_at_once_and_becomes_ready(fake_provider: FakeProvider) -> None:
    gate = Gate()
    fake_provider.will(gate)
    [image] = start_generations(requests=wanted(1))
    assert (image.status, image.started_at) == (Status.PENDING, None)
    assert gate.entered.acquire(timeout=30)
    gate.open.set()
    finish_background()
    assert GeneratedImage.objects.get().status == Status.READY


def test_many_are_made_by_a_few_threads_without_a_servers_connection(fake_provider: FakeProvider) -> None:
    together = threading.Barrier(MAX_THREADS)
    names: set[str] = set()
    held: set[bool] = set()

    def first(request: ImageRequest) -> bytes:
        together.wait(30)  # as many as this at once
        names.add(str(threading.get_ident()))
        held.add(connections["default"].connection is not None)
        return png()

    fake_provider.will(*[first] * MAX_THREADS)
    start_generations(requests=wanted(2 * MAX_THREADS))
    finish_background()
    assert GeneratedImage.objects.filter(status=Status.READY).count() == 2 * MAX_THREADS
    assert len(names) == MAX_THREADS
    assert held == {connections["default"].vendor == "sqlite"}  # it has no server that could run out of them


def test_a_failure_is_on_the_row_as_ever(fake_provider: FakeProvider) -> None:
    fake_provider.will(ProviderTimeout())
    start_generations(requests=wanted(1))
    finish_background()
    image = GeneratedImage.objects.get()
    assert (image.status, image.error_code, image.attempts[0]["code"]) == ("failed", *["provider_timeout"] * 2)


def test_the_same_keys_start_nothing_twice(fake_provider: FakeProvider) -> None:
    gate = Gate()
    fake_provider.will(gate, gate)
    first = start_generations(requests=wanted(2, "key"))
    again = start_generations(requests=wanted(2, "key"))  # while they are being made
    gate.open.set()
    finish_background()
    later = start_generations(requests=wanted(2, "key"))
    assert [image.pk for image in first] == [image.pk for image in again] == [image.pk for image in later]
    assert [image.replayed for image in (*first, *again, *later)] == [False] * 2 + [True] * 4
    assert len(fake_provider.requests) == 2


def test_nothing_is_started_if_one_is_invalid_or_the_transaction_is_rolled_back(fake_provider: FakeProvider) -> None:
    with pytest.raises(InvalidRequest):
        start_generations(requests=[*wanted(1), GenerationRequest(content_item_id="item", title=" ")])
    with transaction.atomic():
        start_generations(requests=wanted(1))
        transaction.set_rollback(True)
    finish_background()
    assert (GeneratedImage.objects.count(), fake_provider.requests) == (0, [])


def test_what_a_stopped_process_left_waiting_is_made_and_what_it_had_begun_is_not_paid_for_twice(
    fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_stopping", threading.Event())
    background.stop()
    waits, begun = start_generations(requests=wanted(2))
    GeneratedImage.objects.filter(pk=begun.pk).update(started_at=timezone.now())
    resume()
    finish_background()
    assert fake_provider.requests == []
    monkeypatch.setattr(background, "_stopping", threading.Event())  # the next process
    resume()
    finish_background()
    assert [request.title for request in fake_provider.requests] == [waits.title]


def test_a_process_that_is_full_makes_them_when_there_is_room(
    fake_provider: FakeProvider, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "PAUSE", 0.01)
    settings.IMAGES = {**settings.IMAGES, "MAX_CONCURRENCY": 1}
    start_generations(requests=wanted(3))
    finish_background()
    assert GeneratedImage.objects.filter(status=Status.READY).count() == 3


def test_the_last_of_many_may_wait_longer_than_a_single_one(fake_provider: FakeProvider, settings: Settings) -> None:
    settings.IMAGES = {
        **settings.IMAGES,
        "QUEUE_TIMEOUT": 1,
        "DEADLINE": 60,
        "STORAGE_TIMEOUT": 60,
        "QUEUE": "tests.services.test_background.drop",
    }
    [single] = start_generations(requests=wanted(1))
    *_, last = start_generations(requests=wanted(50))
    finish_background()
    single.refresh_from_db()
    last.refresh_from_db()
    assert single.deadline_at is not None
    assert last.deadline_at is not None
    assert last.deadline_at - single.deadline_at > timedelta(minutes=19)


published: list[str] = []


def drop(image_id: str) -> None:
    """A queue whose workers never start."""
    published.append(image_id)


def refuse(image_id: str) -> None:
    """A queue that cannot be reached."""
    raise ConnectionError


def test_a_queues_workers_make_them_if_there_is_a_queue(fake_provider: FakeProvider, settings: Settings) -> None:
    settings.IMAGES = {**settings.IMAGES, "QUEUE": "tests.services.test_background.drop"}
    images = start_generations(requests=wanted(2))
    finish_background()
    resume()
    finish_background()
    assert published[-2:] == [str(image.pk) for image in images]
    settings.IMAGES = {**settings.IMAGES, "QUEUE": "tests.services.test_background.refuse"}
    [refused] = start_generations(requests=wanted(1))
    finish_background()
    refused.refresh_from_db()
    assert (refused.status, refused.error_code) == (Status.FAILED, "queue_unavailable")
    assert fake_provider.requests == []
