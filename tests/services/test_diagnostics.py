"""What the doctor says about settings, database, storage and the public address."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import requests
import responses
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from pytest_django.fixtures import Settings

from images.price_table import READ_ON
from images.services.diagnostics import Level, examine
from tests.fakes.doctor import OPENAI_KEY, Configure, findings, problems

pytestmark = pytest.mark.django_db


def test_an_installation_in_order_has_no_problems_and_nothing_is_left(configure: Configure, media_root: Path) -> None:
    found = list(examine())
    assert {finding.level for finding in found} == {Level.FINE}
    assert {finding.section for finding in found} >= {"Configuration", "Database", "Storage", "Providers", "Security"}
    assert all(finding.next_step for finding in found)
    assert [path for path in media_root.rglob("*") if path.is_file()] == []


def test_it_says_how_costs_are_found_and_where_a_day_begins(configure: Configure) -> None:
    [finding] = findings("Prices")
    assert "list prices of 2026-" in finding.sentence
    configure(PRICES={"gpt-image-2.6-flare": 0.02})
    assert "a price of your own" in findings("Prices")[0].sentence
    assert "in UTC (TIME_ZONE)" in findings("Configuration")[-1].sentence


def test_a_price_that_is_missing_or_old_needs_attention(configure: Configure) -> None:
    assert "more than 90 days ago" in problems("Prices", today=READ_ON + timedelta(days=91))[0].sentence
    assert problems("Prices", today=READ_ON + timedelta(days=90)) == []
    configure(OPENAI_IMAGE_MODEL="unheard-of")
    [finding] = problems("Prices")
    assert (finding.level, "IMAGE_PRICES=unheard-of=" in finding.next_step) == ("attention", True)


def test_it_says_what_is_left_of_the_budgets_and_whether_costs_can_be_estimated(configure: Configure) -> None:
    assert findings("Budgets") == []
    configure(BUDGET_MONTH="7.50", USER_BUDGET_DAY=1)
    month, each_user = findings("Budgets")
    assert month.sentence.startswith("IMAGE_BUDGET_MONTH: $0.00 of $7.50 are spent, in the month that ends on ")
    assert each_user.sentence == "Each user may spend $1.00 a day (IMAGE_USER_BUDGET_DAY)."
    configure(OPENAI_IMAGE_MODEL="unheard-of", BUDGET_MONTH=0)
    assert [finding.level for finding in problems("Budgets")] == ["broken", "attention"]


@pytest.mark.parametrize(
    ("changes", "section", "level"),
    [
        ({"DEADLINE": "soon"}, "Configuration", "broken"),
        ({"PROVIDR": "openai"}, "Configuration", "broken"),
        ({"STORAGE": "elsewhere"}, "Configuration", "broken"),
        ({"PUBLIC_URL": ""}, "Public address", "attention"),
        ({"PUBLIC_URL": "ftp://pics.example"}, "Public address", "broken"),
        ({"TRUSTED_NETWORKS": "0.0.0.0/0"}, "Callers without credentials", "attention"),
        ({"TRUSTED_NETWORKS": "10.0.0.0/40"}, "Callers without credentials", "broken"),
        ({"PROVIDER": " , "}, "Providers", "broken"),
    ],
)
def test_settings_of_the_app(configure: Configure, changes: dict[str, Any], section: str, level: str) -> None:
    configure(**changes)
    assert [finding.level for finding in problems(section)] == [level]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DEBUG", True, "DEBUG is on"),
        ("SECRET_KEY", "short", "SECRET_KEY is short"),
        ("ALLOWED_HOSTS", ["*"], "ALLOWED_HOSTS contains '*'"),
        ("ALLOWED_HOSTS", [], "ALLOWED_HOSTS is empty"),
        ("SESSION_COOKIE_SECURE", False, "Session cookies"),
        ("CSRF_COOKIE_SECURE", False, "CSRF cookies"),
    ],
)
def test_settings_of_django(configure: Configure, settings: Settings, name: str, value: object, words: str) -> None:
    setattr(settings, name, value)
    [finding] = problems("Security")
    assert finding.level == "attention"
    assert words in finding.sentence


def test_no_hosts_are_fine_while_debug_lets_localhost_in(configure: Configure, settings: Settings) -> None:
    settings.ALLOWED_HOSTS, settings.DEBUG = [], True
    assert [finding.sentence.partition(":")[0] for finding in problems("Security")] == ["DEBUG is on"]


def test_cookies_are_nobodys_concern_over_plain_http(configure: Configure, settings: Settings) -> None:
    configure(PUBLIC_URL="http://localhost:8000")
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    assert problems("Security") == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CORS_ALLOW_ALL_ORIGINS", True, "every web page"),
        ("MIDDLEWARE", [], "no response tells browsers"),
        ("CORS_ALLOW_HEADERS", ["authorization", "prefer"], "idempotency-key"),
    ],
)
def test_cors(configure: Configure, settings: Settings, name: str, value: object, words: str) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://www.example.com"]
    [finding] = findings("CORS")
    assert (finding.level, "https://www.example.com" in finding.sentence) == ("ok", True)
    setattr(settings, name, value)
    [finding] = problems("CORS")
    assert words in finding.sentence


def test_what_an_operator_has_silenced_stays_silent(configure: Configure, settings: Settings) -> None:
    settings.CORS_ALLOW_ALL_ORIGINS, settings.DEBUG = True, True
    settings.SILENCED_SYSTEM_CHECKS = ["images.W007", "security.W018"]
    assert problems("CORS") + problems("Security") == []


@pytest.mark.django_db(transaction=True)
def test_a_migration_that_is_not_applied_is_named(configure: Configure) -> None:
    recorder = MigrationRecorder(connection)
    last = max(name for app, name in recorder.applied_migrations() if app == "images")
    recorder.record_unapplied("images", last)
    try:
        [finding] = problems("Database")
    finally:
        recorder.record_applied("images", last)
    assert finding.level == "broken"
    assert f"Migrations that are not applied (1): images.{last}." in finding.sentence
    assert "manage.py migrate" in finding.next_step


def test_a_database_that_does_not_answer_is_told(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "NAME", "/no/such/database")
    [finding] = problems("Database")
    assert finding.level == "broken"
    assert "cannot be used: " in finding.sentence
    assert "DATABASE_URL" in finding.next_step


@pytest.mark.parametrize("name", ["missing", "read-only"])
def test_a_storage_where_nothing_can_be_kept(configure: Configure, media_root: Path, name: str) -> None:
    if name == "missing":
        media_root.rmdir()
    else:
        (media_root / "draft-images").touch()  # a file where the folder should be: no rights needed, root or not
    [finding] = problems("Storage")
    assert finding.level == "broken"
    assert "MEDIA_ROOT" in finding.next_step
    assert str(media_root) not in finding.sentence


def test_a_storage_that_loses_bytes_is_broken(configure: Configure, settings: Settings) -> None:
    settings.STORAGES = {**settings.STORAGES, "lossy": {"BACKEND": "tests.fakes.storages.LossyStorage"}}
    configure(STORAGE="lossy")
    [finding] = problems("Storage")
    assert "different bytes" in finding.sentence


def test_a_storage_of_somebody_elses_that_fails_does_not_end_the_examination(
    configure: Configure, settings: Settings
) -> None:
    backend = {"BACKEND": "tests.fakes.storages.FailingStorage", "OPTIONS": {"secret_key": OPENAI_KEY}}
    settings.STORAGES = {**settings.STORAGES, "failing": backend}
    configure(STORAGE="failing")
    found = list(examine())
    assert [finding.level for finding in found if finding.section == "Storage"] == ["broken"]
    assert OPENAI_KEY not in str(found)
    assert "Providers" in {finding.section for finding in found}


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """A test's output is no access log."""


@pytest.fixture
def site(configure: Configure) -> Iterator[str]:
    """The address of this project, served over HTTP."""
    with make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=_Quiet) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        configure(PUBLIC_URL=url)
        yield url
        server.shutdown()


#: Every address of a picture under the public address.
MEDIA = re.compile(r"https://pics\.example/media/.*")


class TestPublicUrl:
    def test_a_probe_is_fetched_and_gone_again(self, site: str, media_root: Path) -> None:
        [finding] = findings("Public address", public_url=True)
        assert (finding.level, site in finding.sentence) == ("ok", True)
        assert [path for path in media_root.rglob("*") if path.is_file()] == []

    @responses.activate
    def test_nothing_is_fetched_unless_asked_for(self, configure: Configure) -> None:
        configure(PROVIDER="placeholder")
        assert problems("Public address") == []
        assert not responses.calls

    @responses.activate
    @pytest.mark.parametrize(
        ("answer", "words", "step"),
        [
            ({"status": 400}, "answered 400", "ALLOWED_HOSTS"),
            ({"status": 404}, "answered 404", "MEDIA_ROOT"),
            ({"status": 502}, "answered 502", "logs"),
            ({"body": b"other", "content_type": "image/png"}, "other bytes than", "MEDIA_ROOT"),
            (
                {"status": 302, "headers": {"Location": "https://www.example/x?token=1"}},
                "redirects to https://www.example.",
                "PUBLIC_URL",
            ),
            ({"body": requests.ConnectionError("secret-host")}, "not be reached (ConnectionError)", "DNS"),
            ({"body": requests.exceptions.SSLError()}, "not be reached (SSLError)", "certificate"),
            ({"body": requests.ReadTimeout()}, "not be reached (ReadTimeout)", "proxy"),
        ],
    )
    def test_what_is_in_front_may_spoil_it(
        self, configure: Configure, media_root: Path, answer: dict[str, Any], words: str, step: str
    ) -> None:
        configure(PROVIDER="placeholder")
        responses.get(MEDIA, **answer)
        [finding] = problems("Public address", public_url=True)
        assert finding.level == "broken"
        assert words in finding.sentence
        assert "secret-host" not in finding.sentence
        assert step in finding.next_step
        assert len(responses.calls) == 1, "no redirect is followed"
        assert [path for path in media_root.rglob("*") if path.is_file()] == []

    @responses.activate
    def test_a_wrong_type_is_reported(self, configure: Configure, media_root: Path) -> None:
        def untyped(request: requests.PreparedRequest) -> tuple[int, dict[str, str], bytes]:
            return 200, {}, (media_root / request.path_url.removeprefix("/media/")).read_bytes()

        configure(PROVIDER="placeholder")
        responses.add_callback("GET", MEDIA, callback=untyped, content_type="text/plain")
        [finding] = problems("Public address", public_url=True)
        assert "'text/plain'" in finding.sentence

    @responses.activate
    def test_a_cache_that_keeps_what_was_deleted_is_reported(self, configure: Configure, media_root: Path) -> None:
        kept: dict[str, bytes] = {}

        def cache(request: requests.PreparedRequest) -> tuple[int, dict[str, str], bytes]:
            path = request.path_url
            if path not in kept:
                kept[path] = (media_root / path.removeprefix("/media/")).read_bytes()
            return 200, {}, kept[path]

        configure(PROVIDER="placeholder")
        responses.add_callback("GET", MEDIA, callback=cache, content_type="image/png")
        [finding] = problems("Public address", public_url=True)
        assert (finding.level, "caches" in finding.sentence) == ("attention", True)

    def test_without_an_address_there_is_nothing_to_fetch(self, configure: Configure) -> None:
        configure(PUBLIC_URL="")
        assert "broken" in {finding.level for finding in problems("Public address", public_url=True)}
