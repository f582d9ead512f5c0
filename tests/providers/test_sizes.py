from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.providers.openai import size_for


@pytest.mark.parametrize(
    ("model", "wide", "closer"),
    [
        ("gpt-image-2.6-flare", "1536x864", "1280x960"),
        ("gpt-image-2", "1536x864", "1280x960"),
        ("gpt-image-10", "1536x864", "1280x960"),
        ("some-model-nobody-knows", "1536x864", "1280x960"),
        ("", "1536x864", "1280x960"),
        ("gpt-image-1", "1536x1024", "1536x1024"),
        ("gpt-image-1-mini", "1536x1024", "1536x1024"),
        ("gpt-image-1.5", "1536x1024", "1536x1024"),
        ("openai/gpt-image-1.5-2025-12-16", "1536x1024", "1536x1024"),
        ("chatgpt-image-latest", "1536x1024", "1536x1024"),
        ("dall-e-3", "1792x1024", "1792x1024"),
        ("dall-e-2", "1024x1024", "1024x1024"),
    ],
)
def test_both_variants_get_a_size_of_the_models_family(model: str, wide: str, closer: str) -> None:
    assert size_for(model, (16, 9)) == wide
    assert size_for(model, (4, 3)) == closer


def test_squares_and_portraits_are_understood() -> None:
    assert size_for("gpt-image-1", (1, 1)) == "1024x1024"
    assert size_for("gpt-image-1", (9, 16)) == "1024x1536"
    assert size_for("gpt-image-2", (9, 16)) == "864x1536"


@given(st.integers(1, 200), st.integers(1, 200))
def test_any_ratio_gives_sides_on_the_grid_within_the_area(width: int, height: int) -> None:
    sides = [int(side) for side in size_for("gpt-image-2", (width, height)).split("x")]
    assert all(side > 0 and side % 16 == 0 for side in sides)
    assert sides[0] * sides[1] <= 1536 * 864
