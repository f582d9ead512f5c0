"""Waiting for a provider that refuses for now, and staying below a limit that is known."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings
from rest_framework.test import APIClient

from images import exceptions
from images.checks import check_values
from images.conf import RateLimit, conf
from images.models import NO_WORKER_STARTED, GeneratedImage
from images.services import generate_image, generate_image_later, queue, rate_limits, run_generation
from images.services.generation import queue_generation
from images.services.probes import Level, probe_queue
from images.services.request import GenerationRequest
from tests.conftest import client_for
from tests.fakes.provider_server import ProviderServer
from tests.fakes.providers import FakeProvider
from trygo_backend.health import readiness

WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}

pytestmark = pytest.mark.django_db(transaction=True)


class Broker:
    """A queue that delivers each id to one of its threads, again after the time that the delivery asked for."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, str, bool]] = []
        self._count = 0
        self._changed = threading.Condition()
        self._busy = 0

    def put(self, image_id: str, delay: float = 0.0, again: bool = False) -> None:
        with self._changed:
            self._count += 1
            heapq.heappush(self._due, (time.monotonic() + delay, self._count, image_id, again))
            self._changed.notify()

    def work(self, threads: int) -> None:
        """Deliver until nothing is left."""
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(self._work) for _ in range(threads)]:
                done.result()

    def _work(self) -> None:
        try:
            while (found := self._next()) is not None:
                pause = run_generation(found[0], redelivered=found[1], deferrable=True)
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()
                if pause is not None:
                    self.put(found[0], pause, True)
        finally:
            connections.close_all()

    def _next(self) -> tuple[str, bool] | None:
        with self._changed:
            while True:
                left = self._due[0][0] - time.monotonic() if self._due else None
                if left is not None and left <= 0:
                    self._busy += 1
                    return heapq.heappop(self._due)[2:]
                if left is None and not self._busy:
                    self._changed.notify_all()
                    return None
                self._changed.wait(left if left is not None else 1.0)


broker = Broker()


def enqueue(image_id: str) -> None:
    broker.put(image_id)


@pytest.fixture(autouse=True)
def _queue(settings: Settings) -> None:
    broker.__init__()  # type: ignore[misc]
    settings.IMAGES = {**settings.IMAGES, "QUEUE": f"{__name__}.enqueue"}


@pytest.fixture
def provider(provider_server: ProviderServer, settings: Settings) -> ProviderServer:
    own = {"PROVIDER": "openai", "OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": f"{provider_server.url}/v1"}
    settings.IMAGES = {**settings.IMAGES, **own}
    return provider_server


def owner() -> Any:
    return User.objects.get()


def configure(settings: Settings, **changes: Any) -> None:
    settings.IMAGES = {**settings.IMAGES, **changes}


@pytest.mark.slow
def test_forty_requests_at_ten_a_minute_become_forty_pictures_with_few_refusals(
    provider: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute is three seconds here."""
    monkeypatch.setattr(rate_limits, "FIRST_GAP", 0.03)
    monkeypatch.setattr(rate_limits, "SHORTEST_GAP", 0.01)
    provider.limit_rate(10, 3.0)
    for number in range(40):
        generate_image_later(**{**WANTED, "content_item_id": f"item-{number}"})
    broker.work(10)
    assert Counter(GeneratedImage.objects.values_list("status", flat=True)) == {"ready": 40}
    assert provider.refusals <= 20


def test_a_refused_request_waits_and_its_row_says_why(fake_provider: FakeProvider, api: APIClient) -> None:
    fake_provider.will(exceptions.ProviderRateLimited(retry_after=30))
    image, other = generate_image_later(**WANTED, user=owner()), generate_image_later(**WANTED)
    pause = run_generation(image.pk, deferrable=True)
    assert pause is not None
    assert 29 < pause < 32
    image.refresh_from_db()
    assert (image.status, image.started_at, image.is_waiting) == ("pending", None, True)
    assert (image.error_code, len(image.attempts), image.current_error) == ("provider_rate_limited", 1, ("", ""))
    assert image.retry_at is not None
    assert 29 < (image.retry_at - timezone.now()).total_seconds() < 32
    # It speaks for all generations of the process: the other one is not even tried.
    assert run_generation(other.pk, deferrable=True)
    other.refresh_from_db()
    assert (other.is_waiting, other.attempts, len(fake_provider.requests)) == (True, [], 1)
    # When the time has come, both are made, the oldest first, whichever is delivered.
    rate_limits.forget()
    GeneratedImage.objects.update(retry_at=timezone.now())
    assert run_generation(other.pk, redelivered=True, deferrable=True) is None
    image.refresh_from_db()
    assert (image.status, image.error_code, len(image.attempts)) == ("ready", "", 2)
    assert image.retry_at is None
    assert run_generation(image.pk, redelivered=True, deferrable=True) is None
    other.refresh_from_db()
    assert (other.status, len(fake_provider.requests)) == ("ready", 3)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (exceptions.ProviderOverloaded(), "provider_overloaded"),
        (exceptions.ProviderUnreachable(), "provider_unreachable"),
        (exceptions.ProviderRateLimited(), "provider_rate_limited"),
    ],
)
def test_each_refusal_in_a_row_makes_a_longer_pause(
    fake_provider: FakeProvider, failure: exceptions.ProviderFailure, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    image = generate_image_later(**WANTED)
    pauses = []
    for _ in range(3):
        fake_provider.will(failure)
        pauses.append(run_generation(image.pk, deferrable=True) or 0)
        pause = rate_limits._pauses["test"]
        pause.end = pause.next_start = time.monotonic() - 1  # its time has passed
        GeneratedImage.objects.update(retry_at=None)
    assert pauses[0] * 1.5 < pauses[1] < pauses[2] * 0.8
    image.refresh_from_db()
    assert (image.error_code, len(image.attempts)) == (code, 3)


@pytest.mark.parametrize(
    "failure", [exceptions.ProviderError(), exceptions.ProviderAuth(), exceptions.ContentRejected()]
)
def test_other_failures_do_not_wait(fake_provider: FakeProvider, failure: exceptions.ProviderFailure) -> None:
    fake_provider.will(failure)
    image = generate_image_later(**WANTED)
    assert run_generation(image.pk, deferrable=True) is None
    image.refresh_from_db()
    assert (image.status, image.error_code) == ("failed", failure.code)


def test_a_storage_that_is_away_costs_no_request_either(fake_provider: FakeProvider, media_root: Path) -> None:
    generate_image(**WANTED)
    image = generate_image_later(**WANTED)
    kept = media_root.rename(media_root.with_name("unmounted"))
    assert (run_generation(image.pk, deferrable=True) or 0) >= queue.PAUSE
    image.refresh_from_db()
    assert (image.status, image.error_code, image.is_waiting) == ("pending", "storage_error", True)
    kept.rename(media_root)
    GeneratedImage.objects.update(retry_at=timezone.now())
    assert run_generation(image.pk, redelivered=True, deferrable=True) is None
    assert status_of(image) == ["ready"]
    assert len(fake_provider.requests) == 2


def test_a_queue_that_cannot_wait_gets_the_failure_as_ever(fake_provider: FakeProvider) -> None:
    fake_provider.will(exceptions.ProviderRateLimited(retry_after=60))
    image = generate_image_later(**WANTED)
    assert run_generation(image.pk) is None
    image.refresh_from_db()
    assert image.status == "failed"
    assert image.failure
    assert image.failure.retry_after == 60


def test_a_request_waits_no_longer_than_the_queue_may(fake_provider: FakeProvider, settings: Settings) -> None:
    fake_provider.will(exceptions.ProviderRateLimited(retry_after=1000))
    image, other = generate_image_later(**WANTED), generate_image_later(**WANTED)
    for each in (image, other):
        run_generation(each.pk, deferrable=True)
        each.refresh_from_db()
        assert (each.status, each.error_code) == ("failed", "provider_rate_limited")
        assert each.failure
        assert 990 < (each.failure.retry_after or 0) <= 1001
    assert len(fake_provider.requests) == 1


def test_a_request_that_waited_in_vain_says_for_what(fake_provider: FakeProvider) -> None:
    fake_provider.will(exceptions.ProviderOverloaded(retry_after=30))
    image = generate_image_later(**WANTED)
    run_generation(image.pk, deferrable=True)
    GeneratedImage.objects.update(deadline_at=timezone.now() - timedelta(seconds=1))
    run_generation(image.pk, deferrable=True)
    image.refresh_from_db()
    assert (image.status, image.error_code) == ("failed", "provider_overloaded")
    assert image.error_message != NO_WORKER_STARTED


@pytest.mark.parametrize("refused_before", [False, True])
def test_a_caller_that_waits_is_told_at_once_if_its_time_cannot_be_kept(
    fake_provider: FakeProvider, settings: Settings, refused_before: bool
) -> None:
    configure(settings, RUN_ON_WORKERS=True, DEADLINE=60, QUEUE=f"{__name__}.work_in_a_thread")
    fake_provider.will(exceptions.ProviderRateLimited(retry_after=300))
    if refused_before:
        rate_limits.refused("test", exceptions.ProviderRateLimited(retry_after=300))
    started = time.monotonic()
    with pytest.raises(exceptions.ProviderRateLimited) as caught:
        generate_image(**WANTED)
    assert time.monotonic() - started < 30
    assert 290 < (caught.value.retry_after or 0) <= 301
    assert not caught.value.may_have_billed


def work_in_a_thread(image_id: str) -> None:
    def work() -> None:
        run_generation(image_id, deferrable=True)
        connections.close_all()

    threading.Thread(target=work).start()


def test_callers_that_wait_come_first_however_many_do_not(fake_provider: FakeProvider) -> None:
    images = [generate_image_later(**WANTED) for _ in range(3)]
    request = GenerationRequest(**WANTED)
    urgent = queue_generation(request, release=False, caller_waits=True)
    assert run_generation(images[0].pk, deferrable=True) is None
    assert status_of(urgent, *images) == ["ready", "pending", "pending", "pending"]
    run_generation(urgent.pk, deferrable=True)  # its delivery stands for the one that was left behind
    assert status_of(*images) == ["ready", "pending", "pending"]


def test_a_worker_that_is_lost_with_another_row_than_the_delivered_one_is_settled(
    fake_provider: FakeProvider,
) -> None:
    image = generate_image_later(**WANTED)
    urgent = queue_generation(GenerationRequest(**WANTED), release=False, caller_waits=True)
    assert queue.claim(image.pk, redelivered=False, deferrable=True) == urgent  # and the worker is killed
    assert run_generation(image.pk, redelivered=True, deferrable=True)  # it may still be at work
    queue.worker_lost(image.pk)
    assert status_of(urgent, image) == ["failed", "pending"]
    assert run_generation(image.pk, redelivered=True, deferrable=True) is None
    assert status_of(urgent, image) == ["failed", "ready"]


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_delivery_whose_request_another_one_has_begun_stays_for_the_request_that_is_left(
    fake_provider: FakeProvider, settings: Settings, monkeypatch: pytest.MonkeyPatch, is_refused: bool
) -> None:
    monkeypatch.setitem(globals(), "REPUBLISHES", True)  # what has no delivery gets another, but late
    image = generate_image_later(**WANTED)
    urgent = queue_generation(GenerationRequest(**WANTED), release=False, caller_waits=True)
    assert run_generation(image.pk, deferrable=True) is None
    assert status_of(urgent, image) == ["ready", "pending"]
    if is_refused:
        rate_limits.refused("test", exceptions.ProviderRateLimited(retry_after=5))
    GeneratedImage.objects.filter(pk=image.pk).update(retry_at=timezone.now() + timedelta(seconds=5))
    assert run_generation(urgent.pk, deferrable=True)
    assert run_generation(image.pk, deferrable=True)  # a repeated delivery of a request that waits
    GeneratedImage.objects.filter(pk=urgent.pk).update(delivery=None)  # its own delivery has made it
    assert run_generation(urgent.pk, deferrable=True) is None


def status_of(*images: GeneratedImage) -> list[str]:
    for image in images:
        image.refresh_from_db()
    return [image.status for image in images]


def test_a_provider_that_has_refused_is_passed_over_if_another_can_be_asked(
    fake_provider: FakeProvider, settings: Settings
) -> None:
    configure(settings, PROVIDER="test,placeholder")
    fake_provider.will(exceptions.ProviderRateLimited(retry_after=60))
    for number in range(2):
        image = generate_image_later(**WANTED)
        assert run_generation(image.pk, deferrable=True) is None
        image.refresh_from_db()
        assert (image.provider, len(image.attempts)) == ("placeholder", 2 - number)
    assert len(fake_provider.requests) == 1


# --- known limits ---------------------------------------------------------------------------------------------------


def test_no_period_sees_more_calls_than_allowed_however_many_ask_at_once(settings: Settings) -> None:
    configure(settings, RATE_LIMITS={"openai": "5/min"})

    def ask(_: int) -> float:
        try:
            wait = rate_limits.enter("openai", patience=600, queued=False)
            return time.time() + wait
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        starts = sorted(pool.map(ask, range(18)))
    # The moment is read a little later than the slot was taken: much less than the 12 s that one call more would be.
    assert all(later - start >= 58 for start, later in zip(starts, starts[5:], strict=False))
    assert starts[-1] - starts[0] < 200  # and no fewer than are allowed


@pytest.mark.slow
@pytest.mark.parametrize("queued", [False, True])
def test_a_limit_is_kept_for_all_generations(provider: ProviderServer, settings: Settings, queued: bool) -> None:
    configure(settings, RATE_LIMITS={"openai": "3/2s"})
    provider.limit_rate(3, 1.0)
    started = time.monotonic()
    if queued:
        for _ in range(7):
            generate_image_later(**WANTED)
        broker.work(3)
    else:
        for _ in range(7):
            generate_image(**WANTED)
    assert Counter(GeneratedImage.objects.values_list("status", flat=True)) == {"ready": 7}
    assert provider.refusals == 0
    assert time.monotonic() - started > 4


def test_who_cannot_wait_for_the_limit_is_told_at_once_and_nothing_is_sent(
    fake_provider: FakeProvider, settings: Settings, api: APIClient
) -> None:
    configure(settings, RATE_LIMITS="test=1/hour")
    generate_image(**WANTED)
    answer = api.post("/api/images/generate", {"contentItemId": "a", "title": "b"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (503, "provider_rate_limited")
    assert 3500 < int(answer["Retry-After"]) <= 3601
    assert "IMAGE_RATE_LIMITS" in answer.json()["error"]
    assert len(fake_provider.requests) == 1
    configure(settings, RATE_LIMITS="test=2/hour")  # a higher limit holds at once
    generate_image(**WANTED)


@pytest.mark.parametrize(
    "value", ["openai", "openai=5", "openai=five/min", "openai=0/min", "unknown=5/min", {"openai": 5}]
)
def test_a_limit_that_cannot_be_read_is_an_error(settings: Settings, value: Any) -> None:
    configure(settings, RATE_LIMITS=value)
    assert [message.id for message in check_values()] == ["images.E005"]


def test_a_limit_may_be_given_in_the_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE_RATE_LIMITS", "openai=5/min, gemini = 10/30s")
    assert conf.rate_limits == {
        "openai": RateLimit(count=5, period=60),
        "gemini": RateLimit(count=10, period=30),
    }


# --- what is told ---------------------------------------------------------------------------------------------------


def test_callers_and_operators_see_what_waits_and_until_when(
    fake_provider: FakeProvider, staff: User, client: Client
) -> None:
    fake_provider.will(exceptions.ProviderRateLimited(retry_after=30))
    image = generate_image_later(**WANTED)
    run_generation(image.pk, deferrable=True)
    GeneratedImage.objects.update(created_at=timezone.now() - timedelta(minutes=5))
    shown = client_for(staff).get(f"/api/images/{image.pk}").json()
    assert (shown["status"], shown["error"]) == ("pending", None)
    assert (shown["waiting"]["code"], shown["waiting"]["attempts"]) == ("provider_rate_limited", 1)
    assert shown["waiting"]["retryAt"] > shown["createdAt"]
    finding = probe_queue()
    assert finding.level == Level.ATTENTION
    assert "provider_rate_limited" in finding.sentence
    assert "worker" not in finding.sentence
    assert "provider" in readiness().content.decode()
    client.force_login(User.objects.create_superuser("root"))
    for path in ("", f"{image.pk}/change/"):
        assert "next attempt:" in client.get(f"/admin/images/generatedimage/{path}").content.decode()
    GeneratedImage.objects.update(retry_at=timezone.now() - timedelta(minutes=5))  # long overdue: nobody works
    assert "no worker" in probe_queue().sentence
