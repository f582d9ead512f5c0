"""What `server.py` does before it starts: configuration, media folder, socket, database, limits."""

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
    """The server cannot start; the message is the sentence for the operator."""


def check_configuration() -> None:
    """Run Django's system checks: warnings are printed, errors end the start.

    Raises:
        CannotServe: With every error, each a sentence with its hint.
    """
    from images.checks import MEDIA_ROOT_UNWRITABLE  # not before the apps are loaded

    # The media folder may not have been made yet; `make_media_root` looks at it afterwards, with the storage's probe.
    later = {MEDIA_ROOT_UNWRITABLE}
    messages = [found for found in checks.run_checks() if found.id not in later and not found.is_silenced()]
    errors = [_sentence(message) for message in messages if message.level >= checks.ERROR]
    for message in messages:
        if checks.WARNING <= message.level < checks.ERROR:
            _say(f"Warning: {_sentence(message)}")
    if errors:
        raise CannotServe("\n".join(errors))


def make_media_root() -> None:
    """Make the media folder if it is missing, but not the folder above it, and warn if nothing can be stored there.

    A missing parent is usually a volume that is not mounted or a typing mistake, and images written beneath it would
    be gone with the next start.

    Raises:
        CannotServe: The folder cannot be made.
    """
    folder = Path(settings.MEDIA_ROOT)
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError as err:
        raise CannotServe(
            f"The folder {folder.parent}, in which images are to be stored, does not exist. Mount or create it, or "
            "set STORAGE_ROOT to another one."
        ) from err
    except OSError as err:
        reason = (err.strerror or type(err).__name__).lower()
        raise CannotServe(f"The folder {folder} (STORAGE_ROOT) cannot be created: {reason}.") from err
    from images.services.probes import Level, probe_storage

    finding = probe_storage()
    if finding.level != Level.FINE:
        _say(f"Warning: {finding.sentence} {finding.next_step}")


def reserve_port(host: str, port: int) -> int:
    """Make sure that the server can listen there, and keep the port until it does.

    Several processes share a port on Linux without noticing (SO_REUSEPORT), so this asks for it alone first. The
    socket that keeps it does not listen, gets no connections, and stays open for as long as this process.

    Args:
        host: The address to listen on.
        port: 0 for any that is free.

    Returns:
        The port.

    Raises:
        CannotServe: Another server listens there, or the address is not this machine's.
    """
    with _bound(host, port) as alone:
        port = alone.getsockname()[1]
    kept = _bound(host, port, shared=True)
    kept.set_inheritable(True)  # through `exec`
    kept.detach()
    return port


def _bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
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
            f"It cannot listen on port {port} of {host}: {reason}. Set PORT (or BIND_ADDRESS) to another one."
        ) from err
    return bound


def prepare_database(*, migrate: bool) -> None:
    """Bring the tables up to date, or only say that they are not.

    Raises:
        CannotServe: The database does not answer, or a migration failed.
    """
    from images.services.probes import database_error, pending_migrations

    # Without the pool, which would try for half a minute before it says that there is no database.
    connection.settings_dict["OPTIONS"].pop("pool", None)
    try:
        pending = len(pending_migrations(DEFAULT_DB_ALIAS))
        if pending and migrate:
            _say(f"Applying {pending} database migrations.")
            call_command("migrate", interactive=False, verbosity=0)
        elif pending:
            _say(f"Warning: {pending} database migrations are pending. Run: python manage.py migrate")
    except DatabaseError as err:
        raise CannotServe(f"The database cannot be used (DATABASE_URL): {database_error(err)}") from err
    finally:
        connection.close()


def raise_open_files_limit() -> None:
    """Allow this process, and the server that it becomes, as many open files as it may have, up to `OPEN_FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _sentence(message: checks.CheckMessage) -> str:
    return f"{message.msg} {message.hint or ''}".strip() + f" ({message.id})"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
