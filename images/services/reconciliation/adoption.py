"""Files without a row: giving them one, or removing them."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from ... import storage
from ...logs import log_event
from ...models import GeneratedImage, Status, Variant
from ...storage import read_file_name
from .contents import Contents, is_missing, modified_at
from .mending import facts, rows

logger = logging.getLogger("images")

#: The content item of files that lie in no content item's folder: the word that callers use themselves.
NO_ITEM = "unknown"


def adopt(name: str, contents: Contents) -> bool:
    """Make a row for a whole image that has none. Nobody owns it; what its name does not tell stays empty."""
    image = GeneratedImage(
        content_item_id=_content_item(name), status=Status.READY, **_from_name(name), **facts(name, contents)
    )
    image.finished_at = image.created_at
    # The stem is another's where two files differ in their extension only.
    done = any(_insert(image, stem, name) for stem in (name.rpartition(".")[0], name))
    if done:
        log_event(logger, logging.INFO, "image_adopted", image=image.pk, file=name, bytes=contents.size)
    return done


def remove_orphan(name: str) -> bool:
    """Remove a file that has no row, whatever it is.

    Raises:
        StorageError: It could not be removed.
    """
    if rows().filter(file=name).exists() or is_missing(name):
        return False
    storage.remove(name)
    log_event(logger, logging.INFO, "orphan_removed", file=name)
    return True


def _content_item(name: str) -> str:
    parts = name.split("/")
    return parts[1] if len(parts) > 2 else NO_ITEM


def _from_name(name: str) -> dict[str, Any]:
    """Variant and time of creation from a name like `hero-1763049170351.png`, else the time of the file."""
    variant, created = read_file_name(name) or ("", None)
    if created is None or variant not in Variant.values:
        return {"created_at": modified_at(name) or timezone.now()}
    if not settings.USE_TZ:
        created = timezone.make_naive(created, timezone.get_default_timezone())
    return {"variant": variant, "created_at": created}


def _insert(image: GeneratedImage, stem: str, name: str) -> bool:
    """Write the row; false where the stem is taken, or somebody has adopted or deleted the file meanwhile."""
    image.file_stem = stem
    if rows().filter(file=name).exists():
        return False
    try:
        with transaction.atomic(using=rows().db):
            image.save(using=rows().db, force_insert=True)
            gone = is_missing(name)  # where somebody's transaction deleted the row, the file follows it
            transaction.set_rollback(gone, using=rows().db)
    except IntegrityError:
        return False
    return not gone
