"""A rolling deploy: the tables are the newest already, while code of an earlier release still works on them."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone

from images.models import GeneratedImage, Status
from images.services import run_generation
from tests.fakes.provider_server import ProviderServer
from tests.fakes.providers import FakeProvider
from tests.load.postgres import Database, limited_database
from tests.queue.installation import ROOT, Installation
from tests.queue.services import PATIENCE, Redis

MIGRATIONS = sorted(path.stem for path in (ROOT / "images" / "migrations").glob("0*.py"))


@pytest.mark.django_db
@pytest.mark.parametrize("newest_known", MIGRATIONS[1:-1])
def test_code_that_knows_fewer_columns_inserts_reads_and_finishes(
    newest_known: str, fake_provider: FakeProvider
) -> None:
    """Each migration after the second one: its columns have a default in the database."""
    state = MigrationLoader(connection).project_state(("images", newest_known))
    old = state.apps.get_model("images", "GeneratedImage")
    names = {"content_item_id": "item-1", "title": "A quiet harbour at dawn", "prompt": "A harbour."}
    for number in range(2):
        old.objects.create(**names, file_stem=f"draft-images/item-1/hero-{number}", deadline_at=timezone.now())
    finished, waits = old.objects.order_by("file_stem")
    old.objects.filter(pk=finished.pk, status="pending").update(status="ready", file="draft-images/item-1/hero-0.png")
    finished.refresh_from_db()
    assert (finished.status, finished.attempts) == ("ready", [])

    GeneratedImage.objects.filter(pk=waits.pk).update(deadline_at=timezone.now() + timedelta(minutes=1))
    run_generation(waits.pk)  # a worker with the new code takes up what the old code has accepted
    made = GeneratedImage.objects.get(pk=waits.pk)
    made.full_clean(exclude=["prompt"])
    assert made.status == Status.READY
    assert old.objects.get(pk=waits.pk).status == "ready"
    old.objects.all().delete()


# --- real processes -------------------------------------------------------------------------------------------------


@pytest.fixture
def old_code(tmp_path: Path) -> Path:
    """The project as it was before its third migration."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False).stdout

    added = git("log", "--diff-filter=A", "--format=%H", "--", "images/migrations/0003_cost.py").decode().split()
    archive = git("archive", f"{added[-1]}^") if added else b""
    if not archive:
        pytest.skip("The history is not here; the test needs an earlier release.")
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(tmp_path / "old", filter="data")
    return tmp_path / "old"


@contextmanager
def installed(code: Path, new: Installation) -> Iterator[Installation]:
    """The same installation, run by other code."""
    folder = new.media.parent / f"run-by-{code.name}"
    folder.mkdir()
    database, media = new.environment["DATABASE_URL"], str(new.media)
    made = Installation(folder, new.provider, new.broker, database, STORAGE_ROOT=media)
    made.code = code
    with closing(made):
        yield made


@pytest.fixture
def database() -> Iterator[Database]:
    with limited_database(60) as made:
        yield made


@pytest.mark.slow
def test_the_old_code_goes_on_working_on_the_new_tables(
    old_code: Path, tmp_path: Path, database: Database, provider_server: ProviderServer, redis: Redis
) -> None:
    with (
        closing(Installation(tmp_path, provider_server, redis.url, database.url)) as new,
        installed(old_code, new) as old,
    ):
        old.manage("migrate", "--verbosity", "0")
        with old.web(), old.worker("--concurrency", "2"):
            before = old.queue("Before the migration")
            assert old.ended(before)["status"] == "ready"
            provider_server.hold()
            during = old.queue("Is made while the tables change")
            provider_server.wait_for(2, PATIENCE)
            new.manage("migrate", "--verbosity", "0")
            provider_server.release()
            assert old.ended(during)["status"] == "ready"
            assert old.ask("Made by the old web server").json()["status"] == "ready"
            with new.web(), new.worker("--concurrency", "2"):
                for asked in (old, new):  # whichever worker takes it
                    rows = [asked.queue(f"Number {number}") for number in range(6)]
                    assert {asked.ended(row)["status"] for row in rows} == {"ready"}
                assert {new.look(row)["status"] for row in (before, during)} == {"ready"}
                assert old.look(new.queue("Seen by both"))["status"] in {"pending", "ready"}


@pytest.mark.slow
def test_the_new_code_does_not_start_before_the_migration(
    old_code: Path, tmp_path: Path, database: Database, provider_server: ProviderServer, redis: Redis
) -> None:
    with (
        closing(Installation(tmp_path, provider_server, redis.url, database.url)) as new,
        installed(old_code, new) as old,
    ):
        old.manage("migrate", "--verbosity", "0")
        for module in ("server", "worker"):
            done = new.run("-m", f"trygo_backend.{module}")
            assert done.returncode == 1
            assert "database migrations are pending" in done.stderr
            assert "manage.py migrate" in done.stderr
            assert "Traceback" not in done.stderr
