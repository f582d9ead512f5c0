"""What a generation cost, and what one is going to cost, in US dollars.

    from images.pricing import cost_of, estimate_for

A cost is what the server reported, otherwise it follows from the tokens of every attempt and a price: the operator's
own (`IMAGES["PRICES"]`), otherwise that of the table (`price_table.py`). A price is never guessed. Without one the
cost is unknown, and a sum in which an unknown part is missing is called "at least".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from fnmatch import fnmatchcase
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from .conf import conf
from .price_table import PRICES, TOKEN_KINDS, Price

#: How a cost was found.
REPORTED, ESTIMATED, AT_LEAST = "reported", "estimated", "at_least"

#: The digits that a row keeps: ten behind the point, which is the smallest unit that a server reports in.
PLACES = Decimal("1E-10")
#: Larger amounts and counts are an error of the server's, and count as not reported.
MAX_USD, MAX_TOKENS = Decimal(1_000_000), 10**9
#: Tokens of a prompt, more than this app's prompts usually have. They cost little beside those of the picture.
PROMPT_TOKENS = 1000

_MILLION = Decimal(1_000_000)
#: xAI's unit: https://docs.x.ai/developers/cost-tracking
_TICKS = Decimal(10**10)
#: What a vendor adds to the name of a model to name one version of it.
_VERSION_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")
#: The codes of attempts in which a whole answer with a picture arrived, whatever the picture was like.
_DELIVERED = {"ok", "provider_bad_image"}
#: Tiers of service to which the list prices apply; the vendors' others cost more or less.
_STANDARD_TIERS = {"", "default", "standard", "auto", "on_demand", "unspecified"}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What something cost.

    Attributes:
        usd: US dollars; `None` if it is unknown.
        basis: `reported`, `estimated` or `at_least`; "" if it is unknown.
        dated: The day of the prices that it was computed from: the oldest, if there are several. `None` if the server
            reported it, or if the prices are the operator's own.
    """

    usd: Decimal | None = None
    basis: str = ""
    dated: date | None = None


#: The cost of what nobody knows.
UNKNOWN = Cost()
#: The cost of a call that cannot have been billed.
FREE = Cost(usd=Decimal(0))


# --- Prices ---------------------------------------------------------------------------------------------------


def find_price(provider: str, model: str) -> Price | None:
    """The price of a model: the operator's own, otherwise the table's; `None` if neither has one.

    Args:
        provider: The provider's alias. An own price may be that of the alias, whatever its models are called.
        model: The model's name as requested; the table ignores a prefix that ends in a slash.

    Raises:
        ImproperlyConfigured: `IMAGES["PRICES"]` cannot be used.
    """
    own = conf.prices
    for name in filter(None, (model, model.rpartition("/")[2], provider)):
        if name in own:
            return own[name]
        if pattern := next((known for known in own if fnmatchcase(name, known)), ""):
            return own[pattern]
    plain = _VERSION_DATE.sub("", model.rpartition("/")[2])
    return next((price for price in PRICES if plain in price.models), None)


def estimate_for(provider: str, model: str) -> Decimal | None:
    """About what the next picture will cost, by its price alone; `None` if nothing is known.

    Raises:
        ImproperlyConfigured: `IMAGES["PRICES"]` cannot be used.
    """
    price = find_price(provider, model)
    if price is None:
        return None
    if price.image is not None:
        return price.image
    if price.image_out is None or price.picture_tokens is None:
        return None
    tokens = price.image_out * price.picture_tokens + (price.text_in or Decimal(0)) * PROMPT_TOKENS
    return _rounded(tokens / _MILLION)


def estimate_text_for(provider: str, model: str, *, tokens_in: int, tokens_out: int) -> Decimal | None:
    """About what a call of a text model will cost that reads and writes so many tokens; `None` if that is unknown.

    Raises:
        ImproperlyConfigured: `IMAGES["PRICES"]` cannot be used.
    """
    price = find_price(provider, model)
    if price is None:
        return None
    if price.image is not None:  # an operator's own, for a whole call
        return price.image
    if price.text_in is None or price.text_out is None:
        return None
    return _rounded((price.text_in * tokens_in + price.text_out * tokens_out) / _MILLION)


# --- Cost -----------------------------------------------------------------------------------------------------


def cost_of(attempts: Iterable[Any]) -> Cost:
    """What all attempts of a row cost together. It never raises, since the picture is paid for.

    Args:
        attempts: As `GeneratedImage.attempts` keeps them. Of each count `provider`, `model`, `code`, `usage` and
            `may_have_billed`. One with a `kind` made something other than a picture (a text, say): it counts like
            any other, but never at a price for each picture.

    Returns:
        The sum. It is `at_least` if a part of it is unknown, and unknown if all of it is.
    """
    parts = [attempt_cost(attempt) for attempt in attempts if isinstance(attempt, Mapping)]
    known = [part for part in parts if part.usd is not None]
    told = [part for part in known if part.basis]
    if len(known) < len(parts) and not told:
        return UNKNOWN
    bases = {part.basis for part in told} | ({AT_LEAST} if len(known) < len(parts) else set())
    return Cost(
        usd=_rounded(min(sum((part.usd for part in known if part.usd), Decimal(0)), MAX_USD)),
        basis=next((basis for basis in (AT_LEAST, ESTIMATED, REPORTED) if basis in bases), ESTIMATED),
        dated=min((part.dated for part in told if part.dated), default=None),
    )


def attempt_cost(attempt: Mapping[str, Any]) -> Cost:
    """What one call of a provider cost.

    Returns:
        `basis` is "" if the call cannot have been billed (`usd` is 0) or if nothing is known (`usd` is `None`).
    """
    usage = attempt.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    if (reported := reported_cost(usage)) is not None:
        return Cost(usd=reported, basis=REPORTED)
    may_have_billed, delivered = bool(attempt.get("may_have_billed")), attempt.get("code") in _DELIVERED
    counts = token_counts(usage)
    if not may_have_billed and not counts.total:
        return FREE
    try:
        price = find_price(str(attempt.get("provider") or ""), str(attempt.get("model") or ""))
    except ImproperlyConfigured:  # `manage.py check` says so
        price = None
    if price is None:
        return UNKNOWN
    if price.image is not None:
        is_picture = delivered and not attempt.get("kind")
        return Cost(usd=price.image, basis=ESTIMATED, dated=price.dated) if is_picture else UNKNOWN
    return _priced(counts, price, delivered)


def reported_cost(usage: Mapping[str, Any]) -> Decimal | None:
    """What the server says that it charged; `None` if it does not say, or says something impossible."""
    ticks = _amount(usage.get("cost_in_usd_ticks"))
    if ticks is not None:  # xAI
        return _within(ticks / _TICKS)
    cost = usage.get("cost")
    if isinstance(cost, Mapping):  # Perplexity's shape, with the sum beside its parts
        cost = cost.get("total_cost")
    charged = _amount(cost)
    if charged is None:
        return None
    # OpenRouter, with a key of the customer's own: `cost` is only its fee, and the vendor charges the rest.
    upstream = usage.get("cost_details")
    if usage.get("is_byok") is True and isinstance(upstream, Mapping):
        charged += _amount(upstream.get("upstream_inference_cost")) or Decimal(0)
    return _within(charged)


def _priced(counts: TokenCounts, price: Price, delivered: bool) -> Cost:
    """Tokens times prices. Those without a price are left out, and the sum is called "at least"."""
    if not counts.total or counts.special_tier:
        return UNKNOWN
    amounts, whole = [], not counts.unaccounted and not (delivered and not counts.written)
    for kind, count in counts.by_kind.items():
        rate = getattr(price, kind)
        whole = whole and (rate is not None or not count)
        amounts.append(count * (rate or Decimal(0)))
    # What the model wrote, if the server does not say how much of it is the picture: at the only price, or the lower.
    rates = [rate for rate in (price.text_out, price.image_out) if rate is not None]
    if counts.unspecified_out:
        whole = whole and len(rates) == 1
        amounts.append(counts.unspecified_out * min(rates, default=Decimal(0)))
    usd = sum(amounts, Decimal(0)) / _MILLION
    if not whole and not usd:
        return UNKNOWN
    return Cost(usd=usd, basis=ESTIMATED if whole else AT_LEAST, dated=price.dated)


# --- Tokens ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """The tokens that a server reported.

    Attributes:
        by_kind: Counts by the names of `price_table.TOKEN_KINDS`.
        unspecified_out: Written tokens of which the server does not say whether they are text or picture.
        unaccounted: Tokens of the server's own total that are in none of the others.
        special_tier: They were not billed at the list prices, but as some other tier of service.
    """

    by_kind: Mapping[str, int] = field(default_factory=dict)
    unspecified_out: int = 0
    unaccounted: int = 0
    special_tier: bool = False

    @property
    def total(self) -> int:
        """All tokens whose kind is known at least by direction."""
        return sum(self.by_kind.values()) + self.unspecified_out

    @property
    def written(self) -> int:
        """Those that the model wrote."""
        return self.by_kind.get("text_out", 0) + self.by_kind.get("image_out", 0) + self.unspecified_out


def token_counts(usage: Mapping[str, Any]) -> TokenCounts:
    """The tokens in a `usage`, as OpenAI's Images, Responses and Chat APIs, Gemini and their imitators report them.

    A total alone says nothing about what was read and what was written, so it counts as no report.
    """
    read = _first(usage, "input_tokens", "prompt_tokens", "prompt_token_count")
    written = _first(usage, "output_tokens", "completion_tokens", "candidates_token_count")
    details_in = _details(usage, "input_tokens_details", "prompt_tokens_details")
    details_out = _details(usage, "output_tokens_details", "completion_tokens_details", "candidates_tokens_details")
    image_in = min(details_in["image"], read)
    # The app sends text: what is not called a picture is text.
    text_in = read - image_in + _count(usage.get("tool_use_prompt_token_count"))
    cached = min(_cached(usage), text_in + image_in)
    cached_text = min(cached, text_in)
    cached_image = cached - cached_text
    thoughts = _count(usage.get("thoughts_token_count"))
    image_out = min(details_out["image"], written)
    # Where the picture's tokens are named, the rest is text, as Google's price list says.
    text_out = written - image_out if image_out else min(details_out["text"], written)
    counts = (
        text_in - cached_text,
        cached_text,
        image_in - cached_image,
        cached_image,
        text_out + thoughts,
        image_out,
    )
    unspecified = written - image_out - text_out
    total = _first(usage, "total_tokens", "total_token_count")
    return TokenCounts(
        by_kind=dict(zip(TOKEN_KINDS, counts, strict=True)),
        unspecified_out=unspecified,
        unaccounted=max(0, total - sum(counts) - unspecified) + _cache_writes(usage),
        special_tier=str(usage.get("service_tier") or usage.get("traffic_type") or "").lower() not in _STANDARD_TIERS,
    )


def _details(usage: Mapping[str, Any], *names: str) -> dict[str, int]:
    """Tokens by `text` and `image`: OpenAI has an object for them, Google a list."""
    found = {"text": 0, "image": 0}
    for name in names:
        details = usage.get(name)
        if isinstance(details, Mapping):
            for kind in found:
                found[kind] += _count(details.get(f"{kind}_tokens"))
        for entry in details if isinstance(details, list) else ():
            kind = str(entry.get("modality")).lower() if isinstance(entry, Mapping) else ""
            if kind in found:
                found[kind] += _count(entry.get("token_count"))
    return found


def _cache_writes(usage: Mapping[str, Any]) -> int:
    """Tokens that cost more than others since the vendor put them into its cache. They have no price here."""
    details = [usage.get(name) for name in ("input_tokens_details", "prompt_tokens_details")]
    return sum(_count(one.get("cache_write_tokens")) for one in details if isinstance(one, Mapping))


def _cached(usage: Mapping[str, Any]) -> int:
    for name in ("input_tokens_details", "prompt_tokens_details"):
        details = usage.get(name)
        if isinstance(details, Mapping) and (count := _count(details.get("cached_tokens"))):
            return count
    return _count(usage.get("cached_content_token_count"))


def _first(usage: Mapping[str, Any], *names: str) -> int:
    return next((count for name in names if (count := _count(usage.get(name)))), 0)


def _count(value: Any) -> int:
    amount = _amount(value)
    return int(amount) if amount is not None and amount <= MAX_TOKENS else 0


# --- Numbers --------------------------------------------------------------------------------------------------


def _amount(value: Any) -> Decimal | None:
    """A number of a server's as it was written; `None` if it is not one, or if it is negative or absurd."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 10**18:
        return None
    return Decimal(repr(value))


def _within(usd: Decimal) -> Decimal | None:
    return usd if usd <= MAX_USD else None


def _rounded(usd: Decimal) -> Decimal:
    return usd.quantize(PLACES, rounding=ROUND_HALF_EVEN)
