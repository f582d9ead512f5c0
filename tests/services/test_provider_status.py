"""What the doctor says about the providers: the real SDKs ask a scripted server, and no image is generated."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from images.exceptions import ProviderModelUnavailable
from images.providers import Deadline, ImageProvider
from images.services import provider_status
from images.services.diagnostics import Finding
from tests.fakes.certificates import loopback_certificate
from tests.fakes.doctor import GEMINI_KEY, OPENAI_KEY, Configure, findings
from tests.fakes.provider_server import ProviderServer

TODAY = date(2026, 11, 23)

pytestmark = pytest.mark.django_db


def the_finding(**options: Any) -> Finding:
    [finding] = findings("Providers", today=TODAY, **options)
    assert finding.next_step
    return finding


@pytest.mark.parametrize(
    ("provider", "path"),
    [("openai", "/v1/models/gpt-image-2.6-flare"), ("gemini", "/v1beta/models/gemini-nano-banana-2.1")],
)
def test_one_question_that_costs_nothing_is_sent_with_the_key(
    configure: Configure, provider_server: ProviderServer, provider: str, path: str
) -> None:
    configure(PROVIDER=provider)
    assert the_finding().level == "ok"
    [request] = provider_server.requests
    assert (request.method, request.path.partition("?")[0]) == ("GET", path)
    sent_keys = {request.headers.get("authorization"), request.headers.get("x-goog-api-key")}
    assert sent_keys & {f"Bearer {OPENAI_KEY}", GEMINI_KEY}


def test_the_text_model_of_scenes_is_asked_about_as_well(
    configure: Configure, provider_server: ProviderServer
) -> None:
    configure(PROVIDER="placeholder", SCENE_PROVIDER="openai")
    provider_server.models = {"gpt-6-luna": {"shutdown_date": "2026-12-01"}}
    [scenes] = [finding for finding in findings("Providers", today=TODAY) if "scenes" in finding.sentence]
    assert (scenes.level, "2026-12-01" in scenes.sentence) == ("attention", True)
    assert "IMAGE_SCENE_MODEL" in scenes.next_step
    configure(PROVIDER="placeholder", SCENE_PROVIDER="openai", SCENE_MODEL="gpt-gone")
    provider_server.models = {"gpt-gone": {"gone": True}}
    [scenes] = [finding for finding in findings("Providers", today=TODAY) if "scenes" in finding.sentence]
    assert (scenes.level, "IMAGE_SCENE_MODEL" in scenes.next_step) == ("broken", True)


@pytest.mark.parametrize(("provider", "setting"), [("openai", "OPENAI_BASE_URL"), ("gemini", "GEMINI_API_BASE_URL")])
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://no-such-host.invalid/v1", "name could not be looked up"),
        ("http://127.0.0.1:{closed}/v1", "the connection was refused"),
        ("https://127.0.0.1:{tls}/v1", "certificate was not accepted"),
    ],
)
def test_a_provider_that_cannot_be_reached_says_why(
    configure: Configure, tmp_path: Path, provider: str, setting: str, url: str, words: str
) -> None:
    with ProviderServer() as gone:
        closed = gone.port
    with ProviderServer(tls=loopback_certificate(tmp_path)[0]) as tls:
        configure(PROVIDER=provider, **{setting: url.format(closed=closed, tls=tls.port)})
        finding = the_finding()
    assert finding.level == "broken"
    assert words in finding.sentence
    assert "base URL" in finding.next_step


@pytest.mark.parametrize(
    ("days", "level"), [(31, "ok"), (30, "attention"), (1, "attention"), (0, "broken"), (-5, "broken")]
)
def test_openais_own_date_counts(
    configure: Configure, provider_server: ProviderServer, days: int, level: str
) -> None:
    end = TODAY + timedelta(days=days)
    provider_server.models = {"gpt-image-2.6-flare": {"shutdown_date": str(end)}, "gpt-image-7-nova": {}}
    finding = the_finding()
    assert finding.level == level
    assert str(end) in finding.sentence
    if level == "attention":
        assert "OPENAI_IMAGE_MODEL" in finding.next_step
        assert "gpt-image-7-nova" in finding.next_step


def test_the_days_ahead_can_be_chosen(configure: Configure, provider_server: ProviderServer) -> None:
    provider_server.models = {"gpt-image-2.6-flare": {"shutdown_date": str(TODAY + timedelta(days=60))}}
    assert the_finding(warn_days=90).level == "attention"
    assert the_finding(warn_days=59).level == "ok"


@pytest.mark.parametrize("written", ["soon", "", 7, ["2026-12-01"]])
def test_a_date_that_is_none_is_no_date(
    configure: Configure, provider_server: ProviderServer, written: object
) -> None:
    provider_server.models = {"gpt-image-2.6-flare": {"shutdown_date": written}}
    assert the_finding().level == "ok"


@pytest.mark.parametrize(
    ("provider", "mode", "level", "words"),
    [
        ("openai", "http_401", "broken", "OPENAI_API_KEY"),
        ("gemini", "bad_key", "broken", "GEMINI_API_KEY"),
        ("gemini", "http_403", "broken", "GEMINI_API_KEY"),
        ("openai", "quota", "broken", "provider_quota_exhausted"),
        ("openai", "http_429", "attention", "provider_rate_limited"),
        ("gemini", "http_503", "attention", "provider_overloaded"),
        ("openai", "http_500", "broken", "provider_error"),
        ("openai", "html", "broken", "provider_bad_response"),
        ("gemini", "html", "broken", "provider_bad_response"),
        ("openai", "http_403", "attention", "may not look at models"),
        ("openai", "missing_scopes", "attention", "may not look at models"),
        ("openai", "plain_404", "attention", "does not tell which models it has"),
    ],
)
def test_every_refusal_is_told_with_a_next_step(
    configure: Configure, provider_server: ProviderServer, provider: str, mode: str, level: str, words: str
) -> None:
    configure(PROVIDER=provider)
    provider_server.script_models(mode)
    finding = the_finding()
    assert finding.level == level
    assert words in finding.sentence


def test_an_option_that_is_not_known_needs_attention_and_the_key_is_tried_all_the_same(configure: Configure) -> None:
    configure(OPENAI_IMAGE_QUALITY="foo")
    doubt, key = findings("Providers", today=TODAY)
    assert (doubt.level, key.level) == ("attention", "ok")
    assert "OPENAI_IMAGE_QUALITY" in doubt.sentence


def test_a_server_that_hangs_is_not_waited_for(
    configure: Configure, provider_server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_status, "TIMEOUT", 0.3)
    provider_server.script_models("hang")
    assert "provider_timeout" in the_finding().sentence


def test_a_server_that_is_not_there_is_told(configure: Configure, provider_server: ProviderServer) -> None:
    provider_server.close()
    finding = the_finding()
    assert finding.level == "broken"
    assert "HTTPS_PROXY" in finding.next_step


@pytest.mark.parametrize(
    ("provider", "gone", "there", "replacement"),
    [
        ("openai", "dall-e-2", "gpt-image-7-nova", "OPENAI_IMAGE_MODEL=gpt-image-2.6-flare"),
        ("gemini", "imagen-4.0-generate-001", "gemini-nano-banana-9", "GEMINI_IMAGE_MODEL=gemini-nano-banana-2.1"),
    ],
)
def test_a_model_that_is_gone_is_told_with_its_replacement_and_what_the_key_has(
    configure: Configure, provider_server: ProviderServer, provider: str, gone: str, there: str, replacement: str
) -> None:
    configure(PROVIDER=provider, OPENAI_IMAGE_MODEL=gone, GEMINI_IMAGE_MODEL=gone)
    provider_server.models = {gone: {"gone": True}, there: {}, "text-only-1": {}}
    finding = the_finding()
    assert finding.level == "broken"
    assert "provider_model_unavailable" in finding.sentence
    assert f"Set {replacement}" in finding.next_step
    assert f"This key can use: {there}." in finding.next_step


def test_models_whose_end_is_announced_are_not_offered(configure: Configure, provider_server: ProviderServer) -> None:
    provider_server.models = {
        "gpt-image-2.6-flare": {"gone": True},
        "gpt-image-1": {"shutdown_date": "2020-01-01"},
        "gpt-image-2": {"shutdown_date": "2999-01-01"},
        "gpt-image-7-nova": {},
    }
    finding = the_finding()
    assert "This key can use: gpt-image-7-nova." in finding.next_step
    assert "OPENAI_IMAGE_MODEL" in finding.next_step


def test_an_imagen_that_is_still_listed_cannot_be_used_all_the_same(
    configure: Configure, provider_server: ProviderServer
) -> None:
    name = "imagen-9.0-generate-001"
    configure(PROVIDER="gemini", GEMINI_IMAGE_MODEL=name)
    provider_server.models = {name: {"supportedGenerationMethods": ["predict"]}}
    finding = the_finding()
    assert finding.level == "broken"
    assert name not in finding.next_step


def test_the_list_of_deprecations_speaks_if_gemini_says_nothing_of_the_end(configure: Configure) -> None:
    configure(PROVIDER="gemini", GEMINI_IMAGE_MODEL="gemini-3.1-flash-image")
    finding = the_finding()
    assert finding.level == "attention"
    assert "GEMINI_IMAGE_MODEL=gemini-nano-banana-2.1" in finding.next_step


def test_without_a_key_the_list_of_deprecations_speaks_and_no_provider_is_asked(
    configure: Configure, provider_server: ProviderServer
) -> None:
    configure(OPENAI_API_KEY="", OPENAI_IMAGE_MODEL="dall-e-2")
    key, model = findings("Providers", today=TODAY)
    assert (key.level, model.level) == ("broken", "broken")
    assert "OPENAI_API_KEY is not set." in key.sentence
    assert "2026-05-12" in model.sentence
    assert not provider_server.requests


def test_the_list_of_deprecations_speaks_too_if_the_vendor_cannot_be_asked(
    configure: Configure, provider_server: ProviderServer
) -> None:
    configure(OPENAI_IMAGE_MODEL="dall-e-2")
    provider_server.script_models("http_401")
    key, model = findings("Providers", today=TODAY)
    assert "provider_auth" in key.sentence
    assert "OPENAI_IMAGE_MODEL=gpt-image-2.6-flare" in model.next_step


class Wayward(ImageProvider):
    """A third-party provider with a fault."""

    def call(self, payload: Any, deadline: Deadline) -> bytes:
        return b""

    def look_up_model(self, deadline: Deadline) -> None:
        raise KeyError(self.options["api_key"])


class Gone(Wayward):
    def look_up_model(self, deadline: Deadline) -> None:
        raise ProviderModelUnavailable


def test_every_configured_provider_is_examined_whatever_the_others_do(configure: Configure) -> None:
    entries = {name.lower(): {"BACKEND": f"{__name__}.{name}", "OPTIONS": {"api_key": OPENAI_KEY}} for name in NAMES}
    entries["lost"] = {"BACKEND": "nowhere.Provider", "OPTIONS": {}}
    configure(PROVIDER="wayward,gone,nobody,lost,placeholder,openai", PROVIDERS=entries)
    found = findings("Providers", today=TODAY)
    assert [finding.level for finding in found] == ["broken"] * 4 + ["ok", "ok"]
    assert "KeyError" in found[0].sentence
    assert "IMAGE_PROVIDER" in found[2].next_step


NAMES = ("Wayward", "Gone")
