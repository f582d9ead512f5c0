"""Testing code that makes images: no provider, no network, no Pillow, no money.

    from images.testing import fake_images

    with fake_images() as outbox:
        publish(article)
    assert outbox[0].title == "A quiet harbour at dawn"

For pytest, `pytest_plugins = ["images.testing"]` in the root `conftest.py` adds the fixture `image_outbox`.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from threading import Lock
from typing import TYPE_CHECKING, Any
from unittest import mock

from django.conf import settings
from django.test.utils import override_settings

from .conf import conf
from .exceptions import ImagesError
from .providers import Deadline, ImageProvider, ImageRequest, ProviderImage
from .services.test_runs import allow_real_providers

if TYPE_CHECKING:
    from .services.scenes import Scene, SceneBrief

__all__ = ["FakeProvider", "Outbox", "allow_real_providers", "fake_images", "tiny_png"]

_ALIAS = "fake"
_STORAGE = "images-fake"


def tiny_png(width: int = 16, height: int = 9, colour: tuple[int, int, int] = (47, 111, 159)) -> bytes:
    """Return a valid PNG of one colour, made without Pillow.

    Args:
        width: In pixels.
        height: In pixels.
        colour: Red, green and blue, 0 to 255 each.
    """
    rows = (b"\x00" + bytes(colour) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


class FakeProvider(ImageProvider):
    """A provider that answers at once with a tiny PNG of the right shape. It needs no options and no key.

    `fake_images` uses it. A project may also name it in its settings, for example for tests that run a server:

        IMAGES = {"PROVIDER": "fake", "PROVIDERS": {"fake": "images.testing.FakeProvider"}}
    """

    @property
    def model(self) -> str:
        return "fake"

    def call(self, payload: ImageRequest, deadline: Deadline) -> bytes:
        record: Callable[[ImageRequest], None] | None = self.options.get("record")
        if record is not None:
            record(payload)
        # The colour follows the seed, so that different images have different bytes.
        return tiny_png(*payload.aspect_ratio, colour=tuple(payload.seed.to_bytes(8, "big")[-3:]))  # type: ignore[arg-type]

    def parse(self, answer: bytes) -> ProviderImage:
        return ProviderImage(data=answer, model=self.model)


class FakeSceneWriter:
    """Scenes without a text model: `fake_images` uses it if the settings have scenes thought up."""

    provider, model, bills = _ALIAS, "fake", False

    def write(self, *, brief: SceneBrief, deadline: Deadline) -> Scene:
        """A scene, and an alternative text, that name the title."""
        from .services.scenes import Scene

        return Scene(text=f"A scene of {brief.title}", alt_text=f"What is seen of {brief.title}")


class Outbox(list[ImageRequest]):
    """What the provider was asked for, oldest first: each entry has `prompt`, `title`, `variant`, `seed` and so on.

    A repeated idempotency key asks no provider, so it adds nothing. A request that fails on command is recorded too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._error: ImagesError | type[ImagesError] | None = None
        self._failures_left: int | None = 0
        self._lock = Lock()

    def fail_with(self, error: ImagesError | type[ImagesError], *, times: int | None = 1) -> None:
        """Make the next generations fail.

        A failure is final for its generation: the fake provider is not asked again, so no test waits for a retry.

        Args:
            error: Any exception of `images.exceptions` (a class or an instance).
            times: How many generations fail before they succeed again; `None` for all that follow, 0 for none.
        """
        with self._lock:
            self._error, self._failures_left = error, times

    def _record(self, request: ImageRequest) -> None:
        with self._lock:
            self.append(request)
            if self._error is None or self._failures_left == 0:
                return
            if self._failures_left is not None:
                self._failures_left -= 1
            # A new instance each time: one that is raised twice would keep the traceback of the first time.
            error = self._error() if isinstance(self._error, type) else copy(self._error)
        error.__dict__["retry_same"] = False
        raise error


@contextmanager
def fake_images() -> Iterator[Outbox]:
    """Let every generation succeed at once, and record what was asked for.

    Inside the block `generate_image`, the HTTP API, the admin and the commands use a fake provider instead of the
    configured ones, and files go to a temporary folder that is removed at the end. A configured queue runs its work
    in the process, as soon as it is handed over. All other settings stay as they are, the prompt builder included.

    It overrides the settings `IMAGES` and `STORAGES`, so Django builds its storages anew at both ends of the block.

    Yields:
        The outbox.
    """
    outbox = Outbox()
    with (
        tempfile.TemporaryDirectory(prefix="fake-images-") as folder,
        override_settings(**_settings(outbox, folder)),
    ):
        from .models import GeneratedImage, image_storage

        # The model's field keeps the storage that it had when the project started.
        with mock.patch.object(GeneratedImage._meta.get_field("file"), "storage", image_storage()):
            yield outbox


def _settings(outbox: Outbox, folder: str) -> dict[str, Any]:
    configured: dict[str, Any] = getattr(settings, "IMAGES", None) or {}
    # A function, since its `repr` does not change with what the outbox holds: providers are kept by their options.
    fake = {"BACKEND": f"{__name__}.FakeProvider", "OPTIONS": {"record": lambda request: outbox._record(request)}}
    images = {
        **configured,
        "PROVIDER": _ALIAS,
        "PROVIDERS": {**configured.get("PROVIDERS", {}), _ALIAS: fake},
        "PRICES": {_ALIAS: 0, **conf.prices},
        "STORAGE": _STORAGE,
        "MEDIA_DELIVERY": "stream",
        "MIN_FREE_BYTES": 0,
    }
    if conf.scene_provider:
        images |= {"SCENE_PROVIDER": "", "SCENE_WRITER": f"{__name__}.FakeSceneWriter"}
    if conf.queue:
        images["QUEUE"] = f"{__name__}.run_at_once"
    storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": folder}}
    return {"IMAGES": images, "STORAGES": {**settings.STORAGES, _STORAGE: storage}}


def run_at_once(image_id: str) -> None:
    """Be the queue of `fake_images`: make the image before returning.

    Args:
        image_id: The row's id.
    """
    from .services import run_generation

    run_generation(image_id)


try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture
    def image_outbox() -> Iterator[Outbox]:
        """The outbox of `fake_images`, which lasts for the test."""
        with fake_images() as outbox:
            yield outbox
