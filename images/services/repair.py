"""How `reconcile` puts rows and files right, one at a time.

Every change of a row is one conditional UPDATE on the state in which it was found, so that a generation that is still
running, a deletion, or another reconciliation is never overruled: whoever comes second changes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from .. import storage
from ..conf import conf
from ..exceptions import ImageNotFound, ImagesError, QueueUnavailable, StorageError
from ..image_formats import ImageInfo, NotAnImage, inspect_image
from ..local_files import local_path, remove_if_empty
from ..logs import log_event
from ..models import (
    NOT_TAKEN_UP,
    STOPPED,
    GeneratedImage,
    Status,
    Variant,
    image_storage,
)
from ..signals import image_generated, image_generation_failed
from ..storage import possible_names, read_file_name
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


def possible_files(row: GeneratedImage) -> list[str]:
    """What the file of an unfinished row may be called."""
    return list(dict.fromkeys([*filter(None, [row.file.name]), *possible_names(row.file_stem)]))


def rescue(row: GeneratedImage) -> bool:
    """Let an unfinished row become ready where its whole file is in the storage; whether it did.

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


# --- what files hold ---------------------------------------------------------------------------------------------

NOT_READ = "The file could not be read. The server's log has the reason."
NOT_REMOVED = "The half-written file could not be removed. The server's log has the reason."
TOO_LARGE = "The file is larger than MAX_IMAGE_BYTES allows, so it was not looked at."
#: How local storages say that there is no such file.
MISSING = (FileNotFoundError, NotADirectoryError)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file holds.

    Attributes:
        size: In bytes.
        sha256: In hex digits.
        info: What image it is; `None` where it is no whole image.
    """

    size: int
    sha256: str
    info: ImageInfo | None


@contextlib.contextmanager
def storage_errors(action: str, name: str, sentence: str) -> Iterator[None]:
    """Turn whatever a storage raises into `StorageError`; its own message is for the log only.

    Every exception counts, since remote storages raise their SDK's own, which share no root but `Exception`.

    Args:
        action: For the log.
        name: The file or folder.
        sentence: What callers are told.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as err:
        log_event(logger, logging.ERROR, "storage_failed", action=action, file=name, error=repr(err))
        raise StorageError(sentence) from err


def is_missing(name: str) -> bool:
    """Whether there is surely no such file.

    Raises:
        StorageError: The storage cannot tell. Django's local storage takes a file in a folder that it may not look
            into for missing; asking for the size tells the two apart.
    """
    if not name:
        return True
    storage = image_storage()
    with storage_errors("look", name, NOT_READ):
        if storage.exists(name):
            return False
        try:
            storage.size(name)
        except MISSING:
            return True
        except OSError:
            raise
        except Exception:  # noqa: BLE001  (a remote storage's way to say that there is none)
            return True
    return False


def look_into(name: str) -> Contents | None:
    """Read a file and judge it; `None` where there is none. It is in memory only meanwhile.

    Raises:
        StorageError: It cannot be read, or is larger than `IMAGES["MAX_IMAGE_BYTES"]`.
    """
    data = _read(name, conf.max_image_bytes)
    if data is None:
        return None
    try:
        # It is stored and served already: a limit that was lowered since must not cost a picture.
        info = inspect_image(data, max_bytes=len(data), max_pixels=2**63)
    except NotAnImage:
        info = None
    return Contents(size=len(data), sha256=hashlib.sha256(data).hexdigest(), info=info)


def _read(name: str, limit: int) -> bytes | None:
    storage = image_storage()
    with storage_errors("read", name, NOT_READ):
        try:
            with storage.open(name, "rb") as file:
                data: bytes = file.read(limit + 1)
        except MISSING:
            return None
        except OSError:
            raise
        except Exception:
            if storage.exists(name):
                raise
            return None
    if len(data) > limit:
        raise StorageError(TOO_LARGE)
    return data


def modified_at(name: str) -> datetime | None:
    """When a file was last written, in Django's notion of now; `None` where nobody knows.

    Raises:
        StorageError: The storage does not answer.
    """
    with storage_errors("look", name, NOT_READ):
        try:
            return image_storage().get_modified_time(name)
        except (*MISSING, NotImplementedError):
            return None


def remove_leftover(name: str) -> bool:
    """Remove a hidden file, which `images.storage.remove` does not; whether it was there.

    Raises:
        StorageError: It cannot be removed.
    """
    if is_missing(name):
        return False
    storage = image_storage()
    with storage_errors("remove", name, NOT_REMOVED):
        storage.delete(name)
        if (path := local_path(storage, name)) is not None and name.count("/") > 1:
            remove_if_empty(os.path.dirname(path))
    return True
