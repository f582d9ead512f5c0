"""What image files are called in the storage, and which names can be theirs.

Every file of this app lies under `draft-images/`: `draft-images/{folder}/{variant}-{milliseconds}-{token}.{ext}`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime, timedelta

from django.utils import timezone
from django.utils.text import slugify

#: The folder in the storage that holds every file of this app, and nothing else.
ROOT = "draft-images"

#: What `images.image_formats` can say an image is.
EXTENSIONS = ("png", "jpg", "webp")

_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
#: Names that Windows, and with it many a network share, takes for devices, with any extension.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")
#: 12 to 14 digits: years 1973 to 5138.
_TELLING_NAME = re.compile(r"(?P<variant>[a-z]+)-(?P<milliseconds>[0-9]{12,14})(?:-.*)?", re.DOTALL)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def safe_directory(content_item_id: str) -> str:
    """The name of the folder that keeps the images of one content item together.

    Plain ids (ASCII letters, digits, `.`, `_`, `-`, up to 200 characters) are kept to the letter. Any other becomes
    what is readable of it, a `~` and 16 hex digits of its SHA-256; since no plain id holds a `~`, the two never meet.

    Returns:
        One path segment of at most 200 ASCII characters, never empty, hidden, or special to an operating system.
    """
    is_plain = (
        _PLAIN_ID.fullmatch(content_item_id)
        and ".." not in content_item_id
        and not content_item_id.endswith(".")
        and not _DEVICE.fullmatch(content_item_id)
    )
    if is_plain:
        return content_item_id
    digest = hashlib.sha256(content_item_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{slugify(content_item_id)[:60].strip('-_')}~{digest}"


def new_token() -> str:
    """Twelve random hex digits: two images made in the same millisecond do not collide."""
    return secrets.token_hex(6)


def file_stem(*, content_item_id: str, variant: str, created_at: datetime, token: str) -> str:
    """An image's name in the storage, without the extension, which only its bytes can tell.

    Args:
        content_item_id: As the caller gave it.
        variant: `hero` or `inline`.
        created_at: Aware, or naive in the project's time zone (`USE_TZ = False`).
        token: From `new_token`.
    """
    if timezone.is_naive(created_at):
        created_at = timezone.make_aware(created_at, timezone.get_default_timezone())
    milliseconds = (created_at - _EPOCH) // timedelta(milliseconds=1)
    return f"{ROOT}/{safe_directory(content_item_id)}/{variant}-{milliseconds}-{token}"


def read_file_name(name: str) -> tuple[str, datetime] | None:
    """What an image's name tells: variant and time of creation. Names of the old service had no token.

    Args:
        name: Of a file, with or without its folders.

    Returns:
        The word in front, whatever it is, and the moment in UTC; `None` where the name is of another kind.
    """
    found = _TELLING_NAME.fullmatch(name.rpartition("/")[2].partition(".")[0])
    return (found["variant"], _EPOCH + timedelta(milliseconds=int(found["milliseconds"]))) if found else None


def is_plain_path(path: str) -> bool:
    """Whether `path`, which stands for what follows `draft-images/`, can only mean a visible file below that folder.

    No segment is empty, `.`, `..` or hidden, so neither other uploads nor half-written files can be named, and there
    is no backslash and no control character in it.
    """
    return not _UNSAFE.search(path) and all(part and not part.startswith(".") for part in path.split("/"))


def possible_names(stem: str) -> tuple[str, ...]:
    """Every name that the file of `stem` can have, for rows that do not know what became of it."""
    return tuple(f"{stem}.{extension}" for extension in EXTENSIONS)
