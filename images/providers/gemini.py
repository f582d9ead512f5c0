"""Google's Gemini image models, with an API key (the Developer API)."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import httpx2

from .. import exceptions as failures
from ..exceptions import ProviderFailure
from .base import Deadline, ImageRequest, ProviderImage
from .exchange import Exchange, safe_id
from .faults import Refusal, Vendor, no_image, refused, rejected, retry_after, seconds
from .lookup import ModelStatus, gemini_names, gemini_status
from .sdk import SDKProvider, counts

if TYPE_CHECKING:
    from google.genai import Client

_OWN_ADDRESS = "https://generativelanguage.googleapis.com"

#: What running installations and Google's image examples use, and where fields for images appear first; the SDK's own
#: default is v1. A base URL that ends in /v1 chooses that.
_DEFAULT_VERSION = "v1beta"
_VERSIONED = re.compile(r"(.+)/(v\d+\w*)$")

# google.genai.types.FinishReason: the reasons that are a judgement on the content.
_POLICY = {
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
    "MODEL_ARMOR",
}


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What `call` hands to `parse`: the SDK's answer and the exchange it came by."""

    response: Any
    exchange: Exchange


class GeminiProvider(SDKProvider["Client", _Answer]):
    """Paints with `models.generate_content`.

    Options beside those of `SDKProvider`: `image_size` (`1K`, `2K`, …) and `extra_config` (fields laid over the
    `GenerateContentConfig`, for example `safety_settings`).
    """

    vendor: ClassVar[Vendor] = Vendor(
        name="Gemini", key="GEMINI_API_KEY", model="GEMINI_IMAGE_MODEL", base_url="GEMINI_API_BASE_URL"
    )
    sdk: ClassVar[str] = "google.genai"
    extra: ClassVar[str] = "gemini"

    def build_client(self, http_client: httpx2.Client) -> Client:
        """A client in API-key mode whatever the environment says, without retries."""
        from google import genai
        from google.genai.client import DebugConfig

        address, version = _address_and_version(self.base_url)
        # The SDK also builds clients for asyncio and websockets, each with certificates of its own (0.1 s together).
        # Nobody uses them here; with this context, which trusts nobody, they are free.
        unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return genai.Client(
            vertexai=False,  # Else GOOGLE_GENAI_USE_VERTEXAI decides.
            api_key=self.api_key,
            # "" is the ordinary mode; unset, GOOGLE_GENAI_CLIENT_MODE would decide, and could replay recordings.
            debug_config=DebugConfig(client_mode="", replays_directory="", replay_id=""),
            http_options=genai.types.HttpOptions(
                base_url=address,
                api_version=version,
                httpx_client=http_client,
                async_client_args={"verify": unused, "ssl": unused},
            ),
        )

    def build(self, request: ImageRequest) -> dict[str, Any]:
        """The arguments of `models.generate_content`, but for the timeout."""
        width, height = request.aspect_ratio
        image_config = {"aspect_ratio": f"{width}:{height}"}
        if self.options.get("image_size"):
            image_config["image_size"] = str(self.options["image_size"])
        config = {
            "response_modalities": ["IMAGE"],
            "image_config": image_config,
            # Each of these two would let the SDK send further, billed requests by itself.
            "automatic_continuation": False,
            "automatic_function_calling": {"disable": True},
            **(self.options.get("extra_config") or {}),
        }
        return {"model": self.model, "contents": request.prompt, "config": config}

    def send(self, client: Client, payload: Any, deadline: Deadline, opened: Exchange) -> _Answer:
        """Ask once. The timeout also tells Google when to stop (`X-Server-Timeout`)."""
        milliseconds = max(1, int(deadline.remaining * 1000))
        config = {**payload["config"], "http_options": {"timeout": milliseconds}}
        return _Answer(response=client.models.generate_content(**{**payload, "config": config}), exchange=opened)

    def look_up_model(self, deadline: Deadline) -> ModelStatus:
        """Ask for the model's entry.

        Raises:
            ProviderModelUnavailable: There is none, or it is one of a model that does not paint this way.
        """
        status = self.ask(deadline, lambda client, _: gemini_status(client, self.model, deadline.remaining))
        if status is None:
            raise refused(self.vendor, self.model, Refusal(status=404), None)
        return status

    def model_names(self, deadline: Deadline) -> tuple[str, ...]:
        """The image models of this key."""
        return self.ask(deadline, lambda client, _: gemini_names(client, deadline.remaining))

    def parse(self, answer: Any) -> ProviderImage:
        """The first image that is not a draft (`thought`).

        Raises:
            ContentRejected: The prompt or the picture was blocked.
            ProviderNoImage: A proper answer without an image.
        """
        response, exchange = answer.response, answer.exchange
        request_id = safe_id(response.response_id) or exchange.request_id
        data = next(_images(response), None)
        if data is None:
            raise self._without_image(response, request_id)
        usage = response.usage_metadata
        return ProviderImage(
            data=exchange.restore(data) or data,
            model=self.model,
            request_id=request_id,
            usage=counts(usage.model_dump(mode="json", exclude_none=True, warnings=False) if usage else None),
        )

    def _without_image(self, response: Any, request_id: str) -> ProviderFailure:
        feedback = response.prompt_feedback
        reasons = {_word(candidate.finish_reason) for candidate in response.candidates or ()}
        if (feedback is not None and feedback.block_reason) or reasons & _POLICY:
            return rejected(self.vendor, request_id)
        return no_image(self.vendor, request_id)

    def refusal(self, err: Exception, opened: Exchange) -> ProviderFailure | None:
        """The failure for the SDK's exception over an error answer."""
        from google.genai import errors

        if not isinstance(err, errors.APIError):
            return None
        error = _error(err.details)
        details = _details(error)
        refusal = Refusal(
            status=int(opened.status or err.code or 0),
            code=str(err.status or ""),
            message=str(error.get("message") or ""),
            request_id=opened.request_id,
            retry_after=retry_after(opened.headers) or _retry_delay(details),
        )
        return refused(self.vendor, self.model, refusal, _special(refusal, details))


def _address_and_version(base_url: str) -> tuple[str, str]:
    """The SDK wants the address and the API's version apart; operators have them in one setting."""
    versioned = _VERSIONED.match(base_url)
    if versioned:
        return versioned.group(1), versioned.group(2)
    return base_url or _OWN_ADDRESS, _DEFAULT_VERSION


def _images(response: Any) -> Iterator[bytes]:
    for candidate in response.candidates or ():
        for part in (candidate.content.parts if candidate.content else None) or ():
            if not part.thought and part.inline_data is not None and part.inline_data.data:
                yield part.inline_data.data


def _word(reason: Any) -> str:
    return str(getattr(reason, "value", reason))


def _error(body: Any) -> dict[str, Any]:
    """An error answer's `error`, where it has that shape."""
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    """The dicts in an error's `details`, as far as they are there."""
    details = error.get("details")
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _retry_delay(details: list[dict[str, Any]]) -> float | None:
    """Seconds to wait as google.rpc.RetryInfo says ("2s"), or `None`."""
    return next((delay for detail in details if (delay := seconds(detail.get("retryDelay"))) is not None), None)


def _special(refusal: Refusal, details: list[dict[str, Any]]) -> type[ProviderFailure] | None:
    """What Google's details say beyond the status: a bad key is a 400 there, a spent day a 429."""
    if any(detail.get("reason") == "API_KEY_INVALID" for detail in details):
        return failures.ProviderAuth
    # The API is not open to this account or this place; another provider may be.
    if refusal.status == 400 and refusal.code == "FAILED_PRECONDITION":
        return failures.ProviderAuth
    if refusal.status == 429 and any("PerDay" in quota for quota in _quotas(details)):
        return failures.ProviderQuotaExhausted
    return None


def _quotas(details: list[dict[str, Any]]) -> Iterator[str]:
    for detail in details:
        violations = detail.get("violations")
        for violation in violations if isinstance(violations, list) else ():
            if isinstance(violation, dict):
                yield str(violation.get("quotaId", ""))
