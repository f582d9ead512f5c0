"""Text models of the same vendors: the clients, keys, transport, deadlines and errors of their image models."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import httpx2

from ..exceptions import ContentRejected, ProviderFailure
from .base import Deadline, ImageProvider, ProviderImage, counts, mapping, mappings, read_json, reporting
from .errors import Vendor, broken, rejected
from .gemini import GeminiProvider, snake_case
from .gemini import milliseconds as gemini_timeout
from .http import Call, safe_id
from .openai import BEHIND, OpenAIProvider

if TYPE_CHECKING:
    from openai import OpenAI

#: Models that think before they write, and can be told to think little: a scene needs no proof.
_OPENAI_THINKS = re.compile(r"(?:gpt-(?:[5-9]|\d\d)(?!.*chat)|o\d)")
#: The "lite" models do not think unless they are told to.
_GEMINI_THINKS = re.compile(r"gemini-(?:[3-9]|\d\d)(?!.*lite)")


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """What to write.

    Attributes:
        instructions: Ours.
        content: What the instructions speak of: texts of others, as JSON.
        schema: The JSON Schema of the answer, an object whose properties are all required.
        max_tokens: The most tokens of the answer, thinking included.
        deadline: The response has to be complete by then.
    """

    instructions: str
    content: str
    schema: Mapping[str, Any]
    max_tokens: int
    deadline: Deadline


@dataclass(frozen=True, kw_only=True)
class ProviderText:
    """What a provider wrote.

    Attributes:
        text: As received; the caller verifies that it is what was asked for.
        request_id: The provider's id for the request, or "".
        usage: The usage (tokens) as the provider reported it; `None` if it reported none.
    """

    text: str
    request_id: str = ""
    usage: Mapping[str, Any] | None = None


class TextProvider(ImageProvider):
    """A provider that writes. Its model is a text model, and it makes no images."""

    def model_names(self, deadline: Deadline) -> tuple[str, ...]:
        """None: the list that a vendor gives does not say which of them write."""
        return ()

    def write(self, request: TextRequest) -> ProviderText:
        """Write one text, without retries.

        Raises:
            images.exceptions.ProviderFailure: Any failure, raised from the original error.
        """
        raise NotImplementedError


class OpenAIText(TextProvider, OpenAIProvider):
    """Writes with `chat.completions`, which OpenAI-compatible servers speak as well."""

    vendor: ClassVar[Vendor] = replace(OpenAIProvider.vendor, model="IMAGE_SCENE_MODEL")

    def build_client(self, http_client: httpx2.Client) -> OpenAI:
        """The client, with the part of the SDK loaded that writes: it takes more than a second."""
        client = super().build_client(http_client)
        _ = client.chat.completions
        return client

    def write(self, request: TextRequest) -> ProviderText:
        """Write one text."""
        # No temperature: the models that think refuse any but their own.
        payload: dict[str, Any] = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": request.instructions},
                {"role": "user", "content": request.content},
            ],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": _closed(request.schema)},
            },
            "max_completion_tokens": request.max_tokens,
        }
        if _OPENAI_THINKS.match(self.model.rpartition("/")[2]):
            payload["reasoning_effort"] = "low"

        def send(client: Any, call: Call) -> ProviderText:
            timeout = request.deadline.remaining + BEHIND
            raw = client.chat.completions.with_raw_response.create(**payload, timeout=timeout)
            return self._read(read_json(raw.http_response.content), call)

        return self.ask(request.deadline, send)

    def _read(self, answer: Any, call: Call) -> ProviderText:
        content = mapping(answer)
        usage = counts(content.get("usage"))
        choice = next(iter(mappings(content.get("choices"))), {})
        message = mapping(choice.get("message"))
        with reporting(usage):
            if message.get("refusal") or choice.get("finish_reason") == "content_filter":
                raise rejected(self.vendor, call.request_id)
            if not choice:
                self.raise_reported(content, call)
            if not isinstance(message.get("content"), str):
                raise broken(self.vendor, call)
        return ProviderText(text=message["content"], request_id=call.request_id, usage=usage)


class GeminiText(TextProvider, GeminiProvider):
    """Writes with `models.generate_content`."""

    vendor: ClassVar[Vendor] = replace(GeminiProvider.vendor, model="IMAGE_SCENE_MODEL")

    def write(self, request: TextRequest) -> ProviderText:
        """Write one text."""
        config: dict[str, Any] = {
            "system_instruction": request.instructions,
            "response_mime_type": "application/json",
            "response_schema": request.schema,
            "max_output_tokens": request.max_tokens,
            # Each of these two would let the SDK send further, billed requests by itself.
            "automatic_continuation": False,
            "automatic_function_calling": {"disable": True},
            "http_options": {"timeout": gemini_timeout(request.deadline)},
            "should_return_http_response": True,
        }
        if _GEMINI_THINKS.match(self.model.rpartition("/")[2]):
            config["thinking_config"] = {"thinking_level": "LOW"}

        def send(client: Any, call: Call) -> ProviderText:
            found = client.models.generate_content(model=self.model, contents=request.content, config=config)
            body = found.sdk_http_response and found.sdk_http_response.body
            return self._read(read_json(body or ""), call)

        return self.ask(request.deadline, send)

    def _read(self, answer: Any, call: Call) -> ProviderText:
        content = mapping(answer)
        request_id = safe_id(content.get("responseId")) or call.request_id
        usage = counts(snake_case(content.get("usageMetadata")))
        candidate = next(iter(mappings(content.get("candidates"))), {})
        parts = mappings(mapping(candidate.get("content")).get("parts"))
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str) and not part.get("thought")]
        with reporting(usage):
            if not texts:
                raise self._without_text(content, request_id, call)
        return ProviderText(text="".join(texts), request_id=request_id, usage=usage)

    def _without_text(self, content: Mapping[str, Any], request_id: str, call: Call) -> ProviderFailure:
        if content.get("error"):
            return self.reported(content, call)
        failure = self.without_image(content, request_id)
        return failure if isinstance(failure, ContentRejected) else broken(self.vendor, call)


class PlaceholderText(TextProvider):
    """Writes a scene without a model, a network or a bill, so that scenes can be seen without a key."""

    bills = False

    @property
    def model(self) -> str:
        """Always `placeholder`."""
        return "placeholder"

    def call(self, payload: Any, deadline: Deadline) -> ProviderImage:
        """Never used: this provider makes no images."""
        raise NotImplementedError

    def write(self, request: TextRequest) -> ProviderText:
        """A scene from the title, with an alternative text that says what the placeholder shows."""
        given = mapping(read_json(request.content))
        title, context = given.get("title", ""), given.get("context", "")
        suits = f" It suits: {context}" if context else ""
        answer = {
            "scene": f"A placeholder's scene for “{title}”, variation {given.get('variation', 0)}.{suits}",
            "alt_text": f"“{title}” in large letters over plain shapes: a placeholder.",
        }
        return ProviderText(text=json.dumps(answer))


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as OpenAI wants it: nothing but what it names. Gemini's does not know that word."""
    return {**schema, "additionalProperties": False}
