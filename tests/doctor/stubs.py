"""Storages with faults that only a doctor meets."""

from __future__ import annotations

from typing import Any

from django.core.files.base import ContentFile, File
from django.core.files.storage import InMemoryStorage


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
