"""Logging in: guessing is limited, no one is locked out for good, and hashing leaves the server its threads."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.conf import settings as project
from django.contrib.auth import BACKEND_SESSION_KEY
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import F
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext

from trygo_backend import login
from trygo_backend.login import client_address

PAGES = ["/admin/login/", "/api/auth/login/"]

pytestmark = pytest.mark.django_db


def log_in(page: str = PAGES[0], name: str = "eve", password: str = "wrong-password", **meta: Any) -> Any:
    return Client().post(page, {"username": name, "password": password}, **meta)


def is_in(answer: Any) -> bool:
    return bool(answer.status_code == 302)


@pytest.mark.parametrize("page", PAGES)
def test_guessing_is_refused_after_five_failures_until_the_wait_is_over(staff: User, page: str) -> None:
    answers = [log_in(page) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 429]
    for _ in range(3):
        refused = log_in(page, password="eve-password")
        assert (refused.status_code, refused["Retry-After"]) == (429, "900")
        assert "15 minutes" in refused.text
    AccessAttempt.objects.update(attempt_time=F("attempt_time") - timedelta(minutes=15, seconds=1))
    assert is_in(log_in(page, password="eve-password"))


def test_an_account_is_not_locked_for_those_who_did_not_guess(staff: User) -> None:
    for number in range(20):
        log_in(REMOTE_ADDR=f"203.0.113.{number % 3}")
    assert is_in(log_in(password="eve-password", REMOTE_ADDR="198.51.100.7"))


def test_trying_during_the_wait_does_not_prolong_it_and_writes_nothing(staff: User) -> None:
    for _ in range(5):
        log_in()
    before = AccessAttempt.objects.get()
    with CaptureQueriesContext(connection) as queries:
        log_in()
    assert all(query["sql"].startswith("SELECT") for query in queries)
    after = AccessAttempt.objects.get()
    assert (after.attempt_time, after.failures_since_start) == (before.attempt_time, before.failures_since_start)


def test_an_address_that_tries_many_accounts_is_refused_later(staff: User) -> None:
    for name in range(10):
        AccessAttempt.objects.create(username=str(name), ip_address="127.0.0.1", failures_since_start=4)
    assert log_in(name="new").status_code == 200
    AccessAttempt.objects.create(username="x", ip_address="127.0.0.1", failures_since_start=9)
    assert log_in(name="newer").status_code == 429
    assert log_in(password="eve-password").status_code == 429
    assert is_in(log_in(password="eve-password", REMOTE_ADDR="198.51.100.7"))


def test_who_logs_in_is_forgiven_their_own_failures_only(staff: User, user: User) -> None:
    for _ in range(4):
        log_in()
        log_in(name="ann")
    assert is_in(log_in(password="eve-password"))
    assert list(AccessAttempt.objects.values_list("username", flat=True)) == ["ann"]
    assert log_in(name="ann").status_code == 429


def test_no_password_is_kept(staff: User, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        for _ in range(6):
            log_in(password="hunter2-mistyped")
    assert AccessAttempt.objects.exists()
    assert "hunter2" not in str(list(AccessAttempt.objects.values())) + caplog.text


def test_a_session_that_began_with_django_s_own_backend_goes_on(staff: User) -> None:
    client = Client()
    client.force_login(staff, backend="django.contrib.auth.backends.ModelBackend")
    assert client.session[BACKEND_SESSION_KEY] in project.AUTHENTICATION_BACKENDS
    assert client.get("/api/images/").status_code == 200


class TestHashing:
    """One at a time, and few wait for their turn."""

    def test_who_waits_too_long_is_told_when_to_come_back(self, staff: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(login, "PATIENCE", 0.05)
        with login._hashing:
            answer = log_in(password="eve-password")
        assert (answer.status_code, "Retry-After" in answer) == (503, True)
        assert not AccessAttempt.objects.exists()
        assert is_in(log_in(password="eve-password"))

    def test_who_finds_a_queue_is_told_at_once(self, staff: User) -> None:
        taken = [login._waiting.acquire(blocking=False) for _ in range(1 + login.WAITING)]
        try:
            answer = log_in(password="eve-password")
        finally:
            for _ in taken:
                login._waiting.release()
        assert all(taken)
        assert (answer.status_code, answer["Retry-After"]) == (503, "5")
        assert is_in(log_in(password="eve-password"))


@pytest.mark.parametrize(
    ("remote", "forwarded", "direct", "behind_proxy"),
    [
        ("203.0.113.5", None, "203.0.113.5", "203.0.113.5"),
        ("127.0.0.1", "6.6.6.6, 198.51.100.7", "127.0.0.1", "198.51.100.7"),
        ("127.0.0.1", "198.51.100.7:4711", "127.0.0.1", "198.51.100.7"),
        ("127.0.0.1", "[2001:db8:1:2:3::4]:4711", "127.0.0.1", "2001:db8:1:2::"),
        ("::ffff:203.0.113.5", None, "203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:ffff::9", None, "2001:db8:1:2::", "2001:db8:1:2::"),
        ("fe80::1%eth0", None, "fe80::", "fe80::"),
        ("", None, None, None),
        ("unix:", "nonsense", None, None),
    ],
)
def test_whose_attempts_count_together(
    settings: Any, remote: str, forwarded: str | None, direct: str | None, behind_proxy: str | None
) -> None:
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR=remote)
    assert client_address(request) == direct
    settings.TRUST_PROXY_HEADERS = True
    assert client_address(request) == behind_proxy


def test_a_forged_header_does_not_help(staff: User) -> None:
    answers = [log_in(headers={"x-forwarded-for": f"198.51.100.{number}"}) for number in range(5)]
    assert answers[-1].status_code == 429
