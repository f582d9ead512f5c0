"""Google's Gemini image models, with an API key (the Developer API)."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import httpx2

from .. import exceptions as failures
from ..exceptions import ProviderFailure
from .base import (
    Deadline,
    ImageRequest,
    ProviderImage,
    SDKProvider,
    counts,
    decode_base64,
    mapping,
    mappings,
    nearest_ratio,
    read_json,
    reporting,
)
from .errors import (
    Refusal,
    Vendor,
    broken,
    by_words,
    message_of,
    no_image,
    refused,
    rejected,
    retry_after,
    seconds,
)
from .http import Call, safe_id
from .models import ModelStatus, image_model_names

if TYPE_CHECKING:
    from google.genai import Client

_OWN_ADDRESS = "https://generativelanguage.googleapis.com"

#: What running installations and Google's image examples use, and where fields for images appear first; the SDK's own
#: default is v1. A base URL that ends in /v1 chooses that.
_DEFAULT_VERSION = "v1beta"
#: The aspect ratios that every image model of today takes; a few take more.
_RATIOS = ((1, 1), (2, 3), (3, 2), (3, 4), (4, 3), (4, 5), (5, 4), (9, 16), (16, 9), (21, 9))
#: The sizes of the models of today; capital letters count.
_SIZES = ("1K", "2K", "4K")
_CAPITAL = re.compile(r"(?<!^)([A-Z])")
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


#: google.rpc.Code by name, as the status that it comes with.
_STATUSES = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403}
_STATUSES |= {"NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504}


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What `call` hands to `parse`: the answer's JSON and the call it came by."""

    content: Any
    call: Call


class GeminiProvider(SDKProvider["Client", _Answer]):
    """Generates with `models.generate_content`.

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
        # They are not used here; with this context, which trusts no one, they are free. Left to the environment, they
        # would fail at a SOCKS proxy that they have no package for.
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
                async_client_args={"verify": unused, "ssl": unused, "trust_env": False},
            ),
        )

    def build(self, request: ImageRequest) -> dict[str, Any]:
        """The arguments of `models.generate_content`, except the timeout."""
        width, height = nearest_ratio(request.aspect_ratio, _RATIOS)
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

    def send(self, client: Client, payload: Any, deadline: Deadline, call: Call) -> _Answer:
        """Ask once. The timeout also tells Google when to stop (`X-Server-Timeout`)."""
        config = {
            **payload["config"],
            "http_options": {"timeout": milliseconds(deadline)},
            "should_return_http_response": True,
        }
        response = client.models.generate_content(**{**payload, "config": config}).sdk_http_response
        return _Answer(content=read_json((response and response.body) or ""), call=call)

    def parse(self, answer: _Answer) -> ProviderImage:
        """The first image that is not a draft (`thought`).

        Raises:
            ContentRejected: The prompt or the picture was blocked.
            ProviderBadResponse: The answer is not what the API promises.
            ProviderNoImage: It is, but holds no image.
        """
        content = mapping(answer.content)
        request_id = safe_id(content.get("responseId")) or answer.call.request_id
        usage = counts(snake_case(content.get("usageMetadata")))
        with reporting(usage):
            data = self._decoded(answer, request_id)
        return ProviderImage(data=data, model=self.model, request_id=request_id, usage=usage)

    def _decoded(self, answer: _Answer, request_id: str) -> bytes:
        call, content = answer.call, mapping(answer.content)
        if not _is_promised(answer.content):
            raise broken(self.vendor, call)
        text = next(_images(content), None)
        if text is None and content.get("error"):
            raise self.reported(content, call)
        if text is None:
            raise self.without_image(content, request_id)
        try:
            return decode_base64(text)
        except ValueError as err:
            raise broken(self.vendor, call, kind="JSON whose base64 is damaged") from err

    def reported(self, content: Mapping[str, Any], call: Call) -> ProviderFailure:
        """The failure that an answer reports although its status is 200."""
        error = mapping(content["error"])
        status = error.get("code")
        if not isinstance(status, int) or not 400 <= status < 600:
            status = _STATUSES.get(str(error.get("status")), 500)
        return self._refused(content, status, call)

    def without_image(self, content: Mapping[str, Any], request_id: str) -> ProviderFailure:
        """The failure for an answer without content: was it blocked?"""
        reasons = {str(candidate.get("finishReason")) for candidate in mappings(content.get("candidates"))}
        judged = [mapping(content.get("promptFeedback")), *mappings(content.get("candidates"))]
        blocked = any(
            rating.get("blocked") is True for one in judged for rating in mappings(one.get("safetyRatings"))
        )
        if blocked or judged[0].get("blockReason") or reasons & _POLICY:
            return rejected(self.vendor, request_id)
        return no_image(self.vendor, request_id)

    def refusal(self, err: Exception, call: Call) -> ProviderFailure | None:
        """The failure for the SDK's exception over an error answer."""
        from google.genai import errors

        if not isinstance(err, errors.APIError):
            return None
        return self._refused(err.details, int(call.status or err.code or 0), call)

    def _refused(self, body: Any, status: int, call: Call) -> ProviderFailure:
        error = mapping(mapping(body).get("error"))
        details = mappings(error.get("details"))
        refusal = Refusal(
            status=status,
            code=self.masked(str(error.get("status") or mapping(body).get("status") or "")),
            message=self.masked(message_of(body)),
            request_id=call.request_id,
            retry_after=retry_after(call.headers) or _retry_delay(details),
        )
        words = (refusal.code, refusal.message, error.get("code"), mapping(error.get("innererror")).get("code"))
        return refused(self.vendor, self.model, refusal, _special(refusal, details) or by_words(*words))

    def look_up_model(self, deadline: Deadline) -> ModelStatus:
        """Ask for the model's entry.

        Raises:
            ProviderModelUnavailable: There is none, or it belongs to a model that generates in another way (Imagen).
        """
        config: Any = {"http_options": {"timeout": milliseconds(deadline)}}
        found = self.ask(deadline, lambda client, _: client.models.get(model=self.model, config=config))
        if found.supported_actions and "generateContent" not in found.supported_actions:
            raise refused(self.vendor, self.model, Refusal(status=404), None)
        return ModelStatus()

    def doubts(self) -> list[str]:
        """What Gemini is not known to accept in the size."""
        size = str(self.options.get("image_size") or "")
        if not size or size in _SIZES:
            return []
        meant = f" Did you mean {size.upper()}?" if size.upper() in _SIZES else ""
        return [f"GEMINI_IMAGE_SIZE is not a size that Gemini is known to accept: {', '.join(_SIZES)}.{meant}"]

    def model_names(self, deadline: Deadline) -> tuple[str, ...]:
        """The image models of this key."""
        config: Any = {"page_size": 1000, "http_options": {"timeout": milliseconds(deadline)}}
        models = self.ask(deadline, lambda client, _: client.models.list(config=config).page)
        return image_model_names(
            (model.name or "").rpartition("/")[2]
            for model in models
            if "generateContent" in (model.supported_actions or ["generateContent"])
        )


def milliseconds(deadline: Deadline) -> int:
    """The timeout that Google is told: it refuses one below ten seconds. The deadline itself ends the call."""
    return max(10_000, int(deadline.remaining * 1000))


def _address_and_version(base_url: str) -> tuple[str, str]:
    """The SDK wants the address and the API's version apart; operators have them in one setting."""
    versioned = _VERSIONED.match(base_url)
    if versioned:
        return versioned.group(1), versioned.group(2)
    return base_url or _OWN_ADDRESS, _DEFAULT_VERSION


def _is_promised(content: Any) -> bool:
    """Whether the answer has the API's shape as far as it matters here: other fields may hold anything."""
    if not isinstance(content, Mapping):
        return False
    candidates = content.get("candidates")
    return candidates is None or (
        isinstance(candidates, list) and all(isinstance(one, Mapping) for one in candidates)
    )


def _images(content: Mapping[str, Any]) -> Iterator[str]:
    for candidate in mappings(content.get("candidates")):
        for part in mappings(mapping(candidate.get("content")).get("parts")):
            text = mapping(part.get("inlineData")).get("data")
            if isinstance(text, str) and text and not part.get("thought"):
                yield text


def snake_case(reported: Any) -> Any:
    """Google's `usageMetadata` with the names that its SDK gives the fields, under which rows have kept them."""
    if isinstance(reported, Mapping):
        return {_CAPITAL.sub(r"_\1", str(key)).lower(): snake_case(value) for key, value in reported.items()}
    return [snake_case(item) for item in reported] if isinstance(reported, list) else reported


def _retry_delay(details: list[Mapping[str, Any]]) -> float | None:
    """Seconds to wait as google.rpc.RetryInfo says ("2s"), or `None`."""
    return next((delay for detail in details if (delay := seconds(detail.get("retryDelay"))) is not None), None)


def _special(refusal: Refusal, details: list[Mapping[str, Any]]) -> type[ProviderFailure] | None:
    """What Google's details say beyond the status: a bad key is a 400 there, a spent day a 429."""
    if any(detail.get("reason") == "API_KEY_INVALID" for detail in details):
        return failures.ProviderAuth
    # The API is not open to this account or this place; another provider may be.
    if refusal.status == 400 and refusal.code == "FAILED_PRECONDITION":
        return failures.ProviderAuth
    if refusal.status == 429 and any("PerDay" in quota for quota in _quotas(details)):
        return failures.ProviderQuotaExhausted
    return None


def _quotas(details: list[Mapping[str, Any]]) -> Iterator[str]:
    for detail in details:
        for violation in mappings(detail.get("violations")):
            yield str(violation.get("quotaId", ""))
