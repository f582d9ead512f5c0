"""System checks: what is missing or wrong in the configuration, with a hint that says what to type.

An Error means that a part of the app cannot work as configured; it also stops `migrate` and `runserver`. What may be
right later or on another machine (a key, a volume that is mounted later, the public address) is a Warning, so that
the rest of a host project runs without it.

No check uses the network or the database, and none repeats a key or any other secret.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import FileSystemStorage, Storage, storages
from django.urls import NoReverseMatch, get_script_prefix, resolve, reverse
from django.utils import translation
from django.utils.module_loading import import_string

from . import variants
from .conf import QUEUES, SETTINGS, Network, conf
from .exceptions import ProviderNotConfigured
from .local_files import unwritable_reason
from .models import image_storage
from .pricing import find_price
from .providers import ImageProvider, get_provider, get_text_provider
from .providers.models import Deprecation, utc_today
from .services import budgets
from .services.prompts import get_prompt_builder
from .services.provider_status import price_problem
from .services.scenes import get_scene_writer

#: The checks' tag: `manage.py check --tag images`.
TAG = "images"

# The ids never change and are never reused for another check: hosts list them in SILENCED_SYSTEM_CHECKS.
PROVIDER_NOT_READY = "images.W001"
MEDIA_ROOT_UNWRITABLE = "images.W002"
UNKNOWN_PROVIDER = "images.E003"
UNKNOWN_KEY = "images.E004"
UNUSABLE_VALUE = "images.E005"
PUBLIC_URL_MISSING = "images.W006"
CORS_OPEN_TO_ALL = "images.W007"
TRUSTED_NETWORK_TOO_WIDE = "images.W008"
PROMPT_BUILDER_BROKEN = "images.E009"
STORAGE_BROKEN = "images.E010"
PROVIDER_BROKEN = "images.E011"
PUBLIC_URL_UNUSABLE = "images.E012"
MODEL_RETIRED = "images.W013"
QUEUE_BROKEN = "images.E014"
OPTION_DOUBTFUL = "images.W015"
URLS_MISSING = "images.W016"
URL_SHADOWED = "images.W017"
URL_DEPENDS_ON_LANGUAGE = "images.W018"
APP_MISSING = "images.W019"
VARIANT_UNUSABLE = "images.E020"
PRICE_MISSING = "images.W021"
PRICE_OLD = "images.W022"
SCENE_WRITER_BROKEN = "images.E023"
OLD_TEXT_MODEL = "images.W024"
UNKNOWN_VARIABLE = "images.W025"
BUDGET_UNESTIMABLE = "images.E026"

#: Names of URLs that other systems rely on, with example arguments.
_MEDIA, _API = "images:media", "images:image-list"
_URLS: dict[str, dict[str, str]] = {_MEDIA: {"path": "check"}, _API: {}}
_INCLUDE = 'path("", include("images.urls"))'

#: What to do if a queue that has a name cannot be imported, by its dotted path.
_QUEUES_NEED = {
    QUEUES["celery"]: "Install what it needs: pip install 'trygo-images[celery]'.",
    QUEUES["tasks"]: 'Use Django 6.0 or newer, or: pip install django-tasks. TASKS needs the backend "default".',
}

#: How much an environment variable has to resemble a setting's to count as misspelt. Other programs' variables may
#: begin with `IMAGE_` as well.
_ALIKE = 0.9

#: Prefix lengths below which a network is too large to be internal, by IP version.
_WIDEST_PRIVATE = {4: 8, 6: 7}
_WIDEST_PUBLIC = {4: 16, 6: 32}


@register(TAG)
def check_keys(**_: Any) -> list[CheckMessage]:
    """Check that every key of `settings.IMAGES` is the name of a setting."""
    host = getattr(settings, "IMAGES", None) or {}
    if not isinstance(host, Mapping):
        return [
            Error("IMAGES must be a dictionary.", hint='For example: IMAGES = {"PROVIDER": "gemini"}', id=UNKNOWN_KEY)
        ]
    messages = [_unknown_key(f'IMAGES["{key}"]', key, SETTINGS) for key in host if key not in SETTINGS]
    for setting, known in (("PROVIDERS", ("BACKEND", "OPTIONS")), ("VARIANTS", variants.KEYS)):
        entries = host.get(setting)
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            keys = entry if isinstance(entry, Mapping) else ()
            spelling = f'IMAGES["{setting}"]["{name}"]'
            messages += [_unknown_key(f'{spelling}["{key}"]', key, known) for key in keys if key not in known]
    return messages


@register(TAG)
def check_variables(**_: Any) -> list[CheckMessage]:
    """Check that no environment variable looks like a misspelt setting."""
    known = {variable for setting in SETTINGS.values() for variable in setting.variables}
    return [
        Warning(
            f"{name} is in the environment and no setting of this app.",
            hint=f"Did you mean {near}?",
            id=UNKNOWN_VARIABLE,
        )
        for name in sorted(os.environ)
        if name not in known and (near := _nearest(name, known, cutoff=_ALIKE))
    ]


def _unknown_key(spelling: str, key: object, known: Collection[str]) -> CheckMessage:
    wanted = str(key).upper()
    near = _nearest(wanted.removeprefix("IMAGE_"), known) or _nearest(wanted, known)
    hint = f'Did you mean "{near}"?' if near else f"Known keys: {', '.join(sorted(known))}."
    return Error(f"{spelling} is not a setting of this app.", hint=hint, id=UNKNOWN_KEY)


def _nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=cutoff)), "")


@register(TAG)
def check_values(**_: Any) -> list[CheckMessage]:
    """Check that every setting has a usable value."""
    if not isinstance(getattr(settings, "IMAGES", None) or {}, Mapping):
        return []  # check_keys has said so
    names = [*(setting.attribute for setting in SETTINGS.values()), "provider_backends"]
    # A value that two attributes read would be reported twice: dict.fromkeys keeps the first.
    return [
        Error(problem, hint="Correct the value, or remove it to use the default.", id=UNUSABLE_VALUE)
        for problem in dict.fromkeys(filter(None, map(_problem, names)))
    ]


def _problem(name: str) -> str:
    """What is wrong with the value of an attribute of `conf`, or ""."""
    try:
        getattr(conf, name)
    except ImproperlyConfigured as err:
        return str(err)
    return ""


@register(TAG)
def check_providers(**_: Any) -> list[CheckMessage]:
    """Check that every provider in `IMAGE_PROVIDER` exists, can be imported and has its key."""
    if _problem("providers") or _problem("provider_backends"):
        return []  # check_values or check_keys has said so
    known = conf.provider_backends
    messages: list[CheckMessage] = []
    for alias in conf.providers:
        messages += _provider_messages(alias) if alias in known else [_unknown_provider(alias, known)]
    return messages


def _unknown_provider(alias: str, known: Collection[str]) -> CheckMessage:
    near = _nearest(alias.lower(), known)
    hint = f"Did you mean IMAGE_PROVIDER={near}? " if near else ""
    hint += f'Known providers: {", ".join(sorted(known))}. Add others to IMAGES["PROVIDERS"].'
    return Error(
        f"IMAGE_PROVIDER names the provider {alias!r}, which does not exist.", hint=hint, id=UNKNOWN_PROVIDER
    )


def _provider_messages(alias: str) -> list[CheckMessage]:
    try:
        sentences = get_provider(alias).check()
    except ImproperlyConfigured as err:
        hint = f'Correct IMAGES["PROVIDERS"]["{alias}"], install what is missing, or choose another IMAGE_PROVIDER.'
        return [Error(str(err), hint=hint, id=PROVIDER_BROKEN)]
    hint = (
        "Correct it in the environment or in IMAGES, or choose a provider that needs no key: "
        "IMAGE_PROVIDER=placeholder. Until then this provider makes no images; everything else works."
    )
    return [
        Warning(f"Image provider {alias!r}: {sentence}", hint=hint, id=PROVIDER_NOT_READY) for sentence in sentences
    ]


@register(TAG)
def check_models(**_: Any) -> list[CheckMessage]:
    """Check that no provider uses a model that its vendor has shut down or will shut down."""
    return [
        _deprecated(alias, provider, deprecation)
        for alias, provider in _usable_providers()
        if (deprecation := provider.deprecation())
    ]


def _usable_providers() -> Iterator[tuple[str, ImageProvider]]:
    """The providers that can be imported, by alias; `check_providers` reports the others."""
    if _problem("providers") or _problem("provider_backends"):
        return
    for alias in conf.providers:
        with suppress(ImproperlyConfigured, ProviderNotConfigured):
            yield alias, get_provider(alias)


def _deprecated(alias: str, provider: ImageProvider, deprecation: Deprecation) -> CheckMessage:
    hint = (
        f"{deprecation.advice(provider.model_setting)} `manage.py images_doctor` asks the vendor itself. If your own "
        f'server still has the model, add "{MODEL_RETIRED}" to SILENCED_SYSTEM_CHECKS.'
    )
    sentence = deprecation.sentence(provider.model, utc_today())
    return Warning(f"Image provider {alias!r}: {sentence}", hint=hint, id=MODEL_RETIRED)


@register(TAG)
def check_prices(**_: Any) -> list[CheckMessage]:
    """Check that each configured model has a price that is not too old."""
    if _problem("prices"):
        return []
    return [
        message
        for alias, provider in [*_usable_providers(), *_scene_providers()]
        if (message := _price_message(alias, provider, utc_today())) is not None
    ]


def _scene_providers() -> Iterator[tuple[str, ImageProvider]]:
    """The text model of scenes, if they are on."""
    if any(map(_problem, ("scene_provider", "scene_model", "provider_backends"))) or conf.scene_backend is None:
        return
    with suppress(ImproperlyConfigured, ProviderNotConfigured):
        yield "scenes", get_text_provider()


def _price_message(alias: str, provider: ImageProvider, today: date) -> CheckMessage | None:
    problem = price_problem(alias, provider, today)
    if problem is None:
        return None
    check_id = PRICE_OLD if find_price(alias, provider.model) else PRICE_MISSING
    prefix = "" if alias == "scenes" else "Image provider "
    return Warning(f"{prefix}{problem[0]}", hint=problem[1], id=check_id)


@register(TAG)
def check_budgets(**_: Any) -> list[CheckMessage]:
    """Check that with a budget there is a price for everything that may be billed."""
    needed = [*(SETTINGS[key].attribute for key in budgets.KEYS), "providers", "provider_backends", "prices"]
    if any(map(_problem, [*needed, "scene_provider", "scene_model", "scene_writer"])):
        return []
    hint = "Until then requests are refused, unless images that cost something were made before."
    return [Error(sentence, hint=hint, id=BUDGET_UNESTIMABLE) for sentence in budgets.gaps()]


@register(TAG)
def check_options(**_: Any) -> list[CheckMessage]:
    """Check that no provider is set to a size, quality or format that its vendor is known to reject."""
    hint = (
        "Correct it, or remove it to use the default: a request that the vendor rejects makes no image. If your own "
        f'server accepts it, add "{OPTION_DOUBTFUL}" to SILENCED_SYSTEM_CHECKS.'
    )
    return [
        Warning(f"Image provider {alias!r}: {sentence}", hint=hint, id=OPTION_DOUBTFUL)
        for alias, provider in _usable_providers()
        for sentence in provider.doubts()
    ]


@register(TAG)
def check_scenes(**_: Any) -> list[CheckMessage]:
    """Check that scenes can be thought up, if they are on, and that no old variable is expected to turn them on."""
    if any(map(_problem, ("scene_provider", "scene_model", "scene_writer", "provider_backends"))):
        return []
    return [*_scene_writer_messages(), *_scene_provider_messages(), *_old_text_model()]


def _scene_writer_messages() -> Iterator[CheckMessage]:
    if conf.scene_writer == SETTINGS["SCENE_WRITER"].default:
        return
    try:
        get_scene_writer()
    except (ImproperlyConfigured, ProviderNotConfigured) as err:
        hint = f'Give the dotted path of a class, or remove the setting to use "{SETTINGS["SCENE_WRITER"].default}".'
        yield Error(str(err), hint=hint, id=SCENE_WRITER_BROKEN)


def _scene_provider_messages() -> Iterator[CheckMessage]:
    """What the text model lacks: it needs the key and the package of its vendor's image models."""
    if conf.scene_backend is None:
        return
    name, provider = "scenes", get_text_provider()
    hint = (
        "Correct it in the environment or in IMAGES, or unset IMAGE_SCENE_PROVIDER: until then there are no scenes."
    )
    for sentence in provider.check():
        yield Warning(f"IMAGE_SCENE_PROVIDER={conf.scene_provider}: {sentence}", hint=hint, id=PROVIDER_NOT_READY)
    if deprecation := provider.deprecation():
        yield _deprecated(name, provider, deprecation)


def _old_text_model() -> Iterator[CheckMessage]:
    if os.environ.get("OPENAI_MODEL", "").strip() and not (conf.scene_provider or conf.scene_model):
        hint = (
            "If it comes from the old images service: set IMAGE_SCENE_PROVIDER=openai and IMAGE_SCENE_MODEL for "
            "scenes thought up by a text model, which cost money and seconds, or remove it. If it is for something "
            f'else, add "{OLD_TEXT_MODEL}" to SILENCED_SYSTEM_CHECKS.'
        )
        yield Warning("OPENAI_MODEL is set, but this app does not read it.", hint=hint, id=OLD_TEXT_MODEL)


@register(TAG)
def check_prompt_builder(**_: Any) -> list[CheckMessage]:
    """Check that the prompt builder can be imported."""
    if _problem("prompt_builder"):
        return []
    try:
        get_prompt_builder()
    except ImproperlyConfigured as err:
        hint = (
            f'Give the dotted path of a class, or remove the setting to use "{SETTINGS["PROMPT_BUILDER"].default}".'
        )
        return [Error(str(err), hint=hint, id=PROMPT_BUILDER_BROKEN)]
    return []


@register(TAG)
def check_variants(**_: Any) -> list[CheckMessage]:
    """Check that every variant of the project's own has a usable name, ratio, purpose and framing."""
    if _problem("variant_entries"):
        return []  # check_values has said so
    hint = (
        'For example: IMAGES = {"VARIANTS": {"social": {"RATIO": "1200:630", "PURPOSE": "the preview that social '
        'networks show", "FRAMING": "one clear subject in the middle"}}}'
    )
    return [Error(sentence, hint=hint, id=VARIANT_UNUSABLE) for sentence in variants.problems()]


@register(TAG)
def check_api_classes(**_: Any) -> list[CheckMessage]:
    """The classes that say who may call the API can be imported."""
    settings_ = [SETTINGS[key] for key in ("AUTHENTICATION_CLASSES", "PERMISSION_CLASSES")]
    return [
        message
        for setting in settings_
        if not _problem(setting.attribute)
        for path in setting.value(conf)
        for message in _class_messages(setting.spelling, path)
    ]


def _class_messages(spelling: str, path: str) -> Iterator[CheckMessage]:
    hint = "Give the dotted path of a class, or remove the setting to use the default."
    try:
        found = import_string(path)
    except (ImportError, ValueError) as err:
        yield Error(f"{spelling}: {path!r} cannot be imported: {err}.", hint=hint, id=UNUSABLE_VALUE)
    else:
        if not callable(found):
            yield Error(f"{spelling}: {path!r} is not a class.", hint=hint, id=UNUSABLE_VALUE)


@register(TAG)
def check_queue(**_: Any) -> list[CheckMessage]:
    """Check that the queue can be imported."""
    if _problem("queue") or not conf.queue:
        return []
    path = conf.queue
    needs = _QUEUES_NEED.get(path, "Correct the dotted path, or install what it imports.")
    hint = f'{needs} Or remove IMAGES["QUEUE"] to do without a queue.'
    try:
        enqueue = import_string(path)
    except Exception as err:  # noqa: BLE001  (the module is the host's, and Django's tasks have errors of their own)
        return [Error(f'IMAGES["QUEUE"]: {path!r} cannot be imported: {err}.', hint=hint, id=QUEUE_BROKEN)]
    if callable(enqueue):
        return []
    return [Error(f'IMAGES["QUEUE"]: {path!r} is not a function.', hint=hint, id=QUEUE_BROKEN)]


@register(TAG)
def check_storage(**_: Any) -> list[CheckMessage]:
    """Check that the storage exists and, if it is a local folder, that files can be written there."""
    if _problem("storage"):
        return []
    alias = conf.storage
    if alias not in storages.backends:
        near = _nearest(alias, storages.backends)
        hint = f'Did you mean "{near}"? ' if near else ""
        hint += (
            f'Add "{alias}" to STORAGES, or set IMAGES["STORAGE"] to one of: {", ".join(sorted(storages.backends))}.'
        )
        return [Error(f'IMAGES["STORAGE"] names {alias!r}, which is not in STORAGES.', hint=hint, id=STORAGE_BROKEN)]
    try:
        storage = image_storage()
    except ImproperlyConfigured as err:
        hint = f'Correct STORAGES["{alias}"]["BACKEND"].'
        return [Error(f'The image storage STORAGES["{alias}"] cannot be used: {err}', hint=hint, id=STORAGE_BROKEN)]
    return _folder_messages(storage)


def _folder_messages(storage: Storage) -> list[CheckMessage]:
    if not isinstance(storage, FileSystemStorage):
        return []
    hint = "Create the folder and let this user write there, or set MEDIA_ROOT to another folder."
    if not storage.base_location:
        problem = "MEDIA_ROOT is not set: images would be written into the folder in which the process was started."
        return [Warning(problem, hint="Set MEDIA_ROOT to a folder.", id=MEDIA_ROOT_UNWRITABLE)]
    problem = unwritable_reason(os.fspath(storage.location))
    if not problem:
        return []
    sentence = f"Images cannot be written into {storage.location} (MEDIA_ROOT): {problem}."
    return [Warning(sentence, hint=hint, id=MEDIA_ROOT_UNWRITABLE)]


@register(TAG)
def check_public_url(**_: Any) -> list[CheckMessage]:
    """Check that images have a usable public address in production."""
    if _problem("public_url"):
        return []
    hint = "For example: PUBLIC_URL=https://images.example.com"
    if not conf.public_url:
        missing = "is a path, not an address, and is ignored" if _public_url_is_set() else "is not set"
        problem = f"PUBLIC_URL {missing}: addresses of images are built from the host name in each request."
        return [] if settings.DEBUG else [Warning(problem, hint=hint, id=PUBLIC_URL_MISSING)]
    if _is_web_address(conf.public_url):
        return []
    return [Error("PUBLIC_URL is not an http or https address with a host.", hint=hint, id=PUBLIC_URL_UNUSABLE)]


def _public_url_is_set() -> bool:
    host = getattr(settings, "IMAGES", None)
    configured = host.get("PUBLIC_URL") if isinstance(host, Mapping) else None
    return bool(str(configured or os.environ.get("PUBLIC_URL", "")).strip("/ "))


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _port = parts.port  # raises if it is not a number
    except ValueError:
        return False
    # A scheme in place of a host: `conf` has put https:// before something like "http:/example.com".
    host_is_fine = bool(parts.hostname) and parts.hostname not in {"http", "https"}
    extras = parts.query or parts.fragment or parts.username or re.search(r"\s", url)
    return parts.scheme in {"http", "https"} and host_is_fine and not extras


@register(TAG)
def check_urls(**_: Any) -> list[CheckMessage]:
    """Check that the app's URLs are included, not hidden by other routes, and independent of the language."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return []
    try:
        routed = {name: arguments for name, arguments in _URLS.items() if _is_routed(name)}
        if _MEDIA in routed:
            return [message for name, arguments in routed.items() for message in _url_messages(name, arguments)]
    except ImproperlyConfigured:
        return []  # a setting that the URLconf reads is wrong, and check_values has said so
    problem = "The project's URLconf does not include the app's URLs: images have no address."
    hint = f'Add to urls.py: {_INCLUDE}, or without the API: path("", include("images.urls.media")).'
    return [Warning(problem, hint=hint, id=URLS_MISSING)]


def _is_routed(name: str) -> bool:
    try:
        reverse(name, kwargs=_URLS[name])
    except NoReverseMatch:
        return False
    return True


def _url_messages(name: str, arguments: dict[str, str]) -> Iterator[CheckMessage]:
    other = next((code for code, _ in settings.LANGUAGES if code != settings.LANGUAGE_CODE), settings.LANGUAGE_CODE)
    with translation.override(settings.LANGUAGE_CODE):
        path, rival = reverse(name, kwargs=arguments), _rival(name, arguments)
    with translation.override(other):
        translated = reverse(name, kwargs=arguments)
    if rival:
        problem = f"{path} is answered by another route of the project ({rival})."
        yield Warning(problem, hint=f"Put {_INCLUDE} before that route in urls.py.", id=URL_SHADOWED)
    if translated != path:
        problem = f"The app's addresses depend on the language ({path}, {translated}): links to images would break."
        yield Warning(problem, hint=f"Move {_INCLUDE} out of i18n_patterns.", id=URL_DEPENDS_ON_LANGUAGE)


def _rival(name: str, arguments: dict[str, str]) -> str:
    """The view that answers in place of the app's, or ""."""
    path = reverse(name, kwargs=arguments)
    match = resolve(f"/{path.removeprefix(get_script_prefix()).lstrip('/')}")
    return "" if match.view_name == name or match.app_names[-1:] == ["images"] else match.view_name or match.route


@register(TAG)
def check_apps(**_: Any) -> list[CheckMessage]:
    """Check that the apps that the API needs are installed, if the project includes the API."""
    reasons = {"rest_framework": "the API cannot show its pages in a browser"} if _has_api() else {}
    if reasons and any(path.endswith(".ImagesTokenAuthentication") for path in conf.authentication_classes):
        reasons["rest_framework.authtoken"] = "no caller can use a token"
    return [
        Warning(
            f"{name} is not in INSTALLED_APPS: {reason}.",
            hint=f'Add "{name}" to INSTALLED_APPS, and run: python manage.py migrate',
            id=APP_MISSING,
        )
        for name, reason in reasons.items()
        if not apps.is_installed(name)
    ]


def _has_api() -> bool:
    if not getattr(settings, "ROOT_URLCONF", None) or _problem("authentication_classes"):
        return False
    with suppress(ImproperlyConfigured):
        return _is_routed(_API)
    return False


@register(TAG)
def check_cors(**_: Any) -> list[CheckMessage]:
    """Check that CORS does not let every web page call the API."""
    for name in ("CORS_ALLOW_ALL_ORIGINS", "CORS_ORIGIN_ALLOW_ALL"):
        if getattr(settings, name, False):
            hint = "Remove it and list the pages that may call in CORS_ALLOWED_ORIGINS (FRONTEND_URL)."
            return [Warning(f"{name} lets every web page call the API.", hint=hint, id=CORS_OPEN_TO_ALL)]
    return []


@register(TAG)
def check_trusted_networks(**_: Any) -> list[CheckMessage]:
    """Check that callers without credentials are limited to networks small enough to be internal."""
    networks = () if _problem("trusted_networks") else conf.trusted_networks
    hint = "List only the networks of internal callers, for example: IMAGE_TRUSTED_NETWORKS=10.1.0.0/16"
    sentence = "IMAGE_TRUSTED_NETWORKS lets every caller in {} make and delete images without credentials."
    return [
        Warning(sentence.format(network), hint=hint, id=TRUSTED_NETWORK_TOO_WIDE)
        for network in networks
        if _is_too_wide(network)
    ]


def _is_too_wide(network: Network) -> bool:
    # Checked first, since older Pythons call 0.0.0.0/0 private because both its ends are.
    if network.prefixlen < _WIDEST_PRIVATE[network.version]:
        return True
    return network.is_global and network.prefixlen < _WIDEST_PUBLIC[network.version]
