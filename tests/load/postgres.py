"""A PostgreSQL database of a test's own, with a limit on its connections."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
import pytest

#: A server on which databases and roles may be made.
ADMIN_URL = os.environ.get("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")


@dataclass(frozen=True)
class Database:
    """A database that takes at most so many connections of its owner, who is no superuser."""

    name: str

    @property
    def url(self) -> str:
        parts = urlsplit(ADMIN_URL)
        return f"postgres://{self.name}:{self.name}@{parts.hostname}:{parts.port or 5432}/{self.name}"

    def connections(self) -> int:
        """How many are open at this moment."""
        with psycopg.connect(ADMIN_URL) as admin:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
            return int((admin.execute(query, [self.name]).fetchone() or (0,))[0])

    def cut(self) -> None:
        """Break its connections; new ones may be opened at once."""
        with psycopg.connect(ADMIN_URL, autocommit=True) as admin:
            self._cut(admin)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Break its connections and refuse new ones while the block runs."""
        with psycopg.connect(ADMIN_URL, autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS false")
            try:
                self._cut(admin)
                yield
            finally:
                admin.execute(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS true")

    def _cut(self, admin: psycopg.Connection) -> None:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self.name])

    def count(self, status: str) -> int:
        """How many images are in `status`."""
        with psycopg.connect(self.url) as connection:
            query = "SELECT count(*) FROM images_generatedimage WHERE status = %s"
            return int((connection.execute(query, [status]).fetchone() or (0,))[0])


@contextmanager
def limited_database(connections: int) -> Iterator[Database]:
    """Make the database, and drop it afterwards. Without a server the test is skipped, in CI it fails."""
    database = Database(f"trygo_load_{secrets.token_hex(4)}")
    name = database.name  # letters and digits only
    try:
        admin = psycopg.connect(ADMIN_URL, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError:
        if os.environ.get("CI_REQUIRE_ALL"):
            raise
        pytest.skip("There is no PostgreSQL at TEST_POSTGRES_URL (postgres@127.0.0.1:5432 when unset).")
    with admin:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}' NOSUPERUSER")
        admin.execute(f"CREATE DATABASE {name} OWNER {name} CONNECTION LIMIT {connections}")
        try:
            yield database
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
            admin.execute(f"DROP ROLE {name}")
