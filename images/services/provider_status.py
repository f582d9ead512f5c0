"""What each provider says about its key and its model, and when the model will be shut down. Asking costs nothing.

Also what is known about the price of its model, which needs no question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from functools import partial

from django.core.exceptions import ImproperlyConfigured

from .. import exceptions as failures
from ..conf import conf
from ..exceptions import ProviderFailure, ProviderNotConfigured
from ..price_table import MAX_AGE
from ..pricing import find_price
from ..providers import Deadline, ImageProvider, get_provider, get_text_provider
from ..providers.models import Deprecation, ModelStatus
from .probes import PROVIDERS, Finding, attention, broken, fine, guarded

#: The doctor's section about prices.
PRICES = "Prices"
#: Seconds for each question to a provider.
TIMEOUT = 10.0

_STEPS: dict[type[ProviderFailure], str] = {
    failures.ProviderAuth: "Set this setting to a valid key that may use the image models.",
    failures.ProviderQuotaExhausted: "Raise the account's budget, or use another key.",
    failures.ProviderUnreachable: "Check what the sentence names: the network, HTTPS_PROXY, SSL_CERT_FILE or the "
    "provider's base URL.",
    failures.ProviderTimeout: "Check the network and the provider's status page, then try again.",
    failures.ProviderBadResponse: "Check the provider's base URL: the server there does not speak this API.",
    failures.ProviderNotConfigured: "Set what is missing in the environment or in IMAGES.",
}
_OTHER_STEP = "Check the provider's status page, then try again."
_PASSING = (failures.ProviderOverloaded, failures.ProviderRateLimited)


def examine_providers(*, warn_days: int, today: date) -> Iterator[Finding]:
    """Ask each provider that `IMAGE_PROVIDER` names.

    Args:
        warn_days: A model's shutdown within this many days needs attention.
        today: The day to count from.
    """
    known = conf.provider_backends
    for alias in conf.providers:
        if alias in known:
            find = partial(get_provider, alias)
            yield from guarded(
                PROVIDERS, partial(_examine, alias, find, f"remove {alias} from IMAGE_PROVIDER", warn_days, today)
            )
        else:
            step = f"Set IMAGE_PROVIDER to one or more of: {', '.join(sorted(known))}."
            yield broken(PROVIDERS, f"{alias}: there is no provider with this name.", step)
    if conf.scene_provider:
        way_out = "unset IMAGE_SCENE_PROVIDER"
        yield from guarded(PROVIDERS, partial(_examine, "scenes", get_text_provider, way_out, warn_days, today))


def _examine(
    alias: str, find: Callable[[], ImageProvider], way_out: str, warn_days: int, today: date
) -> Iterator[Finding]:
    provider = find()
    for sentence in provider.doubts():
        yield attention(
            PROVIDERS, f"{alias}: {sentence}", "Correct it, or use --generate, which shows whether it works."
        )
    missing = provider.check()
    for sentence in missing:
        step = f"Correct it in the environment or in IMAGES, or {way_out}."
        yield broken(PROVIDERS, f"{alias}: {sentence}", step)
    if missing:
        yield from _known_deprecation(alias, provider, today)
        return
    try:
        status = provider.look_up_model(Deadline.after(TIMEOUT))
    except ProviderFailure as err:
        yield _failed(alias, provider, err)
        if not isinstance(err, failures.ProviderModelUnavailable):  # that finding's advice has covered it
            yield from _known_deprecation(alias, provider, today)
        return
    if status is None:
        told = "nothing is missing. Only a real image shows whether it works: use --generate."
        yield from list(_known_deprecation(alias, provider, today)) or [
            fine(PROVIDERS, f"{_name(alias, provider)}: {told}")
        ]
    else:
        yield _answered(alias, provider, status, warn_days, today)


def _name(alias: str, provider: ImageProvider) -> str:
    return f"{alias}: {provider.model}" if provider.model else alias


def _known_deprecation(alias: str, provider: ImageProvider, today: date) -> Iterator[Finding]:
    """What is known about its model's shutdown without asking the vendor."""
    if deprecation := provider.deprecation():
        make = broken if deprecation.is_over(today) else attention
        sentence = f"{alias}: {deprecation.sentence(provider.model, today)}"
        yield make(PROVIDERS, sentence, deprecation.advice(provider.model_setting))


def _failed(alias: str, provider: ImageProvider, err: ProviderFailure) -> Finding:
    make = attention if isinstance(err, _PASSING) else broken
    if isinstance(err, failures.ProviderModelUnavailable):
        step = _other_model(provider)
    else:
        step = next((step for kind, step in _STEPS.items() if isinstance(err, kind)), _OTHER_STEP)
    return make(PROVIDERS, f"{alias}: {err.message} ({err.code})", step)


def _other_model(provider: ImageProvider) -> str:
    """What to set instead: the vendor's replacement, if it is known, and the models that the key can use."""
    setting, deprecation = provider.model_setting, provider.deprecation()
    advice = deprecation.advice(setting) if deprecation else f"Set {setting} to another model; its price may differ."
    try:
        names = [name for name in provider.model_names(Deadline.after(TIMEOUT)) if name != provider.model]
    except ProviderFailure:
        return advice  # the list is only an addition to the finding
    return f"{advice} This key can use: {', '.join(names)}." if names else advice


def _answered(alias: str, provider: ImageProvider, status: ModelStatus, warn_days: int, today: date) -> Finding:
    deprecation, what = provider.deprecation(), _name(alias, provider)
    if status.shutdown:
        return _dated(what, provider, status.shutdown, deprecation, warn_days, today)
    if deprecation:
        return _announced(what, provider, deprecation, warn_days, today)
    if status.doubt:
        return attention(PROVIDERS, f"{what}: {status.doubt}", "Use --generate, which makes one real image.")
    return fine(PROVIDERS, f"{what}: the key is accepted and can use this model, and no shutdown is announced.")


def _dated(
    what: str, provider: ImageProvider, end: date, deprecation: Deprecation | None, warn_days: int, today: date
) -> Finding:
    """The finding if the vendor's answer names the day of the shutdown."""
    days = (end - today).days
    if days > warn_days:
        return fine(PROVIDERS, f"{what}: the key is accepted and can use this model until {end} ({days} days).")
    step = deprecation.advice(provider.model_setting) if deprecation else _other_model(provider)
    if days > 0:
        return attention(PROVIDERS, f"{what}: the provider will shut this model down on {end}, in {days} days.", step)
    return broken(PROVIDERS, f"{what}: the provider shut this model down on {end}.", step)


def _announced(what: str, provider: ImageProvider, deprecation: Deprecation, warn_days: int, today: date) -> Finding:
    """The finding if the vendor has the model and names no day, but has announced its shutdown elsewhere."""
    sentence = f"{what}: the key is accepted, but {deprecation.sentence(provider.model, today)}"
    if deprecation.shutdown and (deprecation.shutdown - today).days > warn_days:
        return fine(PROVIDERS, sentence)
    return attention(PROVIDERS, sentence, deprecation.advice(provider.model_setting))


# --- Prices -------------------------------------------------------------------------------------------------


def examine_prices(*, today: date) -> Iterator[Finding]:
    """How the cost of each provider's images will be found. A provider that is free or cannot be loaded has none."""
    aliases: tuple[str, ...] = ()
    with suppress(ImproperlyConfigured):  # a finding of another section, as those below
        aliases = conf.providers
    for alias in aliases:
        with suppress(ImproperlyConfigured, ProviderNotConfigured):
            provider = get_provider(alias)
            if problem := price_problem(alias, provider, today):
                yield attention(PRICES, *problem)
            elif provider.bills:
                yield fine(PRICES, f"{_name(alias, provider)}: {_told_price(alias, provider)}")


def _told_price(alias: str, provider: ImageProvider) -> str:
    price = find_price(alias, provider.model)
    if price is None or price.dated is None:
        return "costs follow from a price of your own (IMAGE_PRICES), unless the server reports them."
    return (
        f"costs are estimated by list prices of {price.dated}, unless the server reports them. If it charges others, "
        "set IMAGE_PRICES."
    )


def price_problem(alias: str, provider: ImageProvider, today: date) -> tuple[str, str] | None:
    """What keeps costs from being known or up to date, and what to do about it; `None` if nothing does.

    Raises:
        ImproperlyConfigured: `IMAGES["PRICES"]` cannot be used.
    """
    if not provider.bills:
        return None
    price, name = find_price(alias, provider.model), _name(alias, provider)
    if price is None:
        return (
            f"{name} has no price: what its images cost stays unknown, unless the server reports it.",
            f"Set IMAGE_PRICES={provider.model or alias}=<US dollars for a picture>, or prices for tokens in "
            'IMAGES["PRICES"].',
        )
    if price.is_old(today):
        return (
            f"{name}: its price was looked up on {price.dated}, more than {MAX_AGE.days} days ago.",
            "Update the app, whose table may be newer, or compare the price with the vendor's and set IMAGE_PRICES.",
        )
    return None
