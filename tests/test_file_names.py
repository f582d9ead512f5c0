from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from images.file_names import file_stem, is_plain_path, new_token, possible_names, safe_directory

MOMENT = datetime(2025, 11, 13, 15, 32, 50, 351_900, tzinfo=UTC)
MILLISECONDS = 1_763_047_970_351


@pytest.mark.parametrize(
    "plain",
    [
        "507f1f77bcf86cd799439011",
        "0b0e7a4e-7c2e-4a7b-9d7e-2f6b7f0c9a11",
        "unknown",
        "a-slug_with.dots",
        "Console",
        "com10",
        "x" * 200,
    ],
)
def test_plain_ids_are_kept_to_the_letter(plain: str) -> None:
    assert safe_directory(plain) == plain


@pytest.mark.parametrize(
    ("wild", "readable"),
    [
        ("../../etc/passwd", "etcpasswd"),
        ("/absolute", "absolute"),
        ("..", ""),
        (".hidden", "hidden"),
        ("dot.", "dot"),
        ("a..b", "ab"),
        ("C:\\Windows", "cwindows"),
        ("CON", "con"),
        ("nul.txt", "nultxt"),
        ("COM1", "com1"),
        ("Crème brûlée", "creme-brulee"),
        ("я" * 255, ""),
        ("🎨", ""),
        ("a\x00b\n", "ab"),
        ("", ""),
        (" ", ""),
        ("made~0123456789abcdef", "made0123456789abcdef"),
        ("x" * 201, "x" * 60),
    ],
)
def test_other_ids_become_readable_and_unmistakable(wild: str, readable: str) -> None:
    assert re.fullmatch(re.escape(readable) + "~[0-9a-f]{16}", safe_directory(wild))


def test_ids_that_read_alike_get_folders_of_their_own() -> None:
    alike = ["a/b", "a b", "a:b", "A/B", "ab/", "ab"]

    assert len({safe_directory(item) for item in alike}) == len(alike)


@given(st.text(max_size=255) | st.text(alphabet="./\\~ aCON", max_size=12))
def test_every_folder_name_is_safe_everywhere(content_item_id: str) -> None:
    name = safe_directory(content_item_id)

    assert re.fullmatch(r"[A-Za-z0-9~_][A-Za-z0-9._~-]{0,199}", name)
    assert ".." not in name
    assert not name.endswith(".")
    assert not re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|\Z)", name)
    assert is_plain_path(f"{name}/hero-1.png")


def test_an_id_with_half_a_character_has_a_folder() -> None:
    assert safe_directory("\ud800").startswith("~")


def test_the_stem_names_item_variant_moment_and_token() -> None:
    stem = file_stem(content_item_id="item", variant="hero", created_at=MOMENT, token="0123456789ab")

    assert stem == f"draft-images/item/hero-{MILLISECONDS}-0123456789ab"


def test_a_naive_moment_is_one_in_the_projects_time_zone(settings: Settings) -> None:
    settings.USE_TZ = False
    settings.TIME_ZONE = "Asia/Tokyo"
    naive = MOMENT.astimezone(timezone(timedelta(hours=9))).replace(tzinfo=None)

    assert f"-{MILLISECONDS}-" in file_stem(content_item_id="i", variant="hero", created_at=naive, token="t")


def test_tokens_are_twelve_hex_digits_and_differ() -> None:
    tokens = {new_token() for _ in range(100)}

    assert len(tokens) == 100
    assert all(re.fullmatch("[0-9a-f]{12}", token) for token in tokens)


def test_the_longest_name_fits_its_column() -> None:
    stem = file_stem(content_item_id="x" * 200, variant="v" * 16, created_at=MOMENT, token=new_token())

    assert len(stem) <= 400
    assert len(stem.rpartition("/")[2]) + len(".0123456789ab.part") + len(".webp") < 255


@pytest.mark.parametrize("path", ["item/hero-1763049170351.png", "a.png", "a/b/c.png", "ab~c/ü.png", "a/b..c.png"])
def test_visible_files_have_plain_paths(path: str) -> None:
    assert is_plain_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/..",
        "../a",
        "a/./b",
        ".a",
        "a/.b.part",
        "a\\b",
        "a\x00",
        "a\nb",
        "\x7f",
    ],
)
def test_paths_that_could_lead_elsewhere_are_not_plain(path: str) -> None:
    assert not is_plain_path(path)


def test_possible_names_are_those_of_every_format() -> None:
    assert possible_names("draft-images/i/hero-1-t") == (
        "draft-images/i/hero-1-t.png",
        "draft-images/i/hero-1-t.jpg",
        "draft-images/i/hero-1-t.webp",
    )
