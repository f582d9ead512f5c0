"""`generate_image_later`, and who may take a row up: with a queue that is a list in the test."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection, transaction
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks
from pytest_django.fixtures import Settings

from images import exceptions, models, signals
from images.models import NO_WORKER_STARTED, STOPPED, GeneratedImage
from images.services import delete_image, generate_image, generate_image_later
from images.services.generation import run_generation
from images.services.queue import queue_problem, wait_for, waiting, worker_lost
from images.storage import save
from tests.fakes.providers import FakeProvider, png
from tests.services.wrecks import Failing

WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}
HOUR = timedelta(hours=1)

queued: list[str] = []


def enqueue(image_id: str) -> None:
    queued.append(image_id)


def broken(image_id: str) -> None:
    raise ConnectionError("amqp://user:password@broker")


def arrives_and_breaks(image_id: str) -> None:
    GeneratedImage.objects.filter(pk=image_id).update(started_at=timezone.now())  # a worker is that fast
    raise ConnectionError


def begins_and_is_never_done(image_id: str) -> None:
    now = timezone.now()
    GeneratedImage.objects.filter(pk=image_id).update(started_at=now, deadline_at=now + HOUR)


def work_at_once(image_id: str) -> None:
    run_generation(uuid.UUID(image_id))


@pytest.fixture(autouse=True)
def queue(fake_provider: FakeProvider, settings: Settings) -> list[str]:
    queued.clear()  # tests of other modules use it too
    use(settings, enqueue)
    return queued


def use(settings: Settings, function: Any, **more: Any) -> None:
    settings.IMAGES = {**settings.IMAGES, "QUEUE": f"{__name__}.{function.__name__}", **more}


def change(image: GeneratedImage, **values: Any) -> None:
    GeneratedImage.objects.filter(pk=image.pk).update(**values)
    image.refresh_from_db()


def lost(image: GeneratedImage, **values: Any) -> GeneratedImage:
    """As a worker leaves it that was killed an hour ago."""
    change(image, **{"started_at": timezone.now() - HOUR, "deadline_at": timezone.now() - HOUR, **values})
    return image


@pytest.mark.django_db(transaction=True)
class TestLater:
    def test_gives_a_pending_row_and_queues_its_id(self, queue: list[str], fake_provider: FakeProvider) -> None:
        image = generate_image_later(**WANTED)
        assert (image.status, image.started_at, queue) == ("pending", None, [str(image.pk)])
        assert not fake_provider.requests

    def test_is_queued_when_the_transaction_commits(self, queue: list[str]) -> None:
        with transaction.atomic():
            image = generate_image_later(**WANTED)
            assert not queue
        assert queue == [str(image.pk)]

    def test_is_forgotten_with_a_transaction_that_is_rolled_back(self, queue: list[str]) -> None:
        with transaction.atomic():
            generate_image_later(**WANTED)
            transaction.set_rollback(True)
        assert not queue
        assert not GeneratedImage.objects.exists()

    def test_a_queue_that_is_down_fails_the_row_and_tells_the_caller(
        self, settings: Settings, fake_provider: FakeProvider, caplog: pytest.LogCaptureFixture
    ) -> None:
        use(settings, broken)
        with pytest.raises(exceptions.QueueUnavailable) as caught:
            generate_image_later(**WANTED)
        assert "password" not in caught.value.message
        assert GeneratedImage.objects.get().error_code == "queue_unavailable"

    def test_a_request_that_arrived_although_the_queue_seemed_down_goes_on(self, settings: Settings) -> None:
        use(settings, arrives_and_breaks)
        image = generate_image_later(**WANTED)
        image.refresh_from_db()
        assert image.status == "pending"

    def test_a_queue_that_is_down_after_a_commit_shows_on_the_row(self, settings: Settings) -> None:
        use(settings, broken)
        heard: list[str] = []
        receiver = lambda error, **_: heard.append(error.code)  # noqa: E731
        signals.image_generation_failed.connect(receiver)
        with transaction.atomic():
            image = generate_image_later(**WANTED)
        image.refresh_from_db()
        assert (image.status, image.error_code, heard) == ("failed", "queue_unavailable", ["queue_unavailable"])

    def test_leaves_the_callers_connection_as_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A host may call it in the middle of a queryset, whose cursor a closed connection would end."""
        released: list[str] = []
        for module in ("generation", "queue"):
            monkeypatch.setattr(f"images.services.{module}.release_connections", lambda: released.append("released"))
        generate_image_later(**WANTED)
        with transaction.atomic():
            generate_image_later(**WANTED)
        assert not released

    def test_needs_a_queue(self, settings: Settings) -> None:
        settings.IMAGES = {**settings.IMAGES, "QUEUE": ""}
        with pytest.raises(ImproperlyConfigured, match="QUEUE"):
            generate_image_later(**WANTED)

    def test_a_repeated_key_is_in_progress_and_then_the_same_image(self, fake_provider: FakeProvider) -> None:
        image = generate_image_later(**WANTED, idempotency_key="key-1")
        with pytest.raises(exceptions.RequestInProgress):
            generate_image_later(**WANTED, idempotency_key="key-1")
        run_generation(image.pk)
        again = generate_image_later(**WANTED, idempotency_key="key-1")
        assert (again.pk, again.replayed, len(fake_provider.requests)) == (image.pk, True, 1)


@pytest.mark.django_db
def test_under_a_test_cases_transaction_it_waits_for_the_captured_commit(
    queue: list[str], django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        image = generate_image_later(**WANTED)
    assert queue == [str(image.pk)]


@pytest.mark.django_db
class TestTakingUp:
    def test_makes_the_image(self, fake_provider: FakeProvider) -> None:
        image = generate_image_later(**WANTED)
        assert run_generation(image.pk) is None
        image.refresh_from_db()
        assert (image.status, len(fake_provider.requests)) == ("ready", 1)
        assert image.started_at

    @pytest.mark.parametrize("redelivered", [False, True])
    def test_a_second_delivery_does_nothing(self, fake_provider: FakeProvider, redelivered: bool) -> None:
        image = generate_image_later(**WANTED)
        run_generation(image.pk)
        assert run_generation(image.pk, redelivered=redelivered) is None
        assert len(fake_provider.requests) == 1

    def test_a_delivery_during_the_work_does_nothing(self, fake_provider: FakeProvider) -> None:
        image = generate_image_later(**WANTED)

        def deliver_again(_: Any) -> bytes:
            assert run_generation(image.pk) is None
            pause = run_generation(image.pk, redelivered=True)
            assert pause is not None
            assert 0 < pause < 90 + 30 + 2
            return png()

        fake_provider.will(deliver_again)
        run_generation(image.pk)
        image.refresh_from_db()
        assert (image.status, len(fake_provider.requests)) == ("ready", 1)

    def test_of_two_workers_that_read_it_at_the_same_moment_one_has_it(self, fake_provider: FakeProvider) -> None:
        image = generate_image_later(**WANTED)
        rivals = [image.pk]

        def between(execute: Any, sql: str, *rest: Any) -> Any:
            if sql.startswith("UPDATE") and rivals:
                run_generation(rivals.pop())
            return execute(sql, *rest)

        with connection.execute_wrapper(between):
            run_generation(image.pk)
        image.refresh_from_db()
        assert (image.status, len(fake_provider.requests)) == ("ready", 1)

    def test_a_failure_is_on_the_row_and_nowhere_else(self, fake_provider: FakeProvider) -> None:
        fake_provider.will(exceptions.ContentRejected())
        image = generate_image_later(**WANTED)
        assert run_generation(image.pk) is None
        image.refresh_from_db()
        assert (image.status, image.error_code) == ("failed", "content_rejected")

    def test_a_request_that_waited_too_long_has_failed_and_costs_nothing(self, fake_provider: FakeProvider) -> None:
        image = generate_image_later(**WANTED)
        change(image, deadline_at=timezone.now() - timedelta(seconds=1))
        run_generation(image.pk)
        image.refresh_from_db()
        assert (image.status, image.error_code) == ("failed", "queue_unavailable")
        assert not fake_provider.requests

    def test_an_old_request_that_nobody_took_up_counts_as_failed(self) -> None:
        image = generate_image_later(**WANTED)
        change(image, deadline_at=timezone.now() - HOUR)
        assert (image.current_status, image.current_error) == ("failed", ("queue_unavailable", NO_WORKER_STARTED))

    def test_a_request_that_was_deleted_meanwhile_costs_nothing(self, fake_provider: FakeProvider) -> None:
        image = generate_image_later(**WANTED)
        delete_image(image=image)
        run_generation(image.pk)
        run_generation(uuid.uuid4())
        assert not fake_provider.requests


@pytest.mark.django_db
class TestLost:
    @pytest.mark.parametrize("left", [HOUR, -HOUR])
    def test_is_failed_and_not_paid_again(self, fake_provider: FakeProvider, left: timedelta) -> None:
        image = lost(generate_image_later(**WANTED), deadline_at=timezone.now() + left)
        run_generation(image.pk, redelivered=True)
        image.refresh_from_db()
        assert (image.status, image.error_message) == ("failed", STOPPED)
        assert not fake_provider.requests

    def test_is_ready_where_its_file_had_been_stored(self, fake_provider: FakeProvider) -> None:
        image = lost(generate_image_later(**WANTED))
        save(image.file_stem, "png", png())
        run_generation(image.pk, redelivered=True)
        image.refresh_from_db()
        assert (image.status, image.size_bytes) == ("ready", len(png()))
        assert not fake_provider.requests

    def test_is_made_again_where_the_operator_wants_it(self, fake_provider: FakeProvider, settings: Settings) -> None:
        use(settings, enqueue, RETRY_LOST=True, PRICES={"test": "0.04"})
        image = lost(generate_image_later(**WANTED), deadline_at=timezone.now() + HOUR)
        run_generation(image.pk, redelivered=True)
        image.refresh_from_db()
        assert (image.status, len(fake_provider.requests)) == ("ready", 1)
        assert (image.cost, image.cost_basis) == (
            Decimal("0.04"),
            "at_least",
        )  # the worker that was lost may have paid

    def test_is_not_made_again_once_readers_were_told_that_it_failed(
        self, fake_provider: FakeProvider, settings: Settings
    ) -> None:
        use(settings, enqueue, RETRY_LOST=True)
        image = lost(generate_image_later(**WANTED))
        run_generation(image.pk, redelivered=True)
        image.refresh_from_db()
        assert image.status == "failed"
        assert not fake_provider.requests

    def test_a_worker_that_comes_back_to_life_leaves_the_image_to_its_successor(
        self, fake_provider: FakeProvider, settings: Settings, media_root: Any
    ) -> None:
        use(settings, enqueue, RETRY_LOST=True)
        image = generate_image_later(**WANTED)

        def be_taken_for_dead(_: Any) -> bytes:
            lost(image, deadline_at=timezone.now() + HOUR)
            run_generation(image.pk, redelivered=True)
            return png(colour=b"\0\0\0")

        fake_provider.will(be_taken_for_dead)
        run_generation(image.pk)
        image.refresh_from_db()
        assert (image.status, len(fake_provider.requests)) == ("ready", 2)
        [file] = [path for path in media_root.rglob("*") if path.is_file()]
        assert file.read_bytes() == png()
        assert file == media_root / image.file_name

    def test_is_settled_at_once_where_the_death_is_certain(self) -> None:
        image = generate_image_later(**WANTED)
        worker_lost(image.pk)
        image.refresh_from_db()
        assert image.status == "pending"  # no worker had it
        change(image, started_at=timezone.now())
        worker_lost(image.pk)
        image.refresh_from_db()
        assert (image.status, image.error_code) == ("failed", "internal_error")


@pytest.mark.django_db(transaction=True)
class TestWaiting:
    def test_a_plain_caller_gets_the_workers_image(self, settings: Settings, fake_provider: FakeProvider) -> None:
        use(settings, work_at_once, RUN_ON_WORKERS=True)
        image = generate_image(**WANTED)
        assert (image.status, len(fake_provider.requests)) == ("ready", 1)

    def test_a_plain_caller_gets_the_workers_error(self, settings: Settings, fake_provider: FakeProvider) -> None:
        use(settings, work_at_once, RUN_ON_WORKERS=True)
        fake_provider.will(exceptions.ContentRejected("Not this."))
        with pytest.raises(exceptions.ContentRejected, match="Not this"):
            generate_image(**WANTED)

    def test_a_plain_caller_does_not_wait_for_ever_for_a_worker(
        self, settings: Settings, fake_provider: FakeProvider
    ) -> None:
        use(settings, enqueue, RUN_ON_WORKERS=True, DEADLINE=1)
        with pytest.raises(exceptions.QueueUnavailable):
            generate_image(**WANTED)
        image = GeneratedImage.objects.get()
        assert image.status == "failed"
        run_generation(image.pk)  # the worker comes later
        assert not fake_provider.requests

    def test_a_plain_caller_does_not_wait_for_ever_for_a_worker_that_began(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The row is still pending when the worker's time is over: clocks that differ, or a row taken up again."""
        use(settings, begins_and_is_never_done, RUN_ON_WORKERS=True, RETRY_LOST=True, DEADLINE=1)
        monkeypatch.setattr("images.services.queue.STALE_AFTER", timedelta(seconds=0))
        with pytest.raises(exceptions.ProviderTimeout):
            generate_image(**WANTED)
        assert GeneratedImage.objects.get().status == "pending"

    def test_is_refused_inside_a_transaction(self, settings: Settings) -> None:
        use(settings, enqueue, RUN_ON_WORKERS=True)
        with pytest.raises(exceptions.OpenTransactionError), transaction.atomic():
            generate_image(**WANTED)

    def test_ends_with_the_time_or_with_the_image(self) -> None:
        image = generate_image_later(**WANTED)
        assert wait_for(image, 0).status == "pending"
        run_generation(image.pk)
        assert wait_for(image, 60).status == "ready"
        delete_image(image=image)
        with pytest.raises(exceptions.ImageNotFound):
            wait_for(image, 60)

    def test_looks_again_after_a_short_failure_of_the_database(self) -> None:
        image = generate_image_later(**WANTED)
        run_generation(image.pk)
        with connection.execute_wrapper(Failing(2)):
            assert wait_for(image, 60).status == "ready"

    def test_does_not_claim_that_nothing_was_paid_if_the_database_stays_away(self) -> None:
        image = generate_image_later(**WANTED)
        with connection.execute_wrapper(Failing(100)), pytest.raises(exceptions.ImagesError) as caught:
            wait_for(image, 0.2)
        assert caught.value.code == "internal_error"

    def test_does_not_look_again_if_the_time_ended_while_the_database_was_asked(self) -> None:
        image = generate_image_later(**WANTED)
        asked = []

        def hang(*_: Any) -> None:
            asked.append(time.monotonic())
            time.sleep(0.2)
            raise OperationalError

        with connection.execute_wrapper(hang), pytest.raises(exceptions.ImagesError):
            wait_for(image, 0.1)
        assert len(asked) == 1


@pytest.mark.django_db
def test_a_queue_that_nobody_works_on_is_told() -> None:
    image = generate_image_later(**WANTED)
    [oldest] = waiting()
    assert queue_problem(oldest.created_at) is None
    assert queue_problem(None) is None
    change(image, created_at=timezone.now() - timedelta(minutes=5))
    assert "no worker" in (queue_problem(waiting()[0].created_at) or "")
    generate_image(**WANTED)  # one that is not queued at all
    assert waiting().count() == 1


@pytest.mark.django_db
def test_a_worker_may_pass_the_id_as_the_text_that_it_was_given(queue: list[str]) -> None:
    image = generate_image_later(**WANTED)
    assert run_generation(str(image.pk)) is None
    image.refresh_from_db()
    assert image.status == "ready"
    with pytest.raises(ValueError, match="badly formed"):
        run_generation("no id")


def test_the_old_name_of_a_sentence_still_works_and_says_so() -> None:
    with pytest.warns(DeprecationWarning, match="NO_WORKER_STARTED"):
        assert models.NOT_TAKEN_UP == NO_WORKER_STARTED
