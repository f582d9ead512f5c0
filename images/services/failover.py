"""The configured providers in turn under one deadline: which is asked, how often, and which is next."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from ..conf import conf
from ..exceptions import (
    ContentRejected,
    ImagesError,
    ProviderBadImage,
    ProviderFailure,
    ProviderModelUnavailable,
    ProviderNotConfigured,
    ProviderRateLimited,
    ProviderTimeout,
    name_of,
)
from ..image_formats import ImageInfo, NotAnImage, inspect_image
from ..logs import log_event
from ..providers import Deadline, ImageProvider, ImageRequest, ProviderImage, get_provider
from ..providers.base import counts
from . import rate_limits
from .test_runs import refuse_in_test_run

logger = logging.getLogger("images.providers")

#: How often a provider is asked at the most for one request, if nothing can have been billed.
MAX_TRIES = 3
#: Seconds before the second try of an overloaded or unreachable provider; doubled before the third.
BACKOFF = 0.5

#: What this process has reported: the event, the provider, and its model.
_reported: set[tuple[str, str, str]] = set()
_reporting = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One call of one provider, as it is kept on the row.

    Attributes:
        code: `ok`, or the failure's.
        ms: How long it took, in milliseconds.
        request_id: The provider's own name for the request, or "".
        usage: What the provider reported as used, whatever came of it; `None` if it reported nothing.
        may_have_billed: The provider may have charged for it.
    """

    provider: str
    model: str
    code: str
    ms: int
    request_id: str = ""
    usage: Any = None
    may_have_billed: bool = False


@dataclass(frozen=True, kw_only=True)
class VerifiedImage:
    """A verified image, and the provider that made it."""

    provider: str
    source_type: str
    image: ProviderImage
    info: ImageInfo


RequestFor = Callable[[ImageProvider, Deadline], ImageRequest]


def ask_providers(
    request_for: RequestFor, deadline: Deadline, attempts: list[dict[str, Any]], *, queued: bool = False
) -> VerifiedImage:
    """Ask the configured providers in turn until one has made an image.

    Each gets an equal share of the time that is left, so that one which hangs leaves the next enough.

    Args:
        request_for: Makes the request for a provider and its deadline.
        deadline: Of all attempts together.
        attempts: Every call is appended here, also if all of them fail. The one whose failure is raised gets an
            `outcome`, from which `GeneratedImage.failure` makes the same exception again. A provider that is not
            asked, since it has just refused another request or its limit is reached, adds none.
        queued: The generation can be taken up again later, so no time is spent waiting for a provider.

    Raises:
        ProviderFailure: The failure that tells the caller most: a refusal of the content at once; otherwise
            the first one after which asking again can help; otherwise the first.
    """
    aliases = conf.providers
    failures: list[ProviderFailure] = []
    last_attempts: list[dict[str, Any] | None] = []
    for position, alias in enumerate(aliases):
        share, before = deadline.share(len(aliases) - position), len(attempts)
        try:
            return _ask(alias, request_for, share, attempts, queued=queued)
        except ProviderFailure as err:
            failures.append(err)
            last_attempts.append(attempts[-1] if len(attempts) > before else None)
            if not _may_ask_next(err, deadline):
                break
    told = _most_telling(failures)
    if (attempt := last_attempts[failures.index(told)]) is not None:
        attempt["outcome"] = {"error": name_of(type(told)), "retry_after": told.retry_after}
    raise told


def _may_ask_next(failure: ProviderFailure, deadline: Deadline) -> bool:
    billing_allows = conf.failover_after_billing or not failure.may_have_billed
    return failure.failover and billing_allows and deadline.remaining > 0


def _most_telling(failures: list[ProviderFailure]) -> ProviderFailure:
    last = failures[-1]
    if isinstance(last, ContentRejected):
        return last
    return next((failure for failure in failures if failure.retryable), failures[0])


def _ask(
    alias: str, request_for: RequestFor, deadline: Deadline, attempts: list[dict[str, Any]], *, queued: bool
) -> VerifiedImage:
    """Ask one provider, again only if nothing can have been billed and the pause fits into its time."""
    for tries in range(1, MAX_TRIES + 1):
        # Half of what is left must remain for generating: a try that starts too late is a timeout.
        patience = 0.0 if queued else deadline.remaining / 2
        time.sleep(rate_limits.enter(alias, patience=patience, queued=queued))
        try:
            image = _attempt(alias, request_for, deadline, attempts)
        except ProviderFailure as err:
            rate_limits.refused(alias, err)
            pause = None if queued else _pause(err, tries)
            if pause is None or pause > deadline.remaining / 2:
                raise
            time.sleep(pause)
        else:
            rate_limits.answered(alias)
            return image
    raise AssertionError("the last try has returned or raised")


def _pause(failure: ProviderFailure, tries: int) -> float | None:
    """Seconds to wait before the same provider is asked again; `None` for not at all."""
    if not failure.retry_same or tries >= MAX_TRIES:
        return None
    if isinstance(failure, ProviderRateLimited):
        return failure.retry_after
    backoff: float = BACKOFF * 2 ** (tries - 1) * random.uniform(0.75, 1.25)  # noqa: S311 (jitter)
    return max(backoff, failure.retry_after or 0)


def _attempt(
    alias: str, request_for: RequestFor, deadline: Deadline, attempts: list[dict[str, Any]]
) -> VerifiedImage:
    started = time.monotonic()
    model, code, request_id, usage, can_bill, billed = "", "internal_error", "", None, False, True
    try:
        provider, model = _load(alias)
        if not deadline.remaining:
            raise ProviderTimeout
        refuse_in_test_run(alias, provider)
        can_bill = provider.bills
        image = provider.generate(request_for(provider, deadline))
        model, code, request_id, usage = image.model or model, "ok", image.request_id, counts(image.usage)
        info = _judge(alias, image)
        return VerifiedImage(provider=alias, source_type=provider.source_type, image=image, info=info)
    except ImagesError as err:
        code = err.code
        if isinstance(err, ProviderFailure):
            request_id, usage = err.request_id or request_id, counts(err.usage) or usage
            billed = err.may_have_billed
        if isinstance(err, ProviderModelUnavailable):
            _report_once("provider_model_unavailable", alias, model, err.message)
        raise
    finally:
        ms = round((time.monotonic() - started) * 1000)
        attempt = Attempt(
            provider=alias,
            model=model,
            code=code,
            ms=ms,
            request_id=request_id,
            usage=usage,
            may_have_billed=can_bill and billed,
        )
        attempts.append(asdict(attempt))
        log_event(logger, logging.DEBUG, "provider_attempt", **asdict(attempt))


def _load(alias: str) -> tuple[ImageProvider, str]:
    """The provider and its model.

    Raises:
        ProviderNotConfigured: There is none, its class cannot be imported, or it does not accept its options.
    """
    try:
        provider = get_provider(alias)
        return provider, provider.model
    except ImagesError:
        raise
    except Exception as err:
        # The words of an exception of another library may repeat the options, and a key with them.
        is_ours = isinstance(err, (ImportError, ImproperlyConfigured))
        _report_once("provider_not_loaded", alias, "", str(err) if is_ours else type(err).__name__)
        raise ProviderNotConfigured(
            f'The image provider {alias!r} could not be loaded. The operator has to look at IMAGES["PROVIDERS"]; '
            "the server's log has the reason."
        ) from err


def _report_once(event: str, alias: str, model: str, error: str) -> None:
    """Log at error level what every further request meets too: once in each process."""
    with _reporting:
        if (event, alias, model) in _reported:
            return
        _reported.add((event, alias, model))
    log_event(logger, logging.ERROR, event, provider=alias, model=model, error=error)


def _judge(alias: str, image: ProviderImage) -> ImageInfo:
    """Judge the bytes by what they are, not by what they are said to be."""
    try:
        return inspect_image(image.data, max_bytes=conf.max_image_bytes, max_pixels=conf.max_image_pixels)
    except NotAnImage as err:
        fields = {"provider": alias, "model": image.model, "request_id": image.request_id, "bytes": len(image.data)}
        log_event(logger, logging.WARNING, "provider_bad_image", **fields, reason=str(err))
        raise ProviderBadImage(
            f"The image provider sent something that is not a complete PNG, JPEG or WebP image: {err}. Try again.",
            request_id=image.request_id,
        ) from err
