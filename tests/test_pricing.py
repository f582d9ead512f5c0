"""What attempts cost: reported, else estimated from tokens and dated prices, else unknown."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from images.conf import DEFAULT_TEXT_MODELS, conf
from images.price_table import PRICES, READ_ON, TOKEN_KINDS, Price
from images.pricing import UNKNOWN, Cost, cost_of, estimate_for, find_price

#: 40 tokens of text at $5, 1,290 of picture at $30.
OPENAI = {
    "input_tokens": 40,
    "input_tokens_details": {"text_tokens": 40, "image_tokens": 0},
    "output_tokens": 1290,
    "total_tokens": 1330,
}
#: 40 tokens of text at $1.50, 1,120 of picture at $30, 10 of text and 200 of thinking at $7.50.
GEMINI = {
    "prompt_token_count": 40,
    "candidates_token_count": 1130,
    "candidates_tokens_details": [{"modality": "IMAGE", "token_count": 1120}],
    "thoughts_token_count": 200,
    "total_token_count": 1370,
    "traffic_type": "ON_DEMAND",
}
OPENAI_USD, GEMINI_USD = Decimal("0.0389"), Decimal("0.035235")


def attempt(
    usage: Any = None, *, model: str = "gpt-image-2.6-flare", code: str = "ok", **more: Any
) -> dict[str, Any]:
    return {"provider": "openai", "model": model, "code": code, "usage": usage, "may_have_billed": True, **more}


NOT_BILLED = attempt(code="provider_rate_limited", may_have_billed=False)
UNTOLD = attempt(code="provider_timeout")


def cost(usd: str | Decimal, basis: str, *, dated: date | None = READ_ON) -> Cost:
    return Cost(usd=Decimal(usd), basis=basis, dated=None if basis == "reported" else dated)


@pytest.mark.parametrize(
    ("attempts", "expected"),
    {
        "OpenAI": ([attempt(OPENAI)], cost(OPENAI_USD, "estimated")),
        "Gemini, thinking": ([attempt(GEMINI, model="gemini-nano-banana-2.1")], cost(GEMINI_USD, "estimated")),
        "a version": ([attempt(OPENAI, model="gpt-image-2.6-flare-2026-11-01")], cost(OPENAI_USD, "estimated")),
        "a gateway's name": ([attempt(OPENAI, model="openai/gpt-image-2.6-flare")], cost(OPENAI_USD, "estimated")),
        "cached": (
            [attempt({**OPENAI, "input_tokens_details": {"text_tokens": 40, "cached_tokens": 32}})],
            cost("0.03878", "estimated"),
        ),
        "a model without a price": ([attempt(OPENAI, model="gpt-image-2.7-flare")], UNKNOWN),
        "every attempt": (
            [attempt(OPENAI, code="provider_bad_image"), NOT_BILLED, attempt(GEMINI, model="gemini-nano-banana-2.1")],
            cost(OPENAI_USD + GEMINI_USD, "estimated"),
        ),
        "one attempt untold": ([UNTOLD, attempt(OPENAI)], cost(OPENAI_USD, "at_least")),
        "all untold": ([UNTOLD, attempt()], UNKNOWN),
        "none billed": ([NOT_BILLED], cost("0", "estimated", dated=None)),
        "no attempt": ([], cost("0", "estimated", dated=None)),
        "reported": ([attempt({**OPENAI, "cost": 0.0412})], cost("0.0412", "reported")),
        "reported and estimated": ([attempt({"cost": 0.01}), attempt(OPENAI)], cost("0.0489", "estimated")),
        "reported in ticks": ([attempt({"cost_in_usd_ticks": 400000000})], cost("0.04", "reported")),
        "reported as nothing": ([attempt({"cost": 0})], cost("0", "reported")),
        "OpenRouter, an own key": (
            [attempt({"cost": 0.002, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.04}})],
            cost("0.042", "reported"),
        ),
        "OpenRouter, its key": (
            [attempt({"cost": 0.04, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.04}})],
            cost("0.04", "reported"),
        ),
        "only a total": ([attempt({"total_tokens": 1330})], UNKNOWN),
        "nothing but zeros": ([attempt({"input_tokens": 0, "output_tokens": 0})], UNKNOWN),
        "no tokens of the picture": ([attempt({"input_tokens": 40})], cost("0.0002", "at_least")),
        "more in the total": ([attempt({**OPENAI, "total_tokens": 2000})], cost(OPENAI_USD, "at_least")),
        "text or picture": (
            [attempt({"prompt_token_count": 40, "candidates_token_count": 1120}, model="gemini-nano-banana-2.1")],
            cost("0.00846", "at_least"),
        ),
        "cached tokens without a price": (
            [attempt({**GEMINI, "cached_content_token_count": 32}, model="gemini-nano-banana-2.1")],
            cost("0.035187", "at_least"),
        ),
        "another tier": ([attempt({**OPENAI, "service_tier": "priority"})], UNKNOWN),
        "impossible": (
            [attempt({**OPENAI, "cost": -1, "input_tokens": "x", "total_tokens": [], "input_tokens_details": 7})],
            cost("0.0387", "estimated"),
        ),
        "a scene": (
            [
                attempt({"prompt_tokens": 900, "completion_tokens": 300}, model="gpt-6-luna", kind="scene"),
                attempt(OPENAI),
            ],
            cost(OPENAI_USD + Decimal("0.00024"), "estimated"),
        ),
        "not even attempts": ([None, "x", {}], cost("0", "estimated", dated=None)),
    }.values(),
)  # fmt: skip
def test_the_cost_of_a_row_is_that_of_all_its_attempts(attempts: list[Any], expected: Cost) -> None:
    assert cost_of(attempts) == expected


def test_an_own_price_wins_over_the_table_and_can_be_that_of_a_picture(settings: Settings) -> None:
    settings.IMAGES = {"PRICES": {"gpt-image-2.6-flare": {"image_out": 10}, "flux-*": "0.02", "openai": 0.5}}
    assert cost_of([attempt(OPENAI)]) == cost("0.0129", "at_least", dated=None)
    assert cost_of([attempt(model="flux-9"), UNTOLD]) == cost("0.02", "at_least", dated=None)
    assert cost_of([attempt(model="flux-9", code="provider_bad_image")]) == cost("0.02", "estimated", dated=None)
    assert cost_of([attempt(model="other")]) == cost("0.5", "estimated", dated=None)
    assert cost_of([attempt(model="other", kind="text")]) == UNKNOWN


@pytest.mark.parametrize("text", ["mine=0.02; b=1", '{"mine": 0.02, "b": {"image": "1"}}'])
def test_own_prices_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("IMAGE_PRICES", text)
    assert {name: price.image for name, price in conf.prices.items()} == {"mine": Decimal("0.02"), "b": Decimal(1)}


@pytest.mark.parametrize(
    "value",
    [
        *["mine", "=1", "mine=", "mine=-1", "mine=NaN", "{", "[1]", 7, {"m": None}],
        *[{"m": {"pixel": 1}}, {"m": {}}, {"m": {"image": 1, "text_in": 1}}],
    ],
)
def test_a_price_that_cannot_be_used_is_an_error_and_hides_no_cost(settings: Settings, value: Any) -> None:
    settings.IMAGES = {"PRICES": value}
    with pytest.raises(ImproperlyConfigured, match=r"^IMAGE_PRICES "):
        _prices = conf.prices
    assert cost_of([attempt(OPENAI)]) == UNKNOWN
    assert cost_of([attempt({"cost": 0.04})]) == cost("0.04", "reported")


def test_an_estimate_needs_a_price(settings: Settings) -> None:
    assert estimate_for("gemini", "gemini-nano-banana-2.1") == Decimal("0.0351")
    assert estimate_for("openai", "unheard-of") is None
    settings.IMAGES = {"PRICES": {"unheard-of": 0.02}}
    assert estimate_for("openai", "unheard-of") == Decimal("0.02")


def test_each_price_has_a_source_a_date_and_one_line() -> None:
    assert all(price.source and price.dated and price.dated <= READ_ON for price in PRICES)
    models = [model for price in PRICES for model in price.models]
    assert len(models) == len(set(models))
    assert all(getattr(price, kind) is None or getattr(price, kind) > 0 for price in PRICES for kind in TOKEN_KINDS)


def test_the_default_models_have_a_price() -> None:
    assert find_price("openai", conf.openai_image_model)
    assert find_price("gemini", conf.gemini_image_model)
    assert all(find_price(alias, model) for alias, model in DEFAULT_TEXT_MODELS.items())


def test_a_price_of_the_table_is_old_after_ninety_days() -> None:
    price = Price(dated=READ_ON)
    assert not price.is_old(READ_ON + timedelta(days=90))
    assert price.is_old(READ_ON + timedelta(days=91))
    assert not Price(image=Decimal(1)).is_old(READ_ON + timedelta(days=91))
