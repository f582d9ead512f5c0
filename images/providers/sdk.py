"""What the providers on top of an official SDK share: a key, one client a process, and one call under a deadline."""

from __future__ import annotations

import importlib.util
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar, final
from urllib.parse import urlsplit

import httpx2

from ..exceptions import ProviderFailure, ProviderNotConfigured
from .base import Deadline, ImageProvider
from .calendar import Retirement, find_retirement
from .exchange import Exchange, exchange
from .faults import Vendor, broken, not_delivered, too_late
from .outbound import tls_context
from .transport import CONNECT_TIMEOUT, ProviderTransport

Client = TypeVar("Client")
Answer = TypeVar("Answer")
Result = TypeVar("Result")

_DEFAULT_MAX_IMAGE_BYTES = 30 * 1024 * 1024

#: What an SDK raises over an answer that it cannot make sense of; JSON's, Unicode's and pydantic's own errors
#: are ValueErrors. Before an answer the same classes mean a mistake on our side.
_NONSENSE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)


class SDKProvider(ImageProvider, Generic[Client, Answer]):
    """The base of `OpenAIProvider` and `GeminiProvider`.

    Options (all but `api_key` may be left out): `api_key`, `model`, `base_url`, `max_image_bytes`, and
    `timeout_connect` in seconds. A subclass says who it is, builds a client and sends with it.
    """

    vendor: ClassVar[Vendor]
    #: The module of the SDK, and the extra of this package that brings it.
    sdk: ClassVar[str]
    extra: ClassVar[str]

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self._built: Client | None = None
        self._lock = threading.Lock()

    # --- for a subclass -----------------------------------------------------------------------------------

    @abstractmethod
    def build_client(self, http_client: httpx2.Client) -> Client:
        """Import the SDK and build its client on top of `http_client`."""

    @abstractmethod
    def send(self, client: Client, payload: Any, deadline: Deadline, opened: Exchange) -> Answer:
        """Call the SDK once."""

    @abstractmethod
    def refusal(self, err: Exception, opened: Exchange) -> ProviderFailure | None:
        """The failure for an SDK's own exception over an error answer; `None` for any other exception."""

    # --- for everybody ------------------------------------------------------------------------------------

    @final
    def call(self, payload: Any, deadline: Deadline) -> Answer:
        """Send `payload` once; nothing is repeated, and everything is over at the deadline."""
        return self.ask(deadline, lambda client, opened: self.send(client, payload, deadline, opened))

    @final
    def ask(self, deadline: Deadline, question: Callable[[Client, Exchange], Result]) -> Result:
        """Use the SDK's client once under the deadline.

        Raises:
            images.exceptions.ProviderFailure: Whatever went wrong, chained from the SDK's own error.
        """
        client = self.client()
        if deadline.remaining <= 0:
            raise too_late(self.vendor)
        with exchange(deadline) as opened:
            try:
                return question(client, opened)
            except ProviderFailure as failure:  # From below, by our own hand: fetching the file, for example.
                failure.request_id = failure.request_id or opened.request_id
                raise
            except Exception as err:
                translated = self._failure(err, opened)
                if translated is None:
                    raise
                raise translated from err

    def _failure(self, err: Exception, opened: Exchange) -> ProviderFailure | None:
        # openai wraps what the transport raised, google-genai does not.
        for cause in (err, err.__cause__):
            if isinstance(cause, httpx2.TransportError):
                return not_delivered(self.vendor, cause, opened)
        failure = self.refusal(err, opened)
        if failure is None and opened.status is not None and isinstance(err, _NONSENSE):
            return broken(self.vendor, opened)
        return failure

    def client(self) -> Client:
        """The SDK's client, built at the first call and kept.

        Raises:
            ProviderNotConfigured: The key or the SDK is missing, or the base URL is none.
        """
        if self._built is None:
            with self._lock:
                if self._built is None:
                    self._built = self._build()
        return self._built

    def _build(self) -> Client:
        if missing := self.check():
            raise ProviderNotConfigured(f"{missing[0]} The operator has to set it right.")
        transport = ProviderTransport(
            # Base64 makes 4 bytes of 3; the rest is for what stands around the image.
            max_body_bytes=int(self.max_image_bytes * 1.4) + 1024 * 1024,
            connect_timeout=float(self.options.get("timeout_connect") or CONNECT_TIMEOUT),
        )
        # The transport reads the environment itself; no timeout here, so that only its deadline counts.
        http_client = httpx2.Client(transport=transport, trust_env=False, follow_redirects=False, timeout=None)
        try:
            return self.build_client(http_client)
        except ImportError as err:
            raise ProviderNotConfigured(
                f"The SDK for {self.vendor.name} cannot be imported. {self._how_to_install()}"
            ) from err

    def check(self) -> list[str]:
        """Sentences about what is missing, without any network."""
        found = []
        key, base_url = self.api_key, self.base_url
        if not key:
            found.append(f"{self.vendor.key} is not set.")
        elif not (key.isascii() and key.isprintable()) or " " in key:
            found.append(f"{self.vendor.key} holds characters that no key has (a quote, a space, a line break?).")
        if base_url and not _is_address(base_url):
            found.append(f"{self.vendor.base_url} is not an address such as https://host/v1.")
        if not self._is_installed():
            found.append(f"The SDK for {self.vendor.name} is not installed. {self._how_to_install()}")
        return found

    def warm_up(self) -> None:
        """Import the SDK, build the client and load the certificates, where the configuration is complete.

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

    def retirement(self) -> Retirement | None:
        """What `images.providers.calendar` knows about the model."""
        return find_retirement(self.vendor.name, self.model)

    @property
    def api_key(self) -> str:
        """The configured key, or ""."""
        return str(self.options.get("api_key") or "").strip()

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


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # A port that is no number, a bracket that is never closed.
        return False


def counts(reported: Any, depth: int = 4) -> Any:
    """What a provider reported as used, as plain JSON: numbers, single words, and what holds them.

    Anything else (free text, NaN, null bytes) could not be stored everywhere, and is left out.

    Args:
        reported: The answer's own `usage`, as dicts and lists.
        depth: How deeply to look.
    """
    if isinstance(reported, Mapping) and depth:
        pairs = {str(key)[:64]: counts(value, depth - 1) for key, value in list(reported.items())[:32]}
        return {key: value for key, value in pairs.items() if value is not None and key.isidentifier()} or None
    if isinstance(reported, list) and depth:
        return [value for item in reported[:32] if (value := counts(item, depth - 1)) is not None] or None
    if isinstance(reported, str):
        return reported if reported.isidentifier() and len(reported) <= 64 else None
    return reported if isinstance(reported, int) and not isinstance(reported, bool) else None
