"""Failover between two providers under one deadline: the real SDKs against two scripted servers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from pytest_django.fixtures import Settings

from images import storage
from images.exceptions import (
    ContentRejected,
    ImagesError,
    ProviderBadImage,
    ProviderFailure,
    ProviderRefusedRequest,
    ProviderTimeout,
    StorageError,
)
from images.models import GeneratedImage
from images.providers import Deadline, ImageProvider
from images.providers.placeholder import PlaceholderProvider
from images.services import failover, generate_image
from images.signals import image_generated
from tests.fakes.answers import COST
from tests.fakes.provider_server import ProviderServer

WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}

pytestmark = pytest.mark.django_db(transaction=True)


class Providers(NamedTuple):
    """Gemini is asked first, then OpenAI."""

    gemini: ProviderServer
    openai: ProviderServer
    settings: Settings

    def configure(self, **changes: Any) -> None:
        self.settings.IMAGES = {**self.settings.IMAGES, **changes}

    def paid_calls(self) -> tuple[int, int]:
        return len(self.gemini.requests), len(self.openai.requests)


@pytest.fixture
def providers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Providers]:
    monkeypatch.setattr(failover, "BACKOFF", 0.01)
    with ProviderServer() as gemini, ProviderServer() as openai:
        settings.IMAGES = {
            "PROVIDER": "gemini,openai",
            "GEMINI_API_KEY": "AIza-secret",
            "GEMINI_API_BASE_URL": f"{gemini.url}/v1beta",
            "OPENAI_API_KEY": "sk-secret",
            "OPENAI_BASE_URL": f"{openai.url}/v1",
            "DEADLINE": 20,
        }
        yield Providers(gemini, openai, settings)


def codes(image: GeneratedImage | None = None) -> list[tuple[str, str]]:
    image = image or GeneratedImage.objects.get()
    return [(attempt["provider"], attempt["code"]) for attempt in image.attempts]


def test_the_first_generates_if_it_can(providers: Providers) -> None:
    image = generate_image(**WANTED)
    assert (image.provider, image.model) == ("gemini", "gemini-nano-banana-2.1")
    assert providers.paid_calls() == (1, 0)


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("http_401", "provider_auth"),
        ("http_403", "provider_auth"),
        ("http_404", "provider_model_unavailable"),
        ("quota", "provider_quota_exhausted"),
        ("http_500", "provider_error"),
        ("http_502", "provider_error"),
        ("reset", "provider_bad_response"),
        ("truncated_body", "provider_bad_response"),
        ("garbage", "provider_bad_response"),
        ("redirect", "provider_bad_response"),
        ("no_image", "provider_no_image"),
        ("text_only", "provider_no_image"),
        ("svg", "provider_bad_image"),
        ("truncated_image", "provider_bad_image"),
    ],
)
def test_the_second_generates_if_the_first_failed_and_the_answer_says_so(
    providers: Providers, mode: str, code: str
) -> None:
    providers.gemini.script(mode)
    image = generate_image(**WANTED)
    assert (image.provider, image.model) == ("openai", "gpt-image-2.6-flare")
    assert codes(image) == [("gemini", code), ("openai", "ok")]
    assert providers.paid_calls() == (1, 1)
    assert all(attempt["ms"] >= 0 and attempt["model"] for attempt in image.attempts)


@pytest.mark.parametrize("alias", ["gemini", "openai"])
@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("not_an_image", "it is an HTML page"),
        ("svg", "it is an SVG"),
        ("json", "it is JSON"),
        ("gif", "it is a GIF"),
        ("truncated_image", "the PNG is cut off"),
    ],
)
def test_what_is_no_image_is_called_by_name_in_sentence_and_log(
    providers: Providers, caplog: pytest.LogCaptureFixture, alias: str, mode: str, words: str
) -> None:
    providers.configure(PROVIDER=alias)
    getattr(providers, alias).script(mode)
    with pytest.raises(ProviderBadImage, match=words):
        generate_image(**WANTED)
    [line] = [message for message in caplog.messages if message.startswith("provider_bad_image ")]
    assert f"provider={alias} " in line
    assert words in line
    assert "request_id=re" in line


def test_what_costs_nothing_cannot_have_been_billed(providers: Providers, monkeypatch: pytest.MonkeyPatch) -> None:
    providers.configure(PROVIDER="placeholder")
    monkeypatch.setattr(PlaceholderProvider, "call", lambda *_: b"no image")
    with pytest.raises(ProviderBadImage) as caught:
        generate_image(**WANTED)
    assert not caught.value.may_have_billed
    assert not GeneratedImage.objects.get().may_have_billed


@pytest.mark.parametrize("mode", ["content_policy", "safety_block"])
def test_a_refusal_of_the_content_is_never_taken_elsewhere(providers: Providers, mode: str) -> None:
    providers.gemini.script(mode)
    with pytest.raises(ContentRejected):
        generate_image(**WANTED)
    assert providers.paid_calls() == (1, 0)


@pytest.mark.parametrize("order", ["gemini,openai", "openai,gemini"])
@pytest.mark.parametrize("mode", ["http_400", "http_413", "http_422", "detail", "error_plain"])
def test_the_second_is_asked_if_the_first_did_not_accept_the_request(
    providers: Providers, order: str, mode: str
) -> None:
    first, second = order.split(",")
    providers.configure(PROVIDER=order, FAILOVER_AFTER_BILLING=False)  # nothing was billed, so the switch is silent
    getattr(providers, first).script(mode)
    image = generate_image(**WANTED)
    assert codes(image) == [(first, "provider_error"), (second, "ok")]
    assert providers.paid_calls() == (1, 1)


@pytest.mark.parametrize("provider", ["gemini", "openai"])
def test_a_request_that_the_only_provider_did_not_accept_is_not_retryable(
    providers: Providers, provider: str
) -> None:
    providers.configure(PROVIDER=provider)
    getattr(providers, provider).script("http_400")
    with pytest.raises(ProviderRefusedRequest) as failure:
        generate_image(**WANTED)
    assert (failure.value.code, failure.value.retryable) == ("provider_error", False)
    assert sum(providers.paid_calls()) == 1


def test_a_request_that_no_provider_accepted_is_not_retryable(providers: Providers) -> None:
    providers.gemini.script("http_400")
    providers.openai.script("http_400")
    with pytest.raises(ProviderRefusedRequest) as failure:
        generate_image(**WANTED)
    assert not failure.value.retryable
    assert providers.paid_calls() == (1, 1)


def test_a_refusal_of_the_content_by_the_second_ends_it_too(providers: Providers) -> None:
    providers.gemini.script("http_400")
    providers.openai.script("content_policy")
    with pytest.raises(ContentRejected):
        generate_image(**WANTED)


@pytest.mark.parametrize("mode", ["hang", "hang_body", "drip_headers", "slow_drip"])
def test_a_first_provider_that_hangs_or_drips_leaves_the_second_its_half(providers: Providers, mode: str) -> None:
    providers.configure(DEADLINE=5)
    providers.gemini.script(mode)
    image = generate_image(**WANTED)
    assert codes(image) == [("gemini", "provider_timeout"), ("openai", "ok")]
    assert image.attempts[0]["ms"] < 5000


def test_if_both_hang_the_one_deadline_ends_it(providers: Providers) -> None:
    providers.configure(DEADLINE=1)
    providers.gemini.script("hang")
    providers.openai.script("hang")
    started = time.monotonic()
    with pytest.raises(ProviderTimeout):
        generate_image(**WANTED)
    assert time.monotonic() - started < 20
    assert codes() == [("gemini", "provider_timeout"), ("openai", "provider_timeout")]


class TestBilling:
    @pytest.mark.parametrize("mode", ["http_500", "reset", "no_image", "svg", "garbage"])
    def test_the_switch_ends_failover_if_the_first_may_have_billed(self, providers: Providers, mode: str) -> None:
        providers.configure(FAILOVER_AFTER_BILLING=False)
        providers.gemini.script(mode)
        with pytest.raises(ProviderFailure):
            generate_image(**WANTED)
        assert providers.paid_calls() == (1, 0)

    @pytest.mark.parametrize("mode", ["http_401", "http_404", "quota", "http_503"])
    def test_the_switch_leaves_failures_alone_that_cost_nothing(self, providers: Providers, mode: str) -> None:
        providers.configure(FAILOVER_AFTER_BILLING=False)
        providers.gemini.script(*[mode] * 3)
        assert generate_image(**WANTED).provider == "openai"

    @pytest.mark.parametrize(
        "mode", ["http_500", "http_502", "http_409", "http_408", "reset", "close", "truncated_body", "garbage", "svg"]
    )
    def test_no_provider_is_asked_twice_after_it_may_have_billed(self, providers: Providers, mode: str) -> None:
        providers.configure(PROVIDER="openai")
        providers.openai.script(mode)
        with pytest.raises(ProviderFailure):
            generate_image(**WANTED)
        assert providers.paid_calls() == (0, 1)


@pytest.mark.parametrize(
    "backend", ["no.such.module.Provider", "tests.fakes.providers.png", "tests.fakes.providers.FakeBackend"]
)
def test_a_provider_that_cannot_be_loaded_is_passed_over(providers: Providers, backend: str) -> None:
    """No such module; not a provider; a provider that does not start without an option."""
    providers.configure(PROVIDER="broken,openai", PROVIDERS={"broken": backend})
    image = generate_image(**WANTED)
    assert codes(image) == [("broken", "provider_not_configured"), ("openai", "ok")]
    assert providers.paid_calls() == (0, 1)


class TellsItsKey(ImageProvider):
    """Some vendors' clients repeat the key that they do not like."""

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        raise ValueError(f"bad options: {options}")

    def call(self, payload: Any, deadline: Deadline) -> Any:
        raise NotImplementedError


def test_what_a_provider_says_as_it_fails_to_load_is_not_logged(
    providers: Providers, caplog: pytest.LogCaptureFixture
) -> None:
    entry = {"BACKEND": f"{__name__}.TellsItsKey", "OPTIONS": {"api_key": "sk-secret-key"}}
    providers.configure(PROVIDER="telling,openai", PROVIDERS={"telling": entry})
    generate_image(**WANTED)
    assert "provider_not_loaded provider=telling model=- error=ValueError" in caplog.text
    assert "sk-secret-key" not in caplog.text


class TestUsage:
    """Whatever a provider reports as used is kept with its attempt, to the digit."""

    @pytest.mark.parametrize("order", ["gemini,openai", "openai,gemini"])
    @pytest.mark.parametrize("mode", ["cost_no_image", "cost_reported", "cost_base64", "cost_svg"])
    def test_of_an_attempt_that_failed_is_kept(self, providers: Providers, order: str, mode: str) -> None:
        first, second = order.split(",")
        providers.configure(PROVIDER=order)
        getattr(providers, first).script(mode)
        getattr(providers, second).script("cost")
        image = generate_image(**WANTED)
        assert [attempt["usage"] for attempt in image.attempts] == [COST, COST]
        image.refresh_from_db()
        assert [attempt["usage"] for attempt in image.attempts] == [COST, COST]
        assert image.usage == COST
        assert (image.cost, image.cost_basis) == (2 * Decimal("0.0421735"), "reported")

    @pytest.mark.parametrize("provider", ["gemini", "openai"])
    def test_of_content_that_was_rejected_is_kept(self, providers: Providers, provider: str) -> None:
        providers.configure(PROVIDER=provider)
        getattr(providers, provider).script("cost_flagged")
        with pytest.raises(ContentRejected):
            generate_image(**WANTED)
        assert [attempt["usage"] for attempt in GeneratedImage.objects.get().attempts] == [COST]

    def test_of_a_file_that_could_not_be_fetched_is_kept(self, providers: Providers) -> None:
        providers.configure(PROVIDER="openai", FETCH_ALLOWED_HOSTS=["127.0.0.1"])
        providers.openai.script("cost_url")
        providers.openai.script_files("http_404")
        with pytest.raises(ProviderFailure):
            generate_image(**WANTED)
        assert [attempt["usage"] for attempt in GeneratedImage.objects.get().attempts] == [COST]

    def test_of_a_picture_that_could_not_be_stored_is_kept(
        self, providers: Providers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        providers.gemini.script("cost")
        fail = lambda *_: (_ for _ in ()).throw(StorageError())  # noqa: E731
        monkeypatch.setattr(storage, "save", fail)
        with pytest.raises(StorageError):
            generate_image(**WANTED)
        image = GeneratedImage.objects.get()
        assert [(attempt["code"], attempt["usage"]) for attempt in image.attempts] == [("ok", COST)]
        assert image.cost == Decimal("0.0421735")

    @pytest.mark.parametrize(
        ("provider", "mode", "usd", "basis"),
        [
            ("openai", "ok", "0.03193", "estimated"),
            ("gemini", "ok", "0.03876", "estimated"),
            ("openai", "cost_header", "0.042", "reported"),
        ],
    )
    def test_becomes_a_cost_that_the_receivers_of_signals_see(
        self, providers: Providers, provider: str, mode: str, usd: str, basis: str
    ) -> None:
        providers.configure(PROVIDER=provider)
        getattr(providers, provider).script(mode)
        told: list[Any] = []
        receiver = lambda image, **_: told.append((image.cost, image.cost_basis, image.prices_dated))  # noqa: E731
        image_generated.connect(receiver)
        try:
            generate_image(**WANTED)
        finally:
            image_generated.disconnect(receiver)
        row = GeneratedImage.objects.get()
        assert told == [(row.cost, row.cost_basis, row.prices_dated)]
        assert (row.cost, row.cost_basis) == (Decimal(usd), basis)
        assert bool(row.prices_dated) == (basis == "estimated")

    def test_that_is_missing_stays_unknown(self, providers: Providers) -> None:
        providers.gemini.script("http_500")
        image = generate_image(**WANTED)
        assert image.attempts[0]["usage"] is None
        assert image.cost_basis == "at_least"


class TestRetries:
    def test_an_overloaded_provider_is_asked_again_and_every_try_is_on_the_row(self, providers: Providers) -> None:
        providers.gemini.script("http_503", "http_529")
        image = generate_image(**WANTED)
        assert codes(image) == [
            ("gemini", "provider_overloaded"),
            ("gemini", "provider_overloaded"),
            ("gemini", "ok"),
        ]

    def test_after_three_tries_the_next_is_asked(self, providers: Providers) -> None:
        providers.gemini.script(*["http_503"] * 5)
        assert generate_image(**WANTED).provider == "openai"
        assert providers.paid_calls() == (3, 1)

    def test_a_refused_connection_is_tried_again_and_then_the_next(self, providers: Providers) -> None:
        providers.gemini.close()
        image = generate_image(**WANTED)
        assert codes(image) == [("gemini", "provider_unreachable")] * 3 + [("openai", "ok")]

    def test_a_rate_limit_whose_pause_does_not_fit_goes_to_the_next_at_once(self, providers: Providers) -> None:
        providers.configure(DEADLINE=6)  # the server says "in 2 seconds"; half of the first one's share is 1.5
        providers.gemini.script("http_429")
        started = time.monotonic()
        assert generate_image(**WANTED).provider == "openai"
        assert time.monotonic() - started < 2
        assert providers.paid_calls() == (1, 1)

    def test_a_rate_limit_whose_pause_fits_is_waited_for(self, providers: Providers) -> None:
        providers.configure(PROVIDER="gemini")
        providers.gemini.script("http_429")
        assert codes(generate_image(**WANTED)) == [("gemini", "provider_rate_limited"), ("gemini", "ok")]


class TestWhatTheCallerIsTold:
    def test_the_failure_after_which_asking_again_can_help(self, providers: Providers) -> None:
        providers.configure(OPENAI_API_KEY="")
        providers.gemini.script("http_500")
        with pytest.raises(ImagesError) as told:
            generate_image(**WANTED)
        assert (told.value.code, told.value.retryable) == ("provider_error", True)
        assert codes() == [("gemini", "provider_error"), ("openai", "provider_not_configured")]

    def test_a_refusal_by_the_second_outweighs_an_outage_of_the_first(self, providers: Providers) -> None:
        providers.gemini.script("http_500")
        providers.openai.script("content_policy")
        with pytest.raises(ContentRejected):
            generate_image(**WANTED)

    def test_no_key_shows_anywhere(self, providers: Providers, caplog: pytest.LogCaptureFixture) -> None:
        providers.gemini.script("http_401")
        providers.openai.script("http_401")
        with caplog.at_level("DEBUG"), pytest.raises(ImagesError) as told:
            generate_image(**WANTED)
        shown = caplog.text + repr(told.value) + str(GeneratedImage.objects.values())
        assert "AIza-secret" not in shown
        assert "sk-secret" not in shown
        assert "GEMINI_API_KEY" in told.value.message
