"""A database that is locked, full, read-only or gone: 503, and asking again helps."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.db.utils import load_backend
from pytest_django import Settings
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from images.models import GeneratedImage
from images.providers import ImageRequest
from tests.crash.server import migrated_database
from tests.fakes.providers import FakeProvider, png

BODY = {"contentItemId": "item-1", "title": "A quiet harbour at dawn"}

Call = Callable[[APIClient, str], Any]
CALLS: dict[str, Call] = {
    "list": lambda client, _: client.get("/api/images/"),
    "retrieve": lambda client, image: client.get(f"/api/images/{image}"),
    "delete": lambda client, image: client.delete(f"/api/images/{image}"),
    "generate": lambda client, _: client.post("/api/images/generate", BODY, format="json"),
    "create": lambda client, _: client.post("/api/images/", BODY, format="json", headers={"Idempotency-Key": "k"}),
}
WRITERS = ("delete", "generate", "create")


@contextmanager
def default_database(engine: str, **values: Any) -> Iterator[None]:
    """This thread's default database is another one."""
    before = connections["default"]
    wrapper = load_backend(engine).DatabaseWrapper({**before.settings_dict, "OPTIONS": {}, **values}, "default")
    connections["default"] = wrapper
    try:
        yield
    finally:
        wrapper.close()
        connections["default"] = before


def sqlite(name: str | Path, **options: Any) -> AbstractContextManager[None]:
    return default_database("django.db.backends.sqlite3", NAME=str(name), OPTIONS={"timeout": 0.05, **options})


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all its tables."""
    return migrated_database(tmp_path_factory.mktemp("database"))


@pytest.fixture
def installation(
    migrated: Path, tmp_path: Path, django_db_blocker: Any, fake_provider: FakeProvider
) -> Iterator[tuple[Path, str]]:
    """A copy of it with a user, a token and an image; and the image's id."""
    file = tmp_path / "db.sqlite3"
    file.write_bytes(migrated.read_bytes())
    with django_db_blocker.unblock():
        with sqlite(file):
            user = User.objects.create(username="ann")
            Token.objects.create(user=user, key="t" * 40)
            image = GeneratedImage.objects.create(owner=user, content_item_id="item-1", title="x", file_stem="f")
        yield file, str(image.pk)


@pytest.fixture
def caller() -> APIClient:
    client = APIClient()
    client.raise_request_exception = False
    client.credentials(HTTP_AUTHORIZATION=f"Token {'t' * 40}")
    return client


def is_unavailable(answer: Any) -> bool:
    body = answer.json()
    assert (answer.status_code, body["code"], body["retryable"]) == (503, "database_unavailable", True), body
    return int(answer["Retry-After"]) > 0


@pytest.mark.parametrize("call", CALLS)
def test_it_is_gone(
    installation: tuple[Path, str], caller: APIClient, fake_provider: FakeProvider, call: str
) -> None:
    file, image = installation
    with sqlite(file.parent / "nowhere" / "db.sqlite3"):
        assert is_unavailable(CALLS[call](caller, image))
    assert not fake_provider.requests


@pytest.mark.parametrize("call", CALLS)
def test_postgresql_refuses_connections(
    installation: tuple[Path, str], caller: APIClient, fake_provider: FakeProvider, call: str
) -> None:
    _, image = installation
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        port = str(nobody_listens.getsockname()[1])
        with default_database("django.db.backends.postgresql", HOST="127.0.0.1", PORT=port, NAME="images"):
            assert is_unavailable(CALLS[call](caller, image))
    assert not fake_provider.requests


@pytest.mark.parametrize("call", WRITERS)
def test_another_process_holds_the_lock(
    installation: tuple[Path, str], caller: APIClient, fake_provider: FakeProvider, call: str
) -> None:
    file, image = installation
    with closing(sqlite3.connect(file)) as other, sqlite(file):
        other.execute("BEGIN IMMEDIATE")
        assert is_unavailable(CALLS[call](caller, image))
    assert not fake_provider.requests


@pytest.mark.parametrize("call", WRITERS)
def test_it_cannot_be_written(
    installation: tuple[Path, str], caller: APIClient, fake_provider: FakeProvider, call: str
) -> None:
    file, image = installation
    with sqlite(f"file:{file}?mode=ro"):
        assert is_unavailable(CALLS[call](caller, image))
    assert not fake_provider.requests


def test_it_is_full(installation: tuple[Path, str], caller: APIClient, fake_provider: FakeProvider) -> None:
    file, _ = installation
    body = {**BODY, "description": "x" * 100_000}
    with sqlite(file, init_command="PRAGMA max_page_count = 1"):
        assert is_unavailable(caller.post("/api/images/generate", body, format="json"))
    assert not fake_provider.requests


@pytest.mark.parametrize("call", ["delete", "generate"])
def test_it_is_logged_once_in_one_line(
    installation: tuple[Path, str], caller: APIClient, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    with sqlite(f"file:{installation[0]}?mode=ro"):
        CALLS[call](caller, installation[1])
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage().startswith("database_unavailable error=")
    assert record.exc_info is None


def test_once_a_provider_was_asked_nothing_claims_that_nothing_was_paid(
    installation: tuple[Path, str], caller: APIClient, fake_provider: FakeProvider, settings: Settings
) -> None:
    """The database goes away while the provider works, and does not come back as long as there is time."""
    settings.IMAGES = {**settings.IMAGES, "DEADLINE": 1}

    def respond(_: ImageRequest) -> bytes:
        connections["default"].close()
        connections["default"].settings_dict["NAME"] = str(installation[0].parent / "nowhere" / "db.sqlite3")
        return png()

    fake_provider.will(respond)
    with sqlite(installation[0]):
        answer = caller.post("/api/images/generate", BODY, format="json")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert len(fake_provider.requests) == 1
