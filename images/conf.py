"""The app's settings. Each is declared once, in `Settings`, and read when it is used.

A value comes from `settings.IMAGES`, otherwise from the environment, otherwise it is the default. Nothing is cached,
so `override_settings` works and tests may change the environment. An empty environment variable counts as unset.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Generic, TypeVar, overload
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .price_table import TOKEN_KINDS, Price

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Names of queues that need no dotted path.
QUEUES = {"celery": "images.queues.celery.enqueue", "tasks": "images.queues.django_tasks.enqueue"}

#: Whose text models can think up scenes: name -> class.
SCENE_PROVIDERS = {
    "openai": "images.providers.text.OpenAIText",
    "gemini": "images.providers.text.GeminiText",
    "placeholder": "images.providers.text.PlaceholderText",
}
#: Quick and cheap ones. `images.providers.models` knows when a model ends.
DEFAULT_TEXT_MODELS = {"openai": "gpt-6-luna", "gemini": "gemini-3.5-flash-lite"}
#: The largest answer to accept from a text model; a scene takes a thousandth of it.
MAX_TEXT_BYTES = 1024 * 1024

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


# --- Types of values ------------------------------------------------------------------------------------------


class InvalidValue(ValueError):
    """A value cannot be used. The message continues a sentence that begins with the setting's name.

    It does not repeat the value, which may be or contain a secret.
    """


def text(value: Any) -> str:
    """Any text; `None` becomes ""."""
    return "" if value is None else str(value)


def flag(value: Any) -> bool:
    """A boolean, or one of the usual words for one, in any case."""
    word = str(value).strip().lower()
    if not isinstance(value, bool) and word not in _TRUE | _FALSE:
        raise InvalidValue("must be true or false.")
    return value if isinstance(value, bool) else word in _TRUE


def number(minimum: float) -> Callable[[Any], float]:
    """A finite number of at least `minimum`."""

    def parse(value: Any) -> float:
        try:
            found = float(value)
        except (TypeError, ValueError) as err:
            raise InvalidValue("must be a number.") from err
        if not minimum <= found < float("inf"):
            raise InvalidValue(f"must be a number of at least {minimum:g}.")
        return found

    return parse


def whole(minimum: int) -> Callable[[Any], int]:
    """A whole number of at least `minimum`; decimals are cut off."""
    parse = number(minimum)
    return lambda value: int(parse(value))


def listed(value: Any) -> tuple[str, ...]:
    """A list of strings, or one string with commas; empty parts are dropped."""
    if not isinstance(value, str | list | tuple | set):
        raise InvalidValue("must be a list, or text with commas.")
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(word for part in parts if (word := str(part).strip()))


def one_of(*choices: str) -> Callable[[Any], str]:
    """One of a few words."""

    def parse(value: Any) -> str:
        if value not in choices:
            raise InvalidValue(f"must be one of: {', '.join(choices)}.")
        return str(value)

    return parse


def _aliases(value: Any) -> tuple[str, ...]:
    names = listed(value)
    if not names:
        raise InvalidValue("names no provider.")
    return tuple(dict.fromkeys(names))


def _hosts(value: Any) -> tuple[str, ...]:
    return tuple(host.lower() for host in listed(value))


def _networks(value: Any) -> tuple[Network, ...]:
    found = []
    for word in listed(value):
        try:
            found.append(ipaddress.ip_network(word))
        except ValueError as err:
            raise InvalidValue(f"must list networks, for example 10.1.0.0/16, and {word!r} is not one.") from err
    return tuple(found)


def _scene_provider(value: Any) -> str:
    name = text(value).strip().lower()
    if name not in ("", *SCENE_PROVIDERS):
        raise InvalidValue(f"must be one of: {', '.join(SCENE_PROVIDERS)}; or unset.")
    return name


def _public_url(value: Any) -> str:
    """An address without a trailing slash. A path, as front-end build tools keep it there, counts as unset."""
    url = text(value).rstrip("/")
    if url.startswith(("/", ".")):
        return ""
    return f"https://{url}" if url and "://" not in url else url


#: What stands for the content item's id in `IMAGES["CONTENT_ITEM_URL"]`.
CONTENT_ITEM = "{content_item_id}"


def _content_item_url(value: Any) -> str:
    """A web address or a path with `{content_item_id}` in it, but not in its host: an id must not choose that."""
    url = text(value).strip()
    if not url:
        return ""
    parts = urlsplit(url)
    is_path = url.startswith("/") and not parts.netloc
    if not is_path and not (parts.scheme in {"http", "https"} and parts.netloc):
        raise InvalidValue("must be an http or https address, or a path that begins with a slash.")
    if CONTENT_ITEM in parts.netloc or CONTENT_ITEM not in url:
        raise InvalidValue(f"must have {CONTENT_ITEM} in it, after the host.")
    return url


def _prefix(value: Any) -> str:
    prefix = text(value)
    if not prefix.startswith("/") or not prefix.endswith("/"):
        raise InvalidValue("must begin and end with a slash.")
    return prefix


def _queue(value: Any) -> str:
    name = text(value).strip()
    return QUEUES.get(name, name)


def _headers(value: Any) -> Mapping[str, str]:
    """Headers as a dictionary, or as a text: `Name: value`, with semicolons or line breaks between them."""
    if isinstance(value, Mapping):
        return {str(name): str(content) for name, content in value.items()}
    found = {}
    for pair in filter(str.strip, re.split(r"[;\n]", text(value))):
        name, colon, content = pair.partition(":")
        if not colon:
            raise InvalidValue('must be pairs "Name: value" with semicolons between them.')
        found[name.strip()] = content.strip()
    return found


def _classes(value: Any) -> tuple[str, ...]:
    paths = listed(value)
    if not paths:
        raise InvalidValue("names no class.")
    return paths


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """How often a provider may be called: at most `count` times in any `period` seconds."""

    count: int
    period: float


_PERIODS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: For example `5/min`, `500/day` and `10/30s`.
_RATE = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})?(s|m|h|d|sec|min|hour|day|second|minute)")


def _rate(word: Any) -> RateLimit:
    found = _RATE.fullmatch(str(word).replace(" ", "").lower())
    if not found:
        raise InvalidValue('must name rates such as "5/min", with up to 9999 images.')
    return RateLimit(count=int(found[1]), period=float(int(found[2] or 1) * _PERIODS[found[3][0]]))


def _rate_limits(value: Any) -> Mapping[str, RateLimit]:
    """Rates by provider, as a dictionary or as a text: `openai=5/min, gemini=10/min`."""
    if not isinstance(value, Mapping):
        pairs = [word.partition("=") for word in listed(value)]
        value = {name.strip(): rate for name, _, rate in pairs}
    return {str(alias): _rate(rate) for alias, rate in value.items()}


def _budget(value: Any) -> Decimal | None:
    """US dollars; `None` for no limit."""
    if value is None or not str(value).strip():
        return None
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation as err:
        raise InvalidValue("must be an amount in US dollars, for example 25 or 7.50.") from err
    if not amount.is_finite() or not 0 <= amount <= 1_000_000:
        raise InvalidValue("must be US dollars from 0 to 1000000.")
    return amount


def _dictionary(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidValue("must be a dictionary.")
    return value


def _prices(value: Any) -> Mapping[str, Price]:
    """Prices by model: a dictionary, the same as JSON, or a text: `model=0.02; other=0.04`."""
    if isinstance(value, str):
        value = _parsed_prices(value.strip())
    if not isinstance(value, Mapping):
        raise InvalidValue("must be a dictionary.")
    return {str(model).strip(): _price(str(model), price) for model, price in value.items()}


def _parsed_prices(text: str) -> Any:
    if text.startswith("{"):
        try:
            return json.loads(text, parse_float=Decimal)
        except ValueError as err:
            raise InvalidValue("is not valid JSON.") from err
    pairs = [pair.rpartition("=") for pair in re.split(r"[;\n]", text) if pair.strip()]
    if not all(model.strip() for model, _, _ in pairs):
        raise InvalidValue('must be pairs "model=0.02" with semicolons between them, or JSON.')
    return {model: amount for model, _, amount in pairs}


def _price(model: str, value: Any) -> Price:
    if isinstance(value, Price):
        return value
    if not isinstance(value, Mapping):
        return Price(image=_dollars(model, value))
    known = ("image", *TOKEN_KINDS)
    if not value or not set(value) <= set(known):
        raise InvalidValue(f"must give {model!r} a price for each picture, or some of: {', '.join(known)}.")
    if "image" in value and len(value) > 1:
        raise InvalidValue(f"must give {model!r} either a price for each picture or prices for tokens.")
    dollars: dict[str, Any] = {kind: _dollars(model, amount) for kind, amount in value.items()}
    return Price(**dollars)


def _dollars(model: str, value: Any) -> Decimal:
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation as err:
        raise InvalidValue(f"holds something other than US dollars for {model!r}, for example 0.04.") from err
    if not amount.is_finite() or not 0 <= amount <= 1_000_000:
        raise InvalidValue(f"must hold US dollars from 0 to 1000000 for {model!r}.")
    return amount


# --- What a setting is ----------------------------------------------------------------------------------------


class Setting(Generic[T]):
    """The declaration of a setting. As an attribute of `conf` it returns the setting's value.

    The documentation's tables and the system checks are derived from it.

    Args:
        env: Its environment variables, separated by spaces; the first that is set is used.
        default: Its default, as an operator would write it.
        parse: Converts a configured value or the default to the setting's type. Raises `InvalidValue`.
        type: Its type, as the documentation calls it.
        help: What it does, in a few words.
        key: Its key in `IMAGES`; by default the attribute's name in capitals.
        check: Called with `conf` and the value; returns how it conflicts with other settings, or "".
    """

    def __init__(
        self,
        env: str,
        default: Any,
        parse: Callable[[Any], T],
        type: str,
        help: str,
        *,
        key: str = "",
        check: Callable[[Settings, T], str] = lambda conf, value: "",
    ) -> None:
        self.variables, self.default, self.parse = tuple(env.split()), default, parse
        self.type, self.help, self.key, self.check = type, help, key, check
        self.attribute = ""

    def __set_name__(self, owner: type[Settings], name: str) -> None:
        self.attribute, self.key = name, self.key or name.upper()
        SETTINGS[self.key] = self

    @overload
    def __get__(self, instance: None, owner: type[Settings]) -> Setting[T]: ...
    @overload
    def __get__(self, instance: Settings, owner: type[Settings]) -> T: ...
    def __get__(self, instance: Settings | None, owner: type[Settings]) -> Setting[T] | T:
        return self if instance is None else self.value(instance)

    @property
    def spelling(self) -> str:
        """How an operator writes it: its environment variable, or its key in IMAGES."""
        return self.variables[0] if self.variables else f'IMAGES["{self.key}"]'

    def value(self, conf: Settings) -> T:
        """The setting's value.

        Raises:
            ImproperlyConfigured: The value cannot be used; the message is a sentence that names the setting.
        """
        try:
            value = self.parse(self._configured())
            problem = self.check(conf, value)
        except InvalidValue as err:
            raise ImproperlyConfigured(f"{self.spelling} {err}") from err
        except (
            AttributeError,
            TypeError,
            ValueError,
        ) as err:  # its message may contain the value, which may be a key
            raise ImproperlyConfigured(f"{self.spelling} holds a value of the wrong type.") from err
        if problem:
            raise ImproperlyConfigured(f"{self.spelling} {problem}")
        return value

    def _configured(self) -> Any:
        host = getattr(settings, "IMAGES", None)
        if isinstance(host, Mapping) and self.key in host:
            return host[self.key]
        values = (os.environ.get(variable, "").strip() for variable in self.variables)
        return next(filter(None, values), self.default)


#: Every setting by its key in `IMAGES`, in the order of the documentation.
SETTINGS: dict[str, Setting[Any]] = {}


@dataclass(frozen=True, kw_only=True)
class ProviderBackend:
    """A provider's class, as a dotted path, and its options; these may contain a key, so `repr` omits them."""

    path: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


# --- The settings ---------------------------------------------------------------------------------------------


def _needs_a_queue(conf: Settings, on: bool) -> str:
    return 'needs a queue: set IMAGES["QUEUE"] (CELERY_BROKER_URL).' if on and not conf.queue else ""


def _known_providers(conf: Settings, limits: Mapping[str, RateLimit]) -> str:
    unknown = [alias for alias in limits if alias not in conf.provider_backends]
    return f"names providers that do not exist: {', '.join(map(repr, unknown))}." if unknown else ""


class Settings:
    """Typed access to every setting. Use the module's `conf`.

    Every attribute raises `django.core.exceptions.ImproperlyConfigured` if the configured value cannot be used.
    """

    # Providers

    providers = Setting(
        "IMAGE_PROVIDER",
        "gemini",
        _aliases,
        "list of names",
        "which provider makes the images; several in order of preference",
        key="PROVIDER",
    )
    provider_entries = Setting(
        "", {}, _dictionary, "dictionary", "providers of your own, and options of the built-in ones", key="PROVIDERS"
    )
    gemini_api_key = Setting("GEMINI_API_KEY GOOGLE_API_KEY", "", text, "text", "Google's key")
    gemini_image_model = Setting("GEMINI_IMAGE_MODEL", "gemini-nano-banana-2.1", text, "text", "Google's model")
    gemini_image_size = Setting("GEMINI_IMAGE_SIZE", "", text, "text", "`1K`, `2K`, …")
    gemini_api_base_url = Setting("GEMINI_API_BASE_URL", "", text, "address", "a server other than Google's own")
    openai_api_key = Setting("OPENAI_API_KEY", "", text, "text", "OpenAI's key")
    openai_image_model = Setting("OPENAI_IMAGE_MODEL", "gpt-image-2.6-flare", text, "text", "OpenAI's model")
    openai_image_quality = Setting("OPENAI_IMAGE_QUALITY", "", text, "text", "quality, and with it price and speed")
    openai_image_size = Setting("OPENAI_IMAGE_SIZE", "", text, "`WIDTHxHEIGHT`", "one size for all images")
    openai_image_output_format = Setting("OPENAI_IMAGE_OUTPUT_FORMAT", "", text, "text", "`png`, `webp` or `jpeg`")
    openai_base_url = Setting("OPENAI_BASE_URL", "", text, "address", "an OpenAI-compatible server")
    openai_default_headers = Setting(
        "OPENAI_DEFAULT_HEADERS", "", _headers, "`Name: value; …`", "further headers that such a server needs"
    )
    fetch_allowed_hosts = Setting(
        "IMAGE_FETCH_ALLOWED_HOSTS",
        (),
        _hosts,
        "list of host names",
        "hosts inside your network that such a server's addresses may name",
    )
    failover_after_billing = Setting(
        "IMAGE_FAILOVER_AFTER_BILLING",
        True,
        flag,
        "flag",
        "whether the next provider is asked after the first may have charged",
    )

    prices = Setting(
        "IMAGE_PRICES", {}, _prices, "`model=0.02; …`, or a dictionary", "what a model of your own server costs"
    )
    budget_day = Setting("IMAGE_BUDGET_DAY", None, _budget, "US dollars", "the most that may be spent in a day")
    budget_month = Setting("IMAGE_BUDGET_MONTH", None, _budget, "US dollars", "the most that may be spent in a month")
    user_budget_day = Setting(
        "IMAGE_USER_BUDGET_DAY", None, _budget, "US dollars", "the most that each user may spend in a day"
    )
    user_budget_month = Setting(
        "IMAGE_USER_BUDGET_MONTH", None, _budget, "US dollars", "the most that each user may spend in a month"
    )

    # Limits

    deadline = Setting(
        "IMAGE_DEADLINE", 90, number(1), "seconds", "how long a generation may take, all attempts together"
    )
    storage_timeout = Setting(
        "IMAGE_STORAGE_TIMEOUT",
        60,
        number(0),
        "seconds",
        "how long an image that is paid for may be read and stored after that",
    )
    max_concurrency = Setting(
        "IMAGE_MAX_CONCURRENCY", 100, whole(1), "number", "the most generations at once in a process"
    )
    idempotency_ttl = Setting(
        "IMAGE_IDEMPOTENCY_TTL", 24 * 3600, number(0), "seconds", "how long an idempotency key is valid"
    )
    rate_limits = Setting(
        "IMAGE_RATE_LIMITS",
        {},
        _rate_limits,
        "`provider=5/min, …`",
        "how often each provider may be asked, by all processes together",
        check=_known_providers,
    )
    min_free_bytes = Setting(
        "IMAGE_MIN_FREE_BYTES",
        64 * 1024 * 1024,
        whole(0),
        "bytes",
        "free disk space below which no provider is asked",
    )
    max_image_bytes = Setting("", 30 * 1024 * 1024, whole(1024), "bytes", "the largest file accepted from a provider")
    max_image_pixels = Setting(
        "", 50_000_000, whole(1), "pixels, width times height", "the largest picture accepted from a provider"
    )
    max_body_bytes = Setting("", 2 * 1024 * 1024, whole(1024), "bytes", "the largest request body")

    # The queue

    queue = Setting("", "", _queue, "`celery`, `tasks`, or a dotted path", "hands generations to workers")
    queue_timeout = Setting(
        "IMAGE_QUEUE_TIMEOUT", 900, number(1), "seconds", "how long a request may wait for a worker"
    )
    run_on_workers = Setting(
        "IMAGE_RUN_ON_WORKERS", False, flag, "flag", "whether every generation runs on a worker", check=_needs_a_queue
    )
    retry_lost = Setting(
        "IMAGE_RETRY_LOST",
        False,
        flag,
        "flag",
        "whether a killed worker's generations are repeated, although the provider may bill twice",
    )
    metrics = Setting("IMAGE_METRICS", False, flag, "flag", "metrics for Prometheus")

    # Addresses, callers, files

    public_url = Setting("PUBLIC_URL", "", _public_url, "address", "the public address of this service")
    trusted_networks = Setting(
        "IMAGE_TRUSTED_NETWORKS", (), _networks, "list of CIDRs", "networks whose callers need no credentials"
    )
    permission_classes = Setting(
        "",
        "images.api.permissions.ImagePermissions",
        _classes,
        "list of dotted paths",
        "who may generate, see and delete images over the API",
    )
    authentication_classes = Setting(
        "",
        "images.api.authentication.ImagesTokenAuthentication, "
        "images.api.authentication.ImagesSessionAuthentication, "
        "images.api.authentication.TrustedNetworkAuthentication",
        _classes,
        "list of dotted paths",
        "how the API finds out who is calling",
    )
    media_cache_control = Setting(
        "IMAGE_MEDIA_CACHE_CONTROL",
        "no-cache",
        text,
        "header value",
        "how long browsers may keep a picture without asking again",
    )
    media_delivery = Setting(
        "IMAGE_MEDIA_DELIVERY",
        "stream",
        one_of("stream", "redirect", "accel"),
        "`stream`, `redirect` or `accel`",
        "what sends the bytes: this server, the storage, or nginx",
    )
    media_accel_prefix = Setting(
        "IMAGE_MEDIA_ACCEL_PREFIX",
        "/protected-media/",
        _prefix,
        "path with slashes around it",
        "the location under which nginx finds the files",
    )
    storage = Setting("", "default", text, "alias", "where the files are kept: an alias of Django's `STORAGES`")
    prompt_builder = Setting(
        "", "images.services.prompts.PromptBuilder", text, "dotted path", "the class that makes the prompt"
    )
    variant_entries = Setting(
        "", {}, _dictionary, "dictionary", "shapes of your own, beside `hero` and `inline`", key="VARIANTS"
    )

    # Scenes

    scene_provider = Setting(
        "IMAGE_SCENE_PROVIDER",
        "",
        _scene_provider,
        "`openai`, `gemini` or `placeholder`",
        "whose text model thinks up a scene before each picture",
    )
    scene_model = Setting("IMAGE_SCENE_MODEL", "", text, "text", "which text model that is")
    scene_writer = Setting(
        "", "images.services.scenes.SceneWriter", text, "dotted path", "the class that thinks up scenes"
    )

    @property
    def scene_backend(self) -> ProviderBackend | None:
        """The text model that thinks up scenes, with the key and the address of its vendor; `None` for no scenes."""
        name = self.scene_provider
        if not name or name == "placeholder":
            return ProviderBackend(path=SCENE_PROVIDERS[name]) if name else None
        images, builtin = self.provider_backends[name], self._builtin_backends()[name]
        # Under the same name, a host may have a class of its own, whose options mean something else.
        options = images.options if images.path == builtin.path else builtin.options
        model = self.scene_model or DEFAULT_TEXT_MODELS[name]
        own = {"model": model, "max_image_bytes": MAX_TEXT_BYTES}
        return ProviderBackend(path=SCENE_PROVIDERS[name], options={**options, **own})

    content_item_url = Setting(
        "IMAGE_CONTENT_ITEM_URL",
        "",
        _content_item_url,
        "address with `{content_item_id}`",
        "where a content item can be seen; the admin links to it",
    )

    @property
    def longest_run(self) -> float:
        """Seconds after which a generation is over: the time for its providers, and that for storing the image."""
        return self.deadline + self.storage_timeout

    @property
    def provider_backends(self) -> dict[str, ProviderBackend]:
        """Every provider that can be named: the built-in ones and those of `IMAGES["PROVIDERS"]`.

        A value there is a dotted path, or `{"BACKEND": path, "OPTIONS": {...}}`. For a built-in alias `BACKEND` may
        be omitted, and its `OPTIONS` override those from the environment.
        """
        backends = self._builtin_backends()
        for alias, entry in self.provider_entries.items():
            backends[alias] = _backend(alias, entry, backends.get(alias))
        return backends

    def _builtin_backends(self) -> dict[str, ProviderBackend]:
        openai = {
            "api_key": self.openai_api_key,
            "model": self.openai_image_model,
            "base_url": self.openai_base_url,
            "quality": self.openai_image_quality,
            "size": self.openai_image_size,
            "output_format": self.openai_image_output_format,
            "default_headers": self.openai_default_headers,
            "fetch_allowed_hosts": self.fetch_allowed_hosts,
            "max_image_bytes": self.max_image_bytes,
        }
        gemini = {
            "api_key": self.gemini_api_key,
            "model": self.gemini_image_model,
            "base_url": self.gemini_api_base_url,
            "image_size": self.gemini_image_size,
            "max_image_bytes": self.max_image_bytes,
        }
        return {
            "openai": ProviderBackend(path="images.providers.openai.OpenAIProvider", options=openai),
            "gemini": ProviderBackend(path="images.providers.gemini.GeminiProvider", options=gemini),
            "placeholder": ProviderBackend(path="images.providers.placeholder.PlaceholderProvider"),
        }

    @staticmethod
    def spelling(key: str) -> str:
        """How an operator writes the setting with this key: its environment variable, or its key in IMAGES."""
        return SETTINGS[key].spelling


def _backend(alias: str, entry: Any, builtin: ProviderBackend | None) -> ProviderBackend:
    entry = {"BACKEND": entry} if isinstance(entry, str) else entry
    options = (entry.get("OPTIONS") or {}) if isinstance(entry, Mapping) else None
    if not isinstance(options, Mapping):
        raise ImproperlyConfigured(
            f'IMAGES["PROVIDERS"]["{alias}"] must be a dotted path or {{"BACKEND": ..., "OPTIONS": {{...}}}}.'
        )
    path = entry.get("BACKEND") or (builtin.path if builtin else "")
    if not path:
        raise ImproperlyConfigured(f'IMAGES["PROVIDERS"]["{alias}"] has no "BACKEND".')
    inherited = builtin.options if builtin and builtin.path == path else {}
    return ProviderBackend(path=path, options={**inherited, **options})


conf = Settings()
