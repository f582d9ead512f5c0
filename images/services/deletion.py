"""Deleting an image and its file: safe to repeat, and no file is left behind however the row is deleted.

What the image cost is kept (`DeletedImage`), written in the transaction that deletes its row.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

from django.db import transaction
from django.db.models.signals import post_delete, pre_delete

from .. import storage
from ..exceptions import ImageNotFound, OpenTransactionError, StorageError
from ..file_names import possible_names
from ..logs import log_event
from ..models import DeletedImage, GeneratedImage, Status
from ..signals import image_deleted
from . import budgets
from .database import committed_at_once, rows

logger = logging.getLogger("images")


#: The columns that say what was paid for.
_PAID = ("provider", "model", "cost", "cost_basis", "duration_ms")


def delete_image(*, image: GeneratedImage) -> None:
    """Delete an image: the row is marked, the file goes, the row goes.

    A crash in between is finished by the next call or by `reconcile_images`. Inside an open transaction the file is
    removed when that commits.

    Args:
        image: The row to delete. Its file may be there or not.

    Raises:
        images.exceptions.ImageNotFound: The row is gone: another call has deleted it.
        images.exceptions.StorageError: The file could not be removed; the row stays and the call can be repeated.
    """
    found = GeneratedImage.objects.filter(pk=image.pk)
    try:
        with committed_at_once():
            marked = found.exclude(status=Status.DELETING).update(status=Status.DELETING)
    except OpenTransactionError:
        found.delete()  # the receiver below removes the file on commit
        return
    if not marked and not found.exists():
        raise ImageNotFound
    try:
        _remove_file(image)
    except StorageError:
        log_event(logger, logging.ERROR, "deletion_failed", image=image.pk, content_item=image.content_item_id)
        raise
    found.removed_file = image.file_name  # type: ignore[attr-defined]  # the receiver need not remove it again
    found.at_first_try = bool(marked)  # type: ignore[attr-defined]
    deleted, _ = found.delete()
    if not deleted:
        raise ImageNotFound


def delete_row_that_never_was(image: GeneratedImage) -> None:
    """Take back a row that was written a moment ago and that nothing was paid for. Nothing is kept of it."""
    found = rows().filter(pk=image.pk)
    found.was_never_used = True  # type: ignore[attr-defined]
    found.delete()


def keep_late_cost(image: GeneratedImage) -> None:
    """Keep what a generation cost whose row was deleted while the provider worked.

    Args:
        image: The row as the generation would have written it.
    """
    values = {name: getattr(image, name) for name in _PAID}
    found = rows().filter(pk=image.pk, status=Status.DELETING)
    if not budgets.record(found, **values):
        budgets.record(DeletedImage.objects.using(found.db).filter(pk=image.pk), **values)


def _keep(image: GeneratedImage, using: str, *, at_first_try: bool) -> None:
    """Keep what a deleted row says of costs and success."""
    names = ("owner_id", "content_item_id", "variant", *_PAID, "budget_extra")
    code = image.error_code or ("" if image.file_name else ImageNotFound.code)
    kept = DeletedImage(
        id=image.pk,
        status=Status.FAILED if code else Status.READY,
        error_code=code,
        created_at=image.created_at,
        at_first_try=at_first_try,
        **{name: getattr(image, name) for name in names},
    )
    # Two deletions at the same moment both come here.
    DeletedImage.objects.using(using).bulk_create([kept], ignore_conflicts=True)


def _remove_file(image: GeneratedImage) -> None:
    """Remove the image's file, also one that a killed process left without recording its name."""
    names = [image.file_name] if image.file_name else possible_names(image.file_stem)
    for name in names:
        storage.remove(name)


def _before_delete(instance: GeneratedImage, **_: Any) -> None:
    """Settle what is reserved for the row; its generation may still be under way."""
    budgets.settle_deleted(instance)


def _after_delete(instance: GeneratedImage, using: str, origin: Any = None, **_: Any) -> None:
    """Keep the cost of a row that was deleted in any way: admin, queryset, cascade; then remove its file.

    Args:
        instance: The row as the database held it.
        using: The database's alias.
        origin: The queryset or instance whose deletion this is a part of.
    """
    if getattr(origin, "was_never_used", False):
        budgets.release(instance)
    else:
        _keep(instance, using, at_first_try=getattr(origin, "at_first_try", True))
    gone = copy.copy(instance)  # Django empties the instance's primary key before an outer transaction commits
    # A generation that ends at this moment may have stored a file that `delete_image` did not know of.
    is_removed = bool(gone.file_name) and getattr(origin, "removed_file", "") == gone.file_name
    transaction.on_commit(lambda: _finish_delete(gone, is_removed=is_removed), using=using, robust=True)


def _finish_delete(image: GeneratedImage, *, is_removed: bool) -> None:
    try:
        if not is_removed:
            _remove_file(image)
    except StorageError as err:
        # The row is gone, so no caller can be told: reconcile_images finds a file without a row.
        log_event(logger, logging.ERROR, "file_left_behind", exc_info=err, image=image.pk, file=image.file_name)
    log_event(logger, logging.INFO, "image_deleted", image=image.pk, content_item=image.content_item_id)
    image_deleted.send_robust(GeneratedImage, image=image)


def connect() -> None:
    """Called once when the app is ready."""
    pre_delete.connect(_before_delete, sender=GeneratedImage, dispatch_uid="images.settle")
    post_delete.connect(_after_delete, sender=GeneratedImage, dispatch_uid="images.remove_file")
