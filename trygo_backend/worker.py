"""A worker of the queue (`make worker`): it looks first whether it can work, and then becomes Celery's own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

BASE_DIR = Path(__file__).resolve().parent.parent
#: Workers need not know each other.
OPTIONS = ("--without-gossip", "--without-mingle", "--loglevel", "WARNING")


def main() -> NoReturn:
    """Prepare, then run Celery's worker in place of this process. It takes the options of `celery worker`."""
    from django.core.exceptions import ImproperlyConfigured

    from . import preflight
    from .environment import Environment

    os.chdir(BASE_DIR)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trygo_backend.settings")
    try:
        prepare(Environment(os.environ))
    except (preflight.CannotServe, ImproperlyConfigured) as err:
        sys.exit(f"The worker cannot start. {err}")
    command = [sys.executable, "-m", "celery", "-A", "trygo_backend", "worker", *OPTIONS, *sys.argv[1:]]
    os.execv(sys.executable, command)  # noqa: S606


def prepare(environment: Any) -> None:
    """Do everything that has to be done before the worker starts.

    Args:
        environment: The process's environment (`trygo_backend.environment.Environment`).

    Raises:
        trygo_backend.preflight.CannotServe: With the sentence for the operator.
        django.core.exceptions.ImproperlyConfigured: Likewise, from the settings.
    """
    import django

    from . import preflight

    if not environment.text("CELERY_BROKER_URL"):
        raise preflight.CannotServe(
            "There is no queue: set CELERY_BROKER_URL to the broker's address, for example redis://127.0.0.1:6379/0."
        )
    django.setup()
    preflight.check_configuration()
    preflight.need_provider()
    preflight.make_media_root()
    preflight.check_metrics_port()
    preflight.check_broker()
    preflight.prepare_database(migrate=False)
    preflight.raise_open_files_limit()


if __name__ == "__main__":
    main()
