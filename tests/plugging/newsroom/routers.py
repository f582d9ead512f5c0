"""A router that keeps the images in a database of their own, and says nothing about the rest."""

from __future__ import annotations

from typing import Any


class PicturesRouter:
    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "pictures" if model._meta.app_label == "images" else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return (db == "pictures") == (app_label == "images")
