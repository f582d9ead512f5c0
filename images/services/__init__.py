"""The app's public Python API.

    from images.services import agenerate_image, delete_image, generate_image, generate_image_later, set_alt_text

Everything that the HTTP API, the admin and the commands do goes through these functions. `run_generation` is for the
workers of a queue of the host's own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.apps import apps

if TYPE_CHECKING:
    from .alt_text import set_alt_text
    from .deletion import delete_image
    from .generation import agenerate_image, generate_image, generate_image_later, run_generation

__all__ = [
    "agenerate_image",
    "delete_image",
    "generate_image",
    "generate_image_later",
    "run_generation",
    "set_alt_text",
]

_MODULES = {
    "agenerate_image": "generation",
    "delete_image": "deletion",
    "generate_image": "generation",
    "generate_image_later": "generation",
    "run_generation": "generation",
    "set_alt_text": "alt_text",
}


def __getattr__(name: str) -> Any:
    """Import a function when it is asked for, since models cannot be imported before Django has loaded the apps.

    An `apps.py` that imports one at its top gets a stand-in, which may be called once the apps are loaded.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def call_later(*args: Any, **kwargs: Any) -> Any:
        return _find(name)(*args, **kwargs)

    return _find(name) if apps.models_ready else call_later


def _find(name: str) -> Any:
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
