"""The database as the services use it: read where rows are written, commit at once, let go while a provider works."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import InterfaceError, OperationalError, connections, router, transaction

from ..exceptions import DatabaseUnavailable, OpenTransactionError
from ..models import GeneratedImage, GeneratedImageQuerySet

#: Characters of a scope.
MAX_SCOPE = 80

_OPEN_TRANSACTION = (
    "generate_image() was called inside transaction.atomic(): a rollback would lose a picture that was paid for, and "
    "the transaction would stay open for as long as the provider works. Call it outside the block; in a view, "
    "exempt the view from ATOMIC_REQUESTS with @transaction.non_atomic_requests; or hand it to "
    "transaction.on_commit()."
)


def rows() -> GeneratedImageQuerySet:
    """Every image's row, read from the database that rows are written to: a replica may lag behind."""
    return GeneratedImage.objects.using(router.db_for_write(GeneratedImage))


def user_scope(owner_id: Any) -> str:
    """What stands for a user if something is each user's own. A host's primary keys may be longer than the column."""
    scope = f"user:{owner_id}"
    return scope if len(scope) <= MAX_SCOPE else f"user:{hashlib.sha256(scope.encode()).hexdigest()}"


@contextmanager
def before_paying() -> Iterator[None]:
    """Report a database that is locked, full or gone, in a block that is left before any provider is asked.

    Raises:
        DatabaseUnavailable: The database did not do what it was asked for.
    """
    try:
        yield
    except (OperationalError, InterfaceError) as err:
        raise DatabaseUnavailable from err


@contextmanager
def committed_at_once() -> Iterator[None]:
    """For one statement that must be committed when the block ends, whatever becomes of the caller.

    Outside of every transaction the statement commits itself, in one round trip instead of three: the database holds
    its locks for that statement alone, and not, as between `BEGIN` and `COMMIT`, while Python's other threads have
    their turn. A test case's own transaction does not count, as in Django's `atomic(durable=True)`; there the
    statement gets a savepoint.

    Raises:
        OpenTransactionError: A transaction is open, on any of the databases.
    """
    with ExitStack() as stack:
        try:
            for connection in connections.all(initialized_only=True):
                if connection.in_atomic_block:
                    stack.enter_context(transaction.atomic(using=connection.alias, durable=True))
        except RuntimeError as err:
            raise OpenTransactionError(_OPEN_TRANSACTION) from err
        yield


def release_connections() -> None:
    """Give this thread's database connections back (to the pool, if there is one).

    A provider takes 5 to 90 seconds; hundreds of waiting requests must not hold hundreds of connections. SQLite's
    stay: there is no server that could run out of them, and opening one costs more than a generation's queries.
    Connections inside a transaction stay: there the caller asked for it (or it is a test case's).
    """
    for connection in connections.all(initialized_only=True):
        if connection.vendor != "sqlite" and not connection.in_atomic_block:
            connection.close()
