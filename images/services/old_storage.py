"""The old service's storage folder: `draft-images/{contentItemId}/{variant}-{milliseconds}.png`."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from ..conf import conf
from ..exceptions import InvalidRequest
from ..image_formats import NotAnImage, inspect_image
from ..local_files import remove_if_empty
from ..models import GeneratedImage, Status, Variant
from ..storage import ROOT, is_plain_path, read_file_name
from .repair import Contents, facts

#: The longest name that a row can hold: its stem has as many characters.
MAX_NAME = 400
#: The longest content item.
MAX_FOLDER = 255

_PICTURE = re.compile(r"[^/]+\.(?:png|jpe?g|webp)", re.IGNORECASE)


class Unusable(Exception):
    """The file is none that can be imported. The message says why and holds no path."""


class NoPicture(Unusable):
    """The file is no image."""


@dataclass(frozen=True, kw_only=True)
class OldFile:
    """A file of the old service.

    Attributes:
        name: As in the addresses of the pictures: `draft-images/…`.
        path: Where it lies.
    """

    name: str
    path: str

    @property
    def content_item_id(self) -> str:
        """What the picture belongs to: its folder, or the old service's own word for nothing."""
        return self.name.removeprefix(f"{ROOT}/").rpartition("/")[0] or "unknown"

    @property
    def is_text(self) -> bool:
        """Whether a database can be asked about the name: Linux takes any bytes for one."""
        return self.name == self.name.encode("utf-8", "ignore").decode()

    def check_name(self) -> None:
        """Look at the name alone.

        Raises:
            NoPicture: It is not the name of a picture.
            Unusable: It cannot be kept or served.
        """
        if not _PICTURE.fullmatch(self.name.rpartition("/")[2]):
            raise NoPicture("It is not called .png, .jpg, .jpeg or .webp.")
        plain = is_plain_path(self.name.removeprefix(f"{ROOT}/"))
        if not plain or not self.is_text or len(self.name) > MAX_NAME or len(self.content_item_id) > MAX_FOLDER:
            raise Unusable("Its name is hidden, too long, or holds characters that no address has.")

    def read(self) -> tuple[bytes, Contents]:
        """The whole file, and what it is.

        Raises:
            NoPicture: It is no whole image, or no file at all.
            Unusable: It is larger than `IMAGES["MAX_IMAGE_BYTES"]`.
            OSError: It cannot be read.
        """
        if os.path.islink(self.path) or not os.path.isfile(self.path):
            raise NoPicture("It is a link or something else that is no file.")
        limit = conf.max_image_bytes
        with open(self.path, "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise Unusable(f"It is larger than MAX_IMAGE_BYTES allows ({limit}).")
        try:
            info = inspect_image(data, max_bytes=limit, max_pixels=2**63)  # it was served all the time
        except NotAnImage as err:
            raise NoPicture(f"It is no whole image: {err}.") from err
        return data, Contents(size=len(data), sha256=hashlib.sha256(data).hexdigest(), info=info)

    def row(self, contents: Contents) -> GeneratedImage:
        """A row, not yet written, that belongs to nobody and holds all that the file and its name tell.

        Args:
            contents: From `read`.
        """
        variant, created_at = read_file_name(self.name) or ("", self._modified_at())
        if not settings.USE_TZ:
            created_at = timezone.make_naive(created_at, timezone.get_default_timezone())
        return GeneratedImage(
            content_item_id=self.content_item_id,
            variant=variant if variant in Variant.values else Variant.HERO,
            status=Status.READY,
            file_stem=self.name.rpartition(".")[0],
            created_at=created_at,
            finished_at=created_at,
            **facts(self.name, contents),
        )

    def _modified_at(self) -> datetime:
        return datetime.fromtimestamp(os.stat(self.path).st_mtime, UTC)

    def remove(self) -> None:
        """Remove the file, and its folder if that was the last.

        Raises:
            OSError: It could not be removed.
        """
        os.unlink(self.path)
        if self.name.count("/") > 1:
            remove_if_empty(os.path.dirname(self.path))


def find_pictures_folder(directory: Path) -> Path:
    """The folder `draft-images`: in `directory`, or `directory` itself.

    Raises:
        InvalidRequest: Neither is there.
    """
    for folder in (directory / ROOT, directory):
        if folder.name == ROOT and folder.is_dir():
            return folder.resolve()
    raise InvalidRequest(f"There is no folder {ROOT} in the directory. Give the old service's storage folder.")


def walk(folder: Path) -> Iterator[OldFile]:
    """Every file below the folder `draft-images`, sorted folder by folder; links to folders are not followed.

    Raises:
        OSError: A folder cannot be listed.
    """
    yield from _walk(str(folder), ROOT)


def _walk(path: str, name: str) -> Iterator[OldFile]:
    with os.scandir(path) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        inner = f"{name}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, inner)
        else:
            yield OldFile(name=inner, path=entry.path)
