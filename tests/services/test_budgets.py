"""A budget is never crossed, and what counts against it is what the rows say."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections, transaction
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings
from rest_framework.test import APIClient

from images.checks import BUDGET_UNESTIMABLE, check_budgets, check_values
from images.exceptions import BudgetExhausted, ImagesError, ProviderNotConfigured, ProviderTimeout
from images.models import BudgetPeriod, DeletedImage, GeneratedImage, Status
from images.services import budgets, delete_image, generate_image, generate_image_later, queue, run_generation
from images.services.background import start_generations
from images.services.budgets import UNITS, Standing, budgets_of, standings
from images.services.outbox import tend
from images.services.reconciliation import Kind, reconcile
from images.services.repair import fail_stopped
from images.services.request import GenerationRequest
from images.signals import budget_warning
from tests.conftest import client_for
from tests.fakes.providers import FakeProvider, Gate, png

WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}
BODY = {"contentItemId": "item-1", "title": "A quiet harbour at dawn"}

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def provider(fake_provider: FakeProvider, settings: Settings) -> FakeProvider:
    """A provider whose pictures cost 10 cents each, whatever it reports."""
    change(settings, PRICES={"test": "0.10"})
    return fake_provider


def change(settings: Settings, **images: Any) -> None:
    settings.IMAGES = {**settings.IMAGES, **images}


def used() -> tuple[Decimal, Decimal]:
    """What is spent and reserved of the installation's first budget."""
    standing = standings()[0]
    return standing.spent, standing.reserved


def dollars(*amounts: str) -> tuple[Decimal, ...]:
    return tuple(Decimal(amount) for amount in amounts)


def listen(monkeypatch: pytest.MonkeyPatch) -> list[Standing]:
    heard: list[Standing] = []

    def hear(standing: Standing, **_: Any) -> None:
        heard.append(standing)

    monkeypatch.setattr(budget_warning, "receivers", [])
    monkeypatch.setattr(budget_warning, "sender_receivers_cache", type(budget_warning.sender_receivers_cache)())
    budget_warning.connect(hear, weak=False)
    return heard


# --- The line -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "whose"),
    [
        ("BUDGET_DAY", "This installation's budget for today (IMAGE_BUDGET_DAY)"),
        ("BUDGET_MONTH", "This installation's budget for this month (IMAGE_BUDGET_MONTH)"),
        ("USER_BUDGET_DAY", "This user's budget for today (IMAGE_USER_BUDGET_DAY)"),
        ("USER_BUDGET_MONTH", "This user's budget for this month (IMAGE_USER_BUDGET_MONTH)"),
    ],
)
def test_beyond_the_line_a_request_is_refused_until_the_period_ends(
    provider: FakeProvider, settings: Settings, api: APIClient, key: str, whose: str
) -> None:
    settings.TIME_ZONE = "Pacific/Kiritimati"
    change(settings, **{key: "0.30"})
    assert [api.post("/api/images/generate", BODY, format="json").status_code for _ in range(3)] == [200] * 3
    refused = api.post("/api/images/generate", BODY, format="json")
    [budget] = [each for each in budgets_of(1, timezone.now()) if each.setting == key]
    assert (refused.status_code, refused.json()["code"], refused.json()["retryable"]) == (
        503,
        "budget_exhausted",
        True,
    )
    assert refused.json()["error"].startswith(whose)
    assert "Pacific/Kiritimati" in refused.json()["error"]
    assert abs(int(refused["Retry-After"]) - (budget.ends_at - timezone.now()).total_seconds()) < 5
    assert len(provider.requests) == 3  # nothing was paid
    assert GeneratedImage.objects.count() == 3  # nothing was queued


def test_a_users_budget_is_their_own(provider: FakeProvider, settings: Settings, user: User, stranger: User) -> None:
    change(settings, USER_BUDGET_DAY="0.10")
    generate_image(**WANTED, user=user)
    generate_image(**WANTED, user=stranger)
    generate_image(**WANTED)  # nobody's
    refused = client_for(user).post("/api/images/generate", BODY, format="json").json()
    assert refused["code"] == "budget_exhausted"
    assert not any(word in json.dumps(refused) for word in ("0.1", "bob", f"user:{stranger.pk}"))


def test_the_sentence_names_the_budget_that_lasts_longest(
    provider: FakeProvider, settings: Settings, user: User
) -> None:
    change(settings, BUDGET_DAY="0.05", USER_BUDGET_MONTH="0.05")
    with pytest.raises(BudgetExhausted, match="IMAGE_USER_BUDGET_MONTH") as refused:
        generate_image(**WANTED, user=user)
    assert refused.value.retry_after
    assert not refused.value.may_have_billed


def test_a_repeated_key_is_served_beyond_the_line(provider: FakeProvider, settings: Settings) -> None:
    change(settings, BUDGET_DAY="0.10")
    first = generate_image(**WANTED, idempotency_key="k")
    assert generate_image(**WANTED, idempotency_key="k").pk == first.pk
    assert used() == dollars("0.1", "0")
    with pytest.raises(BudgetExhausted):
        generate_image(**WANTED)


def test_a_period_begins_at_midnight_in_time_zone_and_anew(
    provider: FakeProvider, settings: Settings, user: User
) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    change(settings, BUDGET_DAY=1, BUDGET_MONTH=1)
    moment = datetime(2026, 12, 31, 15, 30, tzinfo=UTC)  # half past midnight, in January
    with timezone.override("America/New_York"):
        day, month = budgets_of(user.pk, moment)
    assert [str(day.starts_on), str(month.starts_on), str(month.ends_on)] == [
        "2027-01-01",
        "2027-01-01",
        "2027-02-01",
    ]
    assert day.ends_at == datetime(2027, 1, 1, 15, 0, tzinfo=UTC)


def test_what_was_spent_before_there_was_a_budget_counts(provider: FakeProvider, settings: Settings) -> None:
    delete_image(image=generate_image(**WANTED))
    generate_image(**WANTED)
    change(settings, BUDGET_DAY="0.30")
    generate_image(**WANTED)
    assert used() == dollars("0.3", "0")
    change(settings, BUDGET_DAY=None)
    generate_image(**WANTED)
    change(settings, BUDGET_DAY="0.50")
    generate_image(**WANTED)
    assert used() == dollars("0.5", "0")


def test_requests_at_once_share_what_is_left(provider: FakeProvider, settings: Settings) -> None:
    change(settings, BUDGET_DAY="0.50", BUDGET_MONTH="9")
    gate = Gate()
    provider.will(*[gate] * 12)

    def ask(_: int) -> str:
        try:
            return generate_image(**WANTED).status
        except ImagesError as err:
            return err.code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(ask, number) for number in range(12)]
        for _ in range(5):
            assert gate.entered.acquire(timeout=30)
        refused = [each.result(30) for each in islice(as_completed(asked), 7)]
        assert used() == dollars("0", "0.5")
        gate.open.set()
    assert refused == ["budget_exhausted"] * 7
    assert [each.result(30) for each in asked].count("ready") == 5
    assert used() == dollars("0.5", "0")


# --- Estimates ------------------------------------------------------------------------------------------------------


def test_the_recent_average_is_the_estimate_and_the_price_before_there_is_one(
    fake_provider: FakeProvider, settings: Settings
) -> None:
    entries = {**settings.IMAGES["PROVIDERS"]}
    entries["test"] = {**entries["test"], "OPTIONS": {**entries["test"]["OPTIONS"], "model": "test-model-1"}}
    change(settings, PROVIDERS=entries, PRICES={"test-model-1": "0.50"}, BUDGET_DAY=5)
    assert budgets.estimate() == Decimal("0.50")
    for cost in (0.02, 0.04):
        fake_provider.usage = {"cost": cost}
        generate_image(**WANTED)
    assert budgets.estimate() == Decimal("0.03")


@pytest.mark.parametrize(("after_billing", "reserved"), [(True, "0.35"), (False, "0.25")])
def test_every_call_that_may_be_billed_is_reserved(
    provider: FakeProvider, settings: Settings, after_billing: bool, reserved: str
) -> None:
    entries = {**settings.IMAGES["PROVIDERS"], "again": settings.IMAGES["PROVIDERS"]["test"]}
    change(settings, PROVIDER="test,again", PROVIDERS=entries, PRICES={"test": "0.10", "again": "0.25"})
    change(settings, FAILOVER_AFTER_BILLING=after_billing)
    assert budgets.estimate() == Decimal(reserved)
    change(settings, SCENE_PROVIDER="openai", SCENE_MODEL="gpt-6-luna")
    assert budgets.estimate() > Decimal(reserved)


def test_without_an_estimate_a_request_is_refused_and_the_check_is_an_error(
    fake_provider: FakeProvider, settings: Settings, api: APIClient
) -> None:
    assert check_budgets() == []
    change(settings, BUDGET_MONTH=5)
    [error] = check_budgets()
    assert (error.id, error.is_serious()) == (BUDGET_UNESTIMABLE, True)
    with pytest.raises(ProviderNotConfigured, match=r"IMAGE_BUDGET_MONTH.*IMAGE_PRICES=test"):
        generate_image(**WANTED)
    answer = api.post("/api/images/generate", BODY, format="json")
    assert (answer.status_code, answer.json()["code"]) == (503, "provider_not_configured")
    assert not fake_provider.requests
    change(settings, PRICES={"test": "0.04"})
    assert check_budgets() == []


@pytest.mark.parametrize("value", ["much", "-1", "nan"])
def test_a_budget_is_an_amount(settings: Settings, value: str) -> None:
    change(settings, BUDGET_DAY=value)
    assert any("IMAGE_BUDGET_DAY" in message.msg for message in check_values())


# --- Settling -------------------------------------------------------------------------------------------------------


def test_the_real_cost_takes_the_place_of_the_estimate(fake_provider: FakeProvider, settings: Settings) -> None:
    change(settings, BUDGET_DAY=5, PRICES={"test": "0.10"})
    gate = Gate()
    fake_provider.will(gate)
    fake_provider.usage = {"cost": 0.04}
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(_generate)
        assert gate.entered.acquire(timeout=30)
        assert used() == dollars("0", "0.1")
        gate.open.set()
        made.result(30)
    assert used() == dollars("0.04", "0")


def _generate() -> None:
    try:
        generate_image(**WANTED)
    finally:
        connections.close_all()


@pytest.mark.parametrize(
    ("failure", "spent"), [(ProviderTimeout(), "0.1"), (ProviderNotConfigured(), "0")], ids=["unknown", "unbilled"]
)
def test_a_failure_counts_as_estimated_if_it_may_have_been_billed(
    provider: FakeProvider, settings: Settings, failure: ImagesError, spent: str
) -> None:
    change(settings, BUDGET_DAY=5)
    provider.will(failure)
    with pytest.raises(ImagesError):
        generate_image(**WANTED)
    assert used() == dollars(spent, "0")
    assert not list(budgets.drifted())


def test_deleting_gives_nothing_back(provider: FakeProvider, settings: Settings) -> None:
    change(settings, BUDGET_DAY=5)
    delete_image(image=generate_image(**WANTED))
    provider.will(ProviderTimeout())
    with pytest.raises(ProviderTimeout):
        generate_image(**WANTED)
    GeneratedImage.objects.all().delete()
    assert used() == dollars("0.2", "0")
    assert not list(budgets.drifted())


def test_an_image_that_is_deleted_while_it_is_made_counts(provider: FakeProvider, settings: Settings) -> None:
    change(settings, BUDGET_DAY=5, PRICES={"test": "0.10"})
    provider.usage = {"cost": 0.03}

    def be_deleted(_: Any) -> bytes:
        delete_image(image=GeneratedImage.objects.get())
        return png()

    provider.will(be_deleted)
    with pytest.raises(ImagesError):
        generate_image(**WANTED)
    assert DeletedImage.objects.get().cost == Decimal("0.03")
    assert used() == dollars("0.03", "0")
    assert not list(budgets.drifted())


def killed(**changes: Any) -> GeneratedImage:
    """What a killed process leaves."""
    image = GenerationRequest(**WANTED).cleaned().write_row(queued=False)
    GeneratedImage.objects.filter(pk=image.pk).update(deadline_at=timezone.now() - timedelta(minutes=5), **changes)
    return image


@pytest.mark.parametrize(("changes", "spent"), [({}, "0.1"), ({"started_at": None}, "0")], ids=["started", "waiting"])
def test_what_a_killed_process_had_reserved_is_settled_like_its_row(
    provider: FakeProvider, settings: Settings, changes: dict[str, Any], spent: str
) -> None:
    change(settings, BUDGET_DAY=5)
    killed(**changes)
    assert used() == dollars("0", "0.1")
    list(reconcile(apply=True))
    assert GeneratedImage.objects.get().status == Status.FAILED
    assert used() == dollars(spent, "0")
    assert not list(budgets.drifted())


def test_settling_twice_changes_nothing(provider: FakeProvider, settings: Settings) -> None:
    change(settings, BUDGET_DAY=5)
    row = killed()
    row.refresh_from_db()
    assert fail_stopped(row, [])
    assert not fail_stopped(row, [])
    assert not queue.fail_pending(row, ImagesError())
    assert budgets.record(GeneratedImage.objects.all())
    assert used() == dollars("0.1", "0")


# --- The queue ------------------------------------------------------------------------------------------------------


def test_a_queued_request_is_refused_when_it_is_asked_for_and_made_once_it_was_accepted(
    provider: FakeProvider, settings: Settings
) -> None:
    change(settings, QUEUE="tests.services.test_budgets.enqueue", BUDGET_DAY="0.10")
    image = generate_image_later(**WANTED)
    assert used() == dollars("0", "0.1")
    with pytest.raises(BudgetExhausted):
        generate_image_later(**WANTED)
    assert GeneratedImage.objects.count() == 1
    run_generation(image.pk)
    assert GeneratedImage.objects.get().status == Status.READY
    assert used() == dollars("0.1", "0")


@pytest.mark.parametrize(("budget", "again"), [("0.25", True), ("0.15", False)])
@pytest.mark.parametrize("by_outbox", [True, False])
def test_a_lost_run_is_repeated_only_if_the_budget_covers_both(
    provider: FakeProvider, settings: Settings, budget: str, again: bool, by_outbox: bool
) -> None:
    change(settings, QUEUE="tests.services.test_budgets.enqueue", BUDGET_DAY=budget, RETRY_LOST=True)
    image = generate_image_later(**WANTED)
    begun = timezone.now() - timedelta(hours=1)
    GeneratedImage.objects.update(started_at=begun, deadline_at=timezone.now() + timedelta(hours=1))
    if by_outbox:
        tend()
    run_generation(image.pk, redelivered=True)
    image.refresh_from_db()
    assert image.status == (Status.READY if again else Status.FAILED)
    assert used() == dollars("0.2" if again else "0.1", "0")
    assert not list(budgets.drifted())


def enqueue(image_id: str) -> None:
    """A queue whose workers come later."""


def test_a_rollback_gives_back_what_was_reserved(provider: FakeProvider, settings: Settings) -> None:
    change(settings, QUEUE="tests.services.test_budgets.enqueue", BUDGET_DAY="0.10")
    with transaction.atomic():
        generate_image_later(**WANTED)
        transaction.set_rollback(True)
    assert used() == dollars("0", "0")
    generate_image_later(**WANTED)


def test_several_are_started_together_or_none(provider: FakeProvider, settings: Settings) -> None:
    change(settings, QUEUE="tests.services.test_budgets.enqueue", BUDGET_DAY="0.20")
    with pytest.raises(BudgetExhausted):
        start_generations(requests=[GenerationRequest(**WANTED)] * 3)
    assert not GeneratedImage.objects.exists()
    assert used() == dollars("0", "0")


# --- Warnings, sums -------------------------------------------------------------------------------------------------


def test_at_80_percent_the_log_and_a_signal_say_so_once(
    provider: FakeProvider, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard = listen(monkeypatch)
    change(settings, BUDGET_DAY="1")
    with caplog.at_level(logging.WARNING, "images"):
        for _ in range(7):
            generate_image(**WANTED)
        assert not heard
        for _ in range(2):
            generate_image(**WANTED)
    [standing] = heard
    assert (standing.budget.setting, standing.used) == ("BUDGET_DAY", Decimal("0.8"))
    assert sum("budget_warning" in record.getMessage() for record in caplog.records) == 1
    BudgetPeriod.objects.update(warned_at=None, starts_on=timezone.now().date() - timedelta(days=1))
    generate_image(**WANTED)  # as if the sums were lost: counted from the rows
    assert len(heard) == 2


def test_a_refusal_warns_if_nothing_has_before(
    provider: FakeProvider, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = listen(monkeypatch)
    change(settings, BUDGET_DAY="0.05")
    for _ in range(2):
        with pytest.raises(BudgetExhausted):
            generate_image(**WANTED)
    assert len(heard) == 1


def test_reconciliation_verifies_the_sums(provider: FakeProvider, settings: Settings, user: User) -> None:
    change(settings, BUDGET_DAY=5, USER_BUDGET_MONTH=5)
    generate_image(**WANTED, user=user)
    assert not list(reconcile())
    BudgetPeriod.objects.filter(scope="").update(spent=7 * UNITS)
    BudgetPeriod.objects.exclude(scope="").update(reserved=3)
    GeneratedImage.objects.update(budget_reserved=5)  # by a process that knew of no budget
    kinds = [found.kind for found in reconcile()]
    assert set(kinds) == {Kind.BUDGET}
    assert {found.kind for found in reconcile(apply=True)} == {Kind.BUDGET}
    assert used() == dollars("0.1", "0")
    assert not list(reconcile())


def test_without_a_budget_there_is_no_query(
    provider: FakeProvider, settings: Settings, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    image = GeneratedImage(**WANTED)
    with django_assert_num_queries(0):
        budgets.prepare(image)
        budgets.reserve(image)
        budgets.settle_deleted(image)
        budgets.release(image)
    assert image.budget_reserved is None
    with django_assert_num_queries(1):
        budgets.record(GeneratedImage.objects.all(), title="x")
