"""What files are called in the storage, and what their names tell.

The server chooses every name. What a caller sends is at most a part of a folder's name, and only if it is plain.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime, timedelta

from django.utils import timezone
from django.utils.text import slugify

from .variants import NAME as VARIANT_NAME

#: The folder in the storage that holds every file of this app, and nothing else.
ROOT = "draft-images"

#: What `images.image_formats` can say an image is.
EXTENSIONS = ("png", "jpg", "webp")

#: The longest name, in characters, that a row can hold: its stem has as many.
MAX_NAME = 400
_MAX_CONTENT_ITEM = 255

_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
#: Names that Windows, and with it many a network share, takes for devices, with any extension.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_PICTURE = re.compile(r".+\.(?:png|jpe?g|webp)", re.IGNORECASE | re.DOTALL)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")
#: 12 to 14 digits: years 1973 to 5138.
_TELLING_NAME = re.compile(rf"(?P<variant>{VARIANT_NAME})-(?P<milliseconds>[0-9]{{12,14}})(?:-.*)?", re.DOTALL)
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
        variant: Its name, for example `hero`.
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
        The variant in front, whether there is one of that name or not, and the moment in UTC; `None` if the name is
        of another kind.
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


def note_stem(name: str) -> str:
    """The stem of the hidden file beside a picture that keeps what its row does not know yet; it ends in `.json`."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/.{file}"


def picture_of_note(name: str) -> str:
    """The picture that a hidden file belongs to if that is a note; "" if it is something else."""
    folder, _, file = name.rpartition("/")
    picture = file.removeprefix(".").removesuffix(".json")
    return f"{folder}/{picture}" if file == f".{picture}.json" and has_picture_name(picture) else ""


def can_have_row(name: str) -> bool:
    """Whether a row can name this file and `images.media` serve it: databases and addresses do not take everything.

    Args:
        name: With `draft-images/` in front.
    """
    return is_plain_name(name) and len(name) <= MAX_NAME and len(content_item_of(name)) <= _MAX_CONTENT_ITEM


def is_plain_name(name: str) -> bool:
    """Whether a name is written in UTF-8, though Linux takes any bytes for one, and means the same everywhere."""
    return name == name.encode("utf-8", "ignore").decode() and is_plain_path(name.removeprefix(f"{ROOT}/"))


def has_picture_name(name: str) -> bool:
    """Whether a file is called as pictures are."""
    return bool(_PICTURE.fullmatch(name))


def content_item_of(name: str) -> str:
    """What a file belongs to by its name: the folders it lies in, or the word that callers use for nothing."""
    return name.removeprefix(f"{ROOT}/").rpartition("/")[0] or "unknown"
