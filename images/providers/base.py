"""The interface of a provider, and the base of those that use an official SDK. No ORM, no DRF, no settings.

A provider implements three short steps, `build`, `call` and `parse`; `ImageProvider.generate` runs them and is final.
Only the frozen dataclasses of this module and the exceptions of `images.exceptions` cross the boundary.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import math
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar, final
from urllib.parse import unquote, urlsplit

import httpx2

from ..exceptions import ProviderFailure, ProviderNotConfigured
from ..provenance import TRAINED_ALGORITHMIC_MEDIA
from .errors import Vendor, broken, not_delivered, too_late
from .http import CONNECT_TIMEOUT, Call, Transport, open_call, tls_context
from .models import Deprecation, ModelStatus, find_deprecation

try:
    import orjson
except ImportError:  # The extra "fast" is not installed: the standard library does the same, slower.
    orjson = None  # type: ignore[assignment]
try:
    import pybase64
except ImportError:
    pybase64 = None  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """A moment on the monotonic clock by which everything has to be finished.

    Attributes:
        at: The moment.
        reading: Seconds for reading an answer that has begun to arrive by then: it is paid for.
    """

    at: float
    reading: float = 0.0

    @classmethod
    def after(cls, seconds: float, *, reading: float = 0.0) -> Deadline:
        """The deadline `seconds` from now."""
        return cls(at=time.monotonic() + seconds, reading=reading)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    def share(self, parts: int) -> Deadline:
        """The deadline of the first of `parts` attempts that divide what is left equally."""
        return Deadline.after(self.remaining / parts, reading=self.reading)

    def for_answer(self) -> Deadline:
        """The deadline for an answer that begins to arrive now: this one, or later if little of it is left."""
        return Deadline(at=max(self.at, time.monotonic() + self.reading))


def nearest_ratio(wanted: tuple[int, int], offered: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """The width and height on offer whose ratio is nearest to the one that is wanted; the first of equals.

    Twice as wide is as far as half as wide, so ratios are compared by their logarithms.
    """
    target = math.log(wanted[0] / wanted[1])
    return min(offered, key=lambda size: abs(math.log(size[0] / size[1]) - target))


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """What to generate.

    Attributes:
        prompt: The whole prompt, in words.
        negative_prompt: What the image must not show, for providers that take it separately
            (`ImageProvider.supports_negative_prompt`); the prompt says it as well.
        title: The title as the caller gave it, for providers that draw it themselves.
        variant: Its name, for example `hero`.
        aspect_ratio: Width and height as small whole numbers, for example `(16, 9)`.
        seed: Repeats the same choices; providers that cannot be seeded ignore it.
        deadline: The response has to begin by then.
        context: Audience, brand and mood as the caller gave them; like the title, for providers that draw it.
        scene: The scene that the prompt speaks of, or "".
    """

    prompt: str
    negative_prompt: str = ""
    title: str = ""
    variant: str = "hero"
    aspect_ratio: tuple[int, int] = (16, 9)
    seed: int = 0
    deadline: Deadline
    context: str = ""
    scene: str = ""


@dataclass(frozen=True, kw_only=True)
class ProviderImage:
    """What a provider generated.

    Attributes:
        data: The image's bytes as received; the caller verifies them.
        model: The model that made it.
        request_id: The provider's id for the request, or "".
        usage: The usage (tokens) as the provider reported it; `None` if it reported none.
    """

    data: bytes = field(repr=False)
    model: str = ""
    request_id: str = ""
    usage: Mapping[str, Any] | None = None


class ImageProvider(ABC):
    """The base of every provider.

    A subclass implements `call`; `build` and `parse` have defaults that suit a provider which takes an
    `ImageRequest` and returns bytes. One instance serves the whole process, from many threads at once.

    Args:
        options: The provider's `OPTIONS`; their meaning is up to the provider.
    """

    supports_negative_prompt: ClassVar[bool] = False
    #: Where its images come from, as a term of the IPTC: https://cv.iptc.org/newscodes/digitalsourcetype/.
    source_type: ClassVar[str] = TRAINED_ALGORITHMIC_MEDIA
    #: Whether its images cost anything. If not, none of its failures counts as possibly billed.
    bills: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "paint" in cls.__dict__:
            message = f"{cls.__qualname__}.paint is never called: implement build, call and parse."
            warnings.warn(message, DeprecationWarning, stacklevel=2)

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options: Mapping[str, Any] = dict(options or {})

    @property
    def model(self) -> str:
        """The configured model's name, or "" if there is no such thing."""
        return str(self.options.get("model") or "")

    @final
    def generate(self, request: ImageRequest) -> ProviderImage:
        """Make one image.

        Raises:
            images.exceptions.ProviderFailure: Any failure, raised from the original error.
        """
        return self.parse(self.call(self.build(request), request.deadline))

    @final
    def paint(self, request: ImageRequest) -> ProviderImage:
        """The old name of `generate`."""
        warnings.warn("ImageProvider.paint is now called generate.", DeprecationWarning, stacklevel=2)
        return self.generate(request)

    def build(self, request: ImageRequest) -> Any:
        """Turn the request into what `call` sends."""
        return request

    @abstractmethod
    def call(self, payload: Any, deadline: Deadline) -> Any:
        """Send `payload` once, without retries, and return the response."""

    def parse(self, answer: Any) -> ProviderImage:
        """Turn the response into a `ProviderImage`."""
        return ProviderImage(data=answer, model=self.model)

    def check(self) -> list[str]:
        """Sentences about what this provider lacks, without using the network; empty if it is ready."""
        return []

    def doubts(self) -> list[str]:
        """Sentences about options that the vendor is not known to accept, without using the network."""
        return []

    @property
    def model_setting(self) -> str:
        """The name of the setting that chooses the model, for advice to operators."""
        return 'OPTIONS["model"]'

    def deprecation(self) -> Deprecation | None:
        """What `images.providers.models` knows about the model's shutdown, without using the network."""
        return None

    def look_up_model(self, deadline: Deadline) -> ModelStatus | None:
        """Ask the provider, at no cost, whether the key is accepted and the model exists.

        Returns:
            The provider's answer, or `None` if it cannot be asked without generating an image.

        Raises:
            images.exceptions.ProviderFailure: As for `generate`.
        """
        return None

    def model_names(self, deadline: Deadline) -> tuple[str, ...]:
        """Image models that the key can use, at most a dozen; asking costs nothing.

        Raises:
            images.exceptions.ProviderFailure: As for `generate`.
        """
        return ()

    def warm_up(self) -> None:
        """Prepare at server start what would slow down the first request (imports, clients)."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} model={self.model!r}>"


# --- on top of an official SDK ----------------------------------------------------------------------------------

Client = TypeVar("Client")
Answer = TypeVar("Answer")
Result = TypeVar("Result")

_DEFAULT_MAX_IMAGE_BYTES = 30 * 1024 * 1024
_SHORTEST_SECRET = 6

#: What an SDK raises for a response that it cannot understand; the errors of JSON, Unicode and pydantic are
#: ValueErrors. Before there is a response, the same classes mean a bug on our side.
_NONSENSE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)


class SDKProvider(ImageProvider, Generic[Client, Answer]):
    """The base of `OpenAIProvider` and `GeminiProvider`: a key, one client a process, one call under a deadline.

    Options (all but `api_key` may be left out): `api_key`, `model`, `base_url`, `max_image_bytes`, and
    `timeout_connect` in seconds. A subclass says which vendor it is for, builds a client and sends with it.
    """

    vendor: ClassVar[Vendor]
    #: The module of the SDK, and the extra of this package that brings it.
    sdk: ClassVar[str]
    extra: ClassVar[str]
    #: The base URL may end in a query, which is sent with each request.
    takes_query: ClassVar[bool] = False

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self._built: Client | None = None
        self._lock = threading.Lock()

    @abstractmethod
    def build_client(self, http_client: httpx2.Client) -> Client:
        """Import the SDK and build its client on top of `http_client`."""

    @abstractmethod
    def send(self, client: Client, payload: Any, deadline: Deadline, call: Call) -> Answer:
        """Call the SDK once and return the raw response.

        Parsing two megabytes of base64 in the SDK takes three times as long as `read_json` and `decode_base64`.
        """

    @abstractmethod
    def refusal(self, err: Exception, call: Call) -> ProviderFailure | None:
        """The failure for an exception that the SDK raises for an error response; `None` for any other exception."""

    @final
    def call(self, payload: Any, deadline: Deadline) -> Answer:
        """Send `payload` once, without retries, and finish by the deadline."""
        return self.ask(deadline, lambda client, call: self.send(client, payload, deadline, call))

    @final
    def ask(self, deadline: Deadline, question: Callable[[Client, Call], Result]) -> Result:
        """Use the SDK's client once under the deadline.

        Raises:
            images.exceptions.ProviderFailure: Any failure, raised from the SDK's own error.
        """
        client = self.client()
        if deadline.remaining <= 0:
            raise too_late(self.vendor)
        with open_call(deadline) as call:
            try:
                return question(client, call)
            except ProviderFailure as failure:  # Raised by our own code, for example while fetching the file.
                failure.request_id = failure.request_id or call.request_id
                raise
            except Exception as err:
                translated = self._failure(err, call)
                if translated is None:
                    raise
                raise translated from err

    def _failure(self, err: Exception, call: Call) -> ProviderFailure | None:
        # openai wraps what the transport raised, google-genai does not.
        for cause in (err, err.__cause__):
            if isinstance(cause, ProviderFailure):
                return cause
            if isinstance(cause, httpx2.TransportError):
                return not_delivered(self.vendor, cause, call)
        failure = self.refusal(err, call)
        if failure is None and call.status is not None and isinstance(err, _NONSENSE):
            return broken(self.vendor, call, err)
        return failure

    def client(self) -> Client:
        """The SDK's client, built at the first call and kept.

        Raises:
            ProviderNotConfigured: The key or the SDK is missing, or the base URL cannot be used.
        """
        if self._built is None:
            with self._lock:
                if self._built is None:
                    self._built = self._build()
        return self._built

    def _build(self) -> Client:
        if missing := self.check():
            raise ProviderNotConfigured(f"{missing[0]} The operator has to fix this.")
        transport = Transport(
            # Base64 turns 3 bytes into 4; the rest is for the JSON around the image.
            max_body_bytes=int(self.max_image_bytes * 1.4) + 1024 * 1024,
            connect_timeout=float(self.options.get("timeout_connect") or CONNECT_TIMEOUT),
        )
        # The transport reads the environment itself, and its deadline replaces the client's timeouts.
        http_client = httpx2.Client(transport=transport, trust_env=False, follow_redirects=False, timeout=None)
        try:
            return self.build_client(http_client)
        except ImportError as err:
            raise ProviderNotConfigured(
                f"The SDK for {self.vendor.name} cannot be imported. {self._how_to_install()}"
            ) from err

    def check(self) -> list[str]:
        """Sentences about what is missing, without using the network."""
        found = []
        key, base_url = self.api_key, self.base_url
        if not key:
            found.append(f"{self.vendor.key} is not set.")
        elif not (key.isascii() and key.isprintable()) or " " in key:
            found.append(f"{self.vendor.key} contains characters that no key has (a quote, a space, a line break?).")
        if base_url and (problem := _address_problem(base_url, query=self.takes_query)):
            found.append(f"{self.vendor.base_url} {problem}")
        if not self._is_installed():
            found.append(f"The SDK for {self.vendor.name} is not installed. {self._how_to_install()}")
        return found

    def warm_up(self) -> None:
        """Import the SDK, build the client and load the certificates, if the configuration is complete.

        Raises:
            ProviderNotConfigured: The certificates that the environment names cannot be read.
        """
        if not self.check():
            self.client()
            if not self.base_url.startswith("http:"):
                tls_context()

    @property
    def model_setting(self) -> str:
        """The vendor's own setting, for example `OPENAI_IMAGE_MODEL`."""
        return self.vendor.model

    def deprecation(self) -> Deprecation | None:
        """What `images.providers.models` knows about the end of the model."""
        return find_deprecation(self.vendor.name, self.model)

    @property
    def api_key(self) -> str:
        """The configured key, or ""."""
        return str(self.options.get("api_key") or "").strip()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be logged even if a server repeats it: the key, and whatever else is sent to be let in."""
        return (self.api_key,)

    @final
    def masked(self, text: str) -> str:
        """`text` without the provider's own secrets. Those of a few characters are ordinary words, and stay."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "[secret]")
        return text

    @property
    def base_url(self) -> str:
        """The configured address without a trailing slash, or "" for the vendor's own."""
        return str(self.options.get("base_url") or "").strip().rstrip("/")

    @property
    def max_image_bytes(self) -> int:
        """The largest image to accept, in bytes."""
        return int(self.options.get("max_image_bytes") or _DEFAULT_MAX_IMAGE_BYTES)

    def _is_installed(self) -> bool:
        try:
            return importlib.util.find_spec(self.sdk) is not None
        except ModuleNotFoundError:  # The package around it is missing, too ("google" of "google.genai").
            return False

    def _how_to_install(self) -> str:
        return f"Install it with: pip install 'trygo-images[{self.extra}]'"


def _address_problem(url: str, *, query: bool) -> str:
    """What is wrong with a base URL, as the end of a sentence, or ""; with `query`, it may contain a query."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:  # A port that is not a number, a bracket that is never closed.
        usable = False
    if not usable:
        return "is not an address such as https://host/v1."
    if "@" in parts.netloc:
        return "contains a user name or a password. Remove it; only the key is sent."
    if "#" in url:
        return "contains a fragment (#), which cannot be sent. Remove it."
    return "contains a query (?), which this provider does not send. Remove it." if "?" in url and not query else ""


# --- reading an answer ------------------------------------------------------------------------------------------


def read_json(text: bytes | str) -> Any:
    """Parse a response, fast if the extra `fast` is installed.

    Raises:
        ValueError, RecursionError: It is not JSON.
    """
    if orjson is not None:
        try:
            return orjson.loads(text)
        except ValueError:
            pass  # The standard library also accepts NaN and a byte order mark, which must not cost a picture.
    return json.loads(text.removeprefix("\ufeff") if isinstance(text, str) else text)


def decode_base64(text: str) -> bytes:
    """Decode base64 in any spelling that can be read without guessing.

    That is both alphabets, with line breaks, without padding, and behind `data:image/png;base64,`.

    Raises:
        ValueError: There is a character that does not belong, or a part is missing.
    """
    try:
        return _strictly_decoded(text)
    except ValueError:
        if text[:5].lower() == "data:":
            text = text.partition(",")[2]
        plain = "".join(unquote(text).split()).replace("-", "+").replace("_", "/").rstrip("=")
        return _strictly_decoded(plain + "=" * (-len(plain) % 4))


def _strictly_decoded(text: str) -> bytes:
    if pybase64 is not None:
        return pybase64.b64decode(text, validate=True)
    return base64.b64decode(text, validate=True)


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is a JSON object, otherwise an empty one: a response may contain anything anywhere."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """The JSON objects in `value` if it is a list, otherwise none."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


@contextmanager
def reporting(usage: Any) -> Iterator[None]:
    """Let a failure in the block say what the provider reported as used before it."""
    try:
        yield
    except ProviderFailure as failure:
        failure.usage = usage
        raise


def counts(reported: Any, depth: int = 4) -> Any:
    """The usage that a provider reported, as plain JSON: numbers, yes and no, and single words, in objects and lists.

    Anything else (free text, NaN, null bytes) is left out, since not every database could store it.

    Args:
        reported: The response's own `usage`, as dicts and lists.
        depth: How deeply to look.
    """
    if isinstance(reported, Mapping) and depth:
        pairs = {str(key)[:64]: counts(value, depth - 1) for key, value in list(reported.items())[:32]}
        return {key: value for key, value in pairs.items() if value is not None and key.isidentifier()} or None
    if isinstance(reported, list) and depth:
        return [value for item in reported[:32] if (value := counts(item, depth - 1)) is not None] or None
    if isinstance(reported, str):
        return reported if reported.isidentifier() and len(reported) <= 64 else None
    if isinstance(reported, bool):
        return reported
    # No count has more digits; and `isfinite` cannot take an integer that is no float.
    is_number = isinstance(reported, int | float) and abs(reported) < 10**18
    return reported if is_number else None
