"""Environment variables become typed values, and nonsense becomes a sentence that gives nothing away."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from trygo_backend.environment import Environment, allowed_hosts, cors_origins, database, parse_origin

BASE = Path("/srv/app")


@pytest.mark.parametrize(("word", "value"), [("1", True), ("Yes", True), ("off", False), ("0", False), ("  ", False)])
def test_flags_know_the_usual_words(word: str, value: bool) -> None:
    assert Environment({"DEBUG": word}).flag("DEBUG") is value


def test_a_flag_of_another_word_is_refused_rather_than_taken_for_false() -> None:
    with pytest.raises(ImproperlyConfigured, match="DEBUG must be true or false"):
        Environment({"DEBUG": "maybe"}).flag("DEBUG")


@pytest.mark.parametrize("text", ["eighty", "-1", "8000.5", "70000", "١٢x"])
def test_what_is_not_a_port_is_refused(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="PORT must be a whole number from 0 to 65535"):
        Environment({"PORT": text}).integer("PORT", 8000, minimum=0, maximum=65535)


def test_a_time_zone_is_one_that_this_machine_knows() -> None:
    assert Environment({}).time_zone("TIME_ZONE", "UTC") == "UTC"
    assert Environment({"TIME_ZONE": " Europe/Berlin "}).time_zone("TIME_ZONE", "UTC") == "Europe/Berlin"


@pytest.mark.parametrize("zone", ["Europe/Brelin", "../etc/passwd", "/etc/passwd", "MEZ+1", "a\0b"])
def test_what_is_not_a_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="TIME_ZONE must name a time zone") as caught:
        Environment({"TIME_ZONE": zone}).time_zone("TIME_ZONE", "UTC")
    assert zone not in str(caught.value)


def test_a_value_may_begin_with_a_dollar_sign() -> None:
    assert Environment({"SECRET_KEY": "$ecret"}).text("SECRET_KEY") == "$ecret"


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("https://www.example.com/", ["https://www.example.com"]),
        ("http://www.example.com/path?x=1", ["http://www.example.com"]),
        ("www.example.com", ["https://www.example.com", "http://www.example.com"]),
        ("localhost:3000", ["https://localhost:3000", "http://localhost:3000"]),
        ("https://A.example:443, http://b.example:80", ["https://a.example", "http://b.example"]),
        ("http://[::1]:3000", ["http://[::1]:3000"]),
        ("*", ["*"]),
        (" , ", []),
    ],
)
def test_cors_origins_are_as_browsers_write_them(value: str, origins: list[str]) -> None:
    assert cors_origins(Environment({"FRONTEND_URL": value}), ["FRONTEND_URL", "OTHER"]) == origins


@pytest.mark.parametrize("value", ["https://", "ftp://example.com", "http://host:port", "two words", "http://[::1"])
def test_what_is_not_an_address_is_refused(value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="FRONTEND_URL must hold http or https addresses"):
        parse_origin("FRONTEND_URL", value)


def test_hosts_default_to_this_machine_and_the_public_one() -> None:
    public = parse_origin("PUBLIC_URL", "images.example.com:8443/prefix")
    assert allowed_hosts(Environment({}), public) == ["images.example.com", "localhost", "127.0.0.1", "[::1]"]


def test_listed_hosts_lose_scheme_and_port_and_keep_patterns() -> None:
    environment = Environment({"ALLOWED_HOSTS": "https://a.example/,b.example:8000, .c.example, *"})
    assert allowed_hosts(environment, None) == ["a.example", "b.example", ".c.example", "*"]


def test_sqlite_waits_for_locks_and_writes_ahead() -> None:
    config = database("sqlite:///data/db.sqlite3", base_dir=BASE, pool_size=10)
    assert config["NAME"] == "/srv/app/data/db.sqlite3"
    assert config["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert config["OPTIONS"]["timeout"] >= 20
    assert "journal_mode=WAL" in config["OPTIONS"]["init_command"]
    assert database("sqlite:////abs/db.sqlite3", base_dir=BASE, pool_size=10)["NAME"] == "/abs/db.sqlite3"


def test_postgresql_shares_a_bounded_pool_of_connections() -> None:
    config = database("postgres://u:p%40ss@db.example:5433/name?sslmode=require", base_dir=BASE, pool_size=7)
    assert config["ENGINE"] == "django.db.backends.postgresql"
    assert (config["HOST"], config["PORT"], config["NAME"], config["PASSWORD"]) == (
        "db.example",
        5433,
        "name",
        "p@ss",
    )
    assert config["OPTIONS"]["pool"] == {"min_size": 0, "max_size": 7, "timeout": 10}
    assert config["OPTIONS"]["sslmode"] == "require"
    assert config["CONN_MAX_AGE"] == 0


@pytest.mark.parametrize(("query", "size"), [("", 0), ("?conn_max_age=60", 10)])
def test_the_pool_can_be_turned_off(query: str, size: int) -> None:
    config = database(f"postgres://u:p@db.example/name{query}", base_dir=BASE, pool_size=size)
    assert "pool" not in config["OPTIONS"]


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "nonsense://u:hunter2@host/name",
        "postgres://u:hunter2/x@host/name",  # a slash ends the host: the password passes for a port
        "postgres://u:hunter2@host",
        "sqlite://hunter2.sqlite3",
        "sqlite://:memory:",
        "sqlite:///",
    ],
)
def test_a_database_url_that_cannot_work_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL") as caught:
        database(url, base_dir=BASE, pool_size=10)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
