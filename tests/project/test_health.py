"""A platform's probe gets its answer whatever it calls the server and whatever else is broken."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from images.models import GeneratedImage
from images.services import generate_image_later
from trygo_backend.health import leave_the_pool


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
    assert "no worker runs" in response.json()["checks"]["queue"]


def test_the_probe_does_not_queue_for_the_pool() -> None:
    original = {**connections["default"].settings_dict, "OPTIONS": {"pool": {"max_size": 1}, "sslmode": "require"}}
    probe = DatabaseWrapper(original).copy()
    leave_the_pool(probe)
    assert probe.pool is None
    assert probe.settings_dict["OPTIONS"] == {"sslmode": "require", "connect_timeout": 3}
    assert "pool" in original["OPTIONS"]
