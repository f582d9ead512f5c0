"""What a caller learns of a failure, from a request's own thread and from a worker: real SDKs, scripted servers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import override_settings
from django.utils import timezone
from pytest_django.fixtures import Settings
from rest_framework.test import APIClient

from images import exceptions, storage
from images.exceptions import BILLING_ADVICE, ImagesError, ProviderError, ProviderFailure, StorageError, _kinds
from images.models import STOPPED, GeneratedImage
from images.services import failover, generate_image, rate_limits, run_generation
from images.services.generation import GenerationRun
from tests.fakes.provider_server import ProviderServer
from tests.fakes.providers import FakeProvider

BODY = {"contentItemId": "item-1", "title": "A quiet harbour at dawn"}

pytestmark = pytest.mark.django_db(transaction=True)

Servers = tuple[ProviderServer, ProviderServer]


_queued: list[str] = []


def work_at_once(image_id: str) -> None:
    run_generation(uuid.UUID(image_id))


def keep(image_id: str) -> None:
    _queued.append(image_id)


def work() -> None:
    while _queued:
        run_generation(uuid.UUID(_queued.pop()))


@pytest.fixture
def servers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    monkeypatch.setattr(failover, "BACKOFF", 0.01)
    with ProviderServer() as gemini, ProviderServer() as openai:
        settings.IMAGES = {
            **settings.IMAGES,
            "PROVIDER": "gemini,openai",
            "GEMINI_API_KEY": "AIza-secret",
            "GEMINI_API_BASE_URL": f"{gemini.url}/v1beta",
            "OPENAI_API_KEY": "sk-secret",
            "OPENAI_BASE_URL": f"{openai.url}/v1",
            "QUEUE": f"{__name__}.work_at_once",
        }
        yield gemini, openai


def configure(settings: Settings, **changes: Any) -> None:
    settings.IMAGES = {**settings.IMAGES, **changes}


def told(api: APIClient) -> list[tuple[str, str, Any]]:
    """Code, sentence and `mayHaveBilled` as told to one who waits, one who waits for a worker, and one who polls.

    The first two get the same response altogether.
    """
    first = api.post("/api/images/generate", BODY, format="json")
    rate_limits.forget()
    second = api.post("/api/images/generate", BODY, format="json", headers={"prefer": "wait=20"})
    rate_limits.forget()
    assert (first.status_code, first.get("Retry-After")) == (second.status_code, second.get("Retry-After"))
    waiting, queued = ({**answer.json(), "timestamp": ""} for answer in (first, second))
    assert waiting == queued
    with override_settings(IMAGES={**django_settings.IMAGES, "QUEUE": f"{__name__}.keep"}):
        accepted = api.post("/api/images/generate", BODY, format="json", headers={"prefer": "respond-async"})
        work()
    rate_limits.forget()
    assert accepted.status_code == 202
    polled = api.get(f"/api/images/{accepted.json()['id']}").json()["error"]
    assert polled["retryable"] == waiting["retryable"]
    return [
        (waiting["code"], waiting["error"], waiting.get("mayHaveBilled")),
        (queued["code"], queued["error"], queued.get("mayHaveBilled")),
        (polled["code"], polled["message"], polled.get("mayHaveBilled")),
    ]


@pytest.mark.parametrize(
    ("gemini", "openai", "code", "billed"),
    [
        ("http_401", "http_400", "provider_auth", False),
        ("http_503", "quota", "provider_overloaded", False),
        ("content_policy", "ok", "content_rejected", False),
        ("http_500", "http_401", "provider_error", True),
        ("http_401", "reset", "provider_bad_response", True),
        ("http_400", "bad_base64", "provider_bad_response", True),
        ("no_image", "http_404", "provider_no_image", True),
        ("svg", "svg", "provider_bad_image", True),
        # What the caller is told was free; what came before or after it was perhaps not.
        ("http_503", "http_500", "provider_overloaded", True),
        ("http_500", "content_policy", "content_rejected", True),
    ],
)
def test_every_caller_learns_whether_a_provider_may_have_charged(
    api: APIClient, servers: Servers, gemini: str, openai: str, code: str, billed: bool
) -> None:
    tries = 3 if gemini == "http_503" else 1
    servers[0].script(*[gemini] * tries * 3)
    servers[1].script(*[openai] * 3)
    waiting, queued, polled = told(api)
    assert waiting == queued == polled
    assert (waiting[0], waiting[2]) == (code, billed or None)
    assert (BILLING_ADVICE in waiting[1]) is billed
    assert [image.may_have_billed for image in GeneratedImage.objects.all()] == [billed] * 3


def test_a_timeout_may_have_been_billed(api: APIClient, servers: Servers, settings: Settings) -> None:
    configure(settings, DEADLINE=1, PROVIDER="openai")
    servers[1].script("hang")
    body = api.post("/api/images/generate", BODY, format="json").json()
    assert (body["code"], body["mayHaveBilled"]) == ("provider_timeout", True)
    assert BILLING_ADVICE in body["error"]


def test_a_picture_that_could_not_be_stored_was_charged_for(
    api: APIClient, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> str:
        raise StorageError

    monkeypatch.setattr(storage, "save", fail)
    for code, sentence, billed in told(api):
        assert (code, billed) == ("storage_error", True)
        assert BILLING_ADVICE in sentence


def test_a_storage_that_is_full_before_a_provider_is_asked_costs_nothing(
    api: APIClient, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise StorageError

    monkeypatch.setattr(storage, "check_space", fail)
    assert told(api) == [("storage_error", StorageError.default_message, None)] * 3
    assert not servers[0].requests


@pytest.mark.parametrize(("after_paying", "billed"), [(False, None), (True, True)])
def test_an_unforeseen_error_says_it_too(
    api: APIClient, servers: Servers, monkeypatch: pytest.MonkeyPatch, after_paying: bool, billed: Any
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    owner, name = (GenerationRun, "_describe") if after_paying else (storage, "check_space")
    monkeypatch.setattr(owner, name, fail)
    answer = api.post("/api/images/generate", BODY, format="json")
    body = answer.json()
    assert (answer.status_code, body["code"], body.get("mayHaveBilled")) == (500, "internal_error", billed)
    assert (BILLING_ADVICE in body["error"]) is bool(billed)
    shown = api.get(f"/api/images/{GeneratedImage.objects.get().pk}").json()["error"]
    assert (shown["message"], shown.get("mayHaveBilled")) == (body["error"], billed)


@pytest.mark.parametrize("taken_up", [False, True])
def test_a_stop_may_have_been_billed_if_a_worker_had_begun(
    api: APIClient, servers: Servers, settings: Settings, user: Any, taken_up: bool
) -> None:
    long_ago = timezone.now() - timedelta(hours=1)
    row = GeneratedImage.objects.create(
        owner=user,
        content_item_id="item-1",
        title="A quiet harbour at dawn",
        file_stem="draft-images/item-1/hero-1",
        started_at=long_ago if taken_up else None,
        deadline_at=long_ago,
    )
    shown = api.get(f"/api/images/{row.pk}").json()
    assert shown["status"] == "failed"
    assert shown["error"].get("mayHaveBilled") == (True if taken_up else None)
    assert (shown["error"]["message"] == STOPPED) is taken_up


def test_a_picture_has_no_error(api: APIClient, servers: Servers) -> None:
    servers[0].script("http_500")
    image = generate_image(content_item_id="item-1", title="A quiet harbour at dawn")
    assert not image.may_have_billed
    assert [attempt["may_have_billed"] for attempt in image.attempts] == [True, True]
    assert not ImagesError().may_have_billed


class TestWorkers:
    """A worker's outcome is the thread's outcome."""

    @pytest.mark.parametrize("provider", ["gemini", "openai"])
    @pytest.mark.parametrize(
        ("mode", "code", "retryable", "retry_after"),
        [
            ("http_400", "provider_error", False, None),
            ("http_500", "provider_error", True, None),
            ("http_429", "provider_rate_limited", True, "2"),
        ],
    )
    def test_through_the_api(
        self,
        api: APIClient,
        servers: Servers,
        settings: Settings,
        provider: str,
        mode: str,
        code: str,
        retryable: bool,
        retry_after: str | None,
    ) -> None:
        configure(settings, PROVIDER=provider, DEADLINE=3)  # the pause of two seconds is more than half of it
        for server in servers:
            server.script(*[mode] * 4)
        assert {each[0] for each in told(api)} == {code}
        answer = api.post("/api/images/generate", BODY, format="json", headers={"prefer": "wait=20"})
        assert (answer.json()["retryable"], answer.get("Retry-After")) == (retryable, retry_after)

    @pytest.mark.parametrize("message", ["", "A sentence of its own."])
    @pytest.mark.parametrize("kind", [kind for kind in _kinds(ImagesError) if kind.__module__ == exceptions.__name__])
    def test_from_python(
        self, fake_provider: FakeProvider, settings: Settings, kind: type[ImagesError], message: str
    ) -> None:
        more: dict[str, Any] = (
            {"retry_after": 15.5, "request_id": "req-9"} if issubclass(kind, ProviderFailure) else {}
        )
        configure(settings, DEADLINE=20, QUEUE=f"{__name__}.work_at_once")  # too short for a pause of 15 seconds
        raised = []
        for on_workers in (False, True):
            configure(settings, RUN_ON_WORKERS=on_workers)
            rate_limits.forget()
            fake_provider.will(kind(message, **more))
            with pytest.raises(kind) as caught:
                generate_image(content_item_id="item-1", title="A quiet harbour at dawn")
            raised.append(caught.value)
        thread, worker = raised
        assert type(thread) is type(worker) is kind
        assert (vars(worker), str(worker)) == (vars(thread), str(thread))

    def test_of_the_provider_whose_failure_tells_most(self, servers: Servers, settings: Settings) -> None:
        """Two attempts with the same code: the class of the second, which is the one to retry."""
        configure(settings, RUN_ON_WORKERS=True)
        servers[0].script("http_400")
        servers[1].script("http_500")
        with pytest.raises(ProviderError) as caught:
            generate_image(content_item_id="item-1", title="A quiet harbour at dawn")
        assert (caught.value.retryable, caught.value.may_have_billed) == (True, True)
        assert "OpenAI" in caught.value.message

    def test_that_was_recorded_by_an_earlier_release(self) -> None:
        row = GeneratedImage(
            status="failed",
            error_code="provider_error",
            error_message=exceptions.ProviderRefusedRequest.default_message,
            attempts=[{"provider": "gemini", "model": "m", "code": "provider_error", "ms": 1, "request_id": ""}],
        )
        assert type(row.failure) is exceptions.ProviderRefusedRequest
        row.error_code, row.error_message = "no_such_code_any_more", "A sentence."
        assert (type(row.failure), str(row.failure)) == (ImagesError, "A sentence.")
