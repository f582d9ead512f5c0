"""What is sent to OpenAI, and to servers that speak its API."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.core.checks import run_checks
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from images import exceptions as failures
from images.providers.openai import OpenAIProvider, size_for
from images.services import generate_image
from tests.fakes.provider_server import ProviderServer
from tests.providers.conftest import OPENAI_KEY, MakeProvider, request_for


def test_the_request_has_the_documented_shape_and_nothing_else(
    openai_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    image = openai_provider().generate(request_for(aspect_ratio=(16, 9)))
    (request,) = provider_server.requests
    assert (request.method, request.path) == ("POST", "/v1/images/generations")
    assert request.headers["authorization"] == f"Bearer {OPENAI_KEY}"
    assert request.json == {
        "model": "gpt-image-2.6-flare",
        "prompt": "A red bicycle",
        "size": "1536x864",
        "quality": "medium",
    }
    assert image.data.startswith(b"\x89PNG")
    assert (image.model, image.request_id) == ("gpt-image-2.6-flare", "req_fake")
    assert image.usage is not None
    assert image.usage["total_tokens"] == 1106


def test_options_override_what_is_computed(openai_provider: MakeProvider, provider_server: ProviderServer) -> None:
    provider = openai_provider(
        size="1024x1024", quality="low", output_format="webp", extra_body={"moderation": "low"}, organization="org-1"
    )
    image = provider.generate(request_for())
    (request,) = provider_server.requests
    assert request.json["size"] == "1024x1024"
    assert request.json["quality"] == "low"
    assert request.json["output_format"] == "webp"
    assert request.json["moderation"] == "low"
    assert request.headers["openai-organization"] == "org-1"
    assert image.data[8:12] == b"WEBP"


def test_a_model_of_another_family_gets_no_quality(
    openai_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    openai_provider(model="flux-2-dev").generate(request_for())
    assert "quality" not in provider_server.requests[0].json


def test_a_query_in_the_base_url_goes_along_as_azure_wants_it(
    openai_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    base_url = f"{provider_server.url}/openai/deployments/x?api-version=2025-04-01-preview"
    openai_provider(base_url=base_url).generate(request_for())
    [request] = provider_server.requests
    assert request.path == "/openai/deployments/x/images/generations?api-version=2025-04-01-preview"


def test_headers_and_query_parameters_of_a_gateway_are_sent(
    openai_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    provider = openai_provider(default_headers={"X-Gateway": "a", "api-key": "b"}, default_query={"tenant": "c"})
    provider.generate(request_for())
    [request] = provider_server.requests
    assert request.path.endswith("?tenant=c")
    assert (request.headers["x-gateway"], request.headers["api-key"]) == ("a", "b")


@pytest.mark.django_db
def test_azure_works_by_the_environment_alone(
    provider_server: ProviderServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.IMAGES = {"PROVIDER": "openai", "PUBLIC_URL": "https://pics.example"}
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    monkeypatch.setenv(
        "OPENAI_BASE_URL", f"{provider_server.url}/openai/deployments/x?api-version=2025-04-01-preview"
    )
    monkeypatch.setenv("OPENAI_DEFAULT_HEADERS", "api-key: azure-secret-1; X-Tenant: press")
    assert run_checks(tags=["images"]) == []
    image = generate_image(content_item_id="1", title="A title")
    [request] = provider_server.requests
    assert image.status == "ready"
    assert request.path == "/openai/deployments/x/images/generations?api-version=2025-04-01-preview"
    assert (request.headers["api-key"], request.headers["x-tenant"]) == ("azure-secret-1", "press")


def test_a_header_of_ones_own_replaces_the_one_of_the_same_name(
    openai_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    openai_provider(default_headers={"authorization": "Bearer other", "user-agent": "mine"}).generate(request_for())
    [request] = provider_server.requests
    assert (request.headers["authorization"], request.headers["user-agent"]) == ("Bearer other", "mine")


def test_secrets_that_a_gateway_repeats_do_not_reach_the_log(
    openai_provider: MakeProvider, provider_server: ProviderServer, caplog: pytest.LogCaptureFixture
) -> None:
    provider_server.script("echo")
    secrets = {"X-Gateway": "Token 0123456789abcdef", "api-key": "tell-nobody"}
    with pytest.raises(failures.ProviderRefusedRequest):
        openai_provider(api_key="plain-words-as-a-key", default_headers=secrets).generate(request_for())
    [line] = [record.getMessage() for record in caplog.records if record.name == "images.providers"]
    assert "[secret]" in line
    assert not [secret for secret in ("0123456789", "tell-nobody", "plain-words") if secret in line]


def test_stray_environment_variables_change_nothing(
    openai_provider: MakeProvider, provider_server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "authorization: Bearer sk-stray\nX-Stray: 1\nHost: evil.example")
    openai_provider().generate(request_for())
    headers = provider_server.requests[0].headers
    assert headers["authorization"] == f"Bearer {OPENAI_KEY}"
    assert "x-stray" not in headers
    assert headers["host"] == f"127.0.0.1:{provider_server.port}"


def test_an_empty_base_url_means_openai_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    provider = OpenAIProvider({"api_key": OPENAI_KEY, "model": "m", "base_url": ""})
    assert str(provider.client().base_url) == "https://api.openai.com/v1/"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"api_key": ""}, "OPENAI_API_KEY is not set."),
        ({"api_key": "sk-with\nbreak"}, "OPENAI_API_KEY contains characters"),
        ({"api_key": "sk-“quoted”"}, "OPENAI_API_KEY contains characters"),
        ({"base_url": "localhost:8000"}, "OPENAI_BASE_URL is not an address"),
        ({"base_url": "http://host:port/v1"}, "OPENAI_BASE_URL is not an address"),
    ],
)
def test_a_configuration_that_cannot_work_names_the_setting(options: dict[str, Any], sentence: str) -> None:
    provider = OpenAIProvider({"api_key": OPENAI_KEY, "model": "m", **options})
    assert provider.check()[0].startswith(sentence)
    provider.warm_up()  # Does nothing, so that a server without a key still starts.
    with pytest.raises(failures.ProviderNotConfigured) as caught:
        provider.generate(request_for())
    assert sentence in str(caught.value)
    assert "sk-" not in str(caught.value) + repr(caught.value.__cause__) + repr(provider)


def test_a_missing_sdk_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenAIProvider, "sdk", "no_such_package.inside")
    with pytest.raises(failures.ProviderNotConfigured, match=r"pip install 'trygo-images\[openai\]'"):
        OpenAIProvider({"api_key": OPENAI_KEY}).generate(request_for())


def test_one_client_serves_many_threads(openai_provider: MakeProvider, provider_server: ProviderServer) -> None:
    provider = openai_provider()
    provider_server.hold()
    pictures: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: pictures.append(provider.generate(request_for(30)).data)) for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    provider_server.wait_for(30)  # All thirty wait at the same time: no pool holds any of them back.
    provider_server.release()
    for thread in threads:
        thread.join()
    assert len(pictures) == 30


def test_the_first_of_several_images_is_taken(openai_provider: MakeProvider, provider_server: ProviderServer) -> None:
    provider_server.script("multi")
    assert len(openai_provider().generate(request_for()).data) == provider_server.image_bytes


def test_usage_keeps_what_can_be_stored(openai_provider: MakeProvider, provider_server: ProviderServer) -> None:
    provider_server.script("odd_usage")
    assert openai_provider().generate(request_for()).usage == {"total_tokens": 7}


@pytest.mark.parametrize("mode", ["chunked", "gzip", "data_url"])
def test_other_ways_of_delivering_a_whole_image_work(
    openai_provider: MakeProvider, provider_server: ProviderServer, mode: str
) -> None:
    provider_server.script(mode)
    assert len(openai_provider().generate(request_for()).data) == provider_server.image_bytes


def test_an_image_behind_an_address_is_fetched_from_an_allowed_host(
    openai_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    provider_server.script("url")
    image = openai_provider(fetch_allowed_hosts=("127.0.0.1",)).generate(request_for())
    assert len(image.data) == provider_server.image_bytes
    fetched = provider_server.requests[1]
    assert fetched.path == "/files/1536x864.png"
    assert OPENAI_KEY not in str(fetched.headers)


def test_an_image_behind_an_address_inside_the_network_is_refused(
    openai_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    provider_server.script("url")
    with pytest.raises(failures.ProviderBadResponse, match="IMAGE_FETCH_ALLOWED_HOSTS") as caught:
        openai_provider().generate(request_for())
    assert caught.value.request_id == "req_fake"
    assert len(provider_server.requests) == 1


@pytest.mark.parametrize(
    ("model", "wide", "closer"),
    [
        ("gpt-image-2.6-flare", "1536x864", "1280x960"),
        ("gpt-image-2", "1536x864", "1280x960"),
        ("gpt-image-10", "1536x864", "1280x960"),
        ("some-model-nobody-knows", "1536x864", "1280x960"),
        ("", "1536x864", "1280x960"),
        ("gpt-image-1", "1536x1024", "1536x1024"),
        ("gpt-image-1-mini", "1536x1024", "1536x1024"),
        ("gpt-image-1.5", "1536x1024", "1536x1024"),
        ("openai/gpt-image-1.5-2025-12-16", "1536x1024", "1536x1024"),
        ("chatgpt-image-latest", "1536x1024", "1536x1024"),
        ("dall-e-3", "1792x1024", "1792x1024"),
        ("dall-e-2", "1024x1024", "1024x1024"),
    ],
)
def test_both_variants_get_a_size_of_the_models_family(model: str, wide: str, closer: str) -> None:
    assert size_for(model, (16, 9)) == wide
    assert size_for(model, (4, 3)) == closer


def test_squares_and_portraits_are_understood() -> None:
    assert size_for("gpt-image-1", (1, 1)) == "1024x1024"
    assert size_for("gpt-image-1", (9, 16)) == "1024x1536"
    assert size_for("gpt-image-2", (9, 16)) == "864x1536"


@given(st.integers(1, 200), st.integers(1, 200))
def test_any_ratio_gives_sides_on_the_grid_within_the_area(width: int, height: int) -> None:
    sides = [int(side) for side in size_for("gpt-image-2", (width, height)).split("x")]
    assert all(side > 0 and side % 16 == 0 for side in sides)
    assert sides[0] * sides[1] <= 1536 * 864
