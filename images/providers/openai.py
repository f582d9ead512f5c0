"""OpenAI's images API, and every server that speaks it (`OPENAI_BASE_URL`)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import httpx2

from .. import exceptions as failures
from ..exceptions import ProviderFailure
from .base import Deadline, ImageRequest, ProviderImage
from .exchange import Exchange
from .faults import Refusal, Vendor, broken, no_image, refused, retry_after
from .fetch import fetch_image
from .lifting import decode_base64
from .lookup import ModelStatus, openai_names, openai_status
from .sdk import SDKProvider, counts
from .sizes import size_for

if TYPE_CHECKING:
    from openai import OpenAI

_OWN_ADDRESS = "https://api.openai.com/v1"

#: The GPT image models take a quality. "auto" may choose "high", which takes longer than the promised 30 seconds.
_GPT_IMAGE = re.compile(r"gpt-image-")
_DEFAULT_QUALITY = "medium"

#: Seconds by which the SDK's own timeout, which it announces in a header, lies behind the deadline.
_BEHIND = 5.0

_REJECTED = {"moderation_blocked", "content_policy_violation"}
_EXHAUSTED = {"insufficient_quota", "billing_hard_limit_reached", "billing_limit_user_error"}


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What `call` hands to `parse`: the SDK's answer, the exchange it came by, and the file if it was fetched."""

    response: Any
    exchange: Exchange
    fetched: bytes | None = None


class OpenAIProvider(SDKProvider["OpenAI", _Answer]):
    """Paints with `images.generate`.

    Options beside those of `SDKProvider`: `quality`, `size` (`WIDTHxHEIGHT`), `output_format`, `organization`,
    `project`, `extra_body` (a dict laid over the request's JSON) and `fetch_allowed_hosts` (see
    `images.providers.fetch`).
    """

    vendor: ClassVar[Vendor] = Vendor(
        name="OpenAI", key="OPENAI_API_KEY", model="OPENAI_IMAGE_MODEL", base_url="OPENAI_BASE_URL"
    )
    sdk: ClassVar[str] = "openai"
    extra: ClassVar[str] = "openai"

    def build_client(self, http_client: httpx2.Client) -> OpenAI:
        """A client without retries that takes key, address and headers from our options alone."""
        import openai

        client = openai.OpenAI(
            api_key=self.api_key,
            # "" would be taken from the environment as an empty address.
            base_url=self.base_url or _OWN_ADDRESS,
            # A key may belong to several organizations, so these two may still come from OPENAI_ORG_ID and such.
            organization=self.options.get("organization") or None,
            project=self.options.get("project") or None,
            max_retries=0,
            default_headers={**_without_ambient_headers(openai.omit), "Authorization": f"Bearer {self.api_key}"},
            http_client=http_client,
        )
        _ = client.images  # Imported lazily by the SDK; at start-up is better than in the first request.
        return client

    def build(self, request: ImageRequest) -> dict[str, Any]:
        """The arguments of `images.generate`; what is not needed is not sent."""
        quality = self.options.get("quality") or (
            _DEFAULT_QUALITY if _GPT_IMAGE.match(self.model.rpartition("/")[2]) else None
        )
        payload = {
            "model": self.model,
            "prompt": request.prompt,
            "size": self.options.get("size") or size_for(self.model, request.aspect_ratio),
            "quality": quality,
            "output_format": self.options.get("output_format"),
            "extra_body": self.options.get("extra_body"),
        }
        return {name: value for name, value in payload.items() if value}

    def send(self, client: OpenAI, payload: Any, deadline: Deadline, opened: Exchange) -> _Answer:
        """Ask once; where the answer is an address, fetch the file at once, since such addresses expire."""
        response = client.images.generate(**payload, timeout=deadline.remaining + _BEHIND)
        url = _first_url(response)
        if url is None:
            return _Answer(response=response, exchange=opened)
        fetched = fetch_image(
            url,
            deadline=deadline,
            max_bytes=self.max_image_bytes,
            allowed_hosts=tuple(self.options.get("fetch_allowed_hosts") or ()),
        )
        return _Answer(response=response, exchange=opened, fetched=fetched)

    def look_up_model(self, deadline: Deadline) -> ModelStatus:
        """Ask for the model's entry, which also tells when it will be shut down."""
        own = self.base_url in ("", _OWN_ADDRESS)
        seconds = deadline.remaining + _BEHIND
        return self.ask(deadline, lambda client, _: openai_status(client, self.model, seconds, is_own=own))

    def model_names(self, deadline: Deadline) -> tuple[str, ...]:
        """The image models of this key."""
        seconds = deadline.remaining + _BEHIND
        return self.ask(deadline, lambda client, _: openai_names(client, seconds))

    def parse(self, answer: Any) -> ProviderImage:
        """The first image of the answer.

        Raises:
            ProviderBadResponse: The answer is not what the API promises.
            ProviderNoImage: It is, but holds no image.
        """
        exchange = answer.exchange
        data = answer.fetched
        if data is None:
            text = next((text for item in _items(answer.response) if (text := _text(item, "b64_json"))), None)
            if text is None:
                if getattr(answer.response, "data", answer) is None or _is_list(answer.response):
                    raise no_image(self.vendor, exchange.request_id)
                raise broken(self.vendor, exchange)
            data = exchange.restore(text) or self._decoded(text, exchange)
        usage: Any = getattr(answer.response, "usage", None)
        return ProviderImage(
            data=data,
            model=self.model,
            request_id=exchange.request_id,
            usage=counts(usage.to_dict(warnings=False)) if hasattr(usage, "to_dict") else None,
        )

    def _decoded(self, text: str, exchange: Exchange) -> bytes:
        try:
            return decode_base64(text)
        except ValueError as err:
            raise broken(self.vendor, exchange) from err

    def refusal(self, err: Exception, opened: Exchange) -> ProviderFailure | None:
        """The failure for the SDK's exceptions over an error answer."""
        import openai

        if not isinstance(err, openai.APIError):
            return None
        if not isinstance(err, openai.APIStatusError):
            return broken(self.vendor, opened)
        body = err.body if isinstance(err.body, Mapping) else {}
        words = {str(word) for word in (err.code, err.type) if word}
        refusal = Refusal(
            status=err.status_code,
            code=" ".join(sorted(words)),
            message=str(body.get("message") or ""),
            request_id=opened.request_id,
            retry_after=retry_after(opened.headers),
        )
        return refused(self.vendor, self.model, refusal, _special(words, str(err.param or "")))


def _special(words: set[str], param: str) -> type[ProviderFailure] | None:
    """What OpenAI's code and type say beyond the status."""
    if words & _REJECTED:
        return failures.ContentRejected
    if words & _EXHAUSTED:
        return failures.ProviderQuotaExhausted
    if "model_not_found" in words or (param == "model" and "invalid_value" in words):
        return failures.ProviderModelUnavailable
    return None


def _without_ambient_headers(omit: Any) -> dict[str, Any]:
    """Headers that OPENAI_CUSTOM_HEADERS would add, each marked as left out: the SDK reads it unasked."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    names = [line.partition(":")[0].strip() for line in lines if ":" in line]
    # An Authorization of ours displaces one from there; left out here, it would displace ours.
    return {name: omit for name in names if name.lower() != "authorization"}


def _is_list(response: Any) -> bool:
    return isinstance(getattr(response, "data", None), list)


def _items(response: Any) -> list[Any]:
    return list(response.data) if _is_list(response) else []


def _text(item: Any, name: str) -> str | None:
    value = getattr(item, name, None)
    return value if isinstance(value, str) and value else None


def _first_url(response: Any) -> str | None:
    """The address of the first image, where no image comes as bytes."""
    items = _items(response)
    if any(_text(item, "b64_json") for item in items):
        return None
    return next((url for item in items if (url := _text(item, "url"))), None)
