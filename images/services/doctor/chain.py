"""The providers of the chain: is the key accepted, is the model there, and until when? Nothing is painted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from functools import partial

from ... import exceptions as failures
from ...conf import conf
from ...exceptions import ProviderFailure
from ...providers import Deadline, ImageProvider, get_provider
from ...providers.calendar import Retirement
from ...providers.lookup import ModelStatus
from .findings import Finding, attention, broken, fine, guarded

PROVIDERS = "Providers"

#: Seconds for each question to a provider.
PATIENCE = 10.0

_STEPS: dict[type[ProviderFailure], str] = {
    failures.ProviderAuth: "Put a key that is valid, and may use the image models, into the setting that is named.",
    failures.ProviderQuotaExhausted: "Raise the account's budget, or use another key.",
    failures.ProviderUnreachable: "Look at the network, at HTTPS_PROXY and at the provider's base URL.",
    failures.ProviderTimeout: "Look at the network and at the provider's status page, then ask again.",
    failures.ProviderBadResponse: "Look at the provider's base URL: what answers there does not speak its API.",
    failures.ProviderNotConfigured: "Set what is named in the environment or in IMAGES.",
}
_OTHER_STEP = "Look at the provider's status page, then ask again."
_PASSING = (failures.ProviderOverloaded, failures.ProviderRateLimited)


def examine_providers(*, warn_days: int, today: date) -> Iterator[Finding]:
    """Ask each provider of the chain.

    Args:
        warn_days: A shutdown within so many days needs attention.
        today: The day to count from.
    """
    known = conf.provider_backends
    for alias in conf.providers:
        if alias in known:
            yield from guarded(PROVIDERS, partial(_examine, alias, warn_days, today))
        else:
            step = f"Set IMAGE_PROVIDER to one or more of: {', '.join(sorted(known))}."
            yield broken(PROVIDERS, f"{alias}: there is no provider of this name.", step)


def _examine(alias: str, warn_days: int, today: date) -> Iterator[Finding]:
    provider = get_provider(alias)
    missing = provider.check()
    for sentence in missing:
        step = f"Set it right in the environment or in IMAGES, or take {alias} out of IMAGE_PROVIDER."
        yield broken(PROVIDERS, f"{alias}: {sentence}", step)
    if missing:
        yield from _by_calendar(alias, provider, today)
        return
    try:
        status = provider.look_up_model(Deadline.after(PATIENCE))
    except ProviderFailure as err:
        yield _failed(alias, provider, err)
        if not isinstance(err, failures.ProviderModelUnavailable):  # which has said what is known
            yield from _by_calendar(alias, provider, today)
        return
    if status is None:
        told = "nothing is missing. It cannot be asked without painting; --generate does."
        yield from list(_by_calendar(alias, provider, today)) or [
            fine(PROVIDERS, f"{_what(alias, provider)}: {told}")
        ]
    else:
        yield _answered(alias, provider, status, warn_days, today)


def _what(alias: str, provider: ImageProvider) -> str:
    return f"{alias}: {provider.model}" if provider.model else alias


def _by_calendar(alias: str, provider: ImageProvider, today: date) -> Iterator[Finding]:
    """What is known without asking, for a provider that cannot be asked."""
    if retirement := provider.retirement():
        make = broken if retirement.is_over(today) else attention
        sentence = f"{alias}: {retirement.sentence(provider.model, today)}"
        yield make(PROVIDERS, sentence, retirement.advice(provider.model_setting))


def _failed(alias: str, provider: ImageProvider, err: ProviderFailure) -> Finding:
    make = attention if isinstance(err, _PASSING) else broken
    if isinstance(err, failures.ProviderModelUnavailable):
        step = _other_model(provider)
    else:
        step = next((step for kind, step in _STEPS.items() if isinstance(err, kind)), _OTHER_STEP)
    return make(PROVIDERS, f"{alias}: {err.message} ({err.code})", step)


def _other_model(provider: ImageProvider) -> str:
    """What to set instead: the vendor's own replacement, as far as it is known, and what the key has."""
    setting, retirement = provider.model_setting, provider.retirement()
    advice = retirement.advice(setting) if retirement else f"Set {setting} to another model; its price may differ."
    try:
        names = [name for name in provider.model_names(Deadline.after(PATIENCE)) if name != provider.model]
    except ProviderFailure:
        return advice  # the answer before this one is the finding; without a list there is still advice
    return f"{advice} This key has: {', '.join(names)}." if names else advice


def _answered(alias: str, provider: ImageProvider, status: ModelStatus, warn_days: int, today: date) -> Finding:
    retirement, what = provider.retirement(), _what(alias, provider)
    if status.shutdown:
        return _dated(what, provider, status.shutdown, retirement, warn_days, today)
    if retirement:
        return _by_hearsay(what, provider, retirement, warn_days, today)
    if status.doubt:
        return attention(PROVIDERS, f"{what}: {status.doubt}", "Run it with --generate, which makes one real image.")
    return fine(PROVIDERS, f"{what}: the key is accepted and has this model, whose end has not been announced.")


def _dated(
    what: str, provider: ImageProvider, end: date, retirement: Retirement | None, warn_days: int, today: date
) -> Finding:
    """The vendor itself has named the day."""
    days = (end - today).days
    if days > warn_days:
        return fine(PROVIDERS, f"{what}: the key is accepted and has this model until {end} ({days} days).")
    step = retirement.advice(provider.model_setting) if retirement else _other_model(provider)
    if days > 0:
        return attention(PROVIDERS, f"{what}: the provider will shut this model down on {end}, in {days} days.", step)
    return broken(PROVIDERS, f"{what}: the provider has shut this model down on {end}.", step)


def _by_hearsay(what: str, provider: ImageProvider, retirement: Retirement, warn_days: int, today: date) -> Finding:
    """The vendor has the model and says nothing of its end, but the calendar does."""
    sentence = f"{what}: the key is accepted, but {retirement.sentence(provider.model, today)}"
    if retirement.shutdown and (retirement.shutdown - today).days > warn_days:
        return fine(PROVIDERS, sentence)
    return attention(PROVIDERS, sentence, retirement.advice(provider.model_setting))
