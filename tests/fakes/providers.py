"""Providers for tests that are not about providers: they answer at once, fail on request, or wait until told."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any

from images.providers import Deadline, ImageProvider, ImageRequest, ProviderImage


def png(width: int = 16, height: int = 9, colour: bytes = b"\xcc\x33\x33") -> bytes:
    """A whole PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\x00" + colour * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class RedSquare(ImageProvider):
    def call(self, payload: ImageRequest, deadline: Deadline) -> bytes:
        return png()


class FakeBackend(ImageProvider):
    """The provider that `IMAGES` names: it answers as the test's `FakeProvider` says."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.fake_provider: FakeProvider = self.options["fake_provider"]

    def call(self, payload: ImageRequest, deadline: Deadline) -> ProviderImage:
        return self.fake_provider.respond(payload)

    def parse(self, answer: ProviderImage) -> ProviderImage:
        return answer


class FakeProvider:
    """What a test tells its `FakeBackend` to answer (`will`), and what that was asked (`requests`)."""

    def __init__(self) -> None:
        self.requests: list[ImageRequest] = []
        self.script: list[BaseException | bytes | Callable[[ImageRequest], bytes]] = []
        self.model = "test-model-1"
        self.usage: dict[str, float] | None = {"total_tokens": 1234}
        self._lock = threading.Lock()

    def will(self, *steps: BaseException | bytes | Callable[[ImageRequest], bytes]) -> None:
        """Say what the next calls do: raise this, return these bytes, or call this."""
        self.script.extend(steps)

    def respond(self, request: ImageRequest) -> ProviderImage:
        with self._lock:
            self.requests.append(request)
            step = self.script.pop(0) if self.script else png()
        if isinstance(step, BaseException):
            raise step
        data = step if isinstance(step, bytes) else step(request)
        return ProviderImage(data=data, model=self.model, request_id="req-1", usage=self.usage)


class Gate:
    """Something a test opens to let a generation go on, so that no test sleeps."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, request: ImageRequest) -> bytes:
        self.entered.release()
        assert self.open.wait(30), "the test never opened the gate"
        return png()
