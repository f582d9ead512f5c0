"""A provider, a storage and a database that kill the whole server at the point that `CRASH_AT` names.

It is SIGKILL, and it reaches every process of the server at once, so nothing in it can tidy up.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from images.providers import Deadline, ImageProvider, ImageRequest, ProviderImage
from images.signals import image_deleted, image_generated
from tests.fakes.pictures import png

PICTURE = png(160, 90, 200_000)
#: With this limit on a file's size, the kernel kills the process half-way through writing the picture.
HALF = len(PICTURE) // 2

CRASH_AT = os.environ.get("CRASH_AT", "")


def crash(point: str) -> None:
    """Kill the server if this is the point."""
    if point == CRASH_AT:
        os.killpg(0, signal.SIGKILL)


def tell(word: str) -> None:
    """Let the test know, through the pipe it is listening to."""
    with open(os.environ["CRASH_TELLS"], "wb", buffering=0) as pipe:
        pipe.write(f"{word}\n".encode())


class FragileProvider(ImageProvider):
    def build(self, request: ImageRequest) -> ImageRequest:
        crash("before the provider is called")
        return request

    def call(self, payload: ImageRequest, deadline: Deadline) -> bytes:
        with Path(os.environ["CRASH_BILL"]).open("a") as bill:
            bill.write("1\n")
        if CRASH_AT == "while the provider works" or "waits" in payload.title:
            tell("generating")
            with open(os.environ["CRASH_HEARS"], "rb", buffering=0) as pipe:
                pipe.read(1)
        return PICTURE

    def parse(self, answer: bytes) -> ProviderImage:
        crash("after the answer")
        if CRASH_AT == "half-way through the file":
            resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, HALF))
        return super().parse(answer)


if CRASH_AT == "half-way through the file":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, and gets an error instead
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class FragileStorage(FileSystemStorage):
    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        crash("before the file is renamed into place")
        saved = super().save(name, content, max_length)
        crash("after the file")
        return saved

    def delete(self, name: str) -> None:
        crash("after the mark")
        super().delete(name)
        crash("after the file is removed")


def _watch(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Around every statement: `UPDATE … SET status = first parameter` and `DELETE`."""
    verb = sql.partition(" ")[0]
    is_ours = "images_generatedimage" in sql and verb in {"UPDATE", "DELETE"}
    what = f"{verb} {params[0]}" if verb == "UPDATE" and params else verb
    points = {"UPDATE ready": "the row is ready", "UPDATE deleting": "the mark is written", "DELETE": "the row goes"}
    point = points.get(what, "") if is_ours else ""
    crash(f"before {point}")
    result = execute(sql, params, many, context)
    crash(f"after {point} and before the commit" if context["connection"].in_atomic_block else f"after {point}")
    return result


def _install(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if _watch not in connection.execute_wrappers:
        connection.execute_wrappers.append(_watch)


def _after_row(**_: Any) -> None:
    crash("after the row is gone")


def _ready(**_: Any) -> None:
    tell("ready")


if "CRASH_TELLS" in os.environ:  # only in the process that is to be killed, not where the tests collect this module
    connection_created.connect(_install)
    image_deleted.connect(_after_row)
    image_generated.connect(_ready)
