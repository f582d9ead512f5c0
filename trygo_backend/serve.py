"""The old name of `trygo_backend.server`, for service files that start it."""

from __future__ import annotations

import warnings

from .server import main

warnings.warn("trygo_backend.serve is now trygo_backend.server.", DeprecationWarning, stacklevel=1)

if __name__ == "__main__":
    main()
