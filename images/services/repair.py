"""How `reconcile` puts rows and files right, one at a time.

Every change of a row is one conditional UPDATE on the state in which it was found, so that a generation that is still
running, a deletion, or another reconciliation is never overruled: the one that comes second changes nothing.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from .. import storage
from ..exceptions import ImageNotFound, ImagesError, QueueUnavailable, StorageError
from ..image_formats import ImageInfo, NotAnImage, inspect_image
from ..logs import log_event
from ..models import NO_WORKER_STARTED, STOPPED, GeneratedImage, Status, Variant
from ..signals import image_generated, image_generation_failed
from ..storage import content_item_of, is_missing, modified_at, possible_names, read_file_name
from .database import rows
from .deletion import delete_image

logger = logging.getLogger("images")

LOST = "The file is missing from the storage. Ask for the image again."
DAMAGED = "The file in the storage was damaged and has been removed. Ask for the image again."


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
    error = QueueUnavailable(NO_WORKER_STARTED) if row.started_at is None else ImagesError(STOPPED)
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


def possible_files(row: GeneratedImage) -> list[str]:
    """What the file of an unfinished row may be called."""
    return list(dict.fromkeys([*filter(None, [row.file.name]), *possible_names(row.file_stem)]))


def rescue(row: GeneratedImage) -> bool:
    """Let an unfinished row become ready if its whole file is in the storage; whether it did.

    For whoever comes upon a row whose process was stopped and is about to pay for the same picture again.

    Raises:
        StorageError: The storage cannot tell.
    """
    for name in possible_files(row):
        contents = look_into(name)
        if contents and contents.info:
            return record_file(row, name, contents)
    return False


# --- files without a row -----------------------------------------------------------------------------------------


def adopt(name: str, contents: Contents) -> bool:
    """Make a row for a whole image that has none; whether it was done.

    Raises:
        StorageError: The storage cannot tell whether the file is still there.
    """
    if rows().filter(file=name).exists():
        return False
    modified = None if read_file_name(name) else modified_at(name)
    image = row_of_file(name, contents, modified=modified)
    with transaction.atomic(using=rows().db):
        done = write_rows([image]).get(name) == image.pk
        gone = done and is_missing(name)  # if another transaction deleted the row, the file follows it
        transaction.set_rollback(gone, using=rows().db)
    if done and not gone:
        log_event(logger, logging.INFO, "image_adopted", image=image.pk, file=name, bytes=contents.size)
    return done and not gone


def row_of_file(name: str, contents: Contents, *, modified: datetime | None) -> GeneratedImage:
    """A row, not yet written, that has no owner and holds all that a whole image and its name tell.

    Args:
        name: In the storage.
        contents: What the file holds.
        modified: When the file was last written; it counts if the name tells no time.
    """
    variant, created = read_file_name(name) or ("", modified or timezone.now())
    if timezone.is_aware(created) and not settings.USE_TZ:
        created = timezone.make_naive(created, timezone.get_default_timezone())
    return GeneratedImage(
        content_item_id=content_item_of(name),
        variant=variant if variant in Variant.values else Variant.HERO,
        status=Status.READY,
        file_stem=name.rpartition(".")[0],
        created_at=created,
        finished_at=created,
        **facts(name, contents),
    )


def write_rows(images: list[GeneratedImage]) -> dict[str, uuid.UUID]:
    """Write rows of adopted files, and leave out those that another process has written meanwhile.

    Args:
        images: From `row_of_file`.

    Returns:
        For each of the files that has a row now, the key of that row.
    """
    names = [image.file_name for image in images]
    found: dict[str, uuid.UUID] = {}
    for _attempt in range(2):
        rows().bulk_create(images, ignore_conflicts=True)
        found = dict(rows().filter(file__in=names).order_by().values_list("file", "pk"))
        images = [image for image in images if image.file_name not in found]
        if not images:
            break
        for image in images:  # two files that differ in nothing but their extension want the same stem
            image.file_stem = image.file_name
    return found


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


# --- what files hold ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file holds.

    Attributes:
        size: In bytes.
        sha256: In hex digits.
        info: What image it is; `None` if it is not a whole image.
        problem: Why it is not, or "".
    """

    size: int
    sha256: str
    info: ImageInfo | None
    problem: str = ""


def judge(data: bytes) -> Contents:
    """Say what a file holds. No limit on its size or its pixels applies: it is stored already, perhaps for years."""
    info, problem = None, ""
    try:
        info = inspect_image(data, max_bytes=len(data), max_pixels=2**63)
    except NotAnImage as err:
        problem = str(err)
    return Contents(size=len(data), sha256=hashlib.sha256(data).hexdigest(), info=info, problem=problem)


def look_into(name: str) -> Contents | None:
    """Read a file and judge it; `None` if there is no such file. It is in memory only meanwhile.

    Raises:
        StorageError: It cannot be read, or is larger than `IMAGES["MAX_IMAGE_BYTES"]`.
    """
    data = storage.read(name)
    return None if data is None else judge(data)
