"""The scripted provider itself: its images are whole, and it runs as a process."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
import requests
from PIL import Image

from tests.fakes.pictures import picture


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
    command = [sys.executable, "-m", "tests.fakes.provider_server", "--image-bytes", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        url = f"http://127.0.0.1:{port}/v1/images/generations"
        answer = requests.post(url, json={"size": "64x64"}, headers={"Authorization": "Bearer x"}, timeout=10)
        process.kill()
    assert len(answer.json()["data"][0]["b64_json"]) > 100_000
