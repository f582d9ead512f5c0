"""Keeping the database out of the way while a provider works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from django.db import connections, transaction

from ..exceptions import OpenTransactionError

_SENTENCE = (
    "generate_image() was called inside transaction.atomic(): a rollback would lose a picture that was paid for, and "
    "the transaction would stay open for as long as the provider works. Call it outside the block; in a view, "
    "exempt the view from ATOMIC_REQUESTS with @transaction.non_atomic_requests; or hand it to "
    "transaction.on_commit()."
)


@contextmanager
def own_transaction(using: str) -> Iterator[None]:
    """A transaction that is the outermost one, so that it is committed when the block ends.

    A test case's own transaction does not count, as in Django's `atomic(durable=True)`, which this is.

    Raises:
        OpenTransactionError: Somebody else's transaction is open.
    """
    # A transaction on another database would stay open as long.
    open_elsewhere = [
        connection.alias for connection in connections.all(initialized_only=True) if connection.in_atomic_block
    ]
    with ExitStack() as stack:
        try:
            for alias in dict.fromkeys([*open_elsewhere, using]):
                stack.enter_context(transaction.atomic(using=alias, durable=True))
        except RuntimeError as err:
            raise OpenTransactionError(_SENTENCE) from err
        yield


def release_connections() -> None:
    """Give this thread's database connections back (to the pool, where there is one).

    A provider takes 5 to 90 seconds; hundreds of waiting requests must not hold hundreds of connections.
    Connections inside a transaction stay: there the caller asked for it (or it is a test case's).
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
