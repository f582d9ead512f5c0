"""Where rows and files are kept: the database answers and is migrated, the storage writes, reads back and deletes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.db import DatabaseError, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor

from ... import storage
from ...exceptions import StorageError
from ...models import GeneratedImage, image_storage
from .findings import Finding, broken, fine

DATABASE, STORAGE = "Database", "Storage"

#: Seconds to wait for a database that does not answer.
_DATABASE_TIMEOUT = 5
#: The most pending migrations that are named.
_NAMED = 5

_STORAGE_STEP = (
    "Let this user write, read and delete under STORAGE_ROOT (MEDIA_ROOT), mount its disk, or make room; the log of "
    "this command says which of them failed."
)


def examine_database() -> Iterator[Finding]:
    """Whether the database answers, and whether every migration is applied.

    A connection of its own is used: a pool would try for longer than anybody waits at a terminal.
    """
    alias = router.db_for_write(GeneratedImage)
    probe = connections[alias].copy()
    _leave_the_pool(probe)
    try:
        executor = MigrationExecutor(probe)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as err:
        reason = next(iter(str(err).strip().splitlines()), "") or type(err).__name__
        step = f"Start the database, or correct DATABASE_URL (DATABASES[{alias!r}])."
        yield broken(DATABASE, f"{probe.display_name} cannot be used: {reason}", step)
        return
    finally:
        probe.close()
    if plan:
        names = [f"{migration.app_label}.{migration.name}" for migration, _ in plan]
        rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        sentence = f"Migrations that are not applied ({len(names)}): {', '.join(names[:_NAMED])}{rest}."
        yield broken(DATABASE, sentence, "Run: python manage.py migrate")
    else:
        yield fine(DATABASE, f"{probe.display_name} answers, and every migration is applied.")


def _leave_the_pool(probe: BaseDatabaseWrapper) -> None:
    options = probe.settings_dict["OPTIONS"]  # a copy's settings are its own
    options.pop("pool", None)
    if probe.vendor == "postgresql":
        options["connect_timeout"] = _DATABASE_TIMEOUT


def examine_storage() -> Iterator[Finding]:
    """Write a probe file, read it back and delete it."""
    if problem := storage.storage_problem():
        yield broken(STORAGE, problem, _STORAGE_STEP)
        return
    try:
        with probe_file() as probe, image_storage().open(probe.name, "rb") as file:
            same = file.read() == probe.data
    except StorageError as err:
        yield broken(STORAGE, err.message, _STORAGE_STEP)
        return
    if not same:
        yield broken(STORAGE, "A probe file came back with other bytes than were written.", _STORAGE_STEP)
    elif image_storage().exists(probe.name):
        yield broken(STORAGE, "A probe file is still there after it was deleted.", _STORAGE_STEP)
    else:
        yield fine(STORAGE, "A probe file was written, read back and deleted.")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A small picture in the storage: its name there, and its bytes."""

    name: str
    data: bytes = field(repr=False)


@contextmanager
def probe_file() -> Iterator[Probe]:
    """Keep a probe, a whole PNG that no cache has seen, in the storage for as long as the block runs.

    Raises:
        StorageError: It could not be written, or not be removed.
    """
    token = storage.new_token()
    data = _png(token.encode())
    name = storage.save(f"{storage.ROOT}/images-doctor/probe-{token}", "png", data)
    try:
        yield Probe(name=name, data=data)
    finally:
        storage.remove(name)


def _png(mark: bytes) -> bytes:
    """A PNG of one pixel that holds `mark` as a comment."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header, pixel = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0), zlib.compress(b"\0\xff\xff\xff")
    parts = [(b"IHDR", header), (b"tEXt", b"Comment\0" + mark), (b"IDAT", pixel), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)
