from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from images.providers import lifting
from images.providers.base import Deadline
from images.providers.exchange import Exchange, exchange
from images.providers.lifting import decode_base64, lift_images

IMAGE = bytes(range(256)) * 400
TEXT = base64.b64encode(IMAGE).decode()


@pytest.fixture
def opened() -> Iterator[Exchange]:
    with exchange(Deadline.after(5)) as opened:
        yield opened


@pytest.fixture(params=["fast", "standard library"])
def libraries(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the extra `fast`."""
    if request.param != "fast":
        monkeypatch.setattr(lifting, "orjson", None)
        monkeypatch.setattr(lifting, "pybase64", None)


def _lifted(answer: Any, opened: Exchange) -> Any:
    small = lift_images(json.dumps(answer).encode(), opened)
    assert len(small) < 1000
    return json.loads(small)


def _lifted_or_not(answer: Any, opened: Exchange) -> Any:
    return json.loads(lift_images(json.dumps(answer).encode(), opened))


@pytest.mark.usefixtures("libraries")
def test_openais_image_leaves_a_stand_in_that_leads_back_to_it(opened: Exchange) -> None:
    answer = _lifted({"created": 1, "data": [{"b64_json": TEXT, "n": 1}]}, opened)
    assert answer["created"] == 1
    assert opened.restore(answer["data"][0]["b64_json"]) == IMAGE
    assert opened.images == [IMAGE]


@pytest.mark.usefixtures("libraries")
def test_geminis_stand_in_is_base64_that_its_sdk_decodes(opened: Exchange) -> None:
    part = {"inlineData": {"mimeType": "image/png", "data": TEXT}}
    answer = _lifted({"candidates": [{"content": {"parts": [{"text": "Here"}, part]}}]}, opened)
    stand_in = answer["candidates"][0]["content"]["parts"][1]["inlineData"]["data"]
    assert opened.restore(base64.b64decode(stand_in, validate=True)) == IMAGE


@pytest.mark.usefixtures("libraries")
def test_slashes_may_be_escaped(opened: Exchange) -> None:
    """Some servers (those written in PHP) write every slash as an escape."""
    assert "/" in TEXT
    body = json.dumps({"data": [{"b64_json": TEXT}]}).replace("/", "\\/").encode()
    answer = json.loads(lift_images(body, opened))
    assert opened.restore(answer["data"][0]["b64_json"]) == IMAGE


@pytest.mark.usefixtures("libraries")
def test_several_images_are_kept_apart(opened: Exchange) -> None:
    other = IMAGE[::-1]
    texts = [{"b64_json": TEXT}, {"b64_json": "short"}, {"b64_json": base64.b64encode(other).decode()}]
    answer = _lifted({"data": texts}, opened)
    assert [opened.restore(item["b64_json"]) for item in answer["data"]] == [IMAGE, None, other]


@pytest.mark.usefixtures("libraries")
def test_quotes_inside_of_texts_mislead_nobody(opened: Exchange) -> None:
    prompt = f'a sign that says "b64_json": "{TEXT}" and ends with \\'
    answer = _lifted_or_not({"data": [{"revised_prompt": prompt, "b64_json": TEXT}]}, opened)
    assert answer["data"][0]["revised_prompt"] == prompt
    assert opened.restore(answer["data"][0]["b64_json"]) == IMAGE


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(
    "answer",
    [
        {"data": [{"b64_json": "!" * 100_000}]},
        {"data": [{"b64_json": TEXT + '", "b64_json": "' + TEXT}]},
        {"data": {"b64_json": TEXT}},
        {"data": [TEXT, None, {"b64_json": None, "other": TEXT}]},
        {"candidates": [{"content": None}, {"content": {"parts": [{"inlineData": TEXT}]}}], "x": TEXT},
        [TEXT],
        TEXT,
    ],
)
def test_what_is_not_an_image_in_its_place_stays_as_it_is(opened: Exchange, answer: Any) -> None:
    assert json.loads(lift_images(json.dumps(answer).encode(), opened)) == answer
    assert not opened.images


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("body", [b"{" * 100_000, b"[" * 200_000, b"\xff" * 100_000, b"<html>" + b"x" * 100_000])
def test_what_is_not_json_stays_as_it_is(opened: Exchange, body: bytes) -> None:
    assert lift_images(body, opened) is body


def test_a_small_answer_is_not_even_parsed(opened: Exchange) -> None:
    body = b'{"data": [{"b64_json": "' + base64.b64encode(b"x" * 5000) + b'"}]}'
    assert lift_images(body, opened) is body


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("text", ["abc", "a b=", "ab==\n", "äbcd", "YWJj-_=="])
def test_base64_is_decoded_strictly(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_base64(text)
