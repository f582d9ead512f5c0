"""How `reconcile` repairs rows and files, one at a time.

Every change of a row is one UPDATE that is conditional on the state in which the row was found. So a running
generation, a deletion or another reconciliation is never overwritten: whichever comes second changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from .. import storage
from ..exceptions import ImageNotFound, ImagesError, QueueUnavailable, StorageError
from ..file_names import content_item_of, note_stem, possible_names, read_file_name
from ..image_formats import ImageInfo, NotAnImage, inspect_image
from ..logs import log_event
from ..models import NO_WORKER_STARTED, STOPPED, GeneratedImage, Status, Variant
from ..pricing import cost_of
from ..provenance import TRAINED_ALGORITHMIC_MEDIA
from ..signals import image_generated, image_generation_failed
from ..storage import modified_at
from ..variants import variant_names
from . import budgets
from .database import rows
from .deletion import delete_image, delete_row_that_never_was
from .incidents import Incident, report

logger = logging.getLogger("images")

LOST = "The file is missing from the storage. Ask for the image again."
DAMAGED = "The file in the storage was damaged and has been removed. Ask for the image again."


def record_file(row: GeneratedImage, name: str, contents: Contents) -> bool:
    """Make a pending or failed row ready with the whole image that was made for it.

    If the process that made it has left a note, the row gets provider, model, usage and cost from there. Otherwise it
    keeps what it knows: the cost of a run that was killed is unknown, which is not zero.
    """
    values = {
        "status": Status.READY,
        "finished_at": modified_at(name) or timezone.now(),
        "error_code": "",
        "error_message": "",
        "source_type": "" if row.provider else source_of(name),
        **facts(name, contents),
    }
    noted = _read_note(name)
    done = _change(row, **values | noted)
    if done and noted:
        with suppress(StorageError):  # reconciliation removes it if the picture is gone
            storage.remove_leftover(f"{note_stem(name)}.json")
    if done:
        report(Incident.ORPHANED, row.pk, logging.INFO)
        _send_signal(row.pk, None)
    return done


def correct(row: GeneratedImage, name: str, contents: Contents) -> bool:
    """Make a ready row describe the whole image that is in the storage."""
    return _change(row, **facts(name, contents))


def fail_stopped(row: GeneratedImage, broken: list[str]) -> bool:
    """Fail a row whose process was stopped, and remove those of its files that are not whole images.

    Raises:
        StorageError: A file could not be removed; the row has still been marked as failed.
    """
    error = QueueUnavailable(NO_WORKER_STARTED) if row.started_at is None else stopped()
    done = _change(
        row,
        status=Status.FAILED,
        finished_at=timezone.now(),
        error_code=error.code,
        error_message=error.message,
    )
    if done:
        report(Incident.EXPIRED if row.started_at is None else Incident.LOST, row.pk)
        _send_signal(row.pk, error)
        for name in broken:
            storage.remove(name)
    return done


def stopped() -> ImagesError:
    """The failure of a row whose process was stopped while it worked."""
    error = ImagesError(STOPPED)
    error.may_have_billed = True
    return error


def fail_missing(row: GeneratedImage) -> bool:
    """Fail a ready row without a file. It keeps the file's name, so that the file is found if it comes back."""
    return _change(row, status=Status.FAILED, error_code=StorageError.code, error_message=LOST)


def fail_damaged(row: GeneratedImage, name: str) -> bool:
    """Fail a row whose file is not a whole image, and remove the file.

    Raises:
        StorageError: The file could not be removed; the row has still been marked as failed.
    """
    done = row.status == Status.FAILED or _change(
        row, status=Status.FAILED, error_code=StorageError.code, error_message=DAMAGED
    )
    if done:
        storage.remove(name)
    return done


def finish_deletion(row: GeneratedImage) -> bool:
    """Finish the deletion that a stopped process began.

    Raises:
        StorageError: The file could not be removed.
    """
    try:
        delete_image(image=row)
    except ImageNotFound:
        return False
    return True


def _change(row: GeneratedImage, **values: Any) -> bool:
    """Change the row if it is still in the state in which it was found. Returns whether it was."""
    found = rows().filter(pk=row.pk, status=row.status, file=row.file.name or "", deadline_at=row.deadline_at)
    done = budgets.record(found, **values)
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
        "content_credentials": info.content_credentials,
    }


def source_of(name: str) -> str:
    """Where a file comes from that nobody saw being made, by its name: a term of the IPTC, or "" if that is unknown.

    The names that this app and the old service give are given only to pictures that a provider has made.
    """
    told = read_file_name(name)
    return TRAINED_ALGORITHMIC_MEDIA if told and told[0] in variant_names() else ""


def _send_signal(pk: uuid.UUID, error: ImagesError | None) -> None:
    """Send the signal that the stopped process could no longer send."""

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
    """The names that the file of an unfinished row may have."""
    return list(dict.fromkeys([*filter(None, [row.file.name]), *possible_names(row.file_stem)]))


def rescue(row: GeneratedImage) -> bool:
    """Make an unfinished row ready if its whole file is in the storage. Returns whether it was.

    Call it before paying again for a picture whose process was stopped.

    Raises:
        StorageError: The storage cannot tell.
    """
    for name in possible_files(row):
        contents = look_into(name)
        if contents and contents.info:
            return record_file(row, name, contents)
    return False


# --- what a row does not know yet ---------------------------------------------------------------------------------

#: What a note holds, and of which kind each of it is.
_NOTED: dict[str, tuple[type, ...]] = {
    "provider": (str,),
    "model": (str,),
    "usage": (dict, type(None)),
    "attempts": (list,),
    "duration_ms": (int, type(None)),
    "source_type": (str,),
}


def leave_note(image: GeneratedImage) -> None:
    """Keep what a picture took beside its file, since the database does not answer. Failing that, it is unknown."""
    note = json.dumps({name: getattr(image, name) for name in _NOTED}, default=str)
    with suppress(StorageError):
        storage.save(note_stem(image.file_name), "json", note.encode())


def _read_note(name: str) -> dict[str, Any]:
    """The columns that a note beside a picture tells; nothing if there is no note, or if it is damaged."""
    try:
        data = storage.read(f"{note_stem(name)}.json")
        note = json.loads(data) if data else {}
    except (StorageError, ValueError):
        return {}
    if not isinstance(note, dict) or not all(isinstance(note.get(key), kinds) for key, kinds in _NOTED.items()):
        return {}
    cost = cost_of(note["attempts"])
    costs = {"cost": cost.usd, "cost_basis": cost.basis, "prices_dated": cost.dated}
    return {key: note[key] for key in _NOTED} | costs


# --- files without a row -----------------------------------------------------------------------------------------


def adopt(
    files: Mapping[str, Contents], times: Mapping[str, datetime] = MappingProxyType({})
) -> dict[str, bool | StorageError]:
    """Create rows for whole images that have none, with one statement for all of them.

    Args:
        files: What each file holds, by its name in the storage.
        times: When files were last written, as far as a listing has told that.

    Returns:
        For each name whether this call created its row, or the error if the storage did not answer.
    """
    outcomes: dict[str, bool | StorageError] = dict.fromkeys(files, False)
    known = set(rows().filter(file__in=files).order_by().values_list("file", flat=True))
    images = []
    for name in (name for name in files if name not in known):
        try:
            modified = None if read_file_name(name) else times.get(name) or modified_at(name)
        except StorageError as err:
            outcomes[name] = err
        else:
            images.append(row_of_file(name, files[name], modified=modified))
    written = write_rows(images)
    return outcomes | _keep_if_there([image for image in images if written.get(image.file_name) == image.pk])


def _keep_if_there(images: list[GeneratedImage]) -> dict[str, bool | StorageError]:
    """Remove new rows whose files another process has deleted. Returns for each whether it stays, or the error."""
    names, problem = [image.file_name for image in images], None
    try:
        missing = storage.missing_among(names)
    except StorageError as err:
        missing, problem = set(names), err
    for image in images:
        if image.file_name in missing:
            delete_row_that_never_was(image)
        else:
            fields = {"image": image.pk, "file": image.file_name, "bytes": image.size_bytes}
            log_event(logger, logging.INFO, "image_adopted", **fields)
    return {name: (problem or False) if name in missing else True for name in names}


def row_of_file(name: str, contents: Contents, *, modified: datetime | None) -> GeneratedImage:
    """An unsaved row without an owner that holds everything that a whole image and its name tell.

    Args:
        name: In the storage.
        contents: What the file holds.
        modified: When the file was last written, for names that tell no time.
    """
    variant, created = read_file_name(name) or ("", modified or timezone.now())
    if timezone.is_aware(created) and not settings.USE_TZ:
        created = timezone.make_naive(created, timezone.get_default_timezone())
    return GeneratedImage(
        content_item_id=content_item_of(name),
        variant=variant if variant in variant_names() else Variant.HERO,
        status=Status.READY,
        file_stem=name.rpartition(".")[0],
        created_at=created,
        finished_at=created,
        source_type=source_of(name),
        **facts(name, contents),
    )


def write_rows(images: list[GeneratedImage]) -> dict[str, uuid.UUID]:
    """Write rows of adopted files, except those that another process has written in the meantime.

    Args:
        images: From `row_of_file`.

    Returns:
        The primary key of the row of each file that has one now.
    """
    names = [image.file_name for image in images]
    found: dict[str, uuid.UUID] = {}
    for _attempt in range(2):
        if not images:
            break
        rows().bulk_create(images, ignore_conflicts=True)
        found = dict(rows().filter(file__in=names).order_by().values_list("file", "pk"))
        images = [image for image in images if image.file_name not in found]
        for image in images:  # two files that differ only in their extension have the same stem
            image.file_stem = image.file_name
    return found


def remove_orphan(name: str) -> bool:
    """Remove a file that has no row, whether it is an image or not.

    Raises:
        StorageError: It could not be removed.
    """
    if rows().filter(file=name).exists():
        return False
    storage.remove(name)
    log_event(logger, logging.INFO, "orphan_removed", file=name)
    return True


# --- contents of files --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The contents of a file.

    Attributes:
        size: In bytes.
        sha256: In hex digits.
        info: The image's format and size; `None` if it is not a whole image.
        problem: Why it is not one, or "".
    """

    size: int
    sha256: str
    info: ImageInfo | None
    problem: str = ""


def judge(data: bytes) -> Contents:
    """Inspect a file that is stored already. So no limit on its size or its pixels applies."""
    info, problem = None, ""
    try:
        info = inspect_image(data, max_bytes=len(data), max_pixels=2**63)
    except NotAnImage as err:
        problem = str(err)
    return Contents(size=len(data), sha256=hashlib.sha256(data).hexdigest(), info=info, problem=problem)


def look_into(name: str) -> Contents | None:
    """Read a file and inspect it; `None` if there is no such file.

    Raises:
        StorageError: It cannot be read, or is larger than `IMAGES["MAX_IMAGE_BYTES"]`.
    """
    data = storage.read(name)
    return None if data is None else judge(data)
