from __future__ import annotations

import io
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from images.exceptions import ProviderNotConfigured, ProviderTimeout
from images.providers import Deadline, ImageRequest, ProviderImage, get_provider, placeholder
from images.providers.placeholder import (
    TARGET_AREA,
    Colour,
    PlaceholderProvider,
    canvas_size,
    choose_palette,
    draw_background,
)

WHITE: Colour = (255, 255, 255)


def generate(title: str, *, seed: int = 1, aspect_ratio: tuple[int, int] = (16, 9)) -> ProviderImage:
    return PlaceholderProvider().generate(
        ImageRequest(prompt="", title=title, seed=seed, aspect_ratio=aspect_ratio, deadline=Deadline(at=float("inf")))
    )


def title_area(title: str, size: tuple[int, int] = (768, 432)) -> tuple[int, int, int, int] | None:
    """Where the title is drawn: left, top, right and bottom in pixels, or `None` if nothing is."""
    picture = Image.new("RGB", size)
    placeholder.draw_words(picture, title, WHITE)
    return picture.crop((0, 0, size[0], int(size[1] * 0.88))).getbbox()


# --- the file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aspect_ratio", "size"),
    [
        ((16, 9), (1536, 864)),
        ((4, 3), (1280, 960)),
        ((1, 1), (1152, 1152)),
        ((9, 16), (864, 1536)),
        ((32, 18), (1536, 864)),
    ],
)
def test_sizes_are_exact_multiples_of_16(aspect_ratio: tuple[int, int], size: tuple[int, int]) -> None:
    assert canvas_size(aspect_ratio) == size


@given(st.tuples(st.integers(1, 4000), st.integers(1, 4000)))
def test_any_ratio_has_a_size_in_multiples_of_16(aspect_ratio: tuple[int, int]) -> None:
    width, height = canvas_size(aspect_ratio)
    assert width % 16 == height % 16 == 0
    assert 0 < width * height <= TARGET_AREA * 1.6


@pytest.mark.parametrize(("aspect_ratio", "size"), [((16, 9), (1536, 864)), ((4, 3), (1280, 960))])
def test_the_picture_is_a_whole_png_of_the_right_size(aspect_ratio: tuple[int, int], size: tuple[int, int]) -> None:
    image = generate("A title", aspect_ratio=aspect_ratio)
    assert image.data.startswith(b"\x89PNG\r\n\x1a\n")
    assert image.data.endswith(b"IEND\xaeB`\x82")
    Image.open(io.BytesIO(image.data)).verify()
    picture = Image.open(io.BytesIO(image.data))
    picture.load()
    assert (picture.size, picture.mode) == (size, "RGB")
    assert image.model == "placeholder"
    assert image.usage is None


@pytest.mark.parametrize("title", ["One", "long " * 100, "x" * 500, "标题"])
def test_the_file_is_of_modest_size(title: str) -> None:
    assert 10_000 < len(generate(title).data) < 400_000


def test_the_same_title_and_seed_repeat_the_picture_in_any_thread() -> None:
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(generate, ["Городской велосипед"] * 4))
    assert len({picture.data for picture in pictures}) == 1


def test_another_title_or_seed_gives_another_picture_even_without_words() -> None:
    pictures = {generate("自行车").data, generate("列车").data, generate("列车", seed=2).data}
    assert len(pictures) == 3


def test_extreme_ratios_are_drawn_too() -> None:
    assert generate("Thin", aspect_ratio=(200, 1)).data
    assert generate("Tall", aspect_ratio=(1, 200)).data


# --- the words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("Zażółć gęślą jaźń – “ça”", "Zażółć gęślą jaźń – “ça”"),
        ("Съешь ещё этих мягких булок", "Съешь ещё этих мягких булок"),
        ("Πώς να διαλέξετε ποδήλατο", "Πώς να διαλέξετε ποδήλατο"),
        ("Hướng dẫn chọn xe", "Hướng dẫn chọn xe"),
        ("Cafe\u0301", "Café"),
        ("Pourquoi ?", "Pourquoi ?"),
        ("Launch day 🎉 (🎂)!", "Launch day!"),
        ("👩\u200d🚀 Work in space", "Work in space"),
        ("ＦＵＬＬ width", "FULL width"),
        ("Docker 入门", "Docker"),
        ("two\nlines\x00 and\ttabs\ud800", "two lines and tabs"),
        ("Docker: 一个完整的入门指南", ""),
        ("自行车", ""),
        ("كيف تختار دراجة", ""),
        ("אופניים", ""),
        ("🚀🔥", ""),
        ("?!…", ""),
        ("", ""),
    ],
)
def test_only_what_reads_well_is_shown(title: str, shown: str) -> None:
    assert placeholder.drawable_text(title) == shown


@pytest.mark.parametrize("title", ["自行车的选择", "كيف تختار دراجة", "🚀🔥🎉", "", "\ud800", "\U0010ffff"])
def test_what_the_font_does_not_know_leaves_no_trace(title: str) -> None:
    assert title_area(title) is None


@pytest.mark.parametrize("character", ["自", "ع", "א", "🚀", "\u0378", "\uffff"])
def test_the_fonts_glyph_for_unknown_characters_is_empty(character: str) -> None:
    assert placeholder.load_font(48).getmask(character).getbbox() is None


def test_every_picture_is_marked_as_a_placeholder() -> None:
    picture = Image.new("RGB", (768, 432))
    placeholder.draw_words(picture, "", WHITE)
    box = picture.getbbox()
    assert box is not None
    assert box[0] > 768 / 2
    assert box[1] > 432 * 0.9
    assert "placeholder" in placeholder.CAPTION


@pytest.mark.parametrize("size", [(768, 432), (416, 3264), (3264, 416), (864, 1536)])
def test_the_variant_stands_in_the_corner_opposite_the_mark(size: tuple[int, int]) -> None:
    """Within the picture, and clear of the mark, in every shape."""
    with_mark, with_both = Image.new("RGB", size), Image.new("RGB", size)
    placeholder.draw_words(with_mark, "", WHITE)
    placeholder.draw_words(with_both, "", WHITE, variant="newsletter-head · 1200:630")
    mark, added = with_mark.getbbox(), ImageChops.difference(with_mark, with_both).getbbox()
    assert mark is not None
    assert added is not None
    assert 0 < added[0] < added[2] < mark[0] < mark[2] < size[0]
    assert added[1] > size[1] * 0.9


@pytest.mark.parametrize("size", [(1536, 864), (768, 1024), (3264, 416)])
def test_scene_and_context_stand_above_the_title(size: tuple[int, int]) -> None:
    """Within the picture and clear of the longest title, however long they are."""
    with_title, with_notes = Image.new("RGB", size), Image.new("RGB", size)
    placeholder.draw_words(with_title, "W" * 500, WHITE)
    placeholder.draw_notes(with_notes, ["scene: " + "Boats in the mist. " * 40, "context: Küstenkinder"], WHITE)
    title, notes = with_title.getbbox(), with_notes.getbbox()
    assert title is not None
    assert notes is not None
    assert 0 < notes[0] < notes[2] < size[0]
    assert 0 < notes[1] < notes[3] < title[1]


@pytest.mark.parametrize("shown", [{"scene": "Boats in the mist"}, {"context": "For children"}])
def test_scene_and_context_are_seen(shown: Any) -> None:
    plain = ImageRequest(prompt="", title="A title", deadline=Deadline(at=float("inf")))
    provider = PlaceholderProvider()
    assert provider.generate(replace(plain, **shown)).data != provider.generate(plain).data


def test_two_variants_of_one_shape_look_different() -> None:
    def drawn(variant: str) -> bytes:
        request = ImageRequest(prompt="", title="A title", variant=variant, deadline=Deadline(at=float("inf")))
        return PlaceholderProvider().generate(request).data

    assert drawn("hero") == drawn("hero") != drawn("wide")


@pytest.mark.parametrize(
    "title",
    ["Я", "W" * 500, "Donaudampfschifffahrtsgesellschaftskapitän", "lorem ipsum dolor " * 27, "a " * 250, "i" * 500],
)
@pytest.mark.parametrize("size", [(768, 432), (640, 480)])
def test_a_title_stays_within_the_margins(title: str, size: tuple[int, int]) -> None:
    area = title_area(title, size)
    assert area is not None
    left, top, right, bottom = area
    assert left > size[0] * 0.05
    assert right < size[0] * 0.95
    assert top > size[1] * 0.1
    assert bottom < size[1] * 0.87


def test_a_short_title_is_large_and_a_long_one_smaller() -> None:
    short, long = (placeholder.fit_title(text, (1536, 864)).size for text in ("Slow travel", "A longer title " * 8))
    assert short > long


def test_words_are_kept_whole_and_complete_where_they_fit() -> None:
    title = "How a small team moved ten years of customer data to a new database over one quiet weekend"
    block = placeholder.fit_title(title, (1536, 864))
    assert " ".join(block.lines) == title
    assert min(map(len, block.lines)) > max(map(len, block.lines)) / 2


@pytest.mark.parametrize("title", ["x" * 500, ("many, words; " * 50)[:500]])
def test_what_does_not_fit_ends_in_an_ellipsis(title: str) -> None:
    block = placeholder.fit_title(title, (1536, 864))
    assert block.lines[-1].endswith(("x…", "many…", "words…"))
    assert title.startswith(block.lines[0])


def test_the_title_stands_out_from_every_part_of_the_picture() -> None:
    for seed in range(40):
        rng = random.Random(seed)
        palette = choose_palette(rng)
        picture = draw_background(rng, (160, 96), palette)
        colours = picture.getcolors(maxcolors=160 * 96)
        assert colours is not None
        assert min(contrast(palette.ink, colour) for _count, colour in colours) >= 4.5  # WCAG 2.2, AA


def contrast(first: Any, second: Any) -> float:
    """The contrast ratio of two sRGB colours, 1 to 21, as WCAG 2.2 defines it."""
    low, high = sorted(map(luminance, (first, second)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: tuple[int, int, int]) -> float:
    red, green, blue = (
        value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@settings(max_examples=8, deadline=None)
@given(title=st.text(max_size=600), seed=st.integers())
@example(title="\ud800", seed=-1)
def test_any_title_gives_a_picture(title: str, seed: int) -> None:
    assert generate(title, seed=seed).data.endswith(b"IEND\xaeB`\x82")


@settings(max_examples=60, deadline=None)
@given(title=st.text(max_size=600) | st.text(alphabet="aЯ ,W—(\u0301🚀", max_size=600))
def test_any_title_stays_in_the_picture(title: str) -> None:
    area = title_area(title)
    assert area is None or (area[0] > 0 and area[2] < 768)


# --- when it cannot work ----------------------------------------------------------------------------------


def test_without_pillow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ProviderNotConfigured, match=r"pip install 'trygo-images\[placeholder\]'"):
        generate("A title")
    assert "trygo-images[placeholder]" in PlaceholderProvider().check()[0]


def test_without_its_font_the_error_shows_no_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(placeholder, "FONT_PATH", tmp_path / "missing.ttf")
    with pytest.raises(ProviderNotConfigured) as caught:
        generate("A title")
    assert "font" in caught.value.message
    assert str(tmp_path) not in caught.value.message
    assert PlaceholderProvider().check() == [caught.value.message]


def test_a_deadline_that_has_passed_is_a_timeout() -> None:
    with pytest.raises(ProviderTimeout):
        PlaceholderProvider().generate(ImageRequest(prompt="", title="Late", deadline=Deadline.after(-1)))


def test_it_is_there_under_its_alias_and_ready() -> None:
    provider = get_provider("placeholder")
    provider.warm_up()
    assert isinstance(provider, PlaceholderProvider)
    assert provider.check() == []
    assert provider.model == "placeholder"
