"""One body for every error that reaches the API, whatever raised it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.signals import got_request_exception
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest
from django.urls import reverse
from rest_framework import exceptions, status
from rest_framework.response import Response

from ..exceptions import (
    RATE_LIMIT_PAUSE,
    DatabaseUnavailable,
    ImagesError,
    InvalidRequest,
    ProviderRateLimited,
    RequestInProgress,
)
from ..logs import log_event
from ..models import GeneratedImage, absolute_url

logger = logging.getLogger("images.api")

REQUIRED_SENTENCE = "contentItemId and title are required"

#: DRF's own codes, under the names of the contract.
_CODES: dict[type[exceptions.APIException], str] = {
    exceptions.ValidationError: "invalid_request",
    exceptions.ParseError: "invalid_request",
    exceptions.NotAuthenticated: "not_authenticated",
    exceptions.AuthenticationFailed: "authentication_failed",
    exceptions.PermissionDenied: "permission_denied",
    exceptions.NotFound: "not_found",
    exceptions.MethodNotAllowed: "method_not_allowed",
    exceptions.UnsupportedMediaType: "unsupported_media_type",
    exceptions.NotAcceptable: "not_acceptable",
}


class PayloadTooLarge(exceptions.APIException):
    """The body is larger than `MAX_BODY_BYTES`."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = "The request body is too large."
    default_code = "payload_too_large"


class RequestTimeout(exceptions.APIException):
    """The body did not arrive in time."""

    status_code = status.HTTP_408_REQUEST_TIMEOUT
    default_detail = "The request body took too long to arrive. Send the request again."
    default_code = "request_timeout"
    retryable = True


def timestamp() -> str:
    """Now, as the contract writes it: `2026-11-23T08:00:00.000Z`."""
    return format_time(datetime.now(UTC))


def format_time(moment: datetime) -> str:
    """A moment in UTC with milliseconds and a `Z`. A naive one (`USE_TZ = False`) is local time."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def error_body(
    code: str,
    message: str,
    *,
    retryable: bool = False,
    may_have_billed: bool = False,
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The contract's error body.

    Args:
        code: A stable name in snake case.
        message: One sentence that the reader can act on.
        retryable: Whether the same request may succeed later without any change.
        may_have_billed: Whether a provider may have charged for what failed.
        details: Sentences by field name, if fields are at fault.
    """
    return {
        "error": message,
        "code": code,
        "retryable": retryable,
        **({"mayHaveBilled": True} if may_have_billed else {}),
        "timestamp": timestamp(),
        "details": dict(details or {}),
    }


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> Response:
    """DRF's `EXCEPTION_HANDLER` for the views of this app: every exception becomes the contract's body.

    A database that fails is `database_unavailable`, which says that nothing was paid for. The views do not let such
    an error through after a provider was asked.
    """
    path = getattr(context.get("request"), "path", None)
    if isinstance(exc, (OperationalError, InterfaceError, DatabaseUnavailable)):
        log_event(logger, logging.ERROR, "database_unavailable", error=str(exc.__cause__ or exc).strip(), path=path)
        exc = DatabaseUnavailable()
    converted = _as_api_exception(exc)
    if converted is not None:
        return _api_exception(converted)
    if not isinstance(exc, ImagesError):
        log_event(logger, logging.ERROR, "unhandled_exception", exc_info=exc, path=path)
        exc = ImagesError().with_billing(getattr(exc, "may_have_billed", False))
    if exc.code == ImagesError.code:
        _tell_error_trackers(context)
    response = _images_error(exc)
    if isinstance(exc, RequestInProgress) and exc.image is not None:
        _name_image(response, exc.image, context)
    return response


def _name_image(response: Response, image: GeneratedImage, context: Mapping[str, Any]) -> None:
    """Say which image is being generated, and where its state can be seen."""
    location = image_location(image, context["request"]._request)
    response.data |= {"id": str(image.pk), "statusUrl": location}
    response["Location"] = location


def image_location(image: GeneratedImage, request: HttpRequest) -> str:
    """The URL of an image in this API."""
    return absolute_url(reverse("images:image-detail", kwargs={"image_id": str(image.pk)}), request)


def _tell_error_trackers(context: Mapping[str, Any]) -> None:
    """Send the signal that Django sends for an exception that no view handles."""
    request = getattr(context.get("request"), "_request", None)
    got_request_exception.send_robust(sender=type(context.get("view")), request=request)


def _images_error(exc: ImagesError) -> Response:
    details = _camel_details(exc.details) if isinstance(exc, InvalidRequest) else None
    body = error_body(
        exc.code,
        exc.message,
        retryable=exc.retryable,
        may_have_billed=exc.may_have_billed,
        details=details,
    )
    retry_after = exc.retry_after
    if retry_after is None and isinstance(exc, ProviderRateLimited):
        retry_after = RATE_LIMIT_PAUSE  # the contract promises the header, and vendors do not always say how long
    headers = {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}
    response = Response(body, status=exc.status_code, headers=headers)
    # It has been logged by now; Django would log every 5xx again.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def _camel_details(details: Mapping[str, list[str]]) -> dict[str, list[str]]:
    names = {"content_item_id": "contentItemId", "idempotency_key": "Idempotency-Key", "alt_text": "altText"}
    return {names.get(name, name): sentences for name, sentences in details.items()}


def _as_api_exception(exc: Exception) -> exceptions.APIException | None:
    if isinstance(exc, exceptions.APIException):
        return exc
    if isinstance(exc, Http404):
        return exceptions.NotFound("There is nothing at this address.")
    if isinstance(exc, PermissionDenied):
        return exceptions.PermissionDenied()
    if isinstance(exc, RequestDataTooBig):
        return PayloadTooLarge()
    if isinstance(exc, SuspiciousOperation):
        return exceptions.ParseError("The request is not valid.")
    return None


def _api_exception(exc: exceptions.APIException) -> Response:
    code = next((code for cls, code in _CODES.items() if isinstance(exc, cls)), exc.default_code)
    details = exc.detail if isinstance(exc, exceptions.ValidationError) else {}
    details = dict(details) if isinstance(details, dict) else {"nonFieldErrors": details}
    if "non_field_errors" in details:
        details["nonFieldErrors"] = details.pop("non_field_errors")
    headers = {}
    if auth_header := getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = auth_header
    if wait := getattr(exc, "wait", None):
        headers["Retry-After"] = str(math.ceil(wait))
    body = error_body(code, _sentence(exc, details), retryable=getattr(exc, "retryable", False), details=details)
    return Response(body, status=exc.status_code, headers=headers)


def _sentence(exc: exceptions.APIException, details: Mapping[str, Any]) -> str:
    if not isinstance(exc, exceptions.ValidationError):
        return str(exc.detail)
    missing = {"required", "null", "blank"}
    for name in ("contentItemId", "title"):
        if any(getattr(error, "code", "") in missing for error in details.get(name, ())):
            return REQUIRED_SENTENCE
    names = {"nonFieldErrors": "The body"}
    sentences = [f"{names.get(name, name)}: {_first_text(errors)}" for name, errors in details.items()]
    return " ".join(sentences) or "The request is not valid."


def _first_text(errors: Any) -> str:
    while isinstance(errors, (list, tuple, dict)):
        errors = next(iter(errors.values() if isinstance(errors, dict) else errors), "")
    return str(errors)
