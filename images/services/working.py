"""Deprecated home of `run_generation`, which queues of a host's own call: it is in `images.services` now."""

from __future__ import annotations

import warnings
from typing import Any


def __getattr__(name: str) -> Any:
    if name != "run_generation":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .generation import run_generation

    warnings.warn(f"{__name__}.run_generation: import it from images.services.", DeprecationWarning, stacklevel=2)
    return run_generation
