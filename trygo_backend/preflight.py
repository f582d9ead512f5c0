"""What `server.py` and `worker.py` check and prepare before they start: configuration, folder, ports, services."""

from __future__ import annotations

import resource
import socket
import sys
from pathlib import Path

from django.conf import settings
from django.core import checks
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connection

#: The soft limit on open files is raised to this if the hard limit allows it: a generation takes up to three.
OPEN_FILES = 65_536


class CannotServe(Exception):
    """The server or the worker cannot start; the message tells the operator why."""


def check_configuration() -> None:
    """Run Django's system checks: print warnings, and raise errors.

    Raises:
        CannotServe: With a sentence and a hint for every error.
    """
    from images.checks import MEDIA_ROOT_UNWRITABLE  # not before the apps are loaded

    # The media folder may not exist yet; `make_media_root` creates it and runs the storage's probe.
    later = {MEDIA_ROOT_UNWRITABLE}
    messages = [found for found in checks.run_checks() if found.id not in later and not found.is_silenced()]
    errors = [_sentence(message) for message in messages if message.level >= checks.ERROR]
    for message in messages:
        if checks.WARNING <= message.level < checks.ERROR:
            _say(f"Warning: {_sentence(message)}")
    if errors:
        raise CannotServe("\n".join(errors))


def need_provider() -> None:
    """Make sure that a worker can make images. A web server does without: it serves those that are there.

    Raises:
        CannotServe: No provider has what it needs, for example its key.
    """
    from images.services.probes import Level, probe_providers

    finding = probe_providers()
    if finding.level == Level.BROKEN:
        raise CannotServe(f"{finding.sentence} {finding.next_step}")


def make_media_root() -> None:
    """Create the media folder if it is missing, but not its parent, and warn if nothing can be stored there.

    A missing parent usually means that a volume is not mounted or that the path is misspelt; images written there
    would be lost at the next start.

    Raises:
        CannotServe: The folder cannot be created.
    """
    folder = Path(settings.MEDIA_ROOT)
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError as err:
        raise CannotServe(
            f"The folder {folder.parent}, in which images are to be stored, does not exist. Mount or create it, or "
            "set STORAGE_ROOT to another folder."
        ) from err
    except OSError as err:
        reason = (err.strerror or type(err).__name__).lower()
        raise CannotServe(f"The folder {folder} (STORAGE_ROOT) cannot be created: {reason}.") from err
    from images.services.probes import Level, probe_storage

    finding = probe_storage()
    if finding.level != Level.FINE:
        _say(f"Warning: {finding.sentence} {finding.next_step}")


def reserve_port(host: str, port: int) -> int:
    """Make sure that the server can listen on a port, and keep the port until it does.

    On Linux several processes can share a port without noticing (SO_REUSEPORT), so this first binds it exclusively.
    The socket that then keeps the port does not listen and receives no connections; it stays open as long as the
    process.

    Args:
        host: The address to listen on.
        port: 0 for any that is free.

    Returns:
        The port.

    Raises:
        CannotServe: Another server uses the port, or the address does not belong to this machine.
    """
    with _bound(host, port) as alone:
        port = alone.getsockname()[1]
    kept = _bound(host, port, shared=True)
    kept.set_inheritable(True)  # through `exec`
    kept.detach()
    return port


def check_metrics_port() -> None:
    """Make sure that a worker can serve its metrics.

    Raises:
        CannotServe: Another process uses METRICS_PORT.
    """
    from images.conf import conf

    if conf.metrics and settings.METRICS_PORT:
        _bound(settings.METRICS_ADDRESS, settings.METRICS_PORT, names=("METRICS_PORT", "METRICS_ADDRESS")).close()


def check_broker() -> None:
    """Make sure that the queue's broker answers.

    Raises:
        CannotServe: It does not.
    """
    from .celery import app

    connection = app.connection_for_read()
    try:
        connection.ensure_connection(max_retries=1, interval_start=0.5, timeout=5)
    except Exception as err:
        where = connection.as_uri()  # without the password
        raise CannotServe(
            f"The queue's broker does not answer ({where}: {type(err).__name__}). Start it, or "
            "correct CELERY_BROKER_URL."
        ) from err
    finally:
        connection.release()


def _bound(
    host: str, port: int, *, shared: bool = False, names: tuple[str, str] = ("PORT", "BIND_ADDRESS")
) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared and hasattr(socket, "SO_REUSEPORT"):
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except OSError as err:
        bound.close()
        reason = (err.strerror or type(err).__name__).lower()
        raise CannotServe(
            f"It cannot listen on port {port} of {host}: {reason}. Set {names[0]} (or {names[1]}) to another value."
        ) from err
    return bound


def prepare_database(*, migrate: bool) -> None:
    """Apply pending migrations, or make sure that there are none.

    Raises:
        CannotServe: The database does not answer, a migration failed, or some are pending: this code would ask for
            columns that are not there.
    """
    from images.services.probes import database_error, pending_migrations

    # Without the pool, which would retry for half a minute before it reports that there is no database.
    connection.settings_dict["OPTIONS"].pop("pool", None)
    try:
        pending = len(pending_migrations(DEFAULT_DB_ALIAS))
        if pending and migrate:
            _say(f"Applying {pending} database migrations.")
            call_command("migrate", interactive=False, verbosity=0)
        elif pending:
            raise CannotServe(f"{pending} database migrations are pending. Run: python manage.py migrate")
    except DatabaseError as err:
        raise CannotServe(f"The database cannot be used (DATABASE_URL): {database_error(err)}") from err
    finally:
        connection.close()


def raise_open_files_limit() -> None:
    """Raise the limit on open files for this process and the server it becomes, up to `OPEN_FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _sentence(message: checks.CheckMessage) -> str:
    return f"{message.msg} {message.hint or ''}".strip() + f" ({message.id})"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
