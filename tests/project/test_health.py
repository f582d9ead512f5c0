"""A platform's probe gets its answer whatever it calls the server and whatever else is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connections
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from images.models import GeneratedImage
from images.services import generate_image, generate_image_later
from images.services.probes import PROBES, Finding, fine
from tests.fakes.providers import FakeProvider
from tests.load.postgres import limited_database
from trygo_backend import health
from trygo_backend.health import readiness


@pytest.mark.parametrize("path", ["/health", "/health/"])
def test_health_answers_any_host_over_plain_http(client: Client, settings: Settings, path: str) -> None:
    settings.SECURE_SSL_REDIRECT = True
    response = client.get(path, headers={"host": "10.0.0.7:1234"})
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert response["Cache-Control"] == "no-store"
    assert client.get("/", headers={"host": "localhost"}).status_code == 301  # the redirect is on


def test_head_announces_the_body_and_sends_none(client: Client) -> None:
    response = client.head("/health")
    assert response.status_code == 200
    assert response.content == b""
    assert response["Content-Length"] == str(len(client.get("/health").content))


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_other_methods_are_refused(client: Client, path: str) -> None:
    response = client.post(path)
    assert response.status_code == 405
    assert response["Allow"] == "GET, HEAD"


@pytest.mark.django_db
def test_health_asks_no_database(client: Client, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(0):
        client.get("/health")


@pytest.mark.django_db(transaction=True)
def test_ready_when_everything_works(client: Client, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    response = client.get("/health/ready", headers={"host": "whatever.internal"})
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "checks": {"database": "ok", "storage": "ok"}}


@pytest.mark.django_db(transaction=True)
def test_a_budget_that_is_used_up_is_shown_without_amounts_and_without_failing(
    client: Client, settings: Settings, fake_provider: FakeProvider
) -> None:
    settings.IMAGES = {**settings.IMAGES, "BUDGET_DAY": "0.25", "PRICES": {"test": "0.05"}}
    for used in (0, 4, 5):
        while GeneratedImage.objects.count() < used:
            generate_image(content_item_id="a", title="b")
        response = client.get("/health/ready")
        assert (response.status_code, response.json()["status"]) == (200, "degraded" if used else "ok")
        told = response.json()["checks"]["budget"]
        assert ("0.25" in told, "IMAGE_BUDGET_DAY" in told, "nearly" in told) == (False, used > 0, used == 4)


@pytest.mark.django_db(transaction=True)
def test_not_ready_without_a_storage(client: Client, settings: Settings, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    settings.MEDIA_ROOT = str(blocked / "media")
    response = client.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["status"] == "unavailable"
    assert response.json()["checks"]["database"] == "ok"
    assert response.json()["checks"]["storage"] != "ok"
    assert str(tmp_path) not in response.text


@pytest.mark.django_db(transaction=True)
def test_not_ready_without_a_database(client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connection = connections["default"]
    name = str(tmp_path / "no-such-folder" / "db.sqlite3")
    engine = "django.db.backends.sqlite3"
    broken = {**connection.settings_dict, "ENGINE": engine, "NAME": name, "HOST": "", "OPTIONS": {}}
    monkeypatch.setattr(connection, "settings_dict", broken)
    response = client.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["checks"]["database"].startswith("The database does not answer")
    assert str(tmp_path) not in response.text


@pytest.mark.django_db(transaction=True)
def test_a_queue_that_nobody_works_on_is_told_and_keeps_the_server_in_service(
    client: Client, settings: Settings
) -> None:
    settings.IMAGES = {"QUEUE": "tests.services.test_queue.enqueue"}
    assert client.get("/health/ready").json()["checks"]["queue"] == "ok"
    image = generate_image_later(content_item_id="item-1", title="A title")
    assert client.get("/health/ready").json()["status"] == "ok"
    GeneratedImage.objects.filter(pk=image.pk).update(created_at=timezone.now() - timedelta(minutes=5))
    response = client.get("/health/ready")
    assert (response.status_code, response.json()["status"]) == (200, "degraded")
    assert "no worker is running" in response.json()["checks"]["queue"]


@pytest.mark.django_db(transaction=True)
def test_many_callers_share_one_round_of_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    everyone_waits, rounds = threading.Barrier(20), []

    def probe() -> Finding:
        rounds.append(threading.get_ident())
        time.sleep(0.2)  # the others come meanwhile
        return fine("Database", "It answers.")

    def ask(_: int) -> int:
        everyone_waits.wait()
        return readiness().status_code

    monkeypatch.setattr(health, "KEEP", 60.0)
    monkeypatch.setattr(health, "_latest", None)
    monkeypatch.setitem(PROBES, "database", probe)
    with ThreadPoolExecutor(20) as callers:
        assert set(callers.map(ask, range(20))) == {200}
    assert readiness().status_code == 200
    assert len(rounds) == 1


@pytest.mark.django_db(transaction=True)
def test_a_probe_that_hangs_holds_up_only_the_first_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, ends = threading.Event(), threading.Event()

    def probe() -> Finding:
        hangs.set()
        ends.wait(30)
        return fine("Storage", "It works.")

    monkeypatch.setattr(health, "PATIENCE", 0.2)
    monkeypatch.setattr(health, "_latest", None)
    monkeypatch.setitem(PROBES, "storage", probe)
    with ThreadPoolExecutor(1) as first:
        asked = first.submit(readiness)
        assert hangs.wait(30)
        late = json.loads(readiness().content)
        assert late["checks"] == {"database": "ok", "storage": "It did not answer in time."}
        begun = time.monotonic()
        assert readiness().status_code == 503
        assert time.monotonic() - begun < 0.15, "the round's time is up: there is nothing to wait for"
        ends.set()
        assert asked.result().status_code == 200


MANY_CALLERS = """
import threading
from concurrent.futures import ThreadPoolExecutor
import django
django.setup()
from django.core.management import call_command
from django.db import connections
from django.test import Client
call_command("migrate", verbosity=0)
connections.close_all()
together = threading.Barrier(128)
def ask(number):
    together.wait()
    page = Client(headers={"host": "localhost"}).get("/health/ready" if number % 2 else "/")
    return page.status_code, "does not answer" in page.text
with ThreadPoolExecutor(128) as callers:
    print(set(callers.map(ask, range(128))))
"""


@pytest.mark.slow
def test_128_threads_need_few_connections_to_postgresql(tmp_path: Path) -> None:
    with limited_database(3) as database:
        environment = {**os.environ, "DATABASE_URL": database.url, "STORAGE_ROOT": str(tmp_path)}
        environment |= {"DJANGO_SETTINGS_MODULE": "trygo_backend.settings", "IMAGE_PROVIDER": "placeholder"}
        command = [sys.executable, "-c", MANY_CALLERS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "{(200, False)}\n", done.stderr
