#!/usr/bin/env python
"""Django's commands for this project."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command on the command line. A configuration that cannot work is one sentence, not a traceback."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trygo_backend.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as err:
        if "--traceback" in sys.argv:
            raise
        sys.exit(f"Error: {err}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # also while Django is still being imported
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)
