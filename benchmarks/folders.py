"""Where the measured servers keep their files, so that memory and disks are not what is measured.

Every picture is new memory or new disk space. A disk's writeback goes on for minutes, into the next measurements, and
on a virtual machine whose host lends out what is free, a page that was not used for a while costs seven times as much
as another (0.5 ms against 3.3 ms for a megabyte, measured). Both would be added to every stack alike and make any two
of them look the same. So files lie in memory, and pictures are removed soon after they were written, which keeps the
same pages in use.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

_MEMORY = "/dev/shm"
_ROOM = 4_000_000_000

#: Seconds after which a picture is removed: no server touches it any more.
_KEPT = 2.0
_PAUSE = 0.25


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder in memory, where there is room and TMPDIR does not name another place."""
    in_memory = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM
    place = _MEMORY if in_memory and not os.environ.get("TMPDIR") else None
    with tempfile.TemporaryDirectory(prefix="trygo-bench-", dir=place, ignore_cleanup_errors=True) as name:
        yield Path(name)


class Sweeper:
    """Removes the pictures below a folder from `with` to its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_PAUSE):
            for path in self._folder.rglob("[!.]*.png"):
                with suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > _KEPT:
                        path.unlink()
