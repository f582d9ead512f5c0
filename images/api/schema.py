"""The API's OpenAPI documentation, if drf-spectacular is installed; without it the decorators do nothing.

Errors, headers and examples are kept here, so that the views stay short.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rest_framework import serializers

from .. import exceptions as errors
from ..models import CostBasis
from .errors import RequestTimeout
from .serializers import (
    AltTextSerializer,
    FilterSerializer,
    GenerateSerializer,
    ImageSerializer,
    PendingImageSerializer,
)

try:
    from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerFieldExtension
    from drf_spectacular.types import OpenApiTypes
    from drf_spectacular.utils import (
        OpenApiExample,
        OpenApiParameter,
        OpenApiResponse,
        extend_schema,
        extend_schema_serializer,
    )
except ImportError:  # pragma: no cover - the extra [schema] is not installed
    extend_schema = None  # type: ignore[assignment]

_MAY_HAVE_BILLED = "Only if true: a provider may have charged for what failed."

ViewMethod = TypeVar("ViewMethod", bound=Callable[..., Any])


class ErrorSerializer(serializers.Serializer[Any]):
    """The body of every error."""

    error = serializers.CharField(help_text="One sentence that says what happened and what to do next.")
    code = serializers.CharField(help_text="A stable name in snake case: decide by it, not by the sentence.")
    retryable = serializers.BooleanField(help_text="Whether the same request may succeed later, unchanged.")
    timestamp = serializers.DateTimeField()
    mayHaveBilled = serializers.BooleanField(required=False, help_text=_MAY_HAVE_BILLED)
    details = serializers.DictField(help_text="Sentences by field name, if fields are at fault.")


class DeletedSerializer(serializers.Serializer[Any]):
    """The response to a deletion."""

    success = serializers.BooleanField()
    id = serializers.CharField(help_text="The id as it was given in the request.")


#: Status -> (code, sentence, retryable) of what the views and DRF raise.
_COMMON: dict[int, list[tuple[str, str, bool]]] = {
    401: [
        ("not_authenticated", "Authentication credentials were not provided.", False),
        ("authentication_failed", "Invalid token.", False),
    ],
    403: [("permission_denied", "CSRF Failed: CSRF token missing.", False)],
    404: [("not_found", errors.ImageNotFound.default_message, False)],
    405: [("method_not_allowed", 'Method "PUT" not allowed.', False)],
    500: [("internal_error", errors.ImagesError.default_message, False)],
    503: [("database_unavailable", errors.DatabaseUnavailable.default_message, True)],
}
_BODY: dict[int, list[tuple[str, str, bool]]] = {
    400: [("invalid_request", "contentItemId and title are required", False)],
    408: [("request_timeout", RequestTimeout.default_detail, True)],
    413: [("payload_too_large", "The request body must not be larger than 2097152 bytes.", False)],
    415: [("unsupported_media_type", 'Unsupported media type "text/plain" in request.', False)],
}
_GENERATION: list[type[errors.ImagesError]] = [
    errors.ContentRejected, errors.RequestInProgress, errors.IdempotencyKeyReused, errors.StorageError,
    errors.ProviderError, errors.ProviderUnreachable, errors.ProviderBadResponse, errors.ProviderNoImage,
    errors.ProviderBadImage, errors.ProviderNotConfigured, errors.ProviderAuth, errors.ProviderModelUnavailable,
    errors.ProviderQuotaExhausted, errors.ProviderRateLimited, errors.ProviderOverloaded, errors.TooManyGenerations,
    errors.ProviderTimeout, errors.QueueUnavailable, errors.BudgetExhausted,
]  # fmt: skip


def _examples() -> dict[int, list[tuple[str, str, bool]]]:
    found = {status: list(rows) for status, rows in {**_COMMON, **_BODY}.items() if status not in (404, 405)}
    for cls in _GENERATION:
        error = cls().with_billing(cls.may_have_billed)
        found.setdefault(cls.status_code, []).append((cls.code, error.message, cls.retryable))
    return found


def _error_responses(examples: Mapping[int, list[tuple[str, str, bool]]]) -> dict[int, Any]:
    return {
        status: OpenApiResponse(
            ErrorSerializer,
            description=", ".join(f"`{code}`" for code, _, _ in rows),
            examples=[_error_example(*row) for row in rows],
        )
        for status, rows in sorted(examples.items())
    }


def _error_example(code: str, sentence: str, retryable: bool) -> Any:
    details = {"title": ["This field is required."]} if code == "invalid_request" else {}
    body: dict[str, Any] = {"error": sentence, "code": code, "retryable": retryable}
    if errors.BILLING_ADVICE in sentence:
        body["mayHaveBilled"] = True
    body |= {"timestamp": "2026-11-23T08:00:00.000Z", "details": details}
    return OpenApiExample(code, value=body, response_only=True)


def _header(name: str, description: str, statuses: list[int]) -> Any:
    return OpenApiParameter(name, OpenApiTypes.STR, "header", description=description, response=statuses)


def _generation_parameters(status: int) -> list[Any]:
    return [
        OpenApiParameter(
            "Idempotency-Key",
            OpenApiTypes.STR,
            OpenApiParameter.HEADER,
            description=(
                "1 to 255 printable characters. Repeating a request with the same key and content returns the image "
                "that the first one generated, and nothing is paid again."
            ),
        ),
        OpenApiParameter(
            "Prefer",
            OpenApiTypes.STR,
            OpenApiParameter.HEADER,
            description=(
                "`respond-async`: respond at once with 202. `wait=20`: wait for up to 20 seconds, then respond with "
                "202. If the server has no queue, the response always comes with the image."
            ),
        ),
        _header("Preference-Applied", "The preferences of `Prefer` that were applied.", [status, 202]),
        _header("Idempotency-Replayed", "`true` if the key was used before: nothing new was generated.", [status]),
        _header("Retry-After", "Seconds after which to try again.", [202, 409, 503]),
    ]


_REQUEST_EXAMPLE = {
    "contentItemId": "665f1c2e9b1e8a0012345678",
    "title": "A quiet harbour at dawn",
    "description": "Fishing boats, mist, the first light on the water.",
    "context": "For readers who know the coast. Calm, documentary.",
    "variant": "hero",
}
_OLD_ID = "665f1c2e9b1e8a0012345678/hero-1763049170351.png"
_IMAGE_EXAMPLE = {
    "id": "0193a1b2-0000-4000-8000-000000000000",
    "imageUrl": "https://example.com/media/draft-images/665f1c2e9b1e8a0012345678/hero-1763049170351-9f86d081884c.png",
    "contentItemId": "665f1c2e9b1e8a0012345678",
    "title": "A quiet harbour at dawn",
    "altText": "Fishing boats lie in a misty harbour in the first light of the day.",
    "variant": "hero",
    "status": "ready",
    "provider": "gemini",
    "model": "gemini-nano-banana-2.1",
    "mimeType": "image/png",
    "width": 1376,
    "height": 768,
    "createdAt": "2026-11-23T08:00:00.000Z",
    "aiGenerated": True,
    "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
    "contentCredentials": True,
    "error": None,
    "waiting": None,
    "cost": {"usd": "0.0351", "basis": "estimated"},
}


_PENDING_EXAMPLE = {
    **_IMAGE_EXAMPLE,
    "imageUrl": None,
    "altText": None,
    "status": "pending",
    "provider": "",
    "model": "",
    "mimeType": "",
    "width": None,
    "height": None,
    "aiGenerated": None,
    "digitalSourceType": None,
    "contentCredentials": None,
    "cost": None,
    "statusUrl": "https://example.com/api/images/0193a1b2-0000-4000-8000-000000000000",
}


def _generation(status: int, summary: str) -> dict[str, Any]:
    located = [201, 202, 409] if status == 201 else [202, 409]
    location = _header("Location", "The URL of the image in this API.", located)
    return {
        "summary": summary,
        "request": GenerateSerializer,
        "parameters": [*_generation_parameters(status), location],
        "responses": {status: ImageSerializer, 202: PendingImageSerializer, **_error_responses(_examples())},
        "examples": [
            OpenApiExample("A hero image", value=_REQUEST_EXAMPLE, request_only=True),
            OpenApiExample("The image", value=_IMAGE_EXAMPLE, response_only=True, status_codes=[str(status)]),
            OpenApiExample("Queued", value=_PENDING_EXAMPLE, response_only=True, status_codes=["202"]),
        ],
    }


def _plain(**documented: Any) -> Callable[[], dict[str, Any]]:
    """Documentation of an operation without a body; `ok` is its response, `also` are further errors."""
    ok, also = documented.pop("ok"), documented.pop("also", {})
    return lambda: {"responses": {200: ok, **_error_responses({**_COMMON, **also})}, **documented}


def _one(*, value: Any, **documented: Any) -> dict[str, Any]:
    """Documentation of an operation on one image; `value` is an example of its response."""
    image_id = OpenApiParameter(
        "image_id",
        OpenApiTypes.STR,
        OpenApiParameter.PATH,
        description="The image's UUID, or the old form `contentItemId/filename`, with a slash or `%2F`.",
        examples=[OpenApiExample("UUID", value=_IMAGE_EXAMPLE["id"]), OpenApiExample("Old form", value=_OLD_ID)],
    )
    example = OpenApiExample("Done", value=value, response_only=True, status_codes=["200"])
    return {**_plain(**documented)(), "parameters": [image_id], "examples": [example]}


_OPERATIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "generate": lambda: _generation(200, "Generate an image and return its URL"),
    "create": lambda: _generation(201, "Generate an image"),
    "list": _plain(
        ok=ImageSerializer(many=True),
        also={400: [("invalid_request", "variant: “poster” is not a valid choice.", False)]},
        summary="List images, newest first",
        parameters=[FilterSerializer],
    ),
    "retrieve": lambda: _one(ok=ImageSerializer, value=_IMAGE_EXAMPLE, summary="Retrieve an image"),
    "partial_update": lambda: _one(
        ok=ImageSerializer,
        value=_IMAGE_EXAMPLE,
        also=_BODY,
        summary="Change an image's alternative text",
        request=AltTextSerializer,
    ),
    "destroy": lambda: _one(
        ok=DeletedSerializer,
        value={"success": True, "id": _OLD_ID},
        also={500: [*_COMMON[500], ("storage_error", errors.StorageError.default_message, False)]},
        summary="Delete an image and its file",
    ),
}


def documented(operation: str) -> Callable[[ViewMethod], ViewMethod]:
    """Document a method of the viewset; does nothing if drf-spectacular is not installed."""
    if extend_schema is None:
        return lambda method: method
    details = _OPERATIONS[operation]()
    challenge = _header("WWW-Authenticate", "How to authenticate.", [401])
    return extend_schema(tags=["images"], **{**details, "parameters": [*details.get("parameters", []), challenge]})


def drop_twins(endpoints: list[Any], **_: Any) -> list[Any]:
    """A drf-spectacular preprocessing hook that changes nothing any more: each call is listed once without it."""
    warnings.warn("images.api.schema.drop_twins is not needed any more.", DeprecationWarning, stacklevel=2)
    return endpoints


if extend_schema is not None:

    class ImagesTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
        """A token as it is: Swagger UI's *Authorize* puts `Bearer` in front of it, which we accept as `Token`."""

        target_class = "images.api.authentication.ImagesTokenAuthentication"
        name = "imagesToken"

        def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
            return {"type": "http", "scheme": "bearer"}

    class ImagesSessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
        """Nothing: a page cannot set the session's cookie, and the browser sends it by itself."""

        target_class = "images.api.authentication.ImagesSessionAuthentication"
        name: list[str] = []

        def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:
            return []

        def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
            return []

    # A host is likely to have an "Image" and an "Error" of its own.
    for _serializer in (
        AltTextSerializer, DeletedSerializer, ErrorSerializer, GenerateSerializer, ImageSerializer,
        PendingImageSerializer,
    ):  # fmt: skip
        extend_schema_serializer(component_name=f"Images{_serializer.__name__.removesuffix('Serializer')}")(
            _serializer
        )

    class WordFieldScheme(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
        """The words in place: as components, they would collide with other words that a host calls `status`."""

        target_class = "images.api.serializers.WordField"
        match_subclasses = True

        def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
            words = [*self.target.choices, *([None] if self.target.allow_null else [])]
            return {"type": "string", "allOf": [{"enum": words}]}

    class ErrorFieldExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
        """The `error` of an image."""

        target_class = "images.api.serializers.ErrorField"

        def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
            properties = {
                "code": {"type": "string", "description": "As in the body of an error."},
                "message": {"type": "string", "description": "One sentence that says what happened."},
                "retryable": {"type": "boolean", "description": "As in the body of an error."},
                "mayHaveBilled": {"type": "boolean", "description": _MAY_HAVE_BILLED},
            }
            return {
                "type": "object",
                "nullable": True,
                "properties": properties,
                "required": ["code", "message", "retryable"],
            }

    class CostFieldExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
        """The `cost` of an image."""

        target_class = "images.api.serializers.CostField"

        def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
            properties = {
                "usd": {"type": "string", "format": "decimal", "description": "US dollars, as text."},
                "basis": {"type": "string", "enum": list(CostBasis.values)},
            }
            return {"type": "object", "nullable": True, "properties": properties, "required": ["usd", "basis"]}

    class WaitingFieldExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
        """The `waiting` of an image."""

        target_class = "images.api.serializers.WaitingField"

        def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
            properties = {
                "code": {"type": "string", "description": "What a provider said last; as in the body of an error."},
                "message": {"type": "string", "description": "One sentence that says what it waits for."},
                "attempts": {"type": "integer", "description": "How often providers were asked so far."},
                "retryAt": {
                    "type": "string",
                    "format": "date-time",
                    "nullable": True,
                    "description": "When one is asked again.",
                },
            }
            return {"type": "object", "nullable": True, "properties": properties, "required": list(properties)}

    class TrustedNetworkScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
        """Callers from trusted networks send no credentials, so there is nothing to fill in."""

        target_class = "images.api.authentication.TrustedNetworkAuthentication"
        name: list[str] = []

        def get_security_definition(self, auto_schema: Any) -> list[Any]:
            return []

        def get_security_requirement(self, auto_schema: Any) -> list[Any]:
            return [{}]
