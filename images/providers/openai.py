"""OpenAI's images API, and every server that speaks it (`OPENAI_BASE_URL`)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

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
from .errors import Refusal, Vendor, broken, by_words, message_of, no_image, refused, rejected, retry_after
from .fetch import fetch_image
from .http import Call
from .models import ModelStatus, image_model_names, parse_day

if TYPE_CHECKING:
    from openai import OpenAI

_OWN_ADDRESS = "https://api.openai.com/v1"

#: The GPT image models take a quality. "auto" may choose "high", which takes longer than the promised 30 seconds.
_GPT_IMAGE = re.compile(r"gpt-image-")
_DEFAULT_QUALITY = "medium"

#: A header's name and value (RFC 9110), as far as all servers accept them.
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\x20-\x7e]*")
_DECIMAL = re.compile(r"[0-9]{1,6}(\.[0-9]{1,30})?([eE]-[0-9]{1,2})?")

#: Seconds by which the SDK's own timeout, which it announces in a header, lies behind the deadline.
BEHIND = 5.0

#: What an error says that comes with status 200 or without a number, as a status. Any other is the server's fault.
_STATUSES = {"rate_limit_exceeded": 429, "rate_limit_error": 429, "server_overloaded": 503, "overloaded_error": 503}
_STATUSES |= {"permission_error": 403, "not_found_error": 404, "invalid_request_error": 400}


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What `call` hands to `parse`: the answer's JSON, the call it came by, and the file if it was fetched."""

    content: Any
    call: Call
    fetched: bytes | None = None


class OpenAIProvider(SDKProvider["OpenAI", _Answer]):
    """Generates with `images.generate`.

    Options beside those of `SDKProvider`: `quality`, `size` (`WIDTHxHEIGHT`), `output_format`, `organization`,
    `project`, `extra_body` (a dict laid over the request's JSON), `default_headers` and `default_query` (dicts, sent
    with each request, for gateways that need them) and `fetch_allowed_hosts` (see `images.providers.fetch`).
    """

    vendor: ClassVar[Vendor] = Vendor(
        name="OpenAI", key="OPENAI_API_KEY", model="OPENAI_IMAGE_MODEL", base_url="OPENAI_BASE_URL"
    )
    sdk: ClassVar[str] = "openai"
    extra: ClassVar[str] = "openai"
    takes_query: ClassVar[bool] = True

    def build_client(self, http_client: httpx2.Client) -> OpenAI:
        """A client without retries that takes key, address and headers from our options alone."""
        import openai

        address = urlsplit(self.base_url)
        headers = {
            **_without_ambient_headers(openai.omit),
            "Authorization": f"Bearer {self.api_key}",
            **self._own_headers,
        }
        client = openai.OpenAI(
            api_key=self.api_key,
            # "" would be taken from the environment as an empty address.
            base_url=address._replace(query="").geturl() or _OWN_ADDRESS,
            # A key may belong to several organizations, so these two may still come from OPENAI_ORG_ID and such.
            organization=self.options.get("organization") or None,
            project=self.options.get("project") or None,
            max_retries=0,
            default_headers=headers,
            # Azure's address ends in ?api-version=…
            default_query={**dict(parse_qsl(address.query, keep_blank_values=True)), **self._own_query},
            http_client=http_client,
        )
        _ = client.images  # Imported lazily by the SDK; at start-up is better than in the first request.
        return client

    @property
    def _own_headers(self) -> dict[str, str]:
        # In the spelling of the SDK's own headers, which it would otherwise send as well.
        headers = mapping(self.options.get("default_headers"))
        return {str(name).title(): str(value) for name, value in headers.items()}

    @property
    def _own_query(self) -> Mapping[str, Any]:
        return mapping(self.options.get("default_query"))

    def check(self) -> list[str]:
        """Sentences about what is missing, without any network."""
        found = super().check()
        for name in ("default_headers", "default_query"):
            if not isinstance(self.options.get(name) or {}, Mapping):
                found.append(f'OPTIONS["{name}"] is not a dictionary.')
        if not all(_HEADER.fullmatch(f"{name}:{value}") for name, value in self._own_headers.items()):
            found.append(
                'OPENAI_DEFAULT_HEADERS (OPTIONS["default_headers"]) holds a name or a value that no header can have.'
            )
        return found

    @property
    def secrets(self) -> tuple[str, ...]:
        """The key, and the values of the headers and parameters that a gateway wants."""
        sent = [*self._own_headers.values(), *map(str, self._own_query.values())]
        return (self.api_key, *sent, *(value.rpartition(" ")[2] for value in sent))

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

    def send(self, client: OpenAI, payload: Any, deadline: Deadline, call: Call) -> _Answer:
        """Ask once. If the answer is an address, fetch the file at once, since such addresses expire."""
        raw = client.images.with_raw_response.generate(**payload, timeout=deadline.remaining + BEHIND)
        content = read_json(raw.http_response.content)
        del raw  # Not a second copy of the image while a file is fetched.
        url = _first_url(content)
        if url is None:
            return _Answer(content=content, call=call)
        with reporting(_usage(content, call)):
            fetched = fetch_image(
                url,
                deadline=call.deadline,
                max_bytes=self.max_image_bytes,
                allowed_hosts=tuple(self.options.get("fetch_allowed_hosts") or ()),
            )
        return _Answer(content=content, call=call, fetched=fetched)

    def parse(self, answer: _Answer) -> ProviderImage:
        """The first image of the answer.

        Raises:
            ProviderBadResponse: The answer is not what the API promises.
            ProviderNoImage: It is, but holds no image.
        """
        usage = _usage(answer.content, answer.call)
        with reporting(usage):
            data = self._decoded(answer) if answer.fetched is None else answer.fetched
        return ProviderImage(data=data, model=self.model, request_id=answer.call.request_id, usage=usage)

    def _decoded(self, answer: _Answer) -> bytes:
        call, content = answer.call, mapping(answer.content)
        text = next((text for item in mappings(content.get("data")) if (text := _text(item, "b64_json"))), None)
        if text is None:
            self.raise_reported(content, call)
            promised = isinstance(answer.content, Mapping) and isinstance(content.get("data"), list | None)
            raise no_image(self.vendor, call.request_id) if promised else broken(self.vendor, call)
        try:
            return decode_base64(text)
        except ValueError as err:
            raise broken(self.vendor, call, kind="JSON whose base64 is damaged") from err

    def refusal(self, err: Exception, call: Call) -> ProviderFailure | None:
        """The failure for the SDK's exceptions over an error answer."""
        import openai

        if not isinstance(err, openai.APIError):
            return None
        if not isinstance(err, openai.APIStatusError):
            return broken(self.vendor, call, err)
        return self._refused(err.body, err.status_code, call)

    def _refused(self, body: Any, status: int, call: Call) -> ProviderFailure:
        error = mapping(body)
        words = [error.get("code"), error.get("type"), mapping(error.get("innererror")).get("code")]
        metadata = mapping(
            error.get("metadata")
        )  # OpenRouter's: what was flagged, or the vendor's own error as text.
        message = " ".join(filter(None, (message_of(body), _text(metadata, "raw"))))
        special = failures.ContentRejected if metadata.get("flagged_input") else by_words(*words, message)
        if error.get("param") == "model" and "invalid_value" in words:
            special = failures.ProviderModelUnavailable
        refusal = Refusal(
            status=status,
            code=self.masked(" ".join(sorted({str(word) for word in words if word}))),
            message=self.masked(message),
            request_id=call.request_id,
            retry_after=retry_after(call.headers),
        )
        return refused(self.vendor, self.model, refusal, special)

    def raise_reported(self, content: Mapping[str, Any], call: Call) -> None:
        """Raise the failure that an answer without an image reports although its status is 200, if there is one."""
        items = mappings(content.get("data"))
        # Some servers put the error where the answer would be, without a name.
        bare = content if "data" not in content and content.keys() & {"code", "message", "detail", "errors"} else None
        for error in (content.get("error"), *(item.get("error") for item in items), bare):
            if error:
                raise self._refused(error, _status_of(mapping(error)), call)
        if any(_is_moderated(item) for item in (content, *items)):
            raise rejected(self.vendor, call.request_id)

    def look_up_model(self, deadline: Deadline) -> ModelStatus:
        """Ask for the model's entry, which also tells when it will be shut down."""
        return self.ask(deadline, lambda client, _: self._model_status(client, deadline))

    def _model_status(self, client: OpenAI, deadline: Deadline) -> ModelStatus:
        import openai

        try:
            found = client.models.retrieve(self.model, timeout=deadline.remaining + BEHIND)
        except openai.APIStatusError as err:
            if err.status_code == 403 or "Missing scopes" in str(err):
                return ModelStatus(doubt="The key was accepted, but may not look at models.")
            elsewhere = self.base_url not in ("", _OWN_ADDRESS)  # Other servers may not know this call.
            if elsewhere and err.status_code in (404, 405, 501) and err.code != "model_not_found":
                return ModelStatus(doubt="The server under OPENAI_BASE_URL does not tell which models it has.")
            raise
        _ = found.id  # An answer in another shape (HTML, say) has no such thing.
        return ModelStatus(shutdown=parse_day(found.shutdown_date))

    def doubts(self) -> list[str]:
        """What OpenAI is not known to accept in size, quality and output format."""
        found = []
        size, quality = str(self.options.get("size") or ""), str(self.options.get("quality") or "")
        if size and (doubt := size_doubt(self.model, size)):
            found.append(f"OPENAI_IMAGE_SIZE {doubt}")
        if quality and quality not in _QUALITIES:
            found.append(
                f"OPENAI_IMAGE_QUALITY is not a quality that OpenAI is known to accept: {', '.join(_QUALITIES)}."
            )
        if (self.options.get("output_format") or "png") not in _FORMATS:
            found.append(f"OPENAI_IMAGE_OUTPUT_FORMAT is not a format that can be stored: {', '.join(_FORMATS)}.")
        return found

    def model_names(self, deadline: Deadline) -> tuple[str, ...]:
        """The image models of this key, except those whose end has been announced."""
        models = self.ask(deadline, lambda client, _: client.models.list(timeout=deadline.remaining + BEHIND).data)
        return image_model_names(model.id for model in models if parse_day(model.shutdown_date) is None)


def _usage(content: Any, call: Call) -> Any:
    """What the answer reports as used, with the cost that LiteLLM's proxy puts into a header; `None` for nothing."""
    usage = counts(mapping(content).get("usage"))
    charged = call.headers.get("x-litellm-response-cost", "")
    # Zero there also stands for a model whose price the proxy does not know.
    if _DECIMAL.fullmatch(charged) and float(charged) and not (usage and "cost" in usage):
        return {**mapping(usage), "cost": float(charged)}
    return usage


def _status_of(error: Mapping[str, Any]) -> int:
    """The status that an error would have come with; 500 if it says nothing about it."""
    for value in (error.get("status"), error.get("status_code"), error.get("code"), error.get("type")):
        text = str(value)
        if text.isdecimal() and 400 <= int(text) < 600:
            return int(text)
        if text in _STATUSES:
            return _STATUSES[text]
    return 500


def _is_moderated(item: Mapping[str, Any]) -> bool:
    """Whether a picture is missing because of its content: Azure's filter results, or the flags of gateways."""
    filters = [*mapping(item.get("content_filter_results")).values()]
    filters += [*mapping(item.get("prompt_filter_results")).values()]
    flags = [mapping(result).get("filtered") for result in filters]
    flags += [item.get(name) for name in ("flagged", "moderated", "moderation_blocked", "content_filtered", "nsfw")]
    return any(flag is True for flag in flags) or by_words(item.get("finish_reason")) is failures.ContentRejected


def _without_ambient_headers(omit: Any) -> dict[str, Any]:
    """Headers that OPENAI_CUSTOM_HEADERS would add, each marked as left out: the SDK reads it unasked."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    names = [line.partition(":")[0].strip() for line in lines if ":" in line]
    # An Authorization of ours displaces one from there; left out here, it would displace ours.
    return {name: omit for name in names if name.lower() != "authorization"}


def _text(item: Mapping[str, Any], name: str) -> str | None:
    value = item.get(name)
    return value if isinstance(value, str) and value else None


def _first_url(content: Any) -> str | None:
    """The address of the first image, if no image comes as bytes."""
    items = mappings(mapping(content).get("data"))
    if any(_text(item, "b64_json") for item in items):
        return None
    return next((url for item in items if (url := _text(item, "url"))), None)


# --- options that the vendor is not known to accept --------------------------------------------------------------

#: By OpenAI's own documentation; `standard` and `hd` are those of the DALL-E models.
_QUALITIES = ("auto", "low", "medium", "high", "xhigh", "max", "standard", "hd")
#: What can be stored. OpenAI also makes gif and svg.
_FORMATS = ("png", "jpeg", "webp")
#: Of the GPT image models from 2 on, in pixels.
_LONGEST_SIDE, _SMALLEST_SIZE, _LARGEST_SIZE = 3840, 655_360, 8_294_400
_MAX_STRETCH = 3


def size_doubt(model: str, size: str) -> str:
    """Why `model` is not known to accept a size, as the end of a sentence, or "".

    Args:
        model: The model's name; a gateway's prefix (`openai/…`) is ignored.
        size: As configured, for example `1536x864`.
    """
    if size == "auto":
        return ""
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", size):
        return "is not a size such as 1536x1024."
    name = model.rpartition("/")[2]
    width, height = _sides(size)
    for pattern, literals in _FAMILIES:
        if pattern.match(name):
            smaller = ("256x256", "512x512") if name.startswith("dall-e-2") else ()
            known = dict.fromkeys([*literals, *smaller])
            return "" if size in known else f"is not a size of this model, which has {', '.join(known)}."
    if not _GPT_IMAGE.match(name):
        return ""  # A model of another vendor's.
    if width % _STEP or height % _STEP:
        return f"is not a size of this model: both sides have to be multiples of {_STEP}."
    if max(width, height) > _MAX_STRETCH * min(width, height):
        return "is not a size of this model: the longer side may be three times the shorter one at the most."
    if max(width, height) > _LONGEST_SIDE or not _SMALLEST_SIZE <= width * height <= _LARGEST_SIZE:
        return (
            f"is not a size of this model: {_SMALLEST_SIZE:,} to {_LARGEST_SIZE:,} pixels in all, and no side longer "
            f"than {_LONGEST_SIDE:,}."
        )
    return ""


# --- sizes ------------------------------------------------------------------------------------------------------
# By the model's family and arithmetic, never by a list of models. The GPT image models from 2 on take any size whose
# sides are multiples of 16; the 1.x models and chatgpt-image-latest only three literals, the DALL-E models their own
# (openai/types/image_generate_params.py, which says so of 2 and 2.5; of 2.6, gateways that serve it say the same). An
# unknown name is taken for a new model of the current kind.

_STEP = 16

#: The area of 1536x864, the 16:9 size in OpenAI's documentation: what the default quality and price are for.
_LARGEST_AREA = 1536 * 864

# A family's name is followed by its end or by something that is not part of the number: gpt-image-10 is no 1.x.
_FAMILIES: tuple[tuple[re.Pattern[str], tuple[str, str, str]], ...] = (
    (re.compile(r"gpt-image-1(?!\d)|chatgpt-image-latest$"), ("1536x1024", "1024x1024", "1024x1536")),
    (re.compile(r"dall-e-3"), ("1792x1024", "1024x1024", "1024x1792")),
    (re.compile(r"dall-e-2"), ("1024x1024", "1024x1024", "1024x1024")),
)


def size_for(model: str, aspect_ratio: tuple[int, int]) -> str:
    """The size to ask `model` for, as `WIDTHxHEIGHT` in pixels.

    Args:
        model: The model's name; a gateway's prefix (`openai/…`) is ignored.
        aspect_ratio: Width and height as small whole numbers.

    Returns:
        The family's nearest literal, or the largest size of exactly this ratio that is not above 1536x864 in area, or
        the nearest size if the model accepts none of exactly this ratio.
    """
    width, height = aspect_ratio
    name = model.rpartition("/")[2]
    for pattern, literals in _FAMILIES:
        if pattern.match(name):
            sizes = {_sides(literal): literal for literal in literals}
            return sizes[nearest_ratio(aspect_ratio, sizes)]
    if max(width, height) > _MAX_STRETCH * min(width, height):
        width, height = (_MAX_STRETCH, 1) if width > height else (1, _MAX_STRETCH)
    return "{}x{}".format(*(_exact(width, height) or nearest_ratio((width, height), _grid())))


def _sides(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    return int(width), int(height)


def _exact(width: int, height: int) -> tuple[int, int] | None:
    """The largest legal size of exactly this ratio, with sides that are multiples of 16; `None` if there is none."""
    common = math.gcd(width, height)
    unit_width, unit_height = width // common * _STEP, height // common * _STEP
    factor = math.isqrt(_LARGEST_AREA // (unit_width * unit_height))
    size = unit_width * factor, unit_height * factor
    return size if size[0] * size[1] >= _SMALLEST_SIZE else None


def _grid() -> list[tuple[int, int]]:
    """For each height the largest width whose area fits, if the shape is legal."""
    heights = range(_STEP, _LONGEST_SIDE + 1, _STEP)
    widest = [(_LARGEST_AREA // height // _STEP * _STEP, height) for height in heights]
    return [size for size in widest if min(size) and max(size) <= _MAX_STRETCH * min(size)]
