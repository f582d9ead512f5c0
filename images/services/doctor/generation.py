"""One real image, made the way every other is, and deleted again."""

from __future__ import annotations

from collections.abc import Iterator

from ...exceptions import ImagesError
from ...models import GeneratedImage
from ...names import new_token
from ..deletion import delete_image
from ..generation import generate_image
from .findings import Finding, attention, broken, fine

GENERATION = "Generation"

_TITLE = "A quiet harbour at dawn"


def examine_generation() -> Iterator[Finding]:
    """Make an image through the whole chain. Its row and its file go again, whatever happens."""
    item = f"images-doctor-{new_token()}"
    found: list[Finding] = []
    try:
        found.append(_paint(item))
    finally:
        found += _clean_up(item)
    yield from found


def _paint(item: str) -> Finding:
    try:
        image = generate_image(content_item_id=item, title=_TITLE)
    except ImagesError as err:
        step = "See what is said about the providers and the storage; the log of this command says more."
        return broken(GENERATION, f"No image could be made: {err.message} ({err.code})", step)
    who = f"{image.provider} ({image.model})" if image.model else image.provider
    made = f"{who} made an image of {image.width}x{image.height} in {(image.duration_ms or 0) / 1000:.1f} s"
    failed = [attempt for attempt in image.attempts if attempt["code"] != "ok"]
    if failed:
        told = ", ".join(f"{attempt['provider']}: {attempt['code']}" for attempt in failed)
        return attention(
            GENERATION, f"{made}, after others had failed ({told}).", "See what is said about providers."
        )
    return fine(GENERATION, f"{made}; it has been deleted again.")


def _clean_up(item: str) -> Iterator[Finding]:
    for image in GeneratedImage.objects.filter(content_item_id=item):
        try:
            delete_image(image=image)
        except ImagesError as err:
            step = "Delete it in the admin, or run: python manage.py reconcile_images --apply"
            yield broken(GENERATION, f"The image {image.pk} could not be deleted again: {err.message}", step)
