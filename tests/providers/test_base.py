"""What every provider inherits, and how answers are read."""

from __future__ import annotations

import base64
import math
from typing import Any

import pytest

from images.providers import ImageProvider, base
from images.providers.base import Deadline, counts, decode_base64, read_json
from tests.providers.conftest import request_for


@pytest.fixture(params=["fast", "standard library"])
def libraries(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the extra `fast`."""
    if request.param != "fast":
        monkeypatch.setattr(base, "orjson", None)
        monkeypatch.setattr(base, "pybase64", None)


class OnePicture(ImageProvider):
    def call(self, payload: Any, deadline: Any) -> bytes:
        return b"picture"


def test_the_old_name_of_generate_still_works_and_says_so() -> None:
    with pytest.warns(DeprecationWarning, match="generate"):
        assert OnePicture().paint(request_for()).data == b"picture"


def test_a_subclass_with_a_method_of_the_old_name_is_told_that_it_is_never_called() -> None:
    with pytest.warns(DeprecationWarning, match="never called"):
        type("Old", (OnePicture,), {"paint": lambda self, request: None})


@pytest.mark.usefixtures("libraries")
def test_json_is_read_as_the_standard_library_reads_it() -> None:
    assert read_json(b'{"a": ["\\/", 1.5, null]}') == {"a": ["/", 1.5, None]}
    assert math.isnan(read_json('{"a": NaN}')["a"])


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("text", [b"", b"<html>", b"\xff", b'{"a": ', b"{" * 100_000, b"[" * 200_000])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        read_json(text)


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("mark", ["\ufeff", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_passed_over(mark: Any) -> None:
    assert read_json(mark + ("{}" if isinstance(mark, str) else b"{}")) == {}


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text,
        lambda text: "data:image/png;base64," + text,
        lambda text: text.replace("+", "-").replace("/", "_"),
        lambda text: text.rstrip("="),
        lambda text: "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76)),
        lambda text: text.replace("+", "%2B").replace("=", "%3D"),
    ],
    ids=["plain", "data address", "url-safe", "unpadded", "lines", "percent"],
)
def test_base64_is_read_in_any_spelling_that_needs_no_guess(spell: Any) -> None:
    data = bytes(range(256)) * 40
    assert decode_base64(spell(base64.b64encode(data).decode())) == data


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("text", ["abcde", "YW=Jj", "äbcd", "YWJj!", "YWJj\0"])
def test_damaged_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_base64(text)


def test_usage_keeps_numbers_and_words_that_can_be_stored() -> None:
    reported = {
        "total": 7,
        "cost": 0.042,
        "free text": "x",
        "kind": "IMAGE",
        "bad": float("nan"),
        "endless": 10**400,
        "is_byok": True,
        "many\0": 1,
        "deep": [{"n": 1}],
    }
    assert counts(reported) == {"total": 7, "cost": 0.042, "kind": "IMAGE", "is_byok": True, "deep": [{"n": 1}]}
    assert counts("free text") is None


def test_an_answer_that_has_begun_has_time_of_its_own() -> None:
    late, early = Deadline.after(-1, reading=50), Deadline.after(60, reading=50)
    assert 40 < late.for_answer().remaining <= 50
    assert early.for_answer().at == early.at
    assert early.share(2).reading == 50
