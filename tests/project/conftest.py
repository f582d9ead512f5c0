"""What the tests of the project's way to pictures share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def picture(media_root: Path) -> Path:
    """The file behind `/media/draft-images/item-1/hero-1.png`."""
    path = media_root / "draft-images" / "item-1" / "hero-1.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x89PNG picture")
    return path
