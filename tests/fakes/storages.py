"""Storages that are not a folder of this machine, as `STORAGES` backends."""

from __future__ import annotations

import errno
import os
from datetime import datetime
from typing import Any, ClassVar, NoReturn

from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, InMemoryStorage, Storage
from pytest_django import Settings

from images.providers.http import responses_in_memory

IN_MEMORY = "django.core.files.storage.InMemoryStorage"
BROKEN = "tests.fakes.storages.BrokenStorage"
ONE_WAY = "tests.fakes.storages.OneWayStorage"
CLOSING = "tests.fakes.storages.ClosingStorage"
COUNTING = "tests.fakes.storages.CountingStorage"


class VendorError(Exception):
    """What a vendor's SDK raises: neither an OSError nor one of Django's. Its text is not for callers."""


class BrokenStorage(Storage):
    """A remote storage that is out of order."""

    def _fail(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise VendorError("bucket s3://secret-bucket/private/path is out of order")

    save = open = delete = exists = size = get_modified_time = _fail


class _OneWayFile(File):  # type: ignore[type-arg]
    def seekable(self) -> bool:
        return False


class OneWayStorage(InMemoryStorage):
    """A remote storage that knows no times and whose files can only be read from the beginning."""

    def open(self, name: str, mode: str = "rb") -> File[bytes]:
        return _OneWayFile(super().open(name, mode))

    def get_modified_time(self, name: str) -> NoReturn:
        raise NotImplementedError


class CountingStorage(InMemoryStorage):
    """A remote storage that remembers what it was asked: each call would be a round trip."""

    calls: ClassVar[list[tuple[str, str]]] = []

    def _count(self, call: str, name: str) -> None:
        self.calls.append((call, name))

    def open(self, name: str, mode: str = "rb") -> File[bytes]:
        self._count("open", name)
        return super().open(name, mode)

    def delete(self, name: str) -> None:
        self._count("delete", name)
        super().delete(name)

    def exists(self, name: str) -> bool:
        self._count("exists", name)
        return super().exists(name)

    def size(self, name: str) -> int:
        self._count("size", name)
        return super().size(name)

    def get_modified_time(self, name: str) -> datetime:
        self._count("get_modified_time", name)
        return super().get_modified_time(name)


def use_storage(settings: Settings, backend: str, **options: Any) -> None:
    """Make `backend` the project's default storage."""
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": backend, "OPTIONS": options}}


class ClosingStorage(InMemoryStorage):
    """Closes what it is given, whether it could be stored or not, and fails the first time."""

    tries = 0

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        with content:
            self.tries += 1
            if self.tries == 1:
                raise VendorError("come back later")
            return super().save(name, content, max_length)


def free_places() -> int:
    """How many answers of providers could be read at this moment."""
    taken = 0
    while responses_in_memory.acquire(blocking=False):
        taken += 1
    for _ in range(taken):
        responses_in_memory.release()
    return taken


class OnceFullStorage(FileSystemStorage):
    """A folder on a disk that is full the first time. It looks each time how many answers could be read."""

    seen: ClassVar[list[int]] = []

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        self.seen.append(free_places())
        if len(self.seen) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().save(name, content, max_length)


class LossyStorage(InMemoryStorage):
    """Gives back less than it was given."""

    def _open(self, name: str, mode: str = "rb") -> File[bytes]:
        return ContentFile(b"less", name=name)


class FailingStorage(InMemoryStorage):
    """Raises an error of its own making, which repeats the key it was given."""

    def __init__(self, secret_key: str = "", **options: Any) -> None:
        super().__init__(**options)
        self._secret_key = secret_key

    def _open(self, name: str, mode: str = "rb") -> File[bytes]:
        raise RuntimeError(f"request signed with {self._secret_key} failed")
