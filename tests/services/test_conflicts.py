"""A row that cannot be written, although its key looks free: the caller is told, once and soon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection
from pytest_django.fixtures import Settings

from images.exceptions import DatabaseUnavailable, InvalidRequest, RequestInProgress
from images.models import GeneratedImage
from images.services import generate_image, generate_image_later, request
from tests.fakes.providers import FakeProvider
from tests.load.postgres import limited_database

WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=[generate_image, generate_image_later], ids=lambda function: function.__name__)
def generate(request: pytest.FixtureRequest, fake_provider: FakeProvider, settings: Settings) -> Any:
    settings.IMAGES = {**settings.IMAGES, "QUEUE": "tests.services.test_queue.enqueue"}
    return request.param


@pytest.mark.django_db(transaction=True)
def test_a_key_whose_row_cannot_be_seen_is_in_progress(
    generate: Any, fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    GeneratedImage.objects.create(**WANTED, file_stem="s", idempotency_scope="process", idempotency_key="k")
    monkeypatch.setattr(request, "rows", lambda: GeneratedImage.objects.exclude(idempotency_key="k"))
    with pytest.raises(RequestInProgress) as caught:
        generate(**WANTED, idempotency_key="k")
    assert caught.value.retry_after
    assert not fake_provider.requests


class ReplicaForReads:
    """A host's router; the replica is out of reach, so that whatever is read from it fails."""

    def db_for_read(self, model: Any, **_: Any) -> str:
        return "replica"

    def db_for_write(self, model: Any, **_: Any) -> str:
        return "default"


@pytest.mark.django_db(transaction=True)
def test_a_key_is_looked_for_where_rows_are_written(fake_provider: FakeProvider, settings: Settings) -> None:
    settings.DATABASE_ROUTERS = [ReplicaForReads()]
    first, again = (generate_image(**WANTED, idempotency_key="k") for _ in range(2))
    assert (again.pk, again.replayed, len(fake_provider.requests)) == (first.pk, True, 1)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="The trigger is written in SQLite's language.")
@pytest.mark.django_db(transaction=True)
def test_a_row_that_breaks_another_rule_is_tried_once(generate: Any, fake_provider: FakeProvider) -> None:
    """As where a newer release has made a column NOT NULL and this one still runs."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER newer BEFORE INSERT ON images_generatedimage "
            "BEGIN SELECT RAISE(ABORT, 'NOT NULL constraint failed: images_generatedimage.newer'); END"
        )
    tries: list[str] = []

    def count(execute: Any, sql: str, *rest: Any) -> Any:
        tries.extend(["insert"] if sql.startswith("INSERT") else [])
        return execute(sql, *rest)

    try:
        with connection.execute_wrapper(count), pytest.raises(IntegrityError):
            generate(**WANTED, idempotency_key="k")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER newer")
    assert tries == ["insert"]
    assert not fake_provider.requests


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("statement", ["SELECT", "INSERT"])
def test_a_database_that_fails_before_paying_is_named(
    generate: Any, fake_provider: FakeProvider, statement: str
) -> None:
    def fail(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith(statement):
            raise OperationalError("database is locked")
        return execute(sql, *rest)

    with connection.execute_wrapper(fail), pytest.raises(DatabaseUnavailable) as caught:
        generate(**WANTED, idempotency_key="k")
    assert caught.value.retry_after
    assert not fake_provider.requests


@pytest.mark.django_db
@pytest.mark.parametrize("scope", ["x" * 81, "a\x00b", " "])
def test_a_scope_that_the_column_cannot_hold_is_refused(
    generate: Any, fake_provider: FakeProvider, scope: str
) -> None:
    with pytest.raises(InvalidRequest):
        generate(**WANTED, idempotency_key="k", idempotency_scope=scope)
    assert not GeneratedImage.objects.exists()


_REPEATABLE_READ = """
import django; django.setup()
from django.core.management import call_command
from django.db import connection, transaction
from concurrent.futures import ThreadPoolExecutor
from images.exceptions import RequestInProgress
from images.models import GeneratedImage
from images.services import generate_image_later
call_command("migrate", verbosity=0)
wanted = {"content_item_id": "item-1", "title": "A title"}

def take_the_key():
    GeneratedImage.objects.create(**wanted, file_stem="s", idempotency_scope="process", idempotency_key="k")

with transaction.atomic():
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    assert not GeneratedImage.objects.exists()  # from here on the transaction sees this state of the database
    with ThreadPoolExecutor(1) as pool:
        pool.submit(take_the_key).result()
    try:
        generate_image_later(**wanted, idempotency_key="k")
    except RequestInProgress:
        print("in progress")
assert GeneratedImage.objects.count() == 1
"""


@pytest.mark.slow
def test_postgresql_in_repeatable_read_says_that_the_key_is_taken(tmp_path: Path) -> None:
    with limited_database(20) as database:
        environment = {
            "PATH": os.environ["PATH"],
            "DJANGO_SETTINGS_MODULE": "trygo_backend.settings",
            "SECRET_KEY": "only-for-tests",
            "DATABASE_URL": database.url,
            "STORAGE_ROOT": str(tmp_path),
            "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
        }
        done = subprocess.run(
            [sys.executable, "-c", _REPEATABLE_READ],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=90,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "in progress\n"), done.stderr
