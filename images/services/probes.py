"""Does it work? One list of probes, for the server's start, `/health/ready`, the front page and the doctor.

Each probe checks one part that a generation needs, within seconds and at no cost. The doctor looks more closely
(`diagnostics.py`). A project can run them, too:

    from images.services.probes import Level, run_probes

    ready = all(finding.level == Level.FINE for finding in run_probes("database", "storage").values())
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.db.models import QuerySet

from .. import storage
from ..conf import conf
from ..exceptions import ImagesError
from ..logs import log_event
from ..models import GeneratedImage
from ..providers import get_provider
from . import budgets
from .database import rows
from .queue import provider_problem, queue_problem, waiting, waiting_for_provider

logger = logging.getLogger("images.doctor")

DATABASE, STORAGE, QUEUE, PROVIDERS, BUDGETS = "Database", "Storage", "Queue", "Providers", "Budgets"

#: Seconds to wait for a database that does not answer (libpq's least is 2).
DATABASE_TIMEOUT = 3
#: The next step of a finding that is fine.
NOTHING_TO_DO = "Nothing to do."
WORKER_STEP = "Start a worker: make worker (celery -A YOUR_PROJECT worker)."
PROVIDER_STEP = (
    "Wait: they are made one after the other. To make more, raise the account's limit, or add a provider to "
    "IMAGE_PROVIDER; to be refused less, set IMAGE_RATE_LIMITS."
)
BUDGET_STEP = "Raise it, or wait until its period ends; the Usage page in the admin shows what was spent."
STORAGE_STEP = (
    "Let this user write, read and delete files under MEDIA_ROOT, mount its disk, or make room; give a bucket's key "
    "the permissions in docs/scaling.md. The log says what failed."
)
#: How many pending migrations are named at most.
_NAMED = 5


# --- What a probe says ------------------------------------------------------------------------------------------


class Level(StrEnum):
    """How bad a finding is. The values are stable: scripts read them."""

    FINE = "ok"
    ATTENTION = "attention"
    BROKEN = "broken"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found out about one part of the installation.

    Attributes:
        section: The part, for example `Storage`.
        level: How bad it is.
        sentence: What was found, for the operator.
        next_step: What the operator can do about it.
        public: The sentence to show publicly, if `sentence` may name hosts or paths; otherwise "".
    """

    section: str
    level: Level
    sentence: str
    next_step: str
    public: str = field(default="", repr=False)


def fine(section: str, sentence: str) -> Finding:
    """Something works."""
    return Finding(section=section, level=Level.FINE, sentence=sentence, next_step=NOTHING_TO_DO)


def attention(section: str, sentence: str, next_step: str, public: str = "") -> Finding:
    """Something works but should be looked at soon."""
    return Finding(section=section, level=Level.ATTENTION, sentence=sentence, next_step=next_step, public=public)


def broken(section: str, sentence: str, next_step: str, public: str = "") -> Finding:
    """Something does not work."""
    return Finding(section=section, level=Level.BROKEN, sentence=sentence, next_step=next_step, public=public)


# --- The database -----------------------------------------------------------------------------------------------


def probe_database() -> Finding:
    """Whether the database answers and has this app's table, with every column."""
    alias = router.db_for_write(GeneratedImage)
    try:
        _first(GeneratedImage.objects.using(alias).order_by())
    except (DatabaseError, ImproperlyConfigured) as err:
        return _no_database(alias, err)
    return fine(DATABASE, f"{connections[alias].display_name} answers.")


def probe_migrations() -> Finding:
    """Whether the database answers and every migration is applied. It reads the files of all migrations."""
    alias = router.db_for_write(GeneratedImage)
    try:
        pending = pending_migrations(alias)
    except (DatabaseError, ImproperlyConfigured) as err:
        return _no_database(alias, err)
    if not pending:
        return fine(DATABASE, f"{connections[alias].display_name} answers, and every migration is applied.")
    rest = f" and {len(pending) - _NAMED} more" if len(pending) > _NAMED else ""
    sentence = f"Migrations that are not applied ({len(pending)}): {', '.join(pending[:_NAMED])}{rest}."
    return broken(DATABASE, sentence, "Run: python manage.py migrate")


def pending_migrations(alias: str) -> list[str]:
    """The names of the migrations that have not been applied to a database.

    Raises:
        django.db.DatabaseError: It does not answer.
    """
    with _own_connection(alias) as connection:
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]


def database_error(err: Exception) -> str:
    """The first line of what a database says, without the hints that follow it."""
    return next(iter(str(err).strip().splitlines()), "") or type(err).__name__


def _no_database(alias: str, err: Exception) -> Finding:
    return broken(
        DATABASE,
        f"{connections[alias].display_name} cannot be used: {database_error(err)}",
        f"Start the database, run `python manage.py migrate`, or correct DATABASE_URL (DATABASES[{alias!r}]).",
        public="The database does not answer, or has not been migrated. The server's log says more.",
    )


@contextmanager
def _own_connection(alias: str) -> Iterator[BaseDatabaseWrapper]:
    """A separate connection, with short timeouts. The pool would wait longer than a probe's caller does."""
    connection = connections[alias].copy()
    options = connection.settings_dict["OPTIONS"]  # a copy's settings are its own
    options.pop("pool", None)
    if connection.vendor == "postgresql":
        options["connect_timeout"] = DATABASE_TIMEOUT
        options["tcp_user_timeout"] = DATABASE_TIMEOUT * 1000
    elif connection.vendor == "mysql":
        options["connect_timeout"] = DATABASE_TIMEOUT
    try:
        yield connection
    finally:
        connection.close()


def _first(rows: QuerySet[Any]) -> Any:
    """The first row of a query, read over a separate connection, or `None`."""
    return next(iter(_read(rows[:1])), None)


def _read(rows: QuerySet[Any]) -> list[Any]:
    """The rows of a query, read over a separate connection."""
    with _own_connection(rows.db) as connection:
        if connection.vendor == "postgresql":  # a locked table must not block a probe
            connection.set_autocommit(False)
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = {DATABASE_TIMEOUT * 1000}")
        return list(rows.query.get_compiler(connection=connection).results_iter())


# --- Storage, queue, providers ----------------------------------------------------------------------------------


def probe_storage() -> Finding:
    """Whether files can be stored, as far as that can be told without storing one."""
    if problem := storage.storage_problem():
        return broken(STORAGE, problem, STORAGE_STEP)
    return fine(STORAGE, "Images can be stored.")


def probe_queue() -> Finding:
    """Whether the queue's workers start the requests that wait there."""
    if not conf.queue:
        return fine(QUEUE, "No queue is configured: the web server itself generates the images.")
    try:
        oldest = _first(waiting().values_list("created_at"))
        due = oldest and _first(waiting_for_provider().values_list("retry_at", "error_code", "error_message"))
    except DatabaseError as err:
        unknown = "The database does not tell what is waiting in the queue."
        return attention(
            QUEUE, f"{unknown} {database_error(err)}", "See the finding about the database.", public=unknown
        )
    if due and (problem := provider_problem(*due)):
        return attention(QUEUE, problem, PROVIDER_STEP, public="Requests wait until an image provider can be asked.")
    if problem := queue_problem(oldest[0] if oldest else None):
        return attention(QUEUE, problem, WORKER_STEP)
    return fine(QUEUE, "No request has been waiting for long.")


def probe_budget() -> Finding:
    """Whether the budgets of the installation allow more images."""
    try:
        known = budgets.standings(_read)
    except DatabaseError as err:
        unknown = "The database does not tell what is left of the budget."
        return attention(
            BUDGETS, f"{unknown} {database_error(err)}", "See the finding about the database.", public=unknown
        )
    if low := [standing for standing in known if standing.is_low]:
        public = " ".join(standing.public_sentence() for standing in low)
        return attention(BUDGETS, " ".join(standing.sentence() for standing in low), BUDGET_STEP, public=public)
    return fine(BUDGETS, " ".join(standing.sentence() for standing in known) or "No budget is set.")


def look_for(*, row: str, file: str, sha256: str) -> dict[str, bool]:
    """Whether this process sees what the doctor has made for it. A queue's worker calls it.

    Args:
        row: The primary key of a row.
        file: The name of a file in the storage.
        sha256: The file's digest, in hex digits.
    """
    try:
        data = storage.read(file)
    except ImagesError:
        data = None
    same = data is not None and hashlib.sha256(data).hexdigest() == sha256
    return {"row": rows().filter(pk=row).exists(), "file": same}


def probe_providers() -> Finding:
    """Whether at least one provider has everything it needs. Nothing is sent."""
    problems = [problem for alias in conf.providers if (problem := _provider_problem(alias))]
    if len(problems) < len(conf.providers):
        return fine(PROVIDERS, "At least one provider is ready.")
    return broken(
        PROVIDERS,
        " ".join(problems),
        "Set what is missing, or choose another IMAGE_PROVIDER.",
        public="No image provider is ready.",
    )


def _provider_problem(alias: str) -> str:
    try:
        return " ".join(get_provider(alias).check())
    except (ImproperlyConfigured, ImagesError) as err:
        return str(err)


# --- The list ---------------------------------------------------------------------------------------------------

#: Every probe by the name that `/health/ready` shows.
PROBES: dict[str, Callable[[], Finding]] = {
    "database": probe_database,
    "storage": probe_storage,
    "queue": probe_queue,
    "providers": probe_providers,
    "budget": probe_budget,
}


def guarded(section: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of `look`, and one more if it raises an exception, so that the other examinations go on.

    It catches every exception, since third-party storages, databases and providers raise errors of their own.
    """
    unusable = "The configuration cannot be used"
    try:
        yield from look()
    except ImproperlyConfigured as err:
        yield broken(section, f"{unusable}: {err}", "Correct this setting, then try again.", public=f"{unusable}.")
    except Exception as err:  # noqa: BLE001
        log_event(logger, logging.ERROR, "examination_failed", section=section, exc_info=err)
        sentence = f"It could not be examined ({type(err).__name__})."
        yield broken(section, sentence, "Look at the traceback in the log (for a command: on standard error).")


def run_probes(*names: str) -> dict[str, Finding]:
    """Run some of `PROBES` by name, or all of them, one after the other. It raises no exception."""
    return {name: next(guarded(name.capitalize(), partial(_as_list, PROBES[name]))) for name in names or PROBES}


def _as_list(probe: Callable[[], Finding]) -> list[Finding]:
    return [probe()]
