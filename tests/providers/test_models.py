"""The deprecation of models: the list, the check at start-up, and the advice in an error."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from django.core.checks import CheckMessage, Warning, run_checks
from pytest_django.fixtures import Settings

from images import checks
from images.conf import SETTINGS
from images.exceptions import ProviderModelUnavailable
from images.providers import models
from images.providers.gemini import GeminiProvider
from images.providers.models import DEPRECATIONS, find_deprecation
from images.providers.openai import OpenAIProvider
from tests.fakes.provider_server import ProviderServer
from tests.providers.conftest import GEMINI_KEY, OPENAI_KEY, request_for

TODAY = date(2026, 11, 23)
DEFAULT_MODELS = [
    ("OpenAI", SETTINGS["OPENAI_IMAGE_MODEL"].default),
    ("Gemini", SETTINGS["GEMINI_IMAGE_MODEL"].default),
]


def warnings(settings: Settings, **images: str) -> list[CheckMessage]:
    settings.IMAGES = {
        "OPENAI_API_KEY": "sk-x",
        "GEMINI_API_KEY": "AIza",
        "PUBLIC_URL": "https://a.example",
        **images,
    }
    return [message for message in run_checks(tags=[checks.TAG]) if message.id == checks.MODEL_RETIRED]


@pytest.mark.parametrize("entry", DEPRECATIONS, ids=lambda entry: entry.models[0])
def test_every_deprecation_has_a_source_and_replacements_that_are_not_deprecated_themselves(
    entry: models.Deprecation,
) -> None:
    assert entry.vendor in ("OpenAI", "Gemini")
    assert entry.source
    assert entry.models
    assert entry.replacements
    assert not any(find_deprecation(entry.vendor, name) for name in entry.replacements)


@pytest.mark.parametrize(("vendor", "model"), DEFAULT_MODELS)
def test_no_default_model_has_a_deprecation(vendor: str, model: str) -> None:
    assert find_deprecation(vendor, model) is None


@pytest.mark.parametrize(
    ("vendor", "model", "shutdown"),
    [
        ("OpenAI", "dall-e-2", date(2026, 5, 12)),
        ("OpenAI", "openai/dall-e-3", date(2026, 5, 12)),
        ("OpenAI", "gpt-image-1", date(2026, 10, 23)),
        ("OpenAI", "gpt-image-1-mini", date(2026, 12, 1)),
        ("OpenAI", "chatgpt-image-latest", date(2026, 12, 1)),
        ("Gemini", "models/imagen-4.0-generate-001", date(2026, 8, 17)),
        ("Gemini", "imagen-4.0-fast-generate-001", date(2026, 8, 17)),
        ("Gemini", "gemini-2.5-flash-image", date(2026, 10, 2)),
    ],
)
def test_the_models_in_use_today_have_their_day(vendor: str, model: str, shutdown: date) -> None:
    entry = find_deprecation(vendor, model)
    assert entry is not None
    assert entry.shutdown == shutdown


@pytest.mark.parametrize(
    ("vendor", "model"),
    [("OpenAI", "gpt-image-10"), ("OpenAI", "imagen-4.0-generate-001"), ("Gemini", "dall-e-2"), ("Gemini", "")],
)
def test_other_names_are_not_on_it(vendor: str, model: str) -> None:
    assert find_deprecation(vendor, model) is None


def test_a_sentence_tells_before_from_after_on_the_day_itself() -> None:
    entry = find_deprecation("OpenAI", "gpt-image-1.5")
    assert entry is not None
    assert entry.shutdown is not None
    day_before = entry.shutdown - timedelta(days=1)
    assert entry.sentence("gpt-image-1.5", day_before).startswith("OpenAI will shut down")
    assert entry.sentence("gpt-image-1.5", entry.shutdown).startswith("OpenAI shut down")


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (
            {"PROVIDER": "openai", "OPENAI_IMAGE_MODEL": "dall-e-2"},
            ("OpenAI shut down the model 'dall-e-2' on 2026-05-12.", "Set OPENAI_IMAGE_MODEL=gpt-image-2.6-flare"),
        ),
        (
            {"PROVIDER": "gemini", "GEMINI_IMAGE_MODEL": "imagen-4.0-generate-001"},
            ("on 2026-08-17.", "Set GEMINI_IMAGE_MODEL=gemini-nano-banana-2.1, the replacement that Gemini names."),
        ),
        (
            {"PROVIDER": "gemini", "GEMINI_IMAGE_MODEL": "gemini-3.1-flash-image"},
            ("without a date", "GEMINI_IMAGE_MODEL=gemini-nano-banana-2.1"),
        ),
    ],
)
def test_the_check_tells_old_configurations_what_to_set(
    settings: Settings, images: dict[str, str], words: tuple[str, str]
) -> None:
    [message] = warnings(settings, **images)
    assert type(message) is Warning
    assert words[0] in message.msg
    assert words[1] in str(message.hint)


def test_the_check_looks_at_every_configured_provider_and_at_no_other(settings: Settings) -> None:
    old = {"OPENAI_IMAGE_MODEL": "dall-e-2", "GEMINI_IMAGE_MODEL": "imagen-4.0-generate-001"}
    assert len(warnings(settings, PROVIDER="gemini,openai", **old)) == 2
    assert len(warnings(settings, PROVIDER="openai", **old)) == 1
    assert warnings(settings, PROVIDER="gemini,openai") == []


def test_the_check_knows_models_by_name_and_says_nothing_about_others(settings: Settings) -> None:
    assert warnings(settings, PROVIDER="openai", OPENAI_IMAGE_MODEL="gpt-image-9-nova") == []


@pytest.mark.parametrize(
    ("provider", "sentence"),
    [
        (
            lambda url: OpenAIProvider({"api_key": OPENAI_KEY, "model": "dall-e-2", "base_url": f"{url}/v1"}),
            "OpenAI shut down the model 'dall-e-2' on 2026-05-12. The operator should set "
            "OPENAI_IMAGE_MODEL=gpt-image-2.6-flare, the replacement that OpenAI names.",
        ),
        (
            lambda url: GeminiProvider({"api_key": GEMINI_KEY, "model": "imagen-4.0-generate-001", "base_url": url}),
            "Gemini shut down the model 'imagen-4.0-generate-001' on 2026-08-17. The operator should set "
            "GEMINI_IMAGE_MODEL=gemini-nano-banana-2.1, the replacement that Gemini names.",
        ),
    ],
    ids=["openai", "gemini"],
)
def test_the_error_over_a_dead_model_says_what_to_set(
    provider: object, sentence: str, provider_server: ProviderServer
) -> None:
    provider_server.script("http_404")
    with pytest.raises(ProviderModelUnavailable) as caught:
        provider(provider_server.url).generate(request_for())  # type: ignore[operator]
    assert caught.value.message == sentence


def test_a_model_with_a_deprecation_is_asked_for_all_the_same(provider_server: ProviderServer) -> None:
    """It decides nothing: a server under OPENAI_BASE_URL may have it."""
    options = {"api_key": OPENAI_KEY, "model": "dall-e-3", "base_url": f"{provider_server.url}/v1"}
    assert OpenAIProvider(options).generate(request_for()).data
    assert provider_server.requests[0].json["model"] == "dall-e-3"
