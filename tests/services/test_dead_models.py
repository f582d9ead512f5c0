"""A request that meets a dead model: said once, named, and taken over by the next provider."""

from __future__ import annotations

import logging

import pytest

from images.exceptions import ProviderModelUnavailable
from images.services import failover, generate_image
from tests.fakes.doctor import Configure
from tests.fakes.provider_server import ProviderServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "_reported", set())


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def generate() -> None:
    with pytest.raises(ProviderModelUnavailable, match="OPENAI_IMAGE_MODEL"):
        generate_image(content_item_id="item-1", title="A quiet harbour")


def test_the_log_says_it_once_a_process_at_error_level(
    configure: Configure, provider_server: ProviderServer, caplog: pytest.LogCaptureFixture
) -> None:
    configure(OPENAI_IMAGE_MODEL="dall-e-2")
    provider_server.script(*["http_404"] * 3)
    for _ in range(3):
        generate()
    [line] = errors(caplog)
    assert line.startswith("provider_model_unavailable provider=openai model=dall-e-2 ")
    assert "OPENAI_IMAGE_MODEL=gpt-image-2.6-flare, the replacement that OpenAI names." in line


def test_another_model_is_another_line(
    configure: Configure, provider_server: ProviderServer, caplog: pytest.LogCaptureFixture
) -> None:
    provider_server.script("http_404", "http_404")
    for model in ("dall-e-2", "dall-e-3"):
        configure(OPENAI_IMAGE_MODEL=model)
        generate()
    assert len(errors(caplog)) == 2


def test_the_next_provider_takes_over_and_nothing_is_replaced(
    configure: Configure, provider_server: ProviderServer, caplog: pytest.LogCaptureFixture
) -> None:
    configure(PROVIDER="openai,gemini", OPENAI_IMAGE_MODEL="dall-e-2")
    provider_server.script("http_404")
    image = generate_image(content_item_id="item-1", title="A quiet harbour")
    assert (image.provider, image.model) == ("gemini", "gemini-nano-banana-2.1")
    assert [attempt["model"] for attempt in image.attempts] == ["dall-e-2", "gemini-nano-banana-2.1"]
    assert provider_server.requests[0].json["model"] == "dall-e-2"
    assert len(errors(caplog)) == 1
