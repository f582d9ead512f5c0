"""Everything that can go wrong, as one tree of exceptions.

`ImagesError` is the root of what a caller can handle. Each subclass carries what the caller, the API and the
failover between providers need to decide what to do next, so none of them inspects messages:

- `code`: the stable name in the API's error body.
- `status_code`: the HTTP status the API answers with.
- `retryable`: whether the same request may succeed later without any change.

Mistakes in the code or the configuration of the host (`OpenTransactionError`, Django's `ImproperlyConfigured`)
stand outside the root on purpose, so that no `except ImagesError` swallows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self

#: Seconds after which it makes sense to ask again if the server is busy: a good part of a usual generation.
RETRY_AFTER = 5
#: Seconds after which it makes sense to ask again if a provider limits the rate and does not say for how long.
RATE_LIMIT_PAUSE = 20
#: What the sentence of a failure adds if a provider may have charged.
BILLING_ADVICE = "A provider may have charged for this request, and may charge for another one, too."


class OpenTransactionError(RuntimeError):
    """`generate_image` was called inside `transaction.atomic()`: a rollback would lose a paid picture."""


class RealProviderError(RuntimeError):
    """A test run was about to ask a provider that costs money; `images.testing` says what to do instead."""


class ImagesError(Exception):
    """The root of every failure a caller can handle.

    Args:
        message: One sentence that the reader can act on. It reaches callers: no key, no path, no upstream body.
        retry_after: Seconds after which it makes sense to try again, if that is known.

    Attributes:
        may_have_billed: A provider may have charged for what failed.
    """

    may_have_billed: bool = False
    code: ClassVar[str] = "internal_error"
    status_code: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    default_message: ClassVar[str] = "Something went wrong on our side. The server's log has the details."

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        self.message = message or self.default_message
        self.retry_after = retry_after
        super().__init__(self.message)

    def with_billing(self, may_have_billed: bool) -> Self:
        """Say of the whole request, of which this is the end, whether a provider may have charged for it.

        Returns:
            The same exception; if it was charged for, its sentence says so.
        """
        self.may_have_billed = may_have_billed
        if may_have_billed and BILLING_ADVICE not in self.message:
            self.message = f"{self.message} {BILLING_ADVICE}"
            self.args = (self.message,)
        return self


class InvalidRequest(ImagesError):
    """The caller has to change the request.

    Args:
        details: Field names mapped to sentences, as in the API's `details`.
    """

    code = "invalid_request"
    status_code = 400
    default_message = "The request is not valid."

    def __init__(self, message: str = "", *, details: dict[str, list[str]] | None = None) -> None:
        super().__init__(message)
        self.details = details or {}


class ImageNotFound(ImagesError):
    """There is no such image, or it belongs to another user."""

    code = "not_found"
    status_code = 404
    default_message = "There is no such image."


class RequestInProgress(ImagesError):
    """A request with the same idempotency key is still running.

    Args:
        image: The row of that request, a `GeneratedImage`; `None` if it cannot be seen yet.
    """

    code = "request_in_progress"
    status_code = 409
    retryable = True
    default_message = "This Idempotency-Key's image is still being generated. Repeat the request later to get it."

    def __init__(self, message: str = "", *, retry_after: float | None = None, image: Any = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.image = image


class IdempotencyKeyReused(ImagesError):
    """The same idempotency key came with different content."""

    code = "idempotency_key_reused"
    status_code = 422
    default_message = "This Idempotency-Key was already used with different content. Use a new key for a new image."


class StorageError(ImagesError):
    """The file could not be written, read or removed. Nothing half-written is left."""

    code = "storage_error"
    status_code = 500
    default_message = "The image could not be stored. The operator should check the disk (MEDIA_ROOT)."


class TooManyGenerations(ImagesError):
    """This process already runs as many generations as it is allowed to (`IMAGE_MAX_CONCURRENCY`)."""

    code = "too_many_generations"
    status_code = 503
    retryable = True
    default_message = "Too many images are being generated at the moment. Try again in a few seconds."


class QueueUnavailable(ImagesError):
    """The queue did not accept the request, or no worker started it in time. Nothing was paid for."""

    code = "queue_unavailable"
    status_code = 503
    retryable = True
    default_message = "The image could not be queued. Try again later."


class DatabaseUnavailable(ImagesError):
    """The database is locked, full or gone. No provider has been asked, so nothing was paid for."""

    code = "database_unavailable"
    status_code = 503
    retryable = True
    default_message = "The database is not available at the moment. Try again in a few seconds."

    def __init__(self, message: str = "", *, retry_after: float | None = RETRY_AFTER) -> None:
        super().__init__(message, retry_after=retry_after)


class BudgetExhausted(ImagesError):
    """The operator's budget for a period does not cover another image. Nothing was paid for.

    Its `retry_after` is the time until the period ends.
    """

    code = "budget_exhausted"
    status_code = 503
    retryable = True
    default_message = "The budget for images is used up. Try again when its next period begins."


class GenerationCancelled(ImagesError):
    """The person who started the generation stopped it (Ctrl-C); a provider that was asked may still bill."""

    code = "cancelled"
    status_code = 503
    retryable = True
    default_message = "The generation was cancelled."


class ProviderFailure(ImagesError):
    """A provider returned no usable image. Subclasses say what may be tried next.

    Attributes:
        retry_same: The same provider may be asked again: nothing can have been billed.
        failover: The next configured provider may be asked.
        may_have_billed: The provider may have charged for this attempt; as the end of a generation, for any of them.
        request_id: The provider's own id for the request, if it sent one.
        usage: What the provider reported as used (tokens, cost), as plain JSON; `None` if it reported nothing.
    """

    status_code = 502
    retry_same: ClassVar[bool] = False
    failover: ClassVar[bool] = True
    may_have_billed: bool = True

    def __init__(
        self, message: str = "", *, retry_after: float | None = None, request_id: str = "", usage: Any = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.request_id = request_id
        self.usage = usage


class ContentRejected(ProviderFailure):
    """The provider's safety system rejected this text. Not an outage: never retried, never failed over."""

    code = "content_rejected"
    status_code = 400
    failover = False
    may_have_billed = False
    default_message = "The image provider's safety system rejected this text. Change the title or the description."


class ProviderError(ProviderFailure):
    """The provider failed on its side (500, 502, 504, 408, 409); it may have billed."""

    code = "provider_error"
    retryable = True
    default_message = "The image provider failed. Try again later."


class ProviderRefusedRequest(ProviderFailure):
    """The provider rejected our request (400, 413, 422): its model has rules or limits of its own.

    Nothing was billed, and the next provider may have other rules.
    """

    code = "provider_error"
    may_have_billed = False
    default_message = "The image provider rejected the request. The server's log says what it objected to."


class ProviderUnreachable(ProviderFailure):
    """No connection was established, so nothing was sent and nothing billed."""

    code = "provider_unreachable"
    retryable = True
    retry_same = True
    may_have_billed = False
    default_message = "The image provider could not be reached. Try again later."


class ProviderBadResponse(ProviderFailure):
    """The response broke off, does not follow the protocol, or exceeds the limits."""

    code = "provider_bad_response"
    retryable = True
    default_message = "The image provider's response was incomplete or invalid. Try again later."


class ProviderNoImage(ProviderFailure):
    """A valid response that contains no image."""

    code = "provider_no_image"
    retryable = True
    default_message = "The image provider responded without an image. Try again, or reword the title."


class ProviderBadImage(ProviderFailure):
    """The bytes are not a complete PNG, JPEG or WebP image within the limits."""

    code = "provider_bad_image"
    retryable = True
    default_message = "The image provider sent something that is not a complete PNG, JPEG or WebP image. Try again."


class ProviderNotConfigured(ProviderFailure):
    """A key or an installed package is missing; nothing was sent."""

    code = "provider_not_configured"
    status_code = 503
    may_have_billed = False
    default_message = (
        "The image provider is not configured. The operator should check IMAGE_PROVIDER and the provider's API key."
    )


class ProviderAuth(ProviderFailure):
    """The provider rejected the API key."""

    code = "provider_auth"
    status_code = 503
    may_have_billed = False
    default_message = "The image provider rejected the API key. The operator should check it."


class ProviderModelUnavailable(ProviderFailure):
    """The model does not exist for this key, or no longer does."""

    code = "provider_model_unavailable"
    status_code = 503
    may_have_billed = False
    default_message = "The configured model is not available. The operator should choose another one."


class ProviderQuotaExhausted(ProviderFailure):
    """The account's budget or daily quota is used up."""

    code = "provider_quota_exhausted"
    status_code = 503
    may_have_billed = False
    default_message = "The image provider's quota or budget is used up. The operator should raise it."


class ProviderRateLimited(ProviderFailure):
    """Too many requests a minute; `retry_after` says when to try again, if the provider said so."""

    code = "provider_rate_limited"
    status_code = 503
    retryable = True
    retry_same = True
    may_have_billed = False
    default_message = "The image provider is limiting the rate of requests. Try again a little later."


class ProviderOverloaded(ProviderFailure):
    """The provider says it has no capacity at the moment (503, 529)."""

    code = "provider_overloaded"
    status_code = 503
    retryable = True
    retry_same = True
    may_have_billed = False
    default_message = "The image provider is overloaded. Try again later."


class ProviderTimeout(ProviderFailure):
    """The deadline passed before the response was complete; the provider may still bill."""

    code = "provider_timeout"
    status_code = 504
    retryable = True
    default_message = "The image provider did not respond in time. Try again later."


def find_kind(code: str, message: str, name: str = "") -> type[ImagesError]:
    """The class of a failure that was recorded.

    Args:
        code: The failure's code; two classes may share one.
        message: Its sentence.
        name: The class's module and name, if that was recorded.
    """
    found = [kind for kind in _kinds(ImagesError) if kind.code == code]
    named = (kind for kind in found if name_of(kind) == name)
    worded = (kind for kind in found if message.startswith(kind.default_message))
    return next(named, None) or next(worded, None) or (found[0] if found else ImagesError)


def name_of(kind: type[ImagesError]) -> str:
    """A class's module and name, by which `find_kind` finds it again."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _kinds(root: type[ImagesError]) -> Iterator[type[ImagesError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)
