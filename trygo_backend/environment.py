"""Environment variables, read into typed values.

Everything here is a pure function of its arguments, so tests need no separate process. A value that cannot be used
raises `ImproperlyConfigured` with one sentence that names the variable and says what to type. It never repeats the
value, which may be or contain a secret.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.core.exceptions import ImproperlyConfigured
from environ import Env

from images.conf import InvalidValue, flag, listed

_DEFAULT_PORTS = {"http": 80, "https": 443}

#: Seconds to wait for a connection to PostgreSQL: to be made, and to be free in the pool. A caller that waits for a
#: worker's image is told that much later than promised if the database is away when its time ends.
CONNECT_SECONDS = 10


class Environment:
    """Typed reads of environment variables. An empty or blank one counts as unset.

    django-environ's own readers do not fit (as of 0.14). They take a value that begins with `$`, as a random
    SECRET_KEY may, for the name of another variable; every word they do not know is `False`; and their errors repeat
    the value.

    Args:
        values: The variables, usually `os.environ`.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def text(self, name: str, default: str = "") -> str:
        """The value without white space around it."""
        return self._values.get(name, "").strip() or default

    def flag(self, name: str, default: bool = False) -> bool:
        """True for 1, true, yes and on, false for 0, false, no and off, in any case.

        Raises:
            ImproperlyConfigured: It is any other word.
        """
        try:
            return flag(self.text(name) or default)
        except InvalidValue as err:
            raise ImproperlyConfigured(f"{name} {err}") from None

    def integer(self, name: str, default: int, *, minimum: int, maximum: int) -> int:
        """A whole number.

        Raises:
            ImproperlyConfigured: It is not a whole number from `minimum` to `maximum`.
        """
        text = self.text(name, str(default))
        if not text.isdecimal() or not minimum <= int(text) <= maximum:
            raise ImproperlyConfigured(f"{name} must be a whole number from {minimum} to {maximum}.")
        return int(text)

    def time_zone(self, name: str, default: str) -> str:
        """The name of a time zone.

        Raises:
            ImproperlyConfigured: This machine knows no such zone.
        """
        zone = self.text(name, default)
        try:
            ZoneInfo(zone)
        except (ValueError, OSError, ZoneInfoNotFoundError):
            raise ImproperlyConfigured(
                f"{name} must name a time zone, for example Europe/Berlin. The machine needs the package tzdata."
            ) from None
        return zone

    def listed(self, name: str) -> tuple[str, ...]:
        """The parts of a comma-separated list, without empty ones."""
        return listed(self.text(name))


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Scheme, host and port of an address, as a browser writes them.

    Attributes:
        scheme: `http`, `https`, or "" if none was given.
        host: In lower case, an IPv6 address in brackets.
        port: `None` if it is the scheme's default.
    """

    scheme: str
    host: str
    port: int | None

    def url(self, scheme: str = "") -> str:
        """The origin as a browser sends it, with `scheme` if it has none of its own."""
        scheme = self.scheme or scheme
        port = "" if self.port in (None, _DEFAULT_PORTS.get(scheme)) else f":{self.port}"
        return f"{scheme}://{self.host}{port}"


def parse_origin(name: str, value: str) -> Origin:
    """The origin of an address that may have no scheme. A path, a query and credentials are dropped.

    Args:
        name: The variable's name, for the error.
        value: For example `https://www.example.com/`, `www.example.com` or `localhost:3000`.

    Raises:
        ImproperlyConfigured: It is not an http or https address.
    """
    parts, port, host = None, None, ""
    try:
        parts = urlsplit(value if "://" in value else f"//{value}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host = ""  # urlsplit's own sentence would repeat the value
    if parts is None or not host or parts.scheme not in {"", "http", "https"} or set(host) & set(" \t*,;'\"<>\\"):
        raise ImproperlyConfigured(f"{name} must hold http or https addresses, for example https://www.example.com.")
    return Origin(scheme=parts.scheme, host=f"[{host}]" if ":" in host else host, port=port)


def public_origin(environment: Environment) -> Origin | None:
    """The origin of `PUBLIC_URL`, if it is set. A path, which front-end build tools keep there, is ignored.

    Raises:
        ImproperlyConfigured: It is not an http or https address.
    """
    value = environment.text("PUBLIC_URL")
    return None if not value or value.startswith(("/", ".")) else parse_origin("PUBLIC_URL", value)


def cors_origins(environment: Environment, names: Iterable[str]) -> list[str]:
    """The origins whose pages may call the API, without repetition. `*` stands for every origin.

    An address without a scheme stands for both https and http, so that a front end on plain http keeps working. That
    is safe: browsers send no credentials of their own across origins (CORS_ALLOW_CREDENTIALS is off; the page itself
    puts the token into a header).

    Args:
        environment: Where to read.
        names: The variables; each may hold a comma-separated list.

    Raises:
        ImproperlyConfigured: One of them holds something other than addresses.
    """
    found: list[str] = []
    for name in names:
        for value in environment.listed(name):
            if value == "*":
                found.append(value)
                continue
            origin = parse_origin(name, value)
            found += [origin.url()] if origin.scheme else [origin.url("https"), origin.url("http")]
    return list(dict.fromkeys(found))


def allowed_hosts(environment: Environment, public: Origin | None) -> list[str]:
    """Django's ALLOWED_HOSTS: what the variable lists; if it is unset, this machine and the host of `PUBLIC_URL`.

    A port or a scheme is dropped, since Django would match nothing with it; `*` and `.example.com` stay as they are.
    """
    listed = environment.listed("ALLOWED_HOSTS")
    if not listed:
        return [*([public.host] if public else []), "localhost", "127.0.0.1", "[::1]"]
    return [host if host.startswith((".", "*")) else parse_origin("ALLOWED_HOSTS", host).host for host in listed]


def database(url: str, *, base_dir: Path, pool_size: int) -> dict[str, Any]:
    """An entry of Django's DATABASES.

    Args:
        url: `postgres://user:password@host:5432/name`, `sqlite:////absolute/path`, `sqlite:///beside/manage.py`, or
            any other that django-environ knows.
        base_dir: The folder that a relative SQLite path starts from.
        pool_size: The most connections a process keeps to PostgreSQL; 0 for no pool (behind PgBouncer, say).

    Raises:
        ImproperlyConfigured: The URL cannot be understood.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they repeat parts of the URL
            config: dict[str, Any] = dict(Env.db_url_config(url))
    except (ValueError, KeyError, TypeError, AttributeError):
        config = {}
    # No `from err`: the original message repeats a part of the URL, usually of the password.
    if "://" not in url or "." not in config.get("ENGINE", ""):
        raise ImproperlyConfigured(
            "DATABASE_URL cannot be understood. Write postgres://user:password@host:5432/name (special characters in "
            "the password percent-encoded) or sqlite:////absolute/path/db.sqlite3."
        )
    config.setdefault("OPTIONS", {})
    if config["ENGINE"] == "django.db.backends.sqlite3":
        return _sqlite(config, url=url, base_dir=base_dir)
    if not config["NAME"] and "service" not in config["OPTIONS"]:
        raise ImproperlyConfigured("DATABASE_URL names no database: write postgres://user:password@host:5432/name.")
    return _postgresql(config, pool_size) if config["ENGINE"] == "django.db.backends.postgresql" else config


def _sqlite(config: dict[str, Any], *, url: str, base_dir: Path) -> dict[str, Any]:
    if urlsplit(url).netloc or config["NAME"] in {"", ":memory:"}:
        raise ImproperlyConfigured(
            "DATABASE_URL must name a file for SQLite: sqlite:////absolute/path/db.sqlite3 (four slashes), or "
            "sqlite:///db.sqlite3 for one beside manage.py."
        )
    config["NAME"] = str(base_dir / config["NAME"])
    # Opening a connection costs more than a generation's queries; keeping one takes a quarter of a megabyte a thread.
    config.setdefault("CONN_MAX_AGE", 600)
    # In WAL mode readers and one writer work at the same time. IMMEDIATE makes a writer wait at the start of its
    # transaction, where SQLite can wait, instead of failing in the middle of it.
    defaults = {
        "timeout": 30,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
    config["OPTIONS"] = {**defaults, **config["OPTIONS"]}
    return config


def _postgresql(config: dict[str, Any], pool_size: int) -> dict[str, Any]:
    config["OPTIONS"].setdefault("connect_timeout", CONNECT_SECONDS)
    config["CONN_HEALTH_CHECKS"] = True  # no request fails because the database was restarted
    if pool_size and not config.get("CONN_MAX_AGE"):  # Django refuses both together
        # Many threads share few connections: while hundreds wait for a provider, they hold none.
        config["OPTIONS"]["pool"] = {"min_size": 0, "max_size": pool_size, "timeout": CONNECT_SECONDS}
        config["CONN_MAX_AGE"] = 0
    return config
