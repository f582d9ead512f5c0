"""Models that nobody has heard of yet: they work with no release of this app, and can be put right by settings."""

from __future__ import annotations

from typing import Any

import pytest

from images.services import generate_image
from tests.fakes.doctor import Configure, findings
from tests.fakes.provider_server import ProviderServer

pytestmark = pytest.mark.django_db(transaction=True)


def sent(server: ProviderServer, variant: str) -> Any:
    """The body that a generation sends."""
    generate_image(content_item_id="item-1", title="A quiet harbour", variant=variant)
    return server.requests[-1].json


@pytest.mark.parametrize(("variant", "size"), [("hero", "1536x864"), ("inline", "1280x960")])
@pytest.mark.parametrize(
    ("model", "quality"), [("gpt-image-9.3-nova", {"quality": "medium"}), ("nova-paint-1", {}), ("gw/nova-2", {})]
)
def test_openai_gets_the_shape_of_the_family_and_a_size_by_arithmetic(
    configure: Configure,
    provider_server: ProviderServer,
    model: str,
    quality: dict[str, str],
    variant: str,
    size: str,
) -> None:
    configure(OPENAI_IMAGE_MODEL=model)
    body = sent(provider_server, variant)
    assert body.pop("prompt")
    assert body == {"model": model, "size": size, **quality}


@pytest.mark.parametrize(("variant", "ratio"), [("hero", "16:9"), ("inline", "4:3")])
def test_gemini_gets_the_shape_and_the_ratio(
    configure: Configure, provider_server: ProviderServer, variant: str, ratio: str
) -> None:
    configure(PROVIDER="gemini", GEMINI_IMAGE_MODEL="gemini-nano-mango-7")
    body = sent(provider_server, variant)
    assert provider_server.requests[-1].path == "/v1beta/models/gemini-nano-mango-7:generateContent"
    assert body["generationConfig"] == {"responseModalities": ["IMAGE"], "imageConfig": {"aspectRatio": ratio}}


def test_settings_override_what_a_new_openai_family_wants_otherwise(
    configure: Configure, provider_server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_IMAGE_MODEL", "gpt-image-9.3-nova")
    monkeypatch.setenv("OPENAI_IMAGE_QUALITY", "ultra")
    monkeypatch.setenv("OPENAI_IMAGE_SIZE", "2048x1152")
    monkeypatch.setenv("OPENAI_IMAGE_OUTPUT_FORMAT", "webp")
    configure(PROVIDERS={"openai": {"OPTIONS": {"extra_body": {"complexity": "low", "moderation": "low"}}}})
    body = sent(provider_server, "hero")
    assert (body["model"], body["quality"], body["size"]) == ("gpt-image-9.3-nova", "ultra", "2048x1152")
    assert (body["output_format"], body["complexity"], body["moderation"]) == ("webp", "low", "low")


def test_options_lie_over_the_settings(configure: Configure, provider_server: ProviderServer) -> None:
    options = {"model": "nova-paint-1", "size": "640x640", "extra_body": {"n": 1}}
    configure(OPENAI_IMAGE_MODEL="gpt-image-2.6-flare", PROVIDERS={"openai": {"OPTIONS": options}})
    body = sent(provider_server, "hero")
    assert (body["model"], body["size"], body["n"]) == ("nova-paint-1", "640x640", 1)


def test_settings_override_what_a_new_gemini_family_wants_otherwise(
    configure: Configure, provider_server: ProviderServer
) -> None:
    extra = {"temperature": 0.5, "response_modalities": ["TEXT", "IMAGE"]}
    configure(
        PROVIDER="gemini",
        GEMINI_IMAGE_MODEL="gemini-nano-mango-7",
        GEMINI_IMAGE_SIZE="2K",
        PROVIDERS={"gemini": {"OPTIONS": {"extra_config": extra}}},
    )
    config = sent(provider_server, "hero")["generationConfig"]
    assert config["imageConfig"] == {"aspectRatio": "16:9", "imageSize": "2K"}
    assert config["responseModalities"] == ["TEXT", "IMAGE"]
    assert config["temperature"] == 0.5


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_the_doctor_is_content_with_a_name_that_only_the_vendor_knows(configure: Configure, provider: str) -> None:
    configure(PROVIDER=provider, OPENAI_IMAGE_MODEL="nova-paint-1", GEMINI_IMAGE_MODEL="gemini-nano-mango-7")
    [finding] = findings("Providers")
    assert finding.level == "ok"
