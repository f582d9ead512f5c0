"""Everything that can go wrong, as one tree of exceptions.

`ImagesError` is the root of what a caller can handle. Each subclass carries what the caller, the API and the
chain of providers need to decide what to do next, so none of them inspects messages:

- `code`: the stable name in the API's error body.
- `status_code`: the HTTP status the API answers with.
- `retryable`: whether the same request may succeed later without anybody changing anything.

Mistakes in the code or the configuration of the host (`OpenTransactionError`, Django's `ImproperlyConfigured`)
stand outside the root on purpose, so that no `except ImagesError` swallows them.
"""

from __future__ import annotations

from typing import ClassVar

#: Seconds after which it makes sense to ask again if the server is busy: a good part of a usual generation.
RETRY_AFTER = 5
#: Seconds after which it makes sense to ask again if a provider limits the rate and does not say for how long.
RATE_LIMIT_PAUSE = 20


class OpenTransactionError(RuntimeError):
    """`generate_image` was called inside `transaction.atomic()`: a rollback would lose a paid picture."""


class RealProviderError(RuntimeError):
    """A test run was about to ask a provider that costs money; `images.testing` says what to do instead."""


class ImagesError(Exception):
    """The root of every failure a caller can handle.

    Args:
        message: One sentence a person can act on. It reaches callers: no key, no path, no upstream body.
        retry_after: Seconds after which asking again makes sense, where that is known.
    """

    code: ClassVar[str] = "internal_error"
    status_code: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    default_message: ClassVar[str] = "Something went wrong on our side. The server's log has the details."

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        self.message = message or self.default_message
        self.retry_after = retry_after
        super().__init__(self.message)


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
    """There is no such image, or it belongs to somebody else."""

    code = "not_found"
    status_code = 404
    default_message = "There is no such image."


class RequestInProgress(ImagesError):
    """The same idempotency key is being worked on at this moment."""

    code = "request_in_progress"
    status_code = 409
    retryable = True
    default_message = "The image for this Idempotency-Key is being made. Ask again with the same key to get it."


class IdempotencyKeyReused(ImagesError):
    """The same idempotency key came with other content."""

    code = "idempotency_key_reused"
    status_code = 422
    default_message = "This Idempotency-Key was used for other content. Use a new key for a new image."


class StorageError(ImagesError):
    """The file could not be written, read or removed. Nothing half-written is left."""

    code = "storage_error"
    status_code = 500
    default_message = "The image could not be stored. The operator has to look at the disk (STORAGE_ROOT)."


class TooManyGenerations(ImagesError):
    """This process already runs as many generations as it is allowed to (`IMAGE_MAX_CONCURRENCY`)."""

    code = "too_many_generations"
    status_code = 503
    retryable = True
    default_message = "Too many images are being made at this moment. Ask again in a few seconds."


class QueueUnavailable(ImagesError):
    """The queue did not take the request, or no worker took it up in time. Nothing was paid for."""

    code = "queue_unavailable"
    status_code = 503
    retryable = True
    default_message = "The image could not be queued. Ask again later."


class DatabaseUnavailable(ImagesError):
    """The database is locked, full or gone. No provider has been asked, so nothing was paid for."""

    code = "database_unavailable"
    status_code = 503
    retryable = True
    default_message = "The database does not answer at the moment. Ask again in a few seconds."

    def __init__(self, message: str = "", *, retry_after: float | None = RETRY_AFTER) -> None:
        super().__init__(message, retry_after=retry_after)


class ProviderFailure(ImagesError):
    """A provider did not paint. Subclasses say what may be tried next.

    Attributes:
        retry_same: The same provider may be asked again: nothing can have been billed.
        failover: The next provider of the chain may be asked.
        may_have_billed: The provider may have charged for this attempt.
        request_id: The provider's own name for the request, where it gave one.
    """

    status_code = 502
    retry_same: ClassVar[bool] = False
    failover: ClassVar[bool] = True
    may_have_billed: ClassVar[bool] = True

    def __init__(self, message: str = "", *, retry_after: float | None = None, request_id: str = "") -> None:
        super().__init__(message, retry_after=retry_after)
        self.request_id = request_id


class ContentRejected(ProviderFailure):
    """The provider's safety system refused this text. Not an outage: never retried, never failed over."""

    code = "content_rejected"
    status_code = 400
    failover = False
    may_have_billed = False
    default_message = "The provider's safety system refused this text. Change the title or the description."


class ProviderError(ProviderFailure):
    """The provider failed on its side (500, 502, 504, 408, 409); it may have billed."""

    code = "provider_error"
    retryable = True
    default_message = "The image provider failed. Ask again later."


class ProviderRefusedRequest(ProviderFailure):
    """The provider did not understand our request (400, 413, 422): our bug, or a model with rules of its own."""

    code = "provider_error"
    failover = False
    may_have_billed = False
    default_message = "The image provider did not accept the request. The server's log says what it objected to."


class ProviderUnreachable(ProviderFailure):
    """No connection came about, so nothing was sent and nothing billed."""

    code = "provider_unreachable"
    retryable = True
    retry_same = True
    may_have_billed = False
    default_message = "The image provider could not be reached. Ask again later."


class ProviderBadResponse(ProviderFailure):
    """The answer broke off, is not what the protocol promises, or exceeds the limits."""

    code = "provider_bad_response"
    retryable = True
    default_message = "The image provider's answer was broken. Ask again later."


class ProviderNoImage(ProviderFailure):
    """A proper answer that holds no image."""

    code = "provider_no_image"
    retryable = True
    default_message = "The image provider answered without an image. Ask again, or reword the title."


class ProviderBadImage(ProviderFailure):
    """The bytes are not a whole PNG, JPEG or WebP within the limits."""

    code = "provider_bad_image"
    retryable = True
    default_message = "The image provider sent something that is not a whole PNG, JPEG or WebP image. Ask again."


class ProviderNotConfigured(ProviderFailure):
    """A key or an installed package is missing; nothing was sent."""

    code = "provider_not_configured"
    status_code = 503
    may_have_billed = False
    default_message = "The image provider is not configured. The operator has to look at IMAGE_PROVIDER and its key."


class ProviderAuth(ProviderFailure):
    """The provider refused the key."""

    code = "provider_auth"
    status_code = 503
    may_have_billed = False
    default_message = "The image provider refused the API key. The operator has to check it."


class ProviderModelUnavailable(ProviderFailure):
    """The model does not exist (any more) for this key."""

    code = "provider_model_unavailable"
    status_code = 503
    may_have_billed = False
    default_message = "The configured model is not available. The operator has to choose another one."


class ProviderQuotaExhausted(ProviderFailure):
    """The account's budget or daily quota is used up."""

    code = "provider_quota_exhausted"
    status_code = 503
    may_have_billed = False
    default_message = "The image provider's quota or budget is used up. The operator has to raise it."


class ProviderRateLimited(ProviderFailure):
    """Too many requests a minute; `retry_after` says when to come back, where the provider said so."""

    code = "provider_rate_limited"
    status_code = 503
    retryable = True
    retry_same = True
    may_have_billed = False
    default_message = "The image provider limits the rate of requests. Ask again a little later."


class ProviderOverloaded(ProviderFailure):
    """The provider says it has no capacity at the moment (503, 529)."""

    code = "provider_overloaded"
    status_code = 503
    retryable = True
    retry_same = True
    may_have_billed = False
    default_message = "The image provider is overloaded. Ask again later."


class ProviderTimeout(ProviderFailure):
    """The time was up before the answer was complete; the provider may still bill."""

    code = "provider_timeout"
    status_code = 504
    retryable = True
    default_message = "The image provider did not answer in time. Ask again later."
