"""The scripted provider itself: its images are whole, and it runs as a process."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
import requests
from PIL import Image

from images.conformance.deliveries import DELIVERIES
from tests.fakes import answers
from tests.fakes.modes import MODES, TEXT_MODES
from tests.fakes.pictures import picture
from tests.fakes.provider_server import ProviderServer
from tests.fakes.texts import TEXTS


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pictures_are_whole_and_of_the_size_that_was_asked_for(kind: str) -> None:
    image = Image.open(io.BytesIO(picture(kind, 96, 54)))
    image.load()
    assert (image.format, image.size) == (kind.upper(), (96, 54))


def test_a_png_is_filled_to_the_byte() -> None:
    data = picture("png", 96, 54, 200_000)
    assert len(data) == 200_000
    Image.open(io.BytesIO(data)).load()


def test_it_runs_as_a_process_and_prints_its_port() -> None:
    command = [sys.executable, "-m", "tests.fakes.provider_server", "--image-bytes", "100000", "--texts", "refused"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        url = f"http://127.0.0.1:{port}/v1/images/generations"
        answer = requests.post(url, json={"size": "64x64"}, headers={"Authorization": "Bearer x"}, timeout=10)
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        refusal = requests.post(url, json={}, headers={"Authorization": "Bearer x"}, timeout=10)
        process.kill()
    assert len(answer.json()["data"][0]["b64_json"]) > 100_000
    assert "cannot" in refusal.json()["choices"][0]["message"]["refusal"]


def test_every_mode_is_listed_in_the_help_with_what_it_does() -> None:
    known = {*answers.SPECIAL, *answers.OTHER_MODES, *DELIVERIES}
    assert known <= set(MODES), "describe each mode in tests/fakes/modes.py"
    command = [sys.executable, "-m", "tests.fakes.provider_server", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert {*TEXTS, "refused", "empty"} == set(TEXT_MODES)
    for mode, line in (MODES | TEXT_MODES).items():
        assert f"{mode} " in shown
        assert line
        assert line in shown


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in DELIVERIES])
def test_every_mode_can_be_played_to_one_vendor_at_least(mode: str) -> None:
    wishes = [answers.Wish(api, 64, 64) for api in ("gemini", "openai")]
    played = any(answers.error(wish, mode) or answers.special(wish, mode) for wish in wishes)
    assert played or mode in ("echo", "redirect")


def test_it_plays_its_modes_again_and_again_if_told_to() -> None:
    with ProviderServer() as server:
        server.script("http_503", "ok", repeat=True)
        url, headers = f"{server.url}/v1/images/generations", {"Authorization": "Bearer x"}
        statuses = [requests.post(url, json={}, headers=headers, timeout=10).status_code for _ in range(4)]
    assert statuses == [503, 200, 503, 200]


def test_an_unknown_mode_is_refused() -> None:
    command = [sys.executable, "-m", "tests.fakes.provider_server", "http503"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "no mode 'http503'" in done.stderr
