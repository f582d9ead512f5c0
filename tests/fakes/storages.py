"""Storages that are not a folder of this machine, as `STORAGES` backends."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, NoReturn

from django.core.files.base import ContentFile, File
from django.core.files.storage import InMemoryStorage, Storage
from pytest_django import Settings

IN_MEMORY = "django.core.files.storage.InMemoryStorage"
BROKEN = "tests.fakes.storages.BrokenStorage"
ONE_WAY = "tests.fakes.storages.OneWayStorage"
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
