"""How `reconcile` puts rows and files right, one at a time.

Every change of a row is one conditional UPDATE on the state in which it was found, so that a generation that is still
running, a deletion, or another reconciliation is never overruled: whoever comes second changes nothing.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

from django.db import router, transaction
from django.utils import timezone

from ... import storage
from ...exceptions import ImageNotFound, ImagesError, QueueUnavailable, StorageError
from ...logs import log_event
from ...models import NOT_TAKEN_UP, STOPPED, GeneratedImage, GeneratedImageQuerySet, Status
from ...signals import image_generated, image_generation_failed
from ..deletion import delete_image
from .contents import Contents, modified_at

logger = logging.getLogger("images")

LOST = "The file is missing from the storage. Ask for the image again."
DAMAGED = "The file in the storage was damaged and has been removed. Ask for the image again."


def rows() -> GeneratedImageQuerySet:
    """Every row, read where they are written: a replica that lags behind would make files look ownerless."""
    return GeneratedImage.objects.using(router.db_for_write(GeneratedImage))


def record_file(row: GeneratedImage, name: str, contents: Contents) -> bool:
    """Let a pending or failed row become ready with the whole image that was made for it."""
    finished = modified_at(name) or timezone.now()
    done = _change(
        row, status=Status.READY, finished_at=finished, error_code="", error_message="", **facts(name, contents)
    )
    if done:
        _tell(row.pk, None)
    return done


def correct(row: GeneratedImage, name: str, contents: Contents) -> bool:
    """Let a ready row describe the whole image that lies there."""
    return _change(row, **facts(name, contents))


def fail_stopped(row: GeneratedImage, broken: list[str]) -> bool:
    """Let a row whose process was stopped fail, and remove what is no whole image of its files.

    Raises:
        StorageError: A file could not be removed; the row has failed all the same.
    """
    error = QueueUnavailable(NOT_TAKEN_UP) if row.started_at is None else ImagesError(STOPPED)
    done = _change(
        row,
        status=Status.FAILED,
        finished_at=timezone.now(),
        error_code=error.code,
        error_message=error.message,
    )
    if done:
        _tell(row.pk, error)
        for name in broken:
            storage.remove(name)
    return done


def fail_missing(row: GeneratedImage) -> bool:
    """Let a ready row without a file fail. It keeps the file's name, so that a file that comes back is found."""
    return _change(row, status=Status.FAILED, error_code=StorageError.code, error_message=LOST)


def fail_damaged(row: GeneratedImage, name: str) -> bool:
    """Let a row whose file is no whole image fail, and remove the file.

    Raises:
        StorageError: The file could not be removed; the row has failed all the same.
    """
    done = row.status == Status.FAILED or _change(
        row, status=Status.FAILED, error_code=StorageError.code, error_message=DAMAGED
    )
    if done:
        storage.remove(name)
    return done


def finish_deletion(row: GeneratedImage) -> bool:
    """Finish what a stopped process began.

    Raises:
        StorageError: The file could not be removed.
    """
    try:
        delete_image(image=row)
    except ImageNotFound:
        return False
    return True


def _change(row: GeneratedImage, **values: Any) -> bool:
    """Change the row if it is still what was looked at; whether it was."""
    found = rows().filter(pk=row.pk, status=row.status, file=row.file.name or "", deadline_at=row.deadline_at)
    done = bool(found.update(**values))
    if done:
        status = values.get("status", row.status)
        log_event(logger, logging.INFO, "image_reconciled", image=row.pk, was=row.status, status=status)
    return done


def facts(name: str, contents: Contents) -> dict[str, Any]:
    """The columns that describe a file."""
    info = contents.info
    if info is None:
        raise ValueError("only whole images are described")
    return {
        "file": name,
        "mime_type": info.mime_type,
        "width": info.width,
        "height": info.height,
        "size_bytes": contents.size,
        "sha256": contents.sha256,
    }


def _tell(pk: uuid.UUID, error: ImagesError | None) -> None:
    """Send the signal that the stopped process could not send any more."""

    def send() -> None:
        image = rows().filter(pk=pk).first()
        if image is None:
            return
        if error is None:
            image_generated.send_robust(GeneratedImage, image=image)
        else:
            image_generation_failed.send_robust(GeneratedImage, image=image, error=error)

    transaction.on_commit(send, using=rows().db, robust=True)
