"""Errors: English whatever the host's language, and told once to the log and to error trackers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.signals import got_request_exception
from django.http import HttpRequest
from rest_framework.test import APIClient

from tests.fakes.providers import FakeProvider

URL = "/api/images/generate"
BODY = {"contentItemId": "item-1", "title": "A quiet harbour at dawn"}

pytestmark = pytest.mark.django_db


@pytest.fixture
def russian_host(settings: Any) -> None:
    """A host whose own language is Russian, with Django's own middleware."""
    ours = "trygo_backend.pages.LanguageMiddleware"
    assert ours in settings.MIDDLEWARE
    settings.MIDDLEWARE = [
        "django.middleware.locale.LocaleMiddleware" if name == ours else name for name in settings.MIDDLEWARE
    ]
    settings.LANGUAGE_CODE = "ru"


def say(answer: Any) -> str:
    body = answer.json()
    return " ".join([body["error"], *(str(sentence) for sentence in body["details"].values())])


@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/html;q=0.5, application/json"])
def test_they_are_english_under_a_host_s_locale_middleware(
    api: APIClient, anonymous: APIClient, fake_provider: FakeProvider, russian_host: None, accept: str
) -> None:
    headers = {"accept-language": "ru", "accept": accept}
    answers = [
        anonymous.get("/api/images/", headers=headers),
        api.put("/api/images/", headers=headers),
        api.get("/api/images/?variant=poster", headers=headers),
        api.get("/api/images/?page=99", headers=headers),
        api.get("/api/images/0a0a", headers=headers),
        api.get("/api/images/?format=json&status=lost", headers={**headers, "accept": "text/html"}),
        api.post(URL, {**BODY, "variant": "poster", "title": "x" * 501}, format="json", headers=headers),
        api.post(URL, "x", content_type="text/plain", headers=headers),
        api.post(URL, "{", content_type="application/json", headers=headers),
    ]
    for answer in answers:
        assert answer.status_code >= 400
        assert not any("\u0400" <= letter <= "\u04ff" for letter in say(answer)), say(answer)


def test_the_language_outside_stays_what_it_was(
    api: APIClient, fake_provider: FakeProvider, russian_host: None
) -> None:
    page = api.get("/api/images/", headers={"accept": "text/html", "accept-language": "ru"})
    assert api.get("/api/images/", headers={"accept-language": "ru"})["Content-Language"] == "ru"
    assert any("\u0400" <= letter <= "\u04ff" for letter in page.content.decode())


@pytest.fixture
def tracked() -> Iterator[list[HttpRequest]]:
    """The requests that an error tracker hears of."""
    heard: list[HttpRequest] = []

    def receiver(request: HttpRequest, **_: Any) -> None:
        heard.append(request)

    got_request_exception.connect(receiver)
    yield heard
    got_request_exception.disconnect(receiver)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log has as errors, each with its traceback; and no traceback anywhere else."""
    records = [record for record in caplog.records if record.levelname == "ERROR"]
    assert records == [record for record in caplog.records if record.exc_info]
    return [record.getMessage() for record in records]


def test_an_unforeseen_one_reaches_error_trackers_and_the_log_once(
    api: APIClient,
    tracked: list[HttpRequest],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("sk-secret")

    monkeypatch.setattr("images.api.views.ImageViewSet.get_queryset", fail)
    answer = api.get("/api/images/")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert [request.path for request in tracked] == ["/api/images/"]
    assert errors(caplog) == ["unhandled_exception path=/api/images/"]


def test_so_does_one_in_the_middle_of_a_generation(
    api: APIClient, fake_provider: FakeProvider, tracked: list[HttpRequest], caplog: pytest.LogCaptureFixture
) -> None:
    fake_provider.will(KeyError("sk-secret"))
    assert api.post(URL, BODY, format="json").json()["code"] == "internal_error"
    assert [request.path for request in tracked] == [URL]
    assert errors(caplog) == [f"unhandled_exception path={URL}"]


def test_a_receiver_that_fails_does_not_cost_the_caller_the_body(
    api: APIClient, fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receiver(**_: Any) -> None:
        raise RuntimeError

    got_request_exception.connect(receiver)
    try:
        fake_provider.will(KeyError("sk-secret"))
        answer = api.post(URL, BODY, format="json")
    finally:
        got_request_exception.disconnect(receiver)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")


def test_a_foreseen_one_reaches_no_error_tracker(api: APIClient, tracked: list[HttpRequest]) -> None:
    assert api.get("/api/images/0a0a").status_code == 404
    assert tracked == []
