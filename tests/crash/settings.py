"""The project's own settings, with the parts that kill their own process where a test wants it."""

from __future__ import annotations

from trygo_backend.settings import *  # noqa: F403

IMAGES = {"PROVIDER": "fragile", "PROVIDERS": {"fragile": "tests.crash.fragile.FragileProvider"}}
STORAGES = {
    "default": {"BACKEND": "tests.crash.fragile.FragileStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
