"""The doctor: will this installation work, and if not, what has to be done?

    from images.services.diagnostics import examine, exit_status

`manage.py images_doctor` prints the findings. It runs the probes (`probes.py`), asks the providers
(`provider_status.py`), and examines the configuration, the public address and, on request, one real image.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests
from django.conf import settings
from django.core.checks import ERROR, CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.urls import NoReverseMatch, reverse
from django.views.debug import SafeExceptionReporterFilter

from .. import storage
from ..conf import conf
from ..exceptions import ImagesError, StorageError
from ..file_names import ROOT, new_token
from ..models import GeneratedImage, Status, absolute_url
from ..providers.models import utc_today
from . import budgets
from .database import rows
from .deletion import delete_image
from .generation import generate_image
from .probes import (
    BUDGET_STEP,
    BUDGETS,
    DATABASE,
    PROVIDERS,
    QUEUE,
    STORAGE,
    STORAGE_STEP,
    WORKER_STEP,
    Finding,
    Level,
    attention,
    broken,
    fine,
    guarded,
    probe_migrations,
    probe_queue,
    probe_storage,
)
from .provider_status import PRICES, examine_prices, examine_providers
from .queue import feature
from .scenes import is_of_scene

__all__ = ["Finding", "Level", "examine", "exit_status"]

#: A model's shutdown within this many days needs attention.
WARN_DAYS = 30


def examine(
    *,
    warn_days: int = WARN_DAYS,
    public_url: bool = False,
    generate: bool = False,
    today: date | None = None,
    progress: Callable[[str], None] = lambda section: None,
) -> Iterator[Finding]:
    """Examine everything that a generation needs. Asking the providers costs nothing.

    Args:
        warn_days: How many days ahead a model's shutdown needs attention.
        public_url: Fetch a probe file through `PUBLIC_URL`.
        generate: Make one real image, at its price, and delete it again.
        today: The day to count from; today (UTC) by default.
        progress: Called with the name of each part before it is examined.

    Returns:
        The findings, one by one, without secrets. A part that cannot be examined is a finding, too.
    """
    secrets = known_secrets()
    ask = partial(examine_providers, warn_days=warn_days, today=today or utc_today())
    parts: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        (CONFIGURATION, examine_configuration),
        (SECURITY, examine_security),
        (CORS, examine_cors),
        (CALLERS, examine_callers),
        (DATABASE, lambda: [probe_migrations()]),
        (STORAGE, examine_storage),
        (QUEUE, examine_queue),
        (PUBLIC_URL, partial(examine_public_url, fetch=public_url)),
        (PROVIDERS, ask),
        (PRICES, partial(examine_prices, today=today or utc_today())),
        (BUDGETS, examine_budgets),
    ]
    if generate:
        parts.append((GENERATION, examine_generation))
    for section, look in parts:
        progress(section)
        for finding in guarded(section, look):
            yield without_secrets(finding, secrets)


def exit_status(findings: Iterable[Finding]) -> int:
    """1 if something is broken, otherwise 2 if something needs attention, otherwise 0."""
    levels = {finding.level for finding in findings}
    return 1 if Level.BROKEN in levels else 2 if Level.ATTENTION in levels else 0


# --- Configuration ------------------------------------------------------------------------------------------

CONFIGURATION, CORS, CALLERS, SECURITY = "Configuration", "CORS", "Callers without credentials", "Security"

#: The ids of `images.checks` that belong to other sections, which look more closely.
_MEDIA_ROOT, _PROVIDERS = {"images.W002"}, {"images.W001", "images.E003", "images.E011", "images.W013", "images.W015"}
PUBLIC_URL_IDS = {"images.W006", "images.E012", "images.W017", "images.W018"}
_CORS_IDS, _CALLER_IDS = {"images.W007"}, {"images.W008"}
_URLS_MISSING, _PRICES = {"images.W016"}, {"images.W021", "images.W022"}
_BUDGETS = {"images.E026"}
_ELSEWHERE = _BUDGETS | _URLS_MISSING | _MEDIA_ROOT | _PROVIDERS | _PRICES | PUBLIC_URL_IDS | _CORS_IDS | _CALLER_IDS

_SESSION = ("Session cookies also travel over plain http.", "Set SESSION_COOKIE_SECURE = True.")
_NO_HOSTS = "ALLOWED_HOSTS is empty: the server refuses every request."
_HOSTS_STEP = "Set ALLOWED_HOSTS to the host names that this server answers to."
#: Django's deployment checks that matter here: what is wrong, and what to do about it.
_SECURITY_CHECKS = {
    "security.W009": (
        "SECRET_KEY is short or easy to guess: sessions can be forged.",
        "Make a new one: python3 -c 'import secrets; print(secrets.token_urlsafe(50))'",
    ),
    "security.W018": (
        "DEBUG is on: error pages show settings and source code to every visitor.",
        "Unset DEBUG, unless this is a machine that only you can reach.",
    ),
    "security.W020": (_NO_HOSTS, _HOSTS_STEP),
}
#: Further ones, if PUBLIC_URL is https.
_COOKIE_CHECKS = {
    "security.W010": _SESSION,
    "security.W011": _SESSION,
    "security.W012": _SESSION,
    "security.W016": ("CSRF cookies also travel over plain http.", "Set CSRF_COOKIE_SECURE = True."),
}
_CORS_MIDDLEWARE = "corsheaders.middleware.CorsMiddleware"
#: The API's request headers that a browser sends to another origin only if CORS allows it.
_OWN_HEADERS = {"idempotency-key", "prefer"}


def from_checks(section: str, *, ids: Collection[str] = (), but: Collection[str] = ()) -> Iterator[Finding]:
    """Findings of the app's system checks: those with these `ids`, or all except those of `but`."""
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
    yield from found or [fine(CONFIGURATION, "Every setting is known and has a usable value.")]
    yield fine(CONFIGURATION, f"A day begins at midnight in {settings.TIME_ZONE} (TIME_ZONE).")


def examine_security() -> Iterator[Finding]:
    """DEBUG, SECRET_KEY, ALLOWED_HOSTS and cookies, as Django's own deployment checks see them."""
    known = _SECURITY_CHECKS | (_COOKIE_CHECKS if _is_https() else {})
    found = [
        attention(SECURITY, *known[message.id])
        for message in run_checks(tags=["security"], include_deployment_checks=True)
        if message.id in known and not message.is_silenced()
    ]
    if settings.DEBUG:  # Django then lets localhost in
        found = [finding for finding in found if finding.sentence != _NO_HOSTS]
    if "*" in settings.ALLOWED_HOSTS:
        sentence = "ALLOWED_HOSTS contains '*': a caller can make this server build addresses with any host name."
        found.append(attention(SECURITY, sentence, _HOSTS_STEP))
    yield from found or [fine(SECURITY, "DEBUG, SECRET_KEY, ALLOWED_HOSTS and the cookie settings are safe.")]


def _is_https() -> bool:
    try:
        return conf.public_url.startswith("https:")
    except ImproperlyConfigured:  # reported under the public address
        return False


def examine_cors() -> Iterator[Finding]:
    """Which pages of other origins may call the API, and whether that works."""
    found = list(from_checks(CORS, ids=_CORS_IDS))
    origins = [*getattr(settings, "CORS_ALLOWED_ORIGINS", ()), *getattr(settings, "CORS_ALLOWED_ORIGIN_REGEXES", ())]
    told = "No page of another origin may call the API. FRONTEND_URL (CORS_ALLOWED_ORIGINS) allows origins."
    if origins or found:
        told = f"Pages of {', '.join(map(str, origins))} may call the API."
        found += _cors_obstacles()
    yield from found or [fine(CORS, told)]


def _cors_obstacles() -> Iterator[Finding]:
    note = partial(attention, CORS)
    if _CORS_MIDDLEWARE not in settings.MIDDLEWARE:
        yield note(
            "Origins are allowed, but no response tells browsers so.", f'Put "{_CORS_MIDDLEWARE}" into MIDDLEWARE.'
        )
    headers = {str(name).lower() for name in getattr(settings, "CORS_ALLOW_HEADERS", ())}
    if missing := sorted(_OWN_HEADERS - headers):
        names = ", ".join(missing)
        yield note(f"Pages of other origins cannot send {names}.", f"Add to CORS_ALLOW_HEADERS: {names}.")


def examine_callers() -> Iterator[Finding]:
    """Which callers need no token and no session."""
    found = list(from_checks(CALLERS, ids=_CALLER_IDS))
    networks = ", ".join(map(str, conf.trusted_networks))
    if found:
        yield from found
    elif networks:
        yield fine(CALLERS, f"Callers from {networks} can make and delete images without credentials.")
    else:
        yield fine(CALLERS, "Every caller needs credentials (IMAGE_TRUSTED_NETWORKS is empty).")


# --- The storage --------------------------------------------------------------------------------------------


def examine_storage() -> Iterator[Finding]:
    """Write a probe file, read it back and delete it."""
    storage.look_again()
    quick = probe_storage()
    if quick.level != Level.FINE:
        yield quick
        return
    try:
        with probe_file() as probe:
            data = storage.read(probe.name)
        is_gone = storage.read(probe.name) is None
    except StorageError as err:
        yield broken(STORAGE, err.message, STORAGE_STEP)
        return
    if data is None:
        yield broken(STORAGE, _NOT_READABLE, STORAGE_STEP)
    elif data != probe.data:
        yield broken(STORAGE, "A probe file was read back with different bytes.", STORAGE_STEP)
    elif not is_gone:
        yield broken(STORAGE, "A probe file still exists after it was deleted.", STORAGE_STEP)
    else:
        yield fine(STORAGE, "A probe file was written, read back and deleted.")
    yield from _examine_listing()


def _examine_listing() -> Iterator[Finding]:
    """Whether `reconcile_images` can work: it lists the files."""
    try:
        storage.holds_files()
    except StorageError as err:
        sentence = f"{err.message} Until then reconcile_images cannot work."
        yield attention(STORAGE, sentence, STORAGE_STEP)


_NOT_READABLE = (
    f"A probe file cannot be read back: it is gone, or the bucket's policy does not allow s3:GetObject on {ROOT}/*."
)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A small picture in the storage: its name there, and its bytes."""

    name: str
    data: bytes = field(repr=False)


@contextmanager
def probe_file() -> Iterator[Probe]:
    """Keep a probe file, a whole PNG that no cache has seen, in the storage while the block runs.

    Raises:
        StorageError: It could not be written or removed.
    """
    token = new_token()
    data = _png(token.encode())
    name = storage.save(f"{ROOT}/images-doctor/probe-{token}", "png", data)
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

_BROKER_STEP = "Start the broker, or correct CELERY_BROKER_URL."
_BUSY_STEP = (
    "If they are not merely busy, let them work on this queue (CELERY_QUEUE, task_routes), with the same code."
)
_ROWS_STEP = (
    "Give workers and web servers the same DATABASE_URL; installations that share a broker need two CELERY_QUEUE."
)
_FILES_STEP = "Give workers and web servers the same bucket (S3_BUCKET), or mount the same folder (STORAGE_ROOT)."
#: Seconds that the workers have to answer, and the most that are asked.
_ANSWER_SECONDS, _MOST_ASKED = 10, 8


def examine_queue() -> Iterator[Finding]:
    """Ask the broker for its workers, the workers for what they see, and the database for what is waiting.

    There is no finding without a queue.
    """
    if not conf.queue:
        return
    count_workers, ask_workers = feature("count_workers"), feature("ask_workers")
    workers = count_workers() if count_workers else None
    if count_workers and workers is None:
        yield broken(QUEUE, "The queue's broker does not answer.", _BROKER_STEP)
    elif workers == 0:
        yield broken(QUEUE, "The queue's broker answers, but no worker does.", WORKER_STEP)
    elif workers:
        yield fine(QUEUE, f"The queue's broker answers, and so do its workers ({workers}).")
    if workers and ask_workers:
        yield from _ask_workers(ask_workers, min(workers, _MOST_ASKED))
    yield probe_queue()


def _ask_workers(ask: Callable[..., Iterable[Mapping[str, Any]]], count: int) -> Iterator[Finding]:
    """Send probe tasks through the queue, and report whether who takes them sees our rows and our files."""
    with probe_row() as (row, probe):
        question = {"row": str(row.pk), "file": probe.name, "sha256": hashlib.sha256(probe.data).hexdigest()}
        answers = list(ask(question, count=count, seconds=_ANSWER_SECONDS))
    if not answers:
        yield attention(QUEUE, f"No worker took a probe task within {_ANSWER_SECONDS} s.", _BUSY_STEP)
        return
    blind = [
        broken(QUEUE, f"A worker ({answer['worker']}) does not see the same {what}.", step)
        for answer in answers
        for what, seen, step in (("rows", "row", _ROWS_STEP), ("files", "file", _FILES_STEP))
        if not answer[seen]
    ]
    yield from blind or [fine(QUEUE, "A probe task went through the queue; its worker sees the same rows and files.")]


@contextmanager
def probe_row() -> Iterator[tuple[GeneratedImage, Probe]]:
    """Keep a row with a probe file while the block runs.

    It is one that is being deleted, so it is in no list, and reconciliation removes what a killed doctor leaves.

    Raises:
        StorageError: The file could not be written or removed.
    """
    with probe_file() as probe:
        stem = probe.name.rpartition(".")[0]
        row = GeneratedImage(
            content_item_id="images-doctor", title="A probe", status=Status.DELETING, file_stem=stem, file=probe.name
        )
        rows().bulk_create([row])
        try:
            yield row, probe
        finally:
            delete_image(image=row)


# --- Budgets ------------------------------------------------------------------------------------------------


def examine_budgets() -> Iterator[Finding]:
    """How much of each budget is used, and whether costs can be estimated. There is no finding without a budget."""
    yield from from_checks(BUDGETS, ids=_BUDGETS)
    for standing in budgets.standings():
        sentence = standing.sentence()
        yield attention(BUDGETS, sentence, BUDGET_STEP) if standing.is_low else fine(BUDGETS, sentence)
    for kind, limit in ((budgets.DAY, conf.user_budget_day), (budgets.MONTH, conf.user_budget_month)):
        if limit is not None:
            told = f"Each user may spend {budgets.dollars(limit)} a {kind} (IMAGE_USER_BUDGET_{kind.upper()})."
            yield fine(BUDGETS, told)


# --- The public address -------------------------------------------------------------------------------------

PUBLIC_URL = "Public address"

#: Seconds to connect, and to wait for each piece of the answer.
_FETCH_TIMEOUT = (5, 10)

_ADDRESS_STEPS = {
    400: "Put the host of PUBLIC_URL into ALLOWED_HOSTS.",
    401: "Let requests for /media/ through without credentials: <img src> cannot send any.",
    403: "Let requests for /media/ through without credentials: <img src> cannot send any.",
    404: "Start the server with the same MEDIA_ROOT as this command, and forward /media/ to it.",
}
_OTHER_ADDRESS_STEP = "Look at the logs of the server and of the proxy or CDN in front of it."
_REACH_STEP = (
    "Start the server, and look at PUBLIC_URL, its DNS entry, certificate and proxy. If only this machine cannot "
    "reach its own public address, run the command on a machine that can."
)


def examine_public_url(*, fetch: bool) -> Iterator[Finding]:
    """What `PUBLIC_URL` is set to, and with `fetch` whether a probe file can be fetched through it."""
    found = list(from_checks(PUBLIC_URL, ids=PUBLIC_URL_IDS))
    yield from found
    base = conf.public_url
    try:
        reverse("images:media", kwargs={"path": "probe"})
    except NoReverseMatch:
        step = 'Add to the project\'s urls.py: path("", include("images.urls"))'
        yield broken(PUBLIC_URL, "The project's URLconf does not include the app's URLs.", step)
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
            else "It is not set: addresses are built from the host name in each request."
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
            yield attention(
                PUBLIC_URL, sentence, "Make the proxy or CDN respect Cache-Control: no-cache for /media/."
            )
        else:
            yield fine(
                PUBLIC_URL, f"A probe file was fetched through {base}, and is no longer served after its deletion."
            )
    except StorageError as err:
        yield broken(
            PUBLIC_URL,
            f"No probe file could be stored, so none was fetched: {err.message}",
            "See the finding about Storage.",
        )
    except requests.RequestException as err:
        yield broken(PUBLIC_URL, f"{base} could not be reached ({type(err).__name__}).", _REACH_STEP)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int
    content_type: str
    location: str
    body: bytes


def _get(url: str, length: int) -> _Answer:
    """Fetch at most one byte more than `length`, without following redirects: callers get this very address."""
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
    """What is wrong with the response, and the next step; `None` if it is right."""
    if 300 <= answer.status < 400:
        target = urlsplit(answer.location)
        to = f"{target.scheme}://{target.netloc}" if target.netloc else "another path"
        step = "Set PUBLIC_URL to the address that answers directly; otherwise every picture costs a redirect."
        return f"The public address redirects to {to}.", step
    if answer.status != requests.codes.ok:
        return f"The public address answered {answer.status}.", _ADDRESS_STEPS.get(answer.status, _OTHER_ADDRESS_STEP)
    if answer.body != data:
        return "The public address answered with other bytes than those in the storage.", _ADDRESS_STEPS[404]
    if answer.content_type != "image/png":
        step = "Make the server of /media/ send the content types of images (in nginx: include mime.types)."
        return f"A PNG is served as {answer.content_type or 'no type'!r}.", step
    return None


# --- One real image -----------------------------------------------------------------------------------------

GENERATION = "Generation"

_TITLE = "A quiet harbour at dawn"


def examine_generation() -> Iterator[Finding]:
    """Generate an image as any caller does. Its row and its file are deleted again, whatever happens."""
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
        step = "See the findings about providers and storage; this command's log says more."
        return broken(GENERATION, f"No image could be made: {err.message} ({err.code})", step)
    maker = f"{image.provider} ({image.model})" if image.model else image.provider
    made = f"{maker} made an image of {image.width}x{image.height} in {(image.duration_ms or 0) / 1000:.1f} s"
    failed = [attempt for attempt in image.attempts if attempt["code"] != "ok" and not is_of_scene(attempt)]
    if failed:
        told = ", ".join(f"{attempt['provider']}: {attempt['code']}" for attempt in failed)
        return attention(
            GENERATION, f"{made}, after others had failed ({told}).", "See the findings about providers."
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

#: Shorter values may be ordinary words, which must not be masked in sentences.
_SHORTEST = 6
_HIDDEN = SafeExceptionReporterFilter.hidden_settings
_MASK = "[secret]"


def without_secrets(finding: Finding, secrets: tuple[str, ...]) -> Finding:
    """The finding with every secret in it masked."""
    sentence, next_step = finding.sentence, finding.next_step
    for secret in secrets:
        sentence, next_step = sentence.replace(secret, _MASK), next_step.replace(secret, _MASK)
    return replace(finding, sentence=sentence, next_step=next_step)


def known_secrets() -> tuple[str, ...]:
    """Every value of the settings and the environment whose name says key, token, password or the like.

    The longest come first, so that a value that contains another is masked as a whole.
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
    except ImproperlyConfigured:  # a finding of its own; the values in it have been read above
        return
    for backend in backends.values():
        yield from _hidden_values(backend.options)
        for name in ("default_headers", "default_query"):  # whatever their names, they may let a caller in
            sent = backend.options.get(name)
            for value in map(str, sent.values()) if isinstance(sent, Mapping) else ():
                yield from (value, value.rpartition(" ")[2])


def _hidden_values(values: Any) -> Iterator[str]:
    """The strings in nested dictionaries whose names say that they are secret."""
    if not isinstance(values, Mapping):
        return
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _hidden_values(value)
        elif isinstance(value, str) and _HIDDEN.search(str(name)):
            yield value.strip()
