from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from images.providers import Deadline, ImageRequest
from images.providers.base import SDKProvider
from images.providers.gemini import GeminiProvider
from images.providers.openai import OpenAIProvider
from tests.fakes.provider_server import ProviderServer

OPENAI_KEY = "sk-secret-0123456789abcdef"
GEMINI_KEY = "AIzaSecret0123456789abcdef"

MakeProvider = Callable[..., SDKProvider[Any, Any]]


def request_for(seconds: float = 10.0, **changes: Any) -> ImageRequest:
    """A request with `seconds` until its deadline."""
    return ImageRequest(deadline=Deadline.after(seconds), **{"prompt": "A red bicycle", **changes})


@pytest.fixture
def openai_provider(provider_server: ProviderServer) -> MakeProvider:
    """Builds an `OpenAIProvider` that talks to the scripted server, ready to be asked."""

    def make(**options: Any) -> OpenAIProvider:
        defaults = {"api_key": OPENAI_KEY, "model": "gpt-image-2.6-flare", "base_url": f"{provider_server.url}/v1"}
        provider = OpenAIProvider({**defaults, "max_image_bytes": 400_000, **options})
        provider.warm_up()
        return provider

    return make


@pytest.fixture
def gemini_provider(provider_server: ProviderServer) -> MakeProvider:
    """The same for `GeminiProvider`."""

    def make(**options: Any) -> GeminiProvider:
        base_url = f"{provider_server.url}/v1beta"
        defaults = {"api_key": GEMINI_KEY, "model": "gemini-nano-banana-2.1", "base_url": base_url}
        provider = GeminiProvider({**defaults, "max_image_bytes": 400_000, **options})
        provider.warm_up()
        return provider

    return make


@pytest.fixture
def either_provider(
    request: pytest.FixtureRequest, openai_provider: MakeProvider, gemini_provider: MakeProvider
) -> MakeProvider:
    """The one named by an indirect parameter, `openai` or `gemini`."""
    return {"openai": openai_provider, "gemini": gemini_provider}[request.param]


#: Runs a test with both providers.
both = pytest.mark.parametrize("either_provider", ["openai", "gemini"], indirect=True)
