"""What crashes, lost disks and restored backups leave behind, for the tests of `reconcile`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.files.base import ContentFile
from django.db import OperationalError
from django.utils import timezone

from images.models import GeneratedImage, image_storage
from images.services import generate_image
from images.services.reconciliation import Kind, reconcile
from tests.fakes.providers import png

LONG_AGO = timedelta(minutes=5)
OTHER = png(colour=b"\x00\x99\x33")


class Failing:
    """A database that fails for so many statements, to be wrapped around a connection's.

    Args:
        times: How many.
        verb: What they begin with.
    """

    def __init__(self, times: int, verb: str = "") -> None:
        self._left, self._verb = times, verb

    def __call__(self, execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith(self._verb) and self._left:
            self._left -= 1
            raise OperationalError("server closed the connection unexpectedly")
        return execute(sql, *rest)


def store(name: str, data: bytes = OTHER) -> str:
    return image_storage().save(f"draft-images/{name}", ContentFile(data))


def ready(**changes: Any) -> GeneratedImage:
    """A finished image whose row is then changed behind everybody's back."""
    image = generate_image(content_item_id="item-1", title="A quiet harbour at dawn")
    GeneratedImage.objects.filter(pk=image.pk).update(**changes)
    image.refresh_from_db()
    return image


def stopped(**changes: Any) -> GeneratedImage:
    """What a killed server leaves: a pending row that knows nothing of what came after."""
    changes = {"deadline_at": timezone.now() - LONG_AGO, **changes}
    nothing: dict[str, Any] = {
        "file": "",
        "size_bytes": None,
        "sha256": "",
        "mime_type": "",
        "finished_at": None,
        "attempts": [],
    }
    return ready(**{"status": "pending", **nothing, **changes})


def mend(**options: Any) -> list[tuple[Kind, bool]]:
    """What is found and mended; afterwards nothing must be left to be found."""
    found = [(discrepancy.kind, discrepancy.mended) for discrepancy in reconcile(apply=True, **options)]
    assert list(reconcile(apply=True, **options)) == []
    return found
