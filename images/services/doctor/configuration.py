"""Settings: the app's own system checks, and what Django itself says about a server on the internet."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial

from django.conf import settings
from django.core.checks import ERROR, CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured

from ...conf import conf
from .findings import Finding, attention, broken, fine

CONFIGURATION, CORS, CALLERS, SECURITY = "Configuration", "CORS", "Callers without credentials", "Security"

#: The ids of `images.checks` that another part of the examination looks at, and looks at more closely.
_MEDIA_ROOT, _PROVIDERS = {"images.W002"}, {"images.W001", "images.E003", "images.E011", "images.W013"}
PUBLIC_URL_IDS = {"images.W006", "images.E012"}
_CORS_IDS, _CALLER_IDS = {"images.W007"}, {"images.W008"}
_ELSEWHERE = _MEDIA_ROOT | _PROVIDERS | PUBLIC_URL_IDS | _CORS_IDS | _CALLER_IDS

_SESSION = ("Session cookies also travel over plain http.", "Set SESSION_COOKIE_SECURE = True.")
_NAMES_STEP = "Set ALLOWED_HOSTS to the names under which this server is called."
#: Django's checks for deployment that matter here, in our words, and what to do about each.
_SECURITY = {
    "security.W009": (
        "SECRET_KEY is short, or easy to guess: sessions can be forged.",
        "Make a new one: python3 -c 'import secrets; print(secrets.token_urlsafe(50))'",
    ),
    "security.W018": (
        "DEBUG is on: an error page shows settings and source code to anybody.",
        "Unset DEBUG, unless this is a machine that only you can reach.",
    ),
    "security.W020": ("ALLOWED_HOSTS is empty: the server refuses every request.", _NAMES_STEP),
}
#: The same, where PUBLIC_URL is https.
_COOKIES = {
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
    known = _SECURITY | (_COOKIES if _is_https() else {})
    found = [
        attention(SECURITY, *known[message.id])
        for message in run_checks(tags=["security"], include_deployment_checks=True)
        if message.id in known and not message.is_silenced()
    ]
    if "*" in settings.ALLOWED_HOSTS:
        sentence = "ALLOWED_HOSTS holds '*': a caller can make this server build addresses with any host."
        found.append(attention(SECURITY, sentence, _NAMES_STEP))
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
