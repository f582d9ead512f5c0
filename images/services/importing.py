"""Adopting the old service's pictures, under the addresses that they have always had."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path

from .. import storage
from ..exceptions import InvalidRequest, StorageError
from ..local_files import link_into_place, local_path
from ..logs import log_event
from ..models import GeneratedImage, image_storage
from ..storage import ROOT
from .database import rows
from .old_storage import NoPicture, OldFile, Unusable, find_pictures_folder, walk
from .repair import Contents, look_into

logger = logging.getLogger("images")

#: How many files get their rows with one statement, and are read again at the most after an interruption.
BATCH = 100


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
        outcome: Likewise in a dry run, where nothing was done.
        size: In bytes; 0 where it was not read.
        sentence: What is the matter, or "".
    """

    name: str
    outcome: Outcome
    size: int = 0
    sentence: str = ""


def import_images(*, directory: Path, mode: Mode | None = None, dry_run: bool = False) -> Iterator[ImportedFile]:
    """Give every picture of the old service's storage folder a row, and its place in the storage.

    It can be interrupted and run again, also while both services work: what is done is recognised by its name. A
    moved file is removed only after its copy and its row are safe. No signal is sent.

    Args:
        directory: The old service's storage folder, or the folder `draft-images` in it.
        mode: By default `leave` where the files lie in the media root already, and else `copy`.
        dry_run: Read and judge every file, and change nothing.

    Yields:
        What became of each file, in groups, each after its rows were written.

    Raises:
        images.exceptions.InvalidRequest: The directory holds no old pictures, or does not fit the mode.
        images.exceptions.StorageError: The storage is full, not writable or gone. What was done before stays.
        OSError: A folder cannot be listed.
    """
    folder = find_pictures_folder(directory)
    mode = _choose_mode(folder, mode)
    files, count = walk(folder), 0
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
    return sum(1 for _ in walk(find_pictures_folder(directory)))


def _choose_mode(folder: Path, mode: Mode | None) -> Mode:
    place = local_path(image_storage(), ROOT)
    in_place = place is not None and Path(place).is_dir() and folder.samefile(place)
    if mode is None:
        return Mode.LEAVE if in_place else Mode.COPY
    if in_place != (mode is Mode.LEAVE):
        raise InvalidRequest(
            "The files already lie in the media root, so they can only be left there."
            if in_place
            else "The files do not lie in the media root (STORAGE_ROOT), so they must be copied or moved."
        )
    return mode


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
        names = [file.name for file in files if file.is_text]
        known = dict(rows().filter(file__in=names).order_by().values_list("file", "sha256"))
        results = {}
        try:
            for file in files:
                results[file.name] = self._take(file, known.get(file.name))
        finally:  # also where the storage is full, or somebody interrupts
            missing = self._record()
        for name in missing:
            results[name] = _failed(name, "Another image has this name in the database.")
        for file in self._done if self._mode is Mode.MOVE else ():
            if file.name not in missing and (problem := _remove(file)):
                results[file.name] = problem
        return list(results.values())

    def _take(self, file: OldFile, known_sha256: str | None) -> ImportedFile:
        try:
            if known_sha256 is not None and self._mode is not Mode.MOVE:
                return ImportedFile(name=file.name, outcome=Outcome.PRESENT)
            file.check_name()
            data, contents = file.read()
            if known_sha256 is None:
                return self._adopt(file, data, contents)
            return self._finish_move(file, contents)
        except NoPicture as err:
            return ImportedFile(name=file.name, outcome=Outcome.NOT_AN_IMAGE, sentence=str(err))
        except Unusable as err:
            return _failed(file.name, str(err))
        except OSError as err:
            return _failed(file.name, f"It cannot be read: {(err.strerror or type(err).__name__).lower()}.")

    def _adopt(self, file: OldFile, data: bytes, contents: Contents) -> ImportedFile:
        if not self._dry_run:
            if self._mode is not Mode.LEAVE:
                self._place(file, data, contents)
            self._images.append(file.row(contents))
            self._done.append(file)
        return ImportedFile(name=file.name, outcome=Outcome.IMPORTED, size=contents.size)

    def _finish_move(self, file: OldFile, contents: Contents) -> ImportedFile:
        """What was recorded, but not removed before an interruption."""
        if _lying_at(file.name) != contents:
            raise Unusable("An image of this name was imported before, and is another one or is gone.")
        if not self._dry_run:
            self._done.append(file)
        return ImportedFile(name=file.name, outcome=Outcome.PRESENT, size=contents.size)

    def _place(self, file: OldFile, data: bytes, contents: Contents) -> None:
        """Bring the file to its place in the storage, unless an interrupted run has done so.

        Raises:
            Unusable: Another file lies there.
            StorageError: The storage is full, not writable or gone.
        """
        there = _lying_at(file.name)
        if there is not None:
            if there != contents:
                raise Unusable("Another file lies in its place in the media root.")
            return
        path = local_path(image_storage(), file.name)
        if self._mode is Mode.MOVE and path is not None:
            with contextlib.suppress(OSError):  # what is the matter is told by copying
                if link_into_place(image_storage(), path, file.path):
                    return
        stem, _, extension = file.name.rpartition(".")
        name = storage.save(stem, extension, data)
        if name != file.name:  # somebody has put a file there at this moment
            storage.remove(name)
            raise Unusable("Another file lies in its place in the media root.")

    def _record(self) -> set[str]:
        """Write the rows; the names of the files that have none all the same."""
        images, names = self._images, {str(image.file.name) for image in self._images}
        for _attempt in range(2):
            rows().bulk_create(images, ignore_conflicts=True)
            names -= set(rows().filter(file__in=names).order_by().values_list("file", flat=True))
            images = [image for image in images if image.file.name in names]
            for image in images:  # two files that differ in their extension only want the same stem
                image.file_stem = str(image.file.name)
            if not images:
                break
        return names


def _remove(file: OldFile) -> ImportedFile | None:
    """Remove a file that has been moved; what became of it where that failed."""
    try:
        file.remove()
    except FileNotFoundError:
        return None
    except OSError as err:
        reason = (err.strerror or type(err).__name__).lower()
        return _failed(file.name, f"It was copied, but cannot be removed: {reason}.")
    return None


def _lying_at(name: str) -> Contents | None:
    """What lies at a file's place in the storage."""
    try:
        return look_into(name)
    except StorageError as err:
        raise Unusable(f"What lies in its place in the media root: {err.message}") from err


def _failed(name: str, sentence: str) -> ImportedFile:
    return ImportedFile(name=name, outcome=Outcome.FAILED, sentence=sentence)
