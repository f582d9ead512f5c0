"""What `reconcile` finds: the kinds, what is told to the caller, and what is kept until it is mended."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can be wrong between the rows and the files. The values are stable: scripts read them."""

    STALE = "stale"
    """A row is pending although its deadline is long past: its process was stopped."""
    UNRECORDED = "unrecorded"
    """A failed row's whole file lies there: it is paid for."""
    MISSING = "missing"
    """A ready row has no file."""
    DAMAGED = "damaged"
    """A row's file is no whole image."""
    CHANGED = "changed"
    """A ready row's file is a whole image, but not the one that the row describes."""
    HALF_DELETED = "half_deleted"
    """A deletion was interrupted."""
    ORPHAN = "orphan"
    """A whole image has no row."""
    NOT_AN_IMAGE = "not_an_image"
    """A file has no row and is no image that the API can serve."""
    LEFTOVER = "leftover"
    """A half-written file was left by a process that was stopped."""
    UNREADABLE = "unreadable"
    """The storage could not be asked about a file or a folder."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was wrong.

    Attributes:
        kind: What it is.
        image_id: The row it concerns; `None` for a file that had none.
        name: The file's name in the storage, or "".
        mended: Whether it has been put right. Always false in a dry run.
        sentence: What is the matter, and what is done about it or why it could not be.
    """

    kind: Kind
    image_id: uuid.UUID | None
    name: str
    mended: bool
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is wrong, and how to put it right.

    Attributes:
        kind: What it is.
        image_id: The row it concerns; `None` for a file that has none.
        name: The file's name in the storage, or "".
        sentence: What is the matter and what `mend` does about it.
        mend: Puts it right. Returns whether it did: false where it had been put right, or changed, by somebody else.
            Raises `StorageError` where it cannot. `None` where only a person can help.
    """

    kind: Kind
    image_id: uuid.UUID | None = None
    name: str = ""
    sentence: str
    mend: Callable[[], bool] | None = None

    def finding(self, *, mended: bool, sentence: str = "") -> Finding:
        """What the caller is told; `sentence` replaces the problem's own."""
        return Finding(
            kind=self.kind, image_id=self.image_id, name=self.name, mended=mended, sentence=sentence or self.sentence
        )
