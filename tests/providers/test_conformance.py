"""The conformance kit itself: both SDK providers pass it, and one that is careless does not."""

from __future__ import annotations

import base64
import json
import urllib.request
from typing import Any

import pytest

from images.conformance import MODES, ProviderConformance
from images.providers import Deadline, ImageProvider
from images.providers.gemini import GeminiProvider
from images.providers.openai import OpenAIProvider


class TestOpenAI(ProviderConformance):
    def make_provider(self, base_url: str) -> ImageProvider:
        return OpenAIProvider({"api_key": self.key, "model": "gpt-image-2.6-flare", "base_url": f"{base_url}/v1"})

    def answer(self, image: bytes) -> bytes:
        return json.dumps({"data": [{"b64_json": base64.b64encode(image).decode()}]}).encode()


class TestGemini(ProviderConformance):
    def make_provider(self, base_url: str) -> ImageProvider:
        return GeminiProvider({"api_key": self.key, "model": "gemini-nano-banana-2.1", "base_url": base_url})

    def answer(self, image: bytes) -> bytes:
        part = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(image).decode()}}
        return json.dumps({"candidates": [{"content": {"parts": [part]}}]}).encode()


class Careless(ImageProvider):
    """What a first draft looks like: no deadline, no exceptions of ours, and the key in its sentences."""

    def call(self, payload: Any, deadline: Deadline) -> bytes:
        try:
            with urllib.request.urlopen(str(self.options["base_url"]), b"{}") as answer:
                data: bytes = answer.read()
        except Exception as err:
            raise RuntimeError(f"{err} with {self.options['api_key']}") from err
        return data


class CarelessConformance(ProviderConformance):
    def make_provider(self, base_url: str) -> ImageProvider:
        return Careless({"api_key": self.key, "base_url": base_url})

    def answer(self, image: bytes) -> bytes:
        return image


@pytest.mark.parametrize("mode", ["hang", "slow_drip", "http_401", "http_500", "html", "redirect", "unreachable"])
def test_a_careless_provider_does_not_pass(mode: str) -> None:
    with pytest.raises(AssertionError):
        CarelessConformance().test_a_servers_fault_becomes_the_right_exception(mode)


def test_a_careless_provider_passes_if_nothing_goes_wrong() -> None:
    CarelessConformance().test_a_servers_fault_becomes_the_right_exception("ok")


def test_a_mode_can_be_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CarelessConformance, "skip", {"hang": "no deadline"}, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no deadline"):
        CarelessConformance().test_a_servers_fault_becomes_the_right_exception("hang")


def test_each_mode_says_what_it_does() -> None:
    assert all(" " in mode.says for mode in MODES.values())
