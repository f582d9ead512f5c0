"""The old name of `trygo_backend.server`, for service files that start it."""

from __future__ import annotations

from .server import main

if __name__ == "__main__":
    main()
