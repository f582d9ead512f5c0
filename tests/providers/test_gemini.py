"""What is sent to Gemini, and what its answers become."""

from __future__ import annotations

from typing import Any

import pytest

from images import exceptions as failures
from images.providers.gemini import GeminiProvider
from tests.fakes.provider_server import ProviderServer
from tests.providers.conftest import GEMINI_KEY, MakeProvider, request_for

MODEL = "models/gemini-nano-banana-2.1:generateContent"


def test_the_request_has_the_documented_shape_and_nothing_else(
    gemini_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    image = gemini_provider().generate(request_for(aspect_ratio=(16, 9)))
    (request,) = provider_server.requests
    assert (request.method, request.path) == ("POST", f"/v1beta/{MODEL}")
    assert request.headers["x-goog-api-key"] == GEMINI_KEY
    assert request.headers["x-server-timeout"] == "10"  # Google refuses less; our own deadline is shorter here.
    assert request.json == {
        "contents": [{"role": "user", "parts": [{"text": "A red bicycle"}]}],
        "generationConfig": {"responseModalities": ["IMAGE"], "imageConfig": {"aspectRatio": "16:9"}},
    }
    assert image.data.startswith(b"\x89PNG")
    assert (image.model, image.request_id) == ("gemini-nano-banana-2.1", "resp_fake")
    assert image.usage is not None
    assert image.usage["total_token_count"] == 1330


def test_options_are_sent(gemini_provider: MakeProvider, provider_server: ProviderServer) -> None:
    gemini_provider(image_size="2K", extra_config={"seed": 7}).generate(request_for(aspect_ratio=(4, 3)))
    sent = provider_server.requests[0].json["generationConfig"]
    assert sent["imageConfig"] == {"aspectRatio": "4:3", "imageSize": "2K"}
    assert sent["seed"] == 7


@pytest.mark.parametrize(
    ("ending", "path"),
    [
        ("", "/v1beta/"),
        ("/", "/v1beta/"),
        ("/v1beta", "/v1beta/"),
        ("/v1beta/", "/v1beta/"),
        ("/v1", "/v1/"),
        ("/gateway/v1alpha", "/gateway/v1alpha/"),
        ("/gateway", "/gateway/v1beta/"),
    ],
)
def test_the_base_url_may_name_the_version(
    gemini_provider: MakeProvider, provider_server: ProviderServer, ending: str, path: str
) -> None:
    gemini_provider(base_url=provider_server.url + ending).generate(request_for())
    assert provider_server.requests[0].path == path + MODEL


def test_stray_environment_variables_change_nothing(
    gemini_provider: MakeProvider, provider_server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "GOOGLE_GENAI_USE_VERTEXAI": "true",
        "GOOGLE_GENAI_USE_ENTERPRISE": "true",
        "GOOGLE_CLOUD_PROJECT": "stray",
        "GOOGLE_API_KEY": "AIzaStray",
        "GEMINI_API_KEY": "AIzaStrayToo",
        "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:9",
        "GOOGLE_GENAI_API_VERSION": "v9",
        "GOOGLE_GENAI_CLIENT_MODE": "replay",
    }.items():
        monkeypatch.setenv(name, value)
    gemini_provider().generate(request_for())
    (request,) = provider_server.requests
    assert request.path == f"/v1beta/{MODEL}"
    assert request.headers["x-goog-api-key"] == GEMINI_KEY


def test_a_draft_that_comes_first_is_skipped(gemini_provider: MakeProvider, provider_server: ProviderServer) -> None:
    provider_server.script("thought_first")
    assert len(gemini_provider().generate(request_for()).data) == provider_server.image_bytes


@pytest.mark.parametrize("mode", ["multi", "chunked", "gzip"])
def test_other_ways_of_delivering_a_whole_image_work(
    gemini_provider: MakeProvider, provider_server: ProviderServer, mode: str
) -> None:
    provider_server.script(mode)
    assert len(gemini_provider().generate(request_for()).data) == provider_server.image_bytes


def test_the_sdk_does_not_continue_an_answer_by_itself(
    gemini_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    """The SDK would send a second, billed request where the first answer asks for a continuation."""
    provider_server.script("continuation")
    with pytest.raises(failures.ProviderNoImage):
        gemini_provider().generate(request_for())
    assert len(provider_server.requests) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"api_key": ""}, "GEMINI_API_KEY is not set."),
        ({"base_url": "ftp://host"}, "GEMINI_API_BASE_URL is not an address"),
        ({"base_url": "https://host/v1?key=x"}, "GEMINI_API_BASE_URL contains a query"),
    ],
)
def test_a_configuration_that_cannot_work_names_the_setting(options: dict[str, Any], sentence: str) -> None:
    provider = GeminiProvider({"api_key": GEMINI_KEY, "model": "m", **options})
    assert provider.check()[0].startswith(sentence)
    with pytest.raises(failures.ProviderNotConfigured) as caught:
        provider.generate(request_for())
    assert sentence in str(caught.value)


def test_a_mistake_of_ours_before_the_request_is_no_providers_fault(
    gemini_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    with pytest.raises(ValueError, match="model"):
        gemini_provider(model="../up").generate(request_for())
    assert not provider_server.requests
