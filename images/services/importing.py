"""Importing the old service's pictures, under the addresses that they have always had.

Each file is copied, linked or left in its place, and then adopted as reconciliation adopts a file without a row.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path

from .. import storage
from ..conf import conf
from ..exceptions import InvalidRequest, StorageError
from ..file_names import ROOT, can_have_row, has_picture_name, is_plain_name, read_file_name
from ..local_files import link_into_place, local_path, remove_if_empty
from ..logs import log_event
from ..models import GeneratedImage, image_storage
from .database import rows
from .repair import Contents, judge, look_into, row_of_file, write_rows

logger = logging.getLogger("images")

#: How many files get their rows with one statement, and are read again at most after an interruption.
BATCH = 100

_TAKEN = "Another file lies in its place in the media root."


class Mode(StrEnum):
    """What becomes of the old files."""

    COPY = "copy"
    MOVE = "move"
    LEAVE = "leave"
    """They lie in the media root already."""


class Outcome(StrEnum):
    """What became of one file. The values are stable: scripts read them."""

    IMPORTED = "imported"
    PRESENT = "present"
    """It had been imported before."""
    NOT_AN_IMAGE = "not_an_image"
    """It is left alone."""
    FAILED = "failed"
    """A picture, or perhaps one, that a person has to look at. It is left alone."""


@dataclass(frozen=True, kw_only=True)
class ImportedFile:
    """What became of one file of the old service.

    Attributes:
        name: As in the address of the picture: `draft-images/…`.
        outcome: The same in a dry run, in which nothing is done.
        size: In bytes; 0 if it was not read.
        sentence: What is the matter, or "".
    """

    name: str
    outcome: Outcome
    size: int = 0
    sentence: str = ""


class _Refused(Exception):
    """A file that is not imported, and why: a sentence without a path."""

    def __init__(self, sentence: str, outcome: Outcome = Outcome.FAILED) -> None:
        super().__init__(sentence)
        self.outcome = outcome


@dataclass(frozen=True, kw_only=True)
class OldFile:
    """A file of the old service.

    Attributes:
        name: As in the addresses of the pictures: `draft-images/…`.
        path: Where it lies.
        is_regular: Whether it is neither a link nor something else that holds no bytes of its own.
    """

    name: str
    path: str
    is_regular: bool


def import_images(*, directory: Path, mode: Mode | None = None, dry_run: bool = False) -> Iterator[ImportedFile]:
    """Give every picture of the old service's storage folder a row, and its place in the storage.

    It can be interrupted and run again, also while both services work: what is done is recognised by its name. A
    moved file is removed only after its copy and its row are safe. No signal is sent.

    Args:
        directory: The old service's storage folder, or the folder `draft-images` in it.
        mode: By default `leave` if the files lie in the media root already, and `copy` if not.
        dry_run: Read and judge every file, and change nothing.

    Yields:
        What became of each file, in groups, each after its rows were written.

    Raises:
        images.exceptions.InvalidRequest: The directory holds no old pictures, or does not fit the mode.
        images.exceptions.StorageError: The storage is full, not writable or gone. What was done before stays.
        OSError: A folder cannot be listed.
    """
    folder = _pictures_folder(directory)
    mode = _choose_mode(folder, mode)
    files, count = _walk(str(folder)), 0
    try:
        while files_of_batch := list(islice(files, BATCH)):
            done = _Batch(mode, dry_run=dry_run).run(files_of_batch)
            count += sum(file.outcome is Outcome.IMPORTED for file in done)
            yield from done
    finally:
        if count and not dry_run:
            log_event(logger, logging.INFO, "images_imported", count=count, mode=mode)


def count_files(directory: Path) -> int:
    """How many files `import_images` will look at.

    Raises:
        images.exceptions.InvalidRequest: The directory holds no old pictures.
        OSError: A folder cannot be listed.
    """
    return sum(1 for _ in _walk(str(_pictures_folder(directory))))


def _pictures_folder(directory: Path) -> Path:
    """The folder `draft-images`: in `directory`, or `directory` itself."""
    for folder in (directory / ROOT, directory):
        if folder.name == ROOT and folder.is_dir():
            return folder.resolve()
    raise InvalidRequest(f"There is no folder {ROOT} in the directory. Give the old service's storage folder.")


def _choose_mode(folder: Path, mode: Mode | None) -> Mode:
    place = local_path(image_storage(), ROOT)
    in_place = place is not None and Path(place).is_dir() and folder.samefile(place)
    if mode is None:
        return Mode.LEAVE if in_place else Mode.COPY
    if in_place != (mode is Mode.LEAVE):
        raise InvalidRequest(
            "The files already lie in the media root, so they can only be left there."
            if in_place
            else "The files do not lie in the media root (MEDIA_ROOT), so they must be copied or moved."
        )
    return mode


def _walk(path: str, name: str = ROOT) -> Iterator[OldFile]:
    """Every file below a folder, sorted folder by folder; links to folders are not followed."""
    with os.scandir(path) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        inner = f"{name}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, inner)
        else:
            yield OldFile(name=inner, path=entry.path, is_regular=entry.is_file(follow_symlinks=False))


class _Batch:
    """Some files, whose rows are written together."""

    def __init__(self, mode: Mode, *, dry_run: bool) -> None:
        self._mode = mode
        self._dry_run = dry_run
        self._images: list[GeneratedImage] = []
        self._done: list[OldFile] = []

    def run(self, files: list[OldFile]) -> list[ImportedFile]:
        if self._mode is not Mode.LEAVE and not self._dry_run:
            storage.check_space(f"{ROOT}/any")
        names = [file.name for file in files if is_plain_name(file.name)]
        known = set(rows().filter(file__in=names).order_by().values_list("file", flat=True))
        results = {}
        try:
            for file in files:
                results[file.name] = self._take(file, is_known=file.name in known)
        finally:  # also if the storage is full, or the command is interrupted
            adopted = write_rows(self._images) if self._images else {}
        for name in {image.file_name for image in self._images} - adopted.keys():
            sentence = "Another image has this name in the database."
            results[name] = ImportedFile(name=name, outcome=Outcome.FAILED, sentence=sentence)
        for file in self._done if self._mode is Mode.MOVE else ():
            if (file.name in adopted or file.name in known) and (problem := _remove(file)):
                results[file.name] = problem
        return list(results.values())

    def _take(self, file: OldFile, *, is_known: bool) -> ImportedFile:
        if is_known and self._mode is not Mode.MOVE:
            return ImportedFile(name=file.name, outcome=Outcome.PRESENT)
        try:
            _check_name(file.name)
            data, contents = read_picture(file)
            if is_known and _lying_at(file.name) != contents:  # it was recorded, but not removed from its old place
                raise _Refused("An image of this name was imported before, and is another one or is gone.")
            if not self._dry_run:
                if not is_known:
                    self._adopt(file, data, contents)
                self._done.append(file)
        except _Refused as err:
            return ImportedFile(name=file.name, outcome=err.outcome, sentence=str(err))
        except OSError as err:
            sentence = f"It cannot be read: {(err.strerror or type(err).__name__).lower()}."
            return ImportedFile(name=file.name, outcome=Outcome.FAILED, sentence=sentence)
        outcome = Outcome.PRESENT if is_known else Outcome.IMPORTED
        return ImportedFile(name=file.name, outcome=outcome, size=contents.size)

    def _adopt(self, file: OldFile, data: bytes, contents: Contents) -> None:
        modified = None
        if not read_file_name(file.name):
            modified = datetime.fromtimestamp(os.stat(file.path).st_mtime, UTC)
        if self._mode is not Mode.LEAVE:
            self._place(file, data, contents)
        self._images.append(row_of_file(file.name, contents, modified=modified))

    def _place(self, file: OldFile, data: bytes, contents: Contents) -> None:
        """Bring the file to its place in the storage, unless an interrupted run has done so."""
        there = _lying_at(file.name)
        if there is not None:
            if there != contents:
                raise _Refused(_TAKEN)
            return
        path = local_path(image_storage(), file.name)
        if self._mode is Mode.MOVE and path is not None:
            with contextlib.suppress(OSError):  # copying tells what is the matter
                if link_into_place(image_storage(), path, file.path):
                    return
        stem, _, extension = file.name.rpartition(".")
        name = storage.save(stem, extension, data, ask_first=True)
        if name != file.name:  # another process has put a file there at this moment
            storage.remove(name)
            raise _Refused(_TAKEN)


def _check_name(name: str) -> None:
    if not has_picture_name(name.rpartition("/")[2]):
        raise _Refused("It is not called .png, .jpg, .jpeg or .webp.", Outcome.NOT_AN_IMAGE)
    if not can_have_row(name):
        raise _Refused("Its name is hidden, too long, or holds characters that no address has.")


def read_picture(file: OldFile) -> tuple[bytes, Contents]:
    """A whole picture, and what it is."""
    if not file.is_regular:
        raise _Refused("It is a link or something else that is no file.", Outcome.NOT_AN_IMAGE)
    limit = conf.max_image_bytes
    with open(file.path, "rb") as opened:
        data = opened.read(limit + 1)
    if len(data) > limit:
        raise _Refused(f"It is larger than MAX_IMAGE_BYTES allows ({limit}).")
    contents = judge(data)
    if contents.info is None:
        raise _Refused(f"It is no whole image: {contents.problem}.", Outcome.NOT_AN_IMAGE)
    return data, contents


def _lying_at(name: str) -> Contents | None:
    """What lies at a file's place in the storage."""
    try:
        return look_into(name)
    except StorageError as err:
        raise _Refused(f"What lies in its place in the media root: {err.message}") from err


def _remove(file: OldFile) -> ImportedFile | None:
    """Remove a file that has been moved, and its folder if that was the last; what is the matter if that failed."""
    try:
        os.unlink(file.path)
    except FileNotFoundError:
        return None
    except OSError as err:
        reason = (err.strerror or type(err).__name__).lower()
        sentence = f"It was copied, but cannot be removed: {reason}."
        return ImportedFile(name=file.name, outcome=Outcome.FAILED, sentence=sentence)
    if file.name.count("/") > 1:
        remove_if_empty(os.path.dirname(file.path))
    return None
