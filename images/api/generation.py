"""Making an image over HTTP in the time that the caller gives it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ..conf import conf
from ..exceptions import TooManyGenerations
from ..models import GeneratedImage, Status
from ..services import generate_image, generate_image_later
from ..services.queueing import finished, wait_for
from ..services.slots import generation_slot
from .preferences import Preferences


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a request.

    Attributes:
        image: Ready, or pending where the caller did not want to wait any longer.
        applied: What the answer says in `Preference-Applied`, or "".
    """

    image: GeneratedImage
    applied: str


def generate_in_time(preferences: Preferences, arguments: dict[str, Any]) -> Outcome:
    """Make an image, or queue it where the caller prefers not to wait for it.

    Without a queue it is made at once, and the answer claims only what was kept.

    Args:
        preferences: The caller's.
        arguments: Those of `generate_image`.

    Raises:
        ImagesError: As `generate_image` and `generate_image_later` do.
    """
    patience, started = preferences.patience, time.monotonic()
    if patience is None or not conf.queue:
        image = generate_image(**arguments)
        in_time = preferences.wait is not None and time.monotonic() - started <= preferences.wait
        return Outcome(image=image, applied=preferences.applied(in_time=True) if in_time else "")
    image = generate_image_later(**arguments)
    if image.status == Status.PENDING and patience:
        image = _wait(image, patience)
    in_time = image.current_status != Status.PENDING
    return Outcome(image=finished(image) if in_time else image, applied=preferences.applied(in_time=in_time))


def _wait(image: GeneratedImage, seconds: float) -> GeneratedImage:
    """Wait, but not longer than a generation takes, and not where that would take the last free thread."""
    try:
        with generation_slot():
            return wait_for(image, min(seconds, conf.deadline))
    except TooManyGenerations:
        return image
