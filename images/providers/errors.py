"""Translating vendors' errors into the exceptions of this app, for both SDK providers.

The sentences name the setting to check. They never contain upstream text, addresses or keys: those stay in
`__cause__`, which only the log shows.
"""

from __future__ import annotations

import logging
import math
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore2
import httpx2

from .. import exceptions as failures
from ..exceptions import ProviderFailure
from ..image_formats import other_kind
from ..logs import log_event
from .http import Call, ResponseTooLarge, safe_id
from .models import find_deprecation, utc_today

logger = logging.getLogger("images.providers")

_OVERLOADED = {503, 529}
_SECRETS = re.compile(r"\b(?:sk|key|Bearer)[-_ ][\w*.-]{8,}|\bAIza[\w-]{10,}")
_MESSAGE_LENGTH = 200
#: What both vendors say to an account without money. Google says it of rate limits, too, with a time to come back.
_EMPTY_ACCOUNT = "check your plan and billing"

# The codes with which vendors and gateways (Azure, LiteLLM, OpenRouter) reject the content. LiteLLM puts the vendor's
# own error into a sentence.
_WORD = re.compile(r"\w+")
_REJECTED = {
    "moderation_blocked",
    "content_policy_violation",
    "content_filter",
    "content_filtered",
    "contentFilter",
    "ContentPolicyViolationError",
    "ResponsibleAIPolicyViolation",
}
_REJECTED_IN_WORDS = (
    "rejected by the safety system",
    "as a result of our safety system",
    "content management policy",
    "input was flagged",
)
_CODES: dict[type[ProviderFailure], set[str]] = {
    failures.ProviderQuotaExhausted: {
        "insufficient_quota",
        "insufficient_credits",
        "billing_hard_limit_reached",
        "billing_limit_user_error",
        "billing_not_active",
    },
    failures.ProviderModelUnavailable: {"model_not_found", "DeploymentNotFound"},
    failures.ProviderAuth: {"invalid_api_key", "authentication_error"},
}

_SENTENCES: dict[type[ProviderFailure], str] = {
    failures.ProviderAuth: "{name} rejected the API key, or the key may not use the model. The operator should "
    "check {key} and the account's access to the model.",
    failures.ProviderModelUnavailable: "{name} has no model {model} for this key. The operator should check "
    "{setting} (and {base_url}, if that is set).",
    failures.ProviderQuotaExhausted: "{name}'s quota or budget for this key is used up. The operator should raise "
    "it or change {key}.",
    failures.ProviderRateLimited: "{name} is limiting the rate of requests. Try again a little later.",
    failures.ProviderOverloaded: "{name} is overloaded. Try again later.",
    failures.ProviderError: "{name} failed. Try again later.",
    failures.ProviderRefusedRequest: "{name} rejected the request. The server's log says what it objected to; "
    "the operator may have to check {setting}.",
    failures.ProviderBadResponse: "{name}'s response was not understood. If this persists, the operator should check "
    "{base_url}.",
    failures.ContentRejected: "{name}'s safety system rejected this text. Change the title or the description.",
    failures.ProviderNoImage: "{name} responded without an image. Try again, or reword the title.",
}


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """A vendor's name and the names of its settings, for sentences and log lines."""

    name: str
    key: str
    model: str
    base_url: str


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A vendor's error response.

    Attributes:
        status: The HTTP status.
        code: The vendor's error code.
        message: The vendor's error message; only a part of it is logged, and callers never see it.
        request_id: The vendor's id for the request.
        retry_after: Seconds after which the vendor suggests to try again.
    """

    status: int
    code: str = ""
    message: str = ""
    request_id: str = ""
    retry_after: float | None = None


def refused(vendor: Vendor, model: str, refusal: Refusal, special: type[ProviderFailure] | None) -> ProviderFailure:
    """The failure for an error response.

    Args:
        vendor: The vendor that responded.
        model: The model that was requested.
        refusal: The response.
        special: The failure that the vendor's error code stands for, if it says more than the status.
    """
    failure = special or _by_status(refusal.status)
    if failure is failures.ProviderRateLimited and _is_empty_account(refusal):
        failure = failures.ProviderQuotaExhausted
    if failure is failures.ProviderRefusedRequest:
        _log(vendor, model, refusal)
    # Use the hint only if the same provider may be asked again: an exhausted daily quota comes with one, too.
    hint = refusal.retry_after if failure.retry_same else None
    sentence = _sentence(failure, vendor, model)
    if failure is failures.ProviderModelUnavailable:
        sentence = _what_to_set_instead(vendor, model) or sentence
    return failure(sentence, retry_after=hint, request_id=safe_id(refusal.request_id))


def _is_empty_account(refusal: Refusal) -> bool:
    has_hint = refusal.retry_after is not None or "retryDelay" in refusal.message
    return _EMPTY_ACCOUNT in refusal.message and not has_hint


def by_words(*texts: object) -> type[ProviderFailure] | None:
    """The failure that an error's codes or message stand for, if they say more than its status.

    Args:
        texts: The error's codes and messages; values that are not strings are ignored.
    """
    words = {word for text in texts if isinstance(text, str) for word in _WORD.findall(text)}
    said = " ".join(text for text in texts if isinstance(text, str)).lower()
    if words & _REJECTED or any(phrase in said for phrase in _REJECTED_IN_WORDS):
        return failures.ContentRejected
    return next((failure for failure, known in _CODES.items() if words & known), None)


def message_of(body: Any) -> str:
    """The message in an error response of any shape; for the log only."""
    if isinstance(body, Mapping):
        for name in ("message", "error", "detail", "errors", "title"):
            if body.get(name):
                return message_of(body[name])
    return body if isinstance(body, str) else "" if body is None else str(body)


def _by_status(status: int) -> type[ProviderFailure]:
    """The failure that a status stands for by itself."""
    exact: dict[int, type[ProviderFailure]] = {
        401: failures.ProviderAuth,
        402: failures.ProviderQuotaExhausted,
        403: failures.ProviderAuth,
        404: failures.ProviderModelUnavailable,
        408: failures.ProviderError,
        409: failures.ProviderError,
        429: failures.ProviderRateLimited,
    }
    if status in exact:
        return exact[status]
    if status in _OVERLOADED:
        return failures.ProviderOverloaded
    if status >= 500:
        return failures.ProviderError
    if status >= 400:
        return failures.ProviderRefusedRequest
    return failures.ProviderBadResponse


def _sentence(failure: type[ProviderFailure], vendor: Vendor, model: str = "") -> str:
    words = {"name": vendor.name, "key": vendor.key, "setting": vendor.model, "base_url": vendor.base_url}
    return _SENTENCES[failure].format(**words, model=repr(model))


def _what_to_set_instead(vendor: Vendor, model: str) -> str:
    """What is known about the shutdown of a model that was not found, and what to set instead; otherwise ""."""
    deprecation = find_deprecation(vendor.name, model)
    if deprecation is None:
        return ""
    return (
        f"{deprecation.sentence(model, utc_today())} The operator should set "
        f"{vendor.model}={deprecation.replacements[0]}, the replacement that {vendor.name} names."
    )


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Why there was no connection.

    Attributes:
        cause: One word, for the log.
        phrase: The same for callers; it continues a sentence.
        look_at: What the operator can check; may name `{base_url}`.
        reason: The operating system's own words, for the log; never a server's.
    """

    cause: str
    phrase: str
    look_at: str = "the network and {base_url}"
    reason: str = ""


#: The first class that fits counts.
_OBSTACLES: list[tuple[type[Exception], Obstacle]] = [
    (
        ssl.SSLCertVerificationError,
        Obstacle(
            cause="certificate",
            phrase="its certificate was not accepted",
            look_at="the certificates (SSL_CERT_FILE), the clock and {base_url}",
        ),
    ),
    (ssl.SSLError, Obstacle(cause="tls", phrase="no encrypted connection could be set up")),
    (
        httpcore2.ProxyError,
        Obstacle(cause="proxy", phrase="the proxy did not connect to it", look_at="the proxy (HTTPS_PROXY)"),
    ),
    (socket.gaierror, Obstacle(cause="name", phrase="its host's name could not be looked up")),
    (ConnectionRefusedError, Obstacle(cause="refused", phrase="the connection was refused")),
    (TimeoutError, Obstacle(cause="timeout", phrase="there was no connection in time")),
    (ConnectionError, Obstacle(cause="closed", phrase="the connection was closed before anything was sent")),
    (OSError, Obstacle(cause="network", phrase="the network has no way to it")),
]
_UNKNOWN_OBSTACLE = Obstacle(cause="other", phrase="there was no connection")
_BEFORE_THE_PROXY = {"name", "refused", "timeout", "closed", "network", "other"}


def find_obstacle(err: BaseException, call: Call) -> Obstacle:
    """Why nothing could be sent, from the exceptions that `err` was raised from."""
    found, cause = next(
        ((known, cause) for cause in _causes(err) for kind, known in _OBSTACLES if isinstance(cause, kind)),
        (_UNKNOWN_OBSTACLE, err),
    )
    if call.proxied and found.cause in _BEFORE_THE_PROXY:
        phrase = "the proxy could not be reached, or did not connect to it"
        found = Obstacle(cause=f"proxy_{found.cause}", phrase=phrase, look_at="the proxy (HTTPS_PROXY)")
    return replace(found, reason=_system_words(cause))


def _causes(err: BaseException | None) -> Iterator[BaseException]:
    """`err` and what it was raised from, the nearest first. `httpcore2` hides causes with `raise … from None`."""
    for _ in range(10):
        if err is None:
            return
        yield err
        err = err.__cause__ or err.__context__


def _system_words(err: BaseException) -> str:
    if isinstance(err, ssl.SSLCertVerificationError):
        return str(err.verify_message)
    if isinstance(err, ssl.SSLError):
        return str(err.reason or "")
    if isinstance(err, httpcore2.ProxyError):  # The status, and then the proxy's own words.
        return str(err)[:3] if str(err)[:3].isdecimal() else ""
    return str(err.strerror or "") if isinstance(err, OSError) else ""


def _unreachable(vendor: Vendor, obstacle: Obstacle) -> ProviderFailure:
    fields = {"provider": vendor.name, "cause": obstacle.cause, "reason": obstacle.reason}
    log_event(logger, logging.WARNING, "provider_unreachable", **fields)
    look_at = obstacle.look_at.format(base_url=vendor.base_url)
    return failures.ProviderUnreachable(
        f"{vendor.name} could not be reached: {obstacle.phrase}. Try again later; if this persists, the operator "
        f"should check {look_at}."
    )


def not_delivered(vendor: Vendor, err: httpx2.TransportError, call: Call) -> ProviderFailure:
    """The failure for a request without a complete response."""
    request_id = call.request_id
    if not call.sent:
        return _unreachable(vendor, find_obstacle(err, call))
    if isinstance(err, httpx2.TimeoutException):
        return failures.ProviderTimeout(f"{vendor.name} did not respond in time.", request_id=request_id)
    if isinstance(err, ResponseTooLarge):
        return failures.ProviderBadResponse(f"{vendor.name}'s response was too large.", request_id=request_id)
    return failures.ProviderBadResponse(
        f"{vendor.name}'s response broke off. Try again later.", request_id=request_id
    )


def broken(vendor: Vendor, call: Call, err: Exception | None = None, kind: str = "") -> ProviderFailure:
    """The failure for a complete response that cannot be understood; logs what it is, never its content.

    Args:
        vendor: The vendor that responded.
        call: The call that it responded to.
        err: What was raised while the response was read.
        kind: What the response is, if that is known.
    """
    kind = kind or _kind_of_body(err)
    fields = {"provider": vendor.name, "status": call.status, "request_id": call.request_id}
    log_event(logger, logging.WARNING, "provider_bad_response", **fields, reason=f"it is {kind}")
    return failures.ProviderBadResponse(
        f"{vendor.name}'s response was not understood: it is {kind}. If this persists, the operator should check "
        f"{vendor.base_url}.",
        request_id=call.request_id,
    )


def _kind_of_body(err: Exception | None) -> str:
    """What a response is, from the text or bytes that the errors of JSON, Unicode and attributes carry."""
    for name in ("doc", "object", "obj"):
        body = getattr(err, name, None)
        if isinstance(body, str | bytes):
            kind = other_kind(body if isinstance(body, bytes) else body[:2000].encode(errors="replace"))
            return "JSON that is damaged" if kind == "JSON" else kind
    return "JSON of another shape"


def rejected(vendor: Vendor, request_id: str) -> ProviderFailure:
    """The failure for a valid response that says that the content was blocked."""
    return failures.ContentRejected(_sentence(failures.ContentRejected, vendor), request_id=request_id)


def no_image(vendor: Vendor, request_id: str) -> ProviderFailure:
    """The failure for a valid response without an image."""
    return failures.ProviderNoImage(_sentence(failures.ProviderNoImage, vendor), request_id=request_id)


def too_late(vendor: Vendor) -> ProviderFailure:
    """The failure for a deadline that passed before anything was sent."""
    failure = failures.ProviderTimeout(f"There was no time left to ask {vendor.name}.")
    failure.may_have_billed = False
    return failure


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait according to `retry-after-ms` or `retry-after` (seconds or a date), or `None`.

    Args:
        headers: The response's headers, names in lower case.
    """
    milliseconds = seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "")
    if (number := seconds(text)) is not None:
        return number
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):  # Not a date either.
        return None


def seconds(text: object) -> float | None:
    """A finite, non-negative number from text (Google appends an "s"), or `None`."""
    try:
        number = float(str(text).removesuffix("s"))
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _log(vendor: Vendor, model: str, refusal: Refusal) -> None:
    """Log why the vendor rejected the request, since the caller is not told."""
    message = _SECRETS.sub("[secret]", " ".join(refusal.message.split()))[:_MESSAGE_LENGTH]
    log_event(
        logger,
        logging.WARNING,
        "provider_refused",
        provider=vendor.name,
        model=model,
        status=refusal.status,
        code=refusal.code,
        request_id=safe_id(refusal.request_id),
        message=message,
    )
