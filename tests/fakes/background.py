"""Waiting for what is made in the background: no test may leave a thread that uses its database."""

from __future__ import annotations

import threading


def finish_background() -> None:
    """Wait until no thread works in the background."""
    for thread in threading.enumerate():
        if thread.name in {"images-background", "images-publish"}:
            thread.join(30)
            assert not thread.is_alive()
