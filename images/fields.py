"""Fields of texts that are identities: ids, keys and file names, which are compared to the letter on every database.

SQLite and PostgreSQL do so by themselves. MariaDB and MySQL take `Key-A`, `key-a` and `kéy-a` for the same text,
unless the column has a binary collation.
"""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import lookups
from django.db.models.sql.compiler import SQLCompiler

#: How MariaDB and MySQL compare if the case is not to count.
_IGNORING_CASE = "utf8mb4_general_ci"


def _to_the_letter(connection: Any) -> str:
    """The collation of MariaDB or MySQL by which each character counts, as well as spaces at the end."""
    if connection.mysql_is_mariadb:
        return "utf8mb4_nopad_bin"
    # An older MySQL has no collation by which spaces at the end count.
    return "utf8mb4_0900_bin" if connection.mysql_version >= (8, 0, 17) else "utf8mb4_bin"


def _with_collation(parameters: Any, connection: BaseDatabaseWrapper) -> Any:
    return {**parameters, "collation": _to_the_letter(connection)} if connection.vendor == "mysql" else parameters


class IdentityField(models.CharField):  # type: ignore[type-arg]
    """A text that is an identity."""

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Without the warning that an index may not take more than 255 characters: InnoDB's takes 3072 bytes."""
        return [message for message in super().check(**kwargs) if message.id != "mysql.W003"]

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        return _with_collation(super().db_parameters(connection), connection)


class IdentityFileField(models.FileField):
    """A file whose name is an identity."""

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        return _with_collation(super().db_parameters(connection), connection)


class _IgnoringCase(lookups.BuiltinLookup):
    """A look-up that ignores case, which on MariaDB and MySQL follows from the collation."""

    def process_lhs(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, lhs: Any = None) -> Any:
        sql, parameters = super().process_lhs(compiler, connection, lhs)
        return (f"{sql} COLLATE {_IGNORING_CASE}" if connection.vendor == "mysql" else sql), parameters


for _lookup in (lookups.IExact, lookups.IContains, lookups.IStartsWith, lookups.IEndsWith):
    for _field in (IdentityField, IdentityFileField):
        _field.register_lookup(type(_lookup.__name__, (_IgnoringCase, _lookup), {}))
