from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.media import UnsatisfiableRange, if_range_holds, parse_range

TAG = '"5f-10-2"'
DATE, MOMENT = "Thu, 13 Nov 2025 15:32:50 GMT", 1_763_047_970


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=0-0", (0, 1)),
        ("bytes=99-99", (99, 1)),
        ("bytes=90-", (90, 10)),
        ("bytes=90-1000", (90, 10)),
        ("bytes=-10", (90, 10)),
        ("bytes=-1000", (0, 100)),
        ("BYTES= 1-2 ", (1, 2)),
        ("bytes=0-" + "9" * 40, (0, 100)),
    ],
)
def test_one_range_is_understood(header: str, expected: tuple[int, int]) -> None:
    assert parse_range(header, 100) == expected


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=0-1,3-4",
        "bytes=0-,",
        "items=0-1",
        "bytes=0--1",
        "bytes=+1-2",
        "bytes=1.0-2",
        "bytes=٠-١",
        "bytes=0-1\n",
        pytest.param("bytes=" + "9" * 5000 + "-", id="thousands of digits"),
    ],
)
def test_what_is_malformed_or_a_list_is_ignored(header: str) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=100-", 100), ("bytes=100-200", 100), ("bytes=-0", 100), ("bytes=0-", 0)]
)
def test_a_range_beyond_the_end_cannot_be_satisfied(header: str, size: int) -> None:
    with pytest.raises(UnsatisfiableRange):
        parse_range(header, size)


def test_the_end_of_an_empty_file_is_the_whole_of_it() -> None:
    assert parse_range("bytes=-5", 0) is None


@given(st.from_regex(r"bytes=[0-9]{0,5}-[0-9]{0,5}", fullmatch=True) | st.text(), st.integers(0, 2000))
def test_what_is_sent_always_lies_within_the_file(header: str, size: int) -> None:
    try:
        wanted = parse_range(header, size)
    except UnsatisfiableRange:
        return
    if wanted is not None:
        start, length = wanted
        assert 0 <= start < start + length <= size


@pytest.mark.parametrize("header", ["", TAG, DATE])
def test_if_range_holds_for_the_same_file(header: str) -> None:
    assert if_range_holds(header, TAG, MOMENT)


@pytest.mark.parametrize(
    "header", ['"other"', f"W/{TAG}", "Thu, 13 Nov 2025 15:32:51 GMT", "Thu, 13 Nov 2025 15:32:49 GMT", "nonsense"]
)
def test_if_range_fails_for_another_file(header: str) -> None:
    assert not if_range_holds(header, TAG, MOMENT)


def test_if_range_with_a_date_fails_where_no_date_is_known() -> None:
    assert not if_range_holds(DATE, TAG, None)
