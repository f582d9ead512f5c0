"""Failed requests that cost nothing are queued again; those that may have cost something are not."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django.fixtures import Settings

from images import exceptions as errors
from images.models import GeneratedImage, Status
from images.services import generate_image, generate_image_later, run_generation
from images.services.budgets import standings
from images.services.outbox import tend
from images.services.retry import find_failed, retry_images
from tests.fakes.background import finish_background
from tests.fakes.providers import FakeProvider

pytestmark = pytest.mark.django_db
threads = pytest.mark.django_db(transaction=True)  # which see what is committed

queued: list[str] = []


def enqueue(image_id: str) -> None:
    queued.append(image_id)


@pytest.fixture
def queue(settings: Settings) -> list[str]:
    queued.clear()
    settings.IMAGES = {**settings.IMAGES, "QUEUE": f"{__name__}.enqueue"}
    return queued


def failed(provider: FakeProvider, title: str = "A title") -> GeneratedImage:
    provider.will(errors.ProviderAuth())
    with pytest.raises(errors.ProviderAuth):
        generate_image(content_item_id="item-1", title=title, idempotency_key=f"key of {title}")
    return GeneratedImage.objects.get(title=title)


def retry(*options: str) -> str:
    out = StringIO()
    call_command("retry_images", *options, stdout=out)
    return out.getvalue()


@threads
def test_a_row_is_queued_again_and_keeps_its_id_its_key_and_its_attempts(
    fake_provider: FakeProvider, queue: list[str]
) -> None:
    image = failed(fake_provider)
    assert "provider_auth" in retry("--dry-run")
    assert queue == []
    assert "Queued again: 1" in retry()
    assert queue == [str(image.pk)]
    assert "Nothing to retry" in retry()
    with pytest.raises(errors.RequestInProgress) as caught:
        generate_image_later(content_item_id="item-1", title="A title", idempotency_key="key of A title")
    assert caught.value.image.pk == image.pk
    run_generation(queue[0])
    image.refresh_from_db()
    assert (image.status, image.error_code, image.retry_at) == (Status.READY, "", None)
    assert [attempt["code"] for attempt in image.attempts] == ["provider_auth", "ok"]


@threads
def test_what_is_lost_then_is_published_again_and_expires(
    fake_provider: FakeProvider, queue: list[str], settings: Settings
) -> None:
    image = failed(fake_provider)
    long_ago = timezone.now() - timedelta(days=3)
    GeneratedImage.objects.update(created_at=long_ago)
    retry_images(images=find_failed().images)
    finish_background()
    now = timezone.now()
    GeneratedImage.objects.update(republish_at=now)
    assert tend() == {"republished": 1}
    image.refresh_from_db()
    assert image.republish_at is not None
    assert image.republish_at - now < timedelta(minutes=11)
    GeneratedImage.objects.update(deadline_at=now - timedelta(minutes=1))
    assert tend() == {"expired": 1}
    image.refresh_from_db()
    assert not image.may_have_billed
    assert [row.pk for row in find_failed(codes=["queue_unavailable"]).images] == [image.pk]


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        ({"attempts": [{"code": "provider_timeout", "may_have_billed": True}]}, {}, "may_have_billed"),
        ({"duration_ms": None}, {}, "may_have_billed"),  # its process was stopped
        ({"file": "draft-images/item-1/x.png"}, {}, "may_have_billed"),  # it was ready, and the file got lost
        ({"error_code": "content_rejected"}, {}, "content_rejected"),
        ({"error_code": "content_rejected"}, {"codes": ["content_rejected"]}, None),
        ({}, {"codes": ["provider_auth"]}, None),
        ({}, {"since": timezone.now() - timedelta(hours=1)}, None),
        ({}, {"codes": ["storage_error"]}, ""),
        ({}, {"until": timezone.now() - timedelta(hours=1)}, ""),
    ],
)
def test_what_is_chosen(
    fake_provider: FakeProvider, values: dict[str, Any], options: dict[str, Any], reason: str | None
) -> None:
    failed(fake_provider)
    GeneratedImage.objects.update(**values)
    found = find_failed(**options)
    assert len(found.images) == (reason is None)
    assert dict(found.left_out) == ({reason: 1} if reason else {})


def test_what_was_requested_again_is_left_to_that_request(fake_provider: FakeProvider) -> None:
    failed(fake_provider)
    generate_image(content_item_id="item-1", title="A title")
    assert find_failed().left_out == {"requested_again": 1}


@threads
def test_a_budget_covers_what_is_queued_again_or_it_is_left(
    fake_provider: FakeProvider, queue: list[str], settings: Settings
) -> None:
    for number in range(3):
        failed(fake_provider, f"Title {number}")
    budget = {"BUDGET_DAY": "2.50", "PRICES": {"test": "1"}}
    settings.IMAGES = {**settings.IMAGES, **budget}
    with pytest.raises(CommandError, match="budget_exhausted"):
        retry()
    assert len(queue) == 2
    [standing] = standings()
    assert [standing.spent, standing.reserved] == [0, 2]
    run_generation(queue[0])
    tend()
    GeneratedImage.objects.filter(status=Status.PENDING).update(deadline_at=timezone.now() - timedelta(minutes=1))
    tend()
    [standing] = standings()
    assert [standing.spent, standing.reserved] == [1, 0]


def test_a_request_of_a_day_that_is_over_is_not_paid_from_that_days_budget(
    fake_provider: FakeProvider, queue: list[str], settings: Settings
) -> None:
    failed(fake_provider)
    GeneratedImage.objects.update(created_at=timezone.now() - timedelta(days=1))
    settings.IMAGES = {**settings.IMAGES, "BUDGET_DAY": "2.50", "PRICES": {"test": "1"}}
    assert "Make again in the admin counts today" in retry()
    assert queue == []


@threads
def test_without_a_queue_the_command_makes_the_images(fake_provider: FakeProvider) -> None:
    for number in range(7):
        failed(fake_provider, f"Title {number}")
    assert retry().endswith("Done.\n")
    assert set(GeneratedImage.objects.values_list("status", flat=True)) == {"ready"}


def test_a_row_that_has_changed_meanwhile_is_left_alone(fake_provider: FakeProvider, queue: list[str]) -> None:
    failed(fake_provider)
    found = find_failed()
    GeneratedImage.objects.update(status=Status.DELETING)
    assert retry_images(images=found.images) == 0
    assert queue == []


@pytest.mark.parametrize("day", ["yesterday", "2026-13-01", "2026-02-30"])
def test_a_day_that_does_not_exist_is_named(day: str) -> None:
    with pytest.raises(CommandError, match=day):
        retry("--since", day)


def test_a_day_is_a_whole_one(fake_provider: FakeProvider) -> None:
    failed(fake_provider)
    today = timezone.localdate().isoformat()
    assert "Would be queued again: 1" in retry("--since", today, "--until", today, "--dry-run")


@threads
def test_what_waits_can_be_given_up(fake_provider: FakeProvider, queue: list[str]) -> None:
    waits = generate_image_later(content_item_id="item-1", title="A title")
    out = StringIO()
    call_command("republish_images", "--cancel", stdout=out)
    assert out.getvalue() == "Cancelled: 1\n"
    waits.refresh_from_db()
    assert (waits.status, waits.error_code, waits.may_have_billed) == (Status.FAILED, "cancelled", False)
    run_generation(queue[0])  # the message that is left in the queue
    assert fake_provider.requests == []
