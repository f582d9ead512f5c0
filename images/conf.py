"""The app's settings, read at the moment of use.

Each setting is looked up in `settings.IMAGES` first, then in the environment under its contract name, and has
a default. Nothing is cached, so `override_settings` works and a test may change the environment.
An environment variable that is set to nothing counts as unset.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Setting -> environment variables that hold it, the first that is set wins.
ENVIRONMENT: dict[str, tuple[str, ...]] = {
    "PROVIDER": ("IMAGE_PROVIDER",),
    "OPENAI_API_KEY": ("OPENAI_API_KEY",),
    "OPENAI_IMAGE_MODEL": ("OPENAI_IMAGE_MODEL",),
    "OPENAI_BASE_URL": ("OPENAI_BASE_URL",),
    "OPENAI_IMAGE_QUALITY": ("OPENAI_IMAGE_QUALITY",),
    "OPENAI_IMAGE_SIZE": ("OPENAI_IMAGE_SIZE",),
    "OPENAI_IMAGE_OUTPUT_FORMAT": ("OPENAI_IMAGE_OUTPUT_FORMAT",),
    "GEMINI_API_KEY": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "GEMINI_IMAGE_MODEL": ("GEMINI_IMAGE_MODEL",),
    "GEMINI_API_BASE_URL": ("GEMINI_API_BASE_URL",),
    "GEMINI_IMAGE_SIZE": ("GEMINI_IMAGE_SIZE",),
    "PUBLIC_URL": ("PUBLIC_URL",),
    "DEADLINE": ("IMAGE_DEADLINE",),
    "MAX_CONCURRENCY": ("IMAGE_MAX_CONCURRENCY",),
    "TRUSTED_NETWORKS": ("IMAGE_TRUSTED_NETWORKS",),
    "FETCH_ALLOWED_HOSTS": ("IMAGE_FETCH_ALLOWED_HOSTS",),
    "FAILOVER_AFTER_BILLING": ("IMAGE_FAILOVER_AFTER_BILLING",),
    "IDEMPOTENCY_TTL": ("IMAGE_IDEMPOTENCY_TTL",),
    "QUEUE_TIMEOUT": ("IMAGE_QUEUE_TIMEOUT",),
    "RUN_ON_WORKERS": ("IMAGE_RUN_ON_WORKERS",),
    "RETRY_LOST": ("IMAGE_RETRY_LOST",),
    "METRICS": ("IMAGE_METRICS",),
    "MIN_FREE_BYTES": ("IMAGE_MIN_FREE_BYTES",),
    "MEDIA_CACHE_CONTROL": ("IMAGE_MEDIA_CACHE_CONTROL",),
    "MEDIA_DELIVERY": ("IMAGE_MEDIA_DELIVERY",),
    "MEDIA_ACCEL_PREFIX": ("IMAGE_MEDIA_ACCEL_PREFIX",),
}

DEFAULTS: dict[str, Any] = {
    "PROVIDER": "gemini",
    "PROVIDERS": {},
    "OPENAI_API_KEY": "",
    "OPENAI_IMAGE_MODEL": "gpt-image-2.6-flare",
    "OPENAI_BASE_URL": "",
    "OPENAI_IMAGE_QUALITY": "",
    "OPENAI_IMAGE_SIZE": "",
    "OPENAI_IMAGE_OUTPUT_FORMAT": "",
    "GEMINI_API_KEY": "",
    "GEMINI_IMAGE_MODEL": "gemini-nano-banana-2.1",
    "GEMINI_API_BASE_URL": "",
    "GEMINI_IMAGE_SIZE": "",
    "PUBLIC_URL": "",
    "DEADLINE": 90.0,
    "MAX_CONCURRENCY": 100,
    "TRUSTED_NETWORKS": (),
    "FETCH_ALLOWED_HOSTS": (),
    "FAILOVER_AFTER_BILLING": True,
    "IDEMPOTENCY_TTL": 24 * 3600.0,
    "QUEUE": "",
    "QUEUE_TIMEOUT": 900.0,
    "RUN_ON_WORKERS": False,
    "RETRY_LOST": False,
    "METRICS": False,
    "MIN_FREE_BYTES": 64 * 1024 * 1024,
    "MEDIA_CACHE_CONTROL": "no-cache",
    "MEDIA_DELIVERY": "stream",
    "MEDIA_ACCEL_PREFIX": "/protected-media/",
    "MAX_IMAGE_BYTES": 30 * 1024 * 1024,
    "MAX_IMAGE_PIXELS": 50_000_000,
    "MAX_BODY_BYTES": 2 * 1024 * 1024,
    "PROMPT_BUILDER": "images.services.prompts.PromptBuilder",
    "STORAGE": "default",
}

#: Names of queues that need no dotted path.
QUEUES = {"celery": "images.tasks.enqueue"}
#: How the bytes of a picture reach the browser.
DELIVERIES = ("stream", "redirect", "accel")

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


@dataclass(frozen=True, kw_only=True)
class ProviderBackend:
    """Where a provider's class is, and its options. The options may hold a key: they stay out of `repr`."""

    path: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


def _backend(alias: str, entry: Any, builtin: ProviderBackend | None) -> ProviderBackend:
    entry = {"BACKEND": entry} if isinstance(entry, str) else entry
    options = (entry.get("OPTIONS") or {}) if isinstance(entry, Mapping) else None
    if not isinstance(options, Mapping):
        raise ImproperlyConfigured(
            f'IMAGES["PROVIDERS"]["{alias}"] must be a dotted path or {{"BACKEND", "OPTIONS"}}.'
        )
    path = entry.get("BACKEND") or (builtin.path if builtin else "")
    if not path:
        raise ImproperlyConfigured(f'IMAGES["PROVIDERS"]["{alias}"] has no "BACKEND".')
    inherited = builtin.options if builtin and builtin.path == path else {}
    return ProviderBackend(path=path, options={**inherited, **options})


class Settings:
    """Typed access to every setting. Use the module's `conf`.

    Every property raises `django.core.exceptions.ImproperlyConfigured` where the configured value cannot work.
    """

    # --- how a value is found -----------------------------------------------------------------------------

    def _get(self, name: str) -> Any:
        host = getattr(settings, "IMAGES", None) or {}
        if name in host:
            return host[name]
        for variable in ENVIRONMENT.get(name, ()):
            if value := os.environ.get(variable, "").strip():
                return value
        return DEFAULTS[name]

    def _text(self, name: str) -> str:
        value = self._get(name)
        return "" if value is None else str(value)

    def _number(self, name: str, minimum: float) -> float:
        value = self._get(name)
        try:
            number = float(value)
        except (TypeError, ValueError) as err:
            raise ImproperlyConfigured(f"{self.spelling(name)} must be a number, not {value!r}.") from err
        if not minimum <= number < float("inf"):
            raise ImproperlyConfigured(f"{self.spelling(name)} must be at least {minimum:g}, not {value!r}.")
        return number

    def _flag(self, name: str) -> bool:
        value = self._get(name)
        text = str(value).strip().lower()
        if isinstance(value, bool) or text in _TRUE | _FALSE:
            return value if isinstance(value, bool) else text in _TRUE
        raise ImproperlyConfigured(f"{self.spelling(name)} must be true or false, not {value!r}.")

    def _names(self, name: str) -> tuple[str, ...]:
        """A list of texts, or one text with commas."""
        value = self._get(name)
        if not isinstance(value, (str, list, tuple, set)):
            raise ImproperlyConfigured(f"{self.spelling(name)} must be a list or a text with commas, not {value!r}.")
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(text for part in parts if (text := str(part).strip()))

    @staticmethod
    def spelling(name: str) -> str:
        """How an operator writes the setting: its environment variable, or its key in IMAGES."""
        return ENVIRONMENT[name][0] if name in ENVIRONMENT else f'IMAGES["{name}"]'

    # --- providers ----------------------------------------------------------------------------------------

    @property
    def providers(self) -> tuple[str, ...]:
        """The aliases to try, in order of preference."""
        names = self._names("PROVIDER")
        if not names:
            raise ImproperlyConfigured("IMAGE_PROVIDER names no provider.")
        return tuple(dict.fromkeys(names))

    @property
    def provider_backends(self) -> dict[str, ProviderBackend]:
        """Every provider that can be named: the built-in ones and those of `IMAGES["PROVIDERS"]`.

        A value there is a dotted path, or `{"BACKEND": path, "OPTIONS": {...}}`; for a built-in alias
        `BACKEND` may be left out, and its `OPTIONS` are laid over those from the environment.
        """
        backends = self._builtin_backends()
        configured = self._get("PROVIDERS")
        if not isinstance(configured, Mapping):
            raise ImproperlyConfigured('IMAGES["PROVIDERS"] must be a dictionary.')
        for alias, entry in configured.items():
            backends[alias] = _backend(alias, entry, backends.get(alias))
        return backends

    def _builtin_backends(self) -> dict[str, ProviderBackend]:
        openai = {
            "api_key": self._text("OPENAI_API_KEY"),
            "model": self._text("OPENAI_IMAGE_MODEL"),
            "base_url": self._text("OPENAI_BASE_URL"),
            "quality": self._text("OPENAI_IMAGE_QUALITY"),
            "size": self._text("OPENAI_IMAGE_SIZE"),
            "output_format": self._text("OPENAI_IMAGE_OUTPUT_FORMAT"),
            "fetch_allowed_hosts": self.fetch_allowed_hosts,
            "max_image_bytes": self.max_image_bytes,
        }
        gemini = {
            "api_key": self._text("GEMINI_API_KEY"),
            "model": self._text("GEMINI_IMAGE_MODEL"),
            "base_url": self._text("GEMINI_API_BASE_URL"),
            "image_size": self._text("GEMINI_IMAGE_SIZE"),
            "max_image_bytes": self.max_image_bytes,
        }
        return {
            "openai": ProviderBackend(path="images.providers.openai.OpenAIProvider", options=openai),
            "gemini": ProviderBackend(path="images.providers.gemini.GeminiProvider", options=gemini),
            "placeholder": ProviderBackend(path="images.providers.placeholder.PlaceholderProvider"),
        }

    @property
    def fetch_allowed_hosts(self) -> tuple[str, ...]:
        """Hosts from which an image may be fetched over plain http or from a private address."""
        return tuple(host.lower() for host in self._names("FETCH_ALLOWED_HOSTS"))

    @property
    def failover_after_billing(self) -> bool:
        """Whether the next provider is asked where the one before may have charged."""
        return self._flag("FAILOVER_AFTER_BILLING")

    @property
    def deadline(self) -> float:
        """Seconds a generation may take over all its attempts."""
        return self._number("DEADLINE", 1)

    @property
    def idempotency_ttl(self) -> float:
        """Seconds for which an idempotency key stands for the image it made."""
        return self._number("IDEMPOTENCY_TTL", 0)

    @property
    def max_concurrency(self) -> int:
        """The most generations under way at once in one process."""
        return int(self._number("MAX_CONCURRENCY", 1))

    @property
    def prompt_builder(self) -> str:
        """The dotted path of the prompt builder's class."""
        return self._text("PROMPT_BUILDER")

    # --- the queue ----------------------------------------------------------------------------------------

    @property
    def queue(self) -> str:
        """The dotted path of the function that puts an image's id into the queue, or "" where there is no queue."""
        name = self._text("QUEUE").strip()
        return QUEUES.get(name, name)

    @property
    def queue_timeout(self) -> float:
        """Seconds a request may wait in the queue for a worker; afterwards it has failed."""
        return self._number("QUEUE_TIMEOUT", 1)

    @property
    def run_on_workers(self) -> bool:
        """Whether every generation runs on the queue's workers while its caller waits."""
        wanted = self._flag("RUN_ON_WORKERS")
        if wanted and not self.queue:
            raise ImproperlyConfigured('IMAGE_RUN_ON_WORKERS needs a queue: set IMAGES["QUEUE"] (CELERY_BROKER_URL).')
        return wanted

    @property
    def retry_lost(self) -> bool:
        """Whether a generation whose worker was killed is made again, though its provider may bill twice."""
        return self._flag("RETRY_LOST")

    @property
    def metrics(self) -> bool:
        """Whether metrics for Prometheus are kept; read once, when the app is ready."""
        return self._flag("METRICS")

    # --- files and addresses ------------------------------------------------------------------------------

    @property
    def storage(self) -> str:
        """The alias in Django's `STORAGES` under which image files live."""
        return self._text("STORAGE")

    @property
    def public_url(self) -> str:
        """The address under which the world sees this service, without a trailing slash, or ""."""
        value = self._text("PUBLIC_URL").rstrip("/")
        if value and "://" not in value:
            value = f"https://{value}"
        return value

    @property
    def media_cache_control(self) -> str:
        """The `Cache-Control` of served images."""
        return self._text("MEDIA_CACHE_CONTROL")

    @property
    def media_delivery(self) -> str:
        """How pictures are sent: `stream`, `redirect` (to the storage's own signed address) or `accel` (by nginx)."""
        value = self._text("MEDIA_DELIVERY")
        if value not in DELIVERIES:
            raise ImproperlyConfigured(f"IMAGE_MEDIA_DELIVERY must be one of {', '.join(DELIVERIES)}, not {value!r}.")
        return value

    @property
    def media_accel_prefix(self) -> str:
        """The internal nginx location under which `accel` finds the media root, with slashes around it."""
        value = self._text("MEDIA_ACCEL_PREFIX")
        if not value.startswith("/") or not value.endswith("/"):
            raise ImproperlyConfigured("IMAGE_MEDIA_ACCEL_PREFIX must begin and end with a slash.")
        return value

    @property
    def min_free_bytes(self) -> int:
        """Free disk space in bytes below which no provider is asked."""
        return int(self._number("MIN_FREE_BYTES", 0))

    @property
    def max_image_bytes(self) -> int:
        """The largest image file accepted from a provider, in bytes."""
        return int(self._number("MAX_IMAGE_BYTES", 1024))

    @property
    def max_image_pixels(self) -> int:
        """The largest image accepted from a provider, in pixels."""
        return int(self._number("MAX_IMAGE_PIXELS", 1))

    # --- callers ------------------------------------------------------------------------------------------

    @property
    def max_body_bytes(self) -> int:
        """The largest request body the API reads, in bytes."""
        return int(self._number("MAX_BODY_BYTES", 1024))

    @property
    def trusted_networks(self) -> tuple[Network, ...]:
        """Networks whose callers need no credentials."""
        try:
            return tuple(ipaddress.ip_network(text) for text in self._names("TRUSTED_NETWORKS"))
        except ValueError as err:
            raise ImproperlyConfigured(f"IMAGE_TRUSTED_NETWORKS holds no valid CIDR: {err}") from err


conf = Settings()
