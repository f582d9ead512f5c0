"""What files hold: looking for them, reading and judging them, through Django's Storage API."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ...conf import conf
from ...exceptions import StorageError
from ...image_formats import ImageInfo, NotAnImage, inspect_image
from ...local_files import local_path, remove_if_empty
from ...logs import log_event
from ...models import image_storage

logger = logging.getLogger("images")

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
