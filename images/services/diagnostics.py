"""The doctor: will this installation work, and what is to be done where it will not?

    from images.services.diagnostics import examine, exit_status

`manage.py images_doctor` shows what it finds.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from functools import partial
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import requests
from django.conf import settings
from django.core.checks import ERROR, CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.urls import NoReverseMatch, reverse
from django.views.debug import SafeExceptionReporterFilter

from .. import exceptions as failures
from .. import storage
from ..conf import conf
from ..exceptions import ImagesError, ProviderFailure, StorageError
from ..logs import log_event
from ..models import GeneratedImage, absolute_url, image_storage
from ..providers import Deadline, ImageProvider, get_provider
from ..providers.models import Deprecation, ModelStatus, utc_today
from ..storage import new_token
from .deletion import delete_image
from .generation import generate_image
from .queue import queue_problem, waiting

__all__ = ["Finding", "Level", "examine", "exit_status"]

#: A shutdown within so many days needs attention.
WARN_DAYS = 30


def examine(
    *,
    warn_days: int = WARN_DAYS,
    public_url: bool = False,
    generate: bool = False,
    today: date | None = None,
    progress: Callable[[str], None] = lambda section: None,
) -> Iterator[Finding]:
    """Look at everything that a generation needs. Providers are asked by calls that cost nothing.

    Args:
        warn_days: How many days ahead a model's shutdown needs attention.
        public_url: Fetch a probe file through `PUBLIC_URL`.
        generate: Make one real image, which costs what an image costs, and delete it again.
        today: The day to count from; today (UTC) by default.
        progress: Called with the name of each part before it is looked at.

    Returns:
        The findings, as they come. No exception, and no secret in any of them.
    """
    secrets = known_secrets()
    ask = partial(examine_providers, warn_days=warn_days, today=today or utc_today())
    parts: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        (CONFIGURATION, examine_configuration),
        (SECURITY, examine_security),
        (CORS, examine_cors),
        (CALLERS, examine_callers),
        (DATABASE, examine_database),
        (STORAGE, examine_storage),
        (QUEUE, examine_queue),
        (PUBLIC_URL, partial(examine_public_url, fetch=public_url)),
        (PROVIDERS, ask),
    ]
    if generate:
        parts.append((GENERATION, examine_generation))
    for section, look in parts:
        progress(section)
        for finding in guarded(section, look):
            yield without_secrets(finding, secrets)


# --- Findings -----------------------------------------------------------------------------------------------

logger = logging.getLogger("images.doctor")

#: The next step of a finding that is fine.
NOTHING_TO_DO = "Nothing to do."


class Level(StrEnum):
    """How bad a finding is. The values are stable: scripts read them."""

    FINE = "ok"
    ATTENTION = "attention"
    BROKEN = "broken"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: What it belongs to, for example `Storage`.
        level: How bad it is.
        sentence: What was found.
        next_step: What to do about it.
    """

    section: str
    level: Level
    sentence: str
    next_step: str


def fine(section: str, sentence: str) -> Finding:
    """Something works."""
    return Finding(section=section, level=Level.FINE, sentence=sentence, next_step=NOTHING_TO_DO)


def attention(section: str, sentence: str, next_step: str) -> Finding:
    """Something works and should be looked at soon."""
    return Finding(section=section, level=Level.ATTENTION, sentence=sentence, next_step=next_step)


def broken(section: str, sentence: str, next_step: str) -> Finding:
    """Something does not work."""
    return Finding(section=section, level=Level.BROKEN, sentence=sentence, next_step=next_step)


def exit_status(findings: Iterable[Finding]) -> int:
    """1 where something is broken, else 2 where something needs attention, else 0."""
    levels = {finding.level for finding in findings}
    return 1 if Level.BROKEN in levels else 2 if Level.ATTENTION in levels else 0


def guarded(section: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of `look`, and one more where it fails: the other examinations go on.

    Every exception counts, since storages, databases and providers of other people's making raise their own.
    """
    try:
        yield from look()
    except ImproperlyConfigured as err:
        yield broken(section, f"The configuration cannot be used: {err}", "Correct this setting, then look again.")
    except Exception as err:  # noqa: BLE001
        log_event(logger, logging.ERROR, "examination_failed", section=section, exc_info=err)
        sentence = f"It could not be examined ({type(err).__name__})."
        yield broken(section, sentence, "Look at the traceback in the log of this command (standard error).")


# --- Configuration ------------------------------------------------------------------------------------------

CONFIGURATION, CORS, CALLERS, SECURITY = "Configuration", "CORS", "Callers without credentials", "Security"

#: The ids of `images.checks` that another part of the examination looks at, and looks at more closely.
_MEDIA_ROOT, _PROVIDERS = {"images.W002"}, {"images.W001", "images.E003", "images.E011", "images.W013"}
PUBLIC_URL_IDS = {"images.W006", "images.E012"}
_CORS_IDS, _CALLER_IDS = {"images.W007"}, {"images.W008"}
_ELSEWHERE = _MEDIA_ROOT | _PROVIDERS | PUBLIC_URL_IDS | _CORS_IDS | _CALLER_IDS

_SESSION = ("Session cookies also travel over plain http.", "Set SESSION_COOKIE_SECURE = True.")
_HOSTS_STEP = "Set ALLOWED_HOSTS to the names under which this server is called."
#: Django's checks for deployment that matter here, in our words, and what to do about each.
_SECURITY_CHECKS = {
    "security.W009": (
        "SECRET_KEY is short, or easy to guess: sessions can be forged.",
        "Make a new one: python3 -c 'import secrets; print(secrets.token_urlsafe(50))'",
    ),
    "security.W018": (
        "DEBUG is on: an error page shows settings and source code to anybody.",
        "Unset DEBUG, unless this is a machine that only you can reach.",
    ),
    "security.W020": ("ALLOWED_HOSTS is empty: the server refuses every request.", _HOSTS_STEP),
}
#: The same, where PUBLIC_URL is https.
_COOKIE_CHECKS = {
    "security.W010": _SESSION,
    "security.W011": _SESSION,
    "security.W012": _SESSION,
    "security.W016": ("CSRF cookies also travel over plain http.", "Set CSRF_COOKIE_SECURE = True."),
}
_CORS_MIDDLEWARE = "corsheaders.middleware.CorsMiddleware"
#: What the API reads beyond the headers that browsers may send anyway.
_OWN_HEADERS = {"idempotency-key", "prefer"}


def from_checks(section: str, *, ids: Collection[str] = (), but: Collection[str] = ()) -> Iterator[Finding]:
    """What the app's system checks say: those of `ids`, or all that are not of `but`."""
    for message in run_checks(tags=["images"]):
        wanted = message.id in ids if ids else message.id not in but
        if wanted and not message.is_silenced():
            yield _finding(section, message)


def _finding(section: str, message: CheckMessage) -> Finding:
    make = broken if message.level >= ERROR else attention
    return make(section, message.msg, message.hint or f"Look up {message.id} in the documentation.")


def examine_configuration() -> Iterator[Finding]:
    """Whether every setting can be used."""
    found = list(from_checks(CONFIGURATION, but=_ELSEWHERE))
    yield from found or [fine(CONFIGURATION, "Every setting has a name that is known and a value that can be used.")]


def examine_security() -> Iterator[Finding]:
    """DEBUG, SECRET_KEY, ALLOWED_HOSTS and cookies, as Django's own checks for deployment see them."""
    known = _SECURITY_CHECKS | (_COOKIE_CHECKS if _is_https() else {})
    found = [
        attention(SECURITY, *known[message.id])
        for message in run_checks(tags=["security"], include_deployment_checks=True)
        if message.id in known and not message.is_silenced()
    ]
    if "*" in settings.ALLOWED_HOSTS:
        sentence = "ALLOWED_HOSTS holds '*': a caller can make this server build addresses with any host."
        found.append(attention(SECURITY, sentence, _HOSTS_STEP))
    yield from found or [
        fine(SECURITY, "There is nothing to object to in DEBUG, SECRET_KEY, ALLOWED_HOSTS and cookies.")
    ]


def _is_https() -> bool:
    try:
        return conf.public_url.startswith("https:")
    except ImproperlyConfigured:  # reported under the public address
        return False


def examine_cors() -> Iterator[Finding]:
    """Which pages of other origins may call the API, and whether they can."""
    found = list(from_checks(CORS, ids=_CORS_IDS))
    origins = [*getattr(settings, "CORS_ALLOWED_ORIGINS", ()), *getattr(settings, "CORS_ALLOWED_ORIGIN_REGEXES", ())]
    told = "No page of another origin may call the API; FRONTEND_URL (CORS_ALLOWED_ORIGINS) names those that may."
    if origins or found:
        told = f"Pages of {', '.join(map(str, origins))} may call the API."
        found += _cors_obstacles()
    yield from found or [fine(CORS, told)]


def _cors_obstacles() -> Iterator[Finding]:
    note = partial(attention, CORS)
    if _CORS_MIDDLEWARE not in settings.MIDDLEWARE:
        yield note(
            "Origins are allowed, but nothing tells browsers so.", f'Put "{_CORS_MIDDLEWARE}" into MIDDLEWARE.'
        )
    headers = {str(name).lower() for name in getattr(settings, "CORS_ALLOW_HEADERS", ())}
    if missing := sorted(_OWN_HEADERS - headers):
        names = ", ".join(missing)
        yield note(f"Pages of other origins cannot send {names}.", f"Add to CORS_ALLOW_HEADERS: {names}.")


def examine_callers() -> Iterator[Finding]:
    """Who is let in without a token or a session."""
    found = list(from_checks(CALLERS, ids=_CALLER_IDS))
    networks = ", ".join(map(str, conf.trusted_networks))
    if found:
        yield from found
    elif networks:
        yield fine(CALLERS, f"Callers from {networks} make and delete images without credentials.")
    else:
        yield fine(CALLERS, "Nobody is let in without credentials (IMAGE_TRUSTED_NETWORKS is empty).")


# --- Database and storage -----------------------------------------------------------------------------------

DATABASE, STORAGE = "Database", "Storage"

#: Seconds to wait for a database that does not answer.
_DATABASE_TIMEOUT = 5
#: The most pending migrations that are named.
_NAMED = 5

_STORAGE_STEP = (
    "Let this user write, read and delete under STORAGE_ROOT (MEDIA_ROOT), mount its disk, or make room; the log of "
    "this command says which of them failed."
)


def examine_database() -> Iterator[Finding]:
    """Whether the database answers, and whether every migration is applied.

    A connection of its own is used: a pool would try for longer than anybody waits at a terminal.
    """
    alias = router.db_for_write(GeneratedImage)
    probe = connections[alias].copy()
    _leave_the_pool(probe)
    try:
        executor = MigrationExecutor(probe)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as err:
        reason = next(iter(str(err).strip().splitlines()), "") or type(err).__name__
        step = f"Start the database, or correct DATABASE_URL (DATABASES[{alias!r}])."
        yield broken(DATABASE, f"{probe.display_name} cannot be used: {reason}", step)
        return
    finally:
        probe.close()
    if plan:
        names = [f"{migration.app_label}.{migration.name}" for migration, _ in plan]
        rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        sentence = f"Migrations that are not applied ({len(names)}): {', '.join(names[:_NAMED])}{rest}."
        yield broken(DATABASE, sentence, "Run: python manage.py migrate")
    else:
        yield fine(DATABASE, f"{probe.display_name} answers, and every migration is applied.")


def _leave_the_pool(probe: BaseDatabaseWrapper) -> None:
    options = probe.settings_dict["OPTIONS"]  # a copy's settings are its own
    options.pop("pool", None)
    if probe.vendor == "postgresql":
        options["connect_timeout"] = _DATABASE_TIMEOUT


def examine_storage() -> Iterator[Finding]:
    """Write a probe file, read it back and delete it."""
    if problem := storage.storage_problem():
        yield broken(STORAGE, problem, _STORAGE_STEP)
        return
    try:
        with probe_file() as probe, image_storage().open(probe.name, "rb") as file:
            same = file.read() == probe.data
    except StorageError as err:
        yield broken(STORAGE, err.message, _STORAGE_STEP)
        return
    if not same:
        yield broken(STORAGE, "A probe file came back with other bytes than were written.", _STORAGE_STEP)
    elif image_storage().exists(probe.name):
        yield broken(STORAGE, "A probe file is still there after it was deleted.", _STORAGE_STEP)
    else:
        yield fine(STORAGE, "A probe file was written, read back and deleted.")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A small picture in the storage: its name there, and its bytes."""

    name: str
    data: bytes = field(repr=False)


@contextmanager
def probe_file() -> Iterator[Probe]:
    """Keep a probe, a whole PNG that no cache has seen, in the storage for as long as the block runs.

    Raises:
        StorageError: It could not be written, or not be removed.
    """
    token = storage.new_token()
    data = _png(token.encode())
    name = storage.save(f"{storage.ROOT}/images-doctor/probe-{token}", "png", data)
    try:
        yield Probe(name=name, data=data)
    finally:
        storage.remove(name)


def _png(mark: bytes) -> bytes:
    """A PNG of one pixel that holds `mark` as a comment."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header, pixel = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0), zlib.compress(b"\0\xff\xff\xff")
    parts = [(b"IHDR", header), (b"tEXt", b"Comment\0" + mark), (b"IDAT", pixel), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


# --- The queue ----------------------------------------------------------------------------------------------

QUEUE = "Queue"

_BROKER_STEP = "Start the broker, or correct CELERY_BROKER_URL."
_WORKER_STEP = "Start a worker: make worker (celery -A YOUR_PROJECT worker)."


def examine_queue() -> Iterator[Finding]:
    """Ask the broker for its workers, and the database for what waits. Nothing where no queue is configured."""
    if not conf.queue:
        return
    module = import_module(conf.queue.rpartition(".")[0])
    count_workers = getattr(module, "count_workers", None)  # a queue of somebody else's making need not have it
    workers = count_workers() if count_workers else None
    if count_workers and workers is None:
        yield broken(QUEUE, "The queue's broker does not answer.", _BROKER_STEP)
    elif workers == 0:
        yield broken(QUEUE, "The queue's broker answers, but no worker does.", _WORKER_STEP)
    elif workers:
        yield fine(QUEUE, f"The queue's broker answers, and so do its workers ({workers}).")
    oldest = waiting().values_list("created_at", flat=True).first()
    if problem := queue_problem(oldest):
        yield attention(QUEUE, problem, _WORKER_STEP)
    else:
        yield fine(QUEUE, "No request has been waiting for long.")


# --- The public address -------------------------------------------------------------------------------------

PUBLIC_URL = "Public address"

#: Seconds to connect, and between two pieces of the answer.
_FETCH_TIMEOUT = (5, 10)

_ADDRESS_STEPS = {
    400: "Put the host of PUBLIC_URL into ALLOWED_HOSTS.",
    401: "Let /media/ through without credentials: <img src> cannot send any.",
    403: "Let /media/ through without credentials: <img src> cannot send any.",
    404: "Start the server with the same STORAGE_ROOT as this command, and forward /media/ to it.",
}
_OTHER_ADDRESS_STEP = "Look at the logs of the server and of whatever stands in front of it."
_REACH_STEP = (
    "Start the server, and look at PUBLIC_URL, its DNS entry, certificate and proxy. Where this machine alone cannot "
    "reach its own public address, run the command from a machine that can."
)


def examine_public_url(*, fetch: bool) -> Iterator[Finding]:
    """What `PUBLIC_URL` is set to; with `fetch`, whether a probe file can be fetched through it."""
    found = list(from_checks(PUBLIC_URL, ids=PUBLIC_URL_IDS))
    yield from found
    base = conf.public_url
    try:
        reverse("images:media", kwargs={"path": "probe"})
    except NoReverseMatch:
        step = 'Add to the project\'s urls.py: path("", include("images.urls"))'
        yield broken(PUBLIC_URL, "The app's addresses are not plugged into the project.", step)
        return
    if fetch and base:
        yield from _fetch_probe(base)
    elif fetch:
        step = "Set PUBLIC_URL, for example PUBLIC_URL=https://images.example.com"
        yield broken(PUBLIC_URL, "Nothing can be fetched, because PUBLIC_URL is not set.", step)
    elif not found:
        told = (
            f"It is {base}; --public-url fetches a probe file through it."
            if base
            else "The request's own host is used."
        )
        yield fine(PUBLIC_URL, told)


def _fetch_probe(base: str) -> Iterator[Finding]:
    try:
        with probe_file() as probe:
            url = absolute_url(reverse("images:media", kwargs={"path": probe.name.partition("/")[2]}))
            answer = _get(url, len(probe.data))
            problem = _answer_problem(answer, probe.data)
        if problem:
            yield broken(PUBLIC_URL, *problem)
        elif _get(url, 0).status == requests.codes.ok:
            sentence = (
                f"{base} still serves a probe file that was deleted: something in front of the server caches it."
            )
            yield attention(PUBLIC_URL, sentence, "Let the proxy or CDN respect Cache-Control: no-cache for /media/.")
        else:
            yield fine(PUBLIC_URL, f"A probe file was fetched through {base}, and is gone from there again.")
    except StorageError as err:
        yield broken(PUBLIC_URL, f"There is no probe file to fetch: {err.message}", "See what is said about Storage.")
    except requests.RequestException as err:
        yield broken(PUBLIC_URL, f"{base} could not be reached ({type(err).__name__}).", _REACH_STEP)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int
    content_type: str
    location: str
    body: bytes


def _get(url: str, length: int) -> _Answer:
    """Fetch up to one byte more than `length`, following no redirect: callers are given this very address."""
    with requests.get(url, timeout=_FETCH_TIMEOUT, allow_redirects=False, stream=True) as response:
        body = b""
        for piece in response.iter_content(64 * 1024):
            body += piece
            if len(body) > length:
                break
        headers = response.headers
        kind = headers.get("Content-Type", "").partition(";")[0].strip()
        return _Answer(
            status=response.status_code, content_type=kind, location=headers.get("Location", ""), body=body
        )


def _answer_problem(answer: _Answer, data: bytes) -> tuple[str, str] | None:
    """What is wrong with the answer, and the next step; `None` where it is right."""
    if 300 <= answer.status < 400:
        target = urlsplit(answer.location)
        where = f"{target.scheme}://{target.netloc}" if target.netloc else "another path"
        step = "Set PUBLIC_URL to the address that answers by itself: every picture would cost a redirect."
        return f"The public address redirects to {where}.", step
    if answer.status != requests.codes.ok:
        return f"The public address answered {answer.status}.", _ADDRESS_STEPS.get(answer.status, _OTHER_ADDRESS_STEP)
    if answer.body != data:
        return "The public address answered with other bytes than the storage holds.", _ADDRESS_STEPS[404]
    if answer.content_type != "image/png":
        step = "Let the server of /media/ send the types of image files (nginx: include mime.types)."
        return f"A PNG is served as {answer.content_type or 'no type'!r}.", step
    return None


# --- The providers ------------------------------------------------------------------------------------------

PROVIDERS = "Providers"

#: Seconds for each question to a provider.
PATIENCE = 10.0

_PROVIDER_STEPS: dict[type[ProviderFailure], str] = {
    failures.ProviderAuth: "Put a key that is valid, and may use the image models, into the setting that is named.",
    failures.ProviderQuotaExhausted: "Raise the account's budget, or use another key.",
    failures.ProviderUnreachable: "Look at the network, at HTTPS_PROXY and at the provider's base URL.",
    failures.ProviderTimeout: "Look at the network and at the provider's status page, then ask again.",
    failures.ProviderBadResponse: "Look at the provider's base URL: what answers there does not speak its API.",
    failures.ProviderNotConfigured: "Set what is named in the environment or in IMAGES.",
}
_OTHER_PROVIDER_STEP = "Look at the provider's status page, then ask again."
_PASSING = (failures.ProviderOverloaded, failures.ProviderRateLimited)


def examine_providers(*, warn_days: int, today: date) -> Iterator[Finding]:
    """Ask each provider of the chain.

    Args:
        warn_days: A shutdown within so many days needs attention.
        today: The day to count from.
    """
    known = conf.provider_backends
    for alias in conf.providers:
        if alias in known:
            yield from guarded(PROVIDERS, partial(_examine, alias, warn_days, today))
        else:
            step = f"Set IMAGE_PROVIDER to one or more of: {', '.join(sorted(known))}."
            yield broken(PROVIDERS, f"{alias}: there is no provider of this name.", step)


def _examine(alias: str, warn_days: int, today: date) -> Iterator[Finding]:
    provider = get_provider(alias)
    missing = provider.check()
    for sentence in missing:
        step = f"Set it right in the environment or in IMAGES, or take {alias} out of IMAGE_PROVIDER."
        yield broken(PROVIDERS, f"{alias}: {sentence}", step)
    if missing:
        yield from _by_deprecation(alias, provider, today)
        return
    try:
        status = provider.look_up_model(Deadline.after(PATIENCE))
    except ProviderFailure as err:
        yield _failed(alias, provider, err)
        if not isinstance(err, failures.ProviderModelUnavailable):  # which has said what is known
            yield from _by_deprecation(alias, provider, today)
        return
    if status is None:
        told = "nothing is missing. It cannot be asked without painting; --generate does."
        yield from list(_by_deprecation(alias, provider, today)) or [
            fine(PROVIDERS, f"{_alias_and_model(alias, provider)}: {told}")
        ]
    else:
        yield _answered(alias, provider, status, warn_days, today)


def _alias_and_model(alias: str, provider: ImageProvider) -> str:
    return f"{alias}: {provider.model}" if provider.model else alias


def _by_deprecation(alias: str, provider: ImageProvider, today: date) -> Iterator[Finding]:
    """What is known without asking, for a provider that cannot be asked."""
    if deprecation := provider.deprecation():
        make = broken if deprecation.is_over(today) else attention
        sentence = f"{alias}: {deprecation.sentence(provider.model, today)}"
        yield make(PROVIDERS, sentence, deprecation.advice(provider.model_setting))


def _failed(alias: str, provider: ImageProvider, err: ProviderFailure) -> Finding:
    make = attention if isinstance(err, _PASSING) else broken
    if isinstance(err, failures.ProviderModelUnavailable):
        step = _other_model(provider)
    else:
        step = next((step for kind, step in _PROVIDER_STEPS.items() if isinstance(err, kind)), _OTHER_PROVIDER_STEP)
    return make(PROVIDERS, f"{alias}: {err.message} ({err.code})", step)


def _other_model(provider: ImageProvider) -> str:
    """What to set instead: the vendor's own replacement, as far as it is known, and what the key has."""
    setting, deprecation = provider.model_setting, provider.deprecation()
    advice = deprecation.advice(setting) if deprecation else f"Set {setting} to another model; its price may differ."
    try:
        names = [name for name in provider.model_names(Deadline.after(PATIENCE)) if name != provider.model]
    except ProviderFailure:
        return advice  # the answer before this one is the finding; without a list there is still advice
    return f"{advice} This key has: {', '.join(names)}." if names else advice


def _answered(alias: str, provider: ImageProvider, status: ModelStatus, warn_days: int, today: date) -> Finding:
    deprecation, what = provider.deprecation(), _alias_and_model(alias, provider)
    if status.shutdown:
        return _dated(what, provider, status.shutdown, deprecation, warn_days, today)
    if deprecation:
        return _by_hearsay(what, provider, deprecation, warn_days, today)
    if status.doubt:
        return attention(PROVIDERS, f"{what}: {status.doubt}", "Run it with --generate, which makes one real image.")
    return fine(PROVIDERS, f"{what}: the key is accepted and has this model, whose end has not been announced.")


def _dated(
    what: str, provider: ImageProvider, end: date, deprecation: Deprecation | None, warn_days: int, today: date
) -> Finding:
    """The vendor itself has named the day."""
    days = (end - today).days
    if days > warn_days:
        return fine(PROVIDERS, f"{what}: the key is accepted and has this model until {end} ({days} days).")
    step = deprecation.advice(provider.model_setting) if deprecation else _other_model(provider)
    if days > 0:
        return attention(PROVIDERS, f"{what}: the provider will shut this model down on {end}, in {days} days.", step)
    return broken(PROVIDERS, f"{what}: the provider has shut this model down on {end}.", step)


def _by_hearsay(what: str, provider: ImageProvider, deprecation: Deprecation, warn_days: int, today: date) -> Finding:
    """The vendor has the model and says nothing of its end, but our own list does."""
    sentence = f"{what}: the key is accepted, but {deprecation.sentence(provider.model, today)}"
    if deprecation.shutdown and (deprecation.shutdown - today).days > warn_days:
        return fine(PROVIDERS, sentence)
    return attention(PROVIDERS, sentence, deprecation.advice(provider.model_setting))


# --- One real image -----------------------------------------------------------------------------------------

GENERATION = "Generation"

_TITLE = "A quiet harbour at dawn"


def examine_generation() -> Iterator[Finding]:
    """Make an image through the whole chain. Its row and its file go again, whatever happens."""
    item = f"images-doctor-{new_token()}"
    found: list[Finding] = []
    try:
        found.append(_generate(item))
    finally:
        found += _clean_up(item)
    yield from found


def _generate(item: str) -> Finding:
    try:
        image = generate_image(content_item_id=item, title=_TITLE)
    except ImagesError as err:
        step = "See what is said about the providers and the storage; the log of this command says more."
        return broken(GENERATION, f"No image could be made: {err.message} ({err.code})", step)
    who = f"{image.provider} ({image.model})" if image.model else image.provider
    made = f"{who} made an image of {image.width}x{image.height} in {(image.duration_ms or 0) / 1000:.1f} s"
    failed = [attempt for attempt in image.attempts if attempt["code"] != "ok"]
    if failed:
        told = ", ".join(f"{attempt['provider']}: {attempt['code']}" for attempt in failed)
        return attention(
            GENERATION, f"{made}, after others had failed ({told}).", "See what is said about providers."
        )
    return fine(GENERATION, f"{made}; it has been deleted again.")


def _clean_up(item: str) -> Iterator[Finding]:
    for image in GeneratedImage.objects.filter(content_item_id=item):
        try:
            delete_image(image=image)
        except ImagesError as err:
            step = "Delete it in the admin, or run: python manage.py reconcile_images --apply"
            yield broken(GENERATION, f"The image {image.pk} could not be deleted again: {err.message}", step)


# --- Secrets ------------------------------------------------------------------------------------------------

#: Shorter values are words that would make holes into sentences rather than secrets.
_SHORTEST = 6
_HIDDEN = SafeExceptionReporterFilter.hidden_settings
_MASK = "[secret]"


def without_secrets(finding: Finding, secrets: tuple[str, ...]) -> Finding:
    """The finding with every secret in it blotted out."""
    sentence, next_step = finding.sentence, finding.next_step
    for secret in secrets:
        sentence, next_step = sentence.replace(secret, _MASK), next_step.replace(secret, _MASK)
    return replace(finding, sentence=sentence, next_step=next_step)


def known_secrets() -> tuple[str, ...]:
    """Every value of the settings and the environment that is called a key, a token, a password or the like.

    The longest come first, so that one which holds another is blotted out as a whole.
    """
    found = {value for value in _candidates() if len(value) >= _SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))


def _candidates() -> Iterator[str]:
    yield from _hidden_values(os.environ)
    yield from (str(key) for key in [settings.SECRET_KEY, *getattr(settings, "SECRET_KEY_FALLBACKS", [])])
    for part in (settings.DATABASES, settings.STORAGES, getattr(settings, "IMAGES", None)):
        yield from _hidden_values(part)
    try:
        backends = conf.provider_backends
    except ImproperlyConfigured:  # reported as such; what it holds has been read above
        return
    for backend in backends.values():
        yield from _hidden_values(backend.options)


def _hidden_values(values: Any) -> Iterator[str]:
    """The texts in nested dictionaries whose names say that they are secret."""
    if not isinstance(values, Mapping):
        return
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _hidden_values(value)
        elif isinstance(value, str) and _HIDDEN.search(str(name)):
            yield value.strip()
