"""Image providers. `get_provider` finds one by its alias; `images.providers.base` says what one is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..conf import ProviderBackend, conf
from ..exceptions import ProviderNotConfigured
from .base import Deadline, ImageProvider, ImageRequest, ProviderImage

if TYPE_CHECKING:
    from .text import TextProvider

__all__ = ["Deadline", "ImageProvider", "ImageRequest", "ProviderImage", "get_provider", "get_text_provider"]

#: No alias of a provider can be this.
SCENES = "scenes, by IMAGE_SCENE_PROVIDER"

_instances: dict[str, tuple[str, ImageProvider]] = {}
_lock = threading.Lock()


def get_provider(alias: str) -> ImageProvider:
    """The provider behind an alias of `IMAGES["PROVIDERS"]` (or a built-in one).

    One instance is kept a process and rebuilt when its settings change, since building a client costs
    more than a request does.

    Raises:
        ProviderNotConfigured: No provider has that name.
        django.core.exceptions.ImproperlyConfigured: Its class cannot be imported or is not a provider.
    """
    backends = conf.provider_backends
    if alias not in backends:
        raise ProviderNotConfigured(
            f"There is no image provider named {alias!r}. The operator should set IMAGE_PROVIDER to one of: "
            f"{', '.join(sorted(backends))}."
        )
    return _kept(alias, backends[alias])


def get_text_provider() -> TextProvider:
    """The provider that writes scenes (`IMAGE_SCENE_PROVIDER`), kept as the others are.

    Raises:
        ProviderNotConfigured: There is none.
    """
    backend = conf.scene_backend
    if backend is None:
        raise ProviderNotConfigured("IMAGE_SCENE_PROVIDER is not set.")
    return cast("TextProvider", _kept(SCENES, backend))  # `conf` names classes of ours


def _kept(alias: str, backend: ProviderBackend) -> ImageProvider:
    fingerprint = repr((backend.path, sorted(backend.options.items())))
    with _lock:
        known = _instances.get(alias)
        if known is None or known[0] != fingerprint:
            known = (fingerprint, _provider_class(alias, backend.path)(backend.options))
            _instances[alias] = known
        return known[1]


def _provider_class(alias: str, path: str) -> type[ImageProvider]:
    try:
        cls = import_string(path)
    except ImportError as err:
        raise ImproperlyConfigured(f'IMAGES["PROVIDERS"]["{alias}"]: cannot import {path!r}: {err}') from err
    if not (isinstance(cls, type) and issubclass(cls, ImageProvider)):
        raise ImproperlyConfigured(f'IMAGES["PROVIDERS"]["{alias}"]: {path!r} is not an ImageProvider.')
    return cls
