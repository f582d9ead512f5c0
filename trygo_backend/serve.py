"""The production server: `python -m trygo_backend.serve`, configured by the environment alone.

It looks first whether it can work at all and says in one sentence what stands in the way; then this very process
becomes gunicorn (`exec`), so that signals reach it directly and nothing of the preparations stays in memory:
no threads, no database connections, no half-built clients that workers would inherit.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from django.core.exceptions import ImproperlyConfigured

from . import preflight
from .environment import Environment

BASE_DIR = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Prepare, then become gunicorn.

    Args:
        arguments: The command line, `sys.argv[1:]` when left out.
    """
    options = _parse(arguments)
    os.chdir(BASE_DIR)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trygo_backend.settings")
    try:
        listener = prepare(Environment(os.environ), fd=options.fd, migrate=options.migrate)
    except (preflight.CannotServe, ImproperlyConfigured) as err:
        sys.exit(f"The server cannot start. {err}")
    host, port = listener.getsockname()[:2]
    print(f"Listening on http://{host}:{port}", flush=True)  # noqa: T201
    listener.set_inheritable(True)
    # The C library would make up to sixteen heaps for the threads, and what lies free in one is of no use to the
    # others: with two, a hundred megabytes less at 1,000 generations, and no slower (measured).
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    command = [sys.executable, "-m", "gunicorn", "--config", "python:trygo_backend.gunicorn_conf"]
    os.execv(sys.executable, [*command, "--bind", f"fd://{listener.fileno()}"])  # noqa: S606


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trygo_backend.serve", description="The production server.")
    parser.add_argument(
        "--no-migrate",
        dest="migrate",
        action="store_false",
        help="leave the database's tables as they are (also MIGRATE_ON_START=0), for many machines on one database",
    )
    parser.add_argument("--fd", type=int, help="serve on this open, listening socket instead of $PORT")
    return parser.parse_args(arguments)


def prepare(environment: Environment, *, fd: int | None = None, migrate: bool = True) -> socket.socket:
    """Everything that comes before the server's own work.

    Args:
        environment: The process's environment.
        fd: A listening socket that is open already; without one `BIND_ADDRESS` and `PORT` say where to listen.
        migrate: Whether to bring the database's tables up to date; `MIGRATE_ON_START=0` forbids it too.

    Returns:
        The listening socket.

    Raises:
        preflight.CannotServe: With the sentence for the operator.
        django.core.exceptions.ImproperlyConfigured: Likewise, from the settings.
    """
    migrate = environment.flag("MIGRATE_ON_START", True) and migrate
    port = environment.integer("PORT", 8000, minimum=0, maximum=65535)
    import django

    django.setup()
    from images.conf import conf

    from . import gunicorn_conf

    # gunicorn reads it by itself while it is imported, and stumbles over an empty one.
    os.environ["WEB_CONCURRENCY"] = str(gunicorn_conf.workers)
    if conf.metrics:  # where the server's processes add up what they count
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="trygo-metrics-"))
    preflight.check_configuration()
    preflight.make_media_root()
    # Before the migrations: where another server listens already, this one must not touch the database.
    host = environment.text("BIND_ADDRESS", "0.0.0.0")  # noqa: S104  (a server is there to be reached)
    listener = preflight.open_socket(host, port) if fd is None else socket.socket(fileno=fd)
    preflight.prepare_database(migrate=migrate)
    preflight.raise_open_files_limit()
    return listener


if __name__ == "__main__":
    main()
