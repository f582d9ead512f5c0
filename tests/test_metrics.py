"""Metrics for Prometheus: counted as the app's signals tell it, shown to whoever sees all images."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from django.contrib.auth.models import User
from django.test import override_settings
from django.urls import path
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import DjangoCaptureOnCommitCallbacks
from rest_framework.test import APIClient

from images import exceptions, metrics, signals
from images.models import GeneratedImage
from images.services import delete_image, generate_image, run_generation
from tests.conftest import client_for
from tests.crash.server import migrated_database
from tests.fakes.provider_server import ProviderServer
from tests.fakes.providers import FakeProvider
from tests.queue.installation import Installation
from tests.queue.services import PATIENCE
from trygo_backend.urls import urlpatterns as project

urlpatterns = [path("metrics", metrics.MetricsView.as_view()), *project]

WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}
LABELS = {"provider": "test", "model": "test-model-1", "variant": "hero"}

Samples = Callable[..., float]


def read(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def counted(fake_provider: FakeProvider, staff: User) -> Iterator[Samples]:
    """How much a sample has grown since the test began."""
    with override_settings(ROOT_URLCONF=__name__):
        metrics.connect()
        api = client_for(staff)
        before = read(api.get("/metrics").content.decode())

        def growth(name: str, **labels: str) -> float:
            key = (name, frozenset(labels.items()))
            return read(api.get("/metrics").content.decode()).get(key, 0.0) - before.get(key, 0.0)

        yield growth
    for signal in (
        signals.image_generated, signals.image_generation_failed, signals.image_deleted, signals.queue_incident,
    ):  # fmt: skip
        signal.disconnect(dispatch_uid="images.metrics")


@pytest.mark.django_db
class TestCounts:
    def test_what_was_made_how_long_it_took_and_how_large_it_is(
        self, counted: Samples, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
    ) -> None:
        with django_capture_on_commit_callbacks(execute=True):
            image = generate_image(**WANTED)
        assert counted("images_generations_total", **LABELS, outcome="ready") == 1
        assert counted("images_generation_seconds_count", **LABELS, outcome="ready") == 1
        assert counted("images_stored_bytes_total", provider="test", model="test-model-1") == image.size_bytes
        with django_capture_on_commit_callbacks(execute=True):
            delete_image(image=image)
        assert counted("images_deleted_total") == 1

    def test_what_failed_and_every_call_that_gave_no_picture(
        self,
        counted: Samples,
        fake_provider: FakeProvider,
        django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
    ) -> None:
        fake_provider.will(exceptions.ProviderUnreachable(), exceptions.ProviderTimeout())
        with django_capture_on_commit_callbacks(execute=True), pytest.raises(exceptions.ProviderTimeout):
            generate_image(**WANTED)
        failed = {**LABELS, "model": ""}
        assert counted("images_generations_total", **failed, outcome="provider_timeout") == 1
        for code in ("provider_unreachable", "provider_timeout"):
            assert counted("images_provider_errors_total", provider="test", model="", code=code) == 1

    def test_what_went_wrong_between_queue_and_rows(self, counted: Samples) -> None:
        run_generation(uuid.uuid4())
        assert counted("images_queue_incidents_total", kind="unknown") == 1

    def test_what_is_under_way_and_what_waits(self, counted: Samples) -> None:
        now = timezone.now()
        row = {"content_item_id": "x", "title": "x", "deadline_at": now + timedelta(hours=1)}
        GeneratedImage.objects.create(**row, file_stem="1", started_at=now)
        GeneratedImage.objects.create(**row, file_stem="2", created_at=now - timedelta(minutes=1))
        GeneratedImage.objects.create(**{**row, "deadline_at": now - timedelta(hours=1)}, file_stem="3")
        assert counted("images_under_way", state="running") == 1
        assert counted("images_under_way", state="queued") == 1
        assert counted("images_unsettled", kind="expired") == 1
        assert counted("images_unsettled", kind="lost") == 0
        assert counted("images_queue_oldest_seconds") >= 60

    def test_what_is_left_of_the_budgets(self, counted: Samples, settings: Any) -> None:
        settings.IMAGES = {**settings.IMAGES, "BUDGET_MONTH": 5, "PRICES": {"test": "0.04"}}
        generate_image(**WANTED)
        assert counted("images_budget_spent_usd", period="month") == pytest.approx(0.04)
        assert counted("images_budget_reserved_usd", period="month") == 0
        assert counted("images_budget_limit_usd", period="month") == 5
        assert counted("images_budget_limit_usd", period="day") == 0


@pytest.mark.django_db
@override_settings(ROOT_URLCONF=__name__)
def test_only_staff_and_trusted_networks_see_them(
    api: APIClient, anonymous: APIClient, staff: User, settings: Any
) -> None:
    assert anonymous.get("/metrics").status_code == 401
    assert api.get("/metrics").status_code == 403
    assert client_for(staff).get("/metrics").status_code == 200
    settings.IMAGES = {"TRUSTED_NETWORKS": ["127.0.0.1/32"]}
    assert anonymous.get("/metrics").status_code == 200
    assert anonymous.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 401


def test_there_is_no_such_address_unless_it_is_wanted(client: Any) -> None:
    assert client.get("/metrics").status_code == 404


def test_nothing_is_imported_unless_it_is_wanted() -> None:
    look = "print([name for name in ('prometheus_client', 'celery', 'storages') if name in sys.modules])"
    code = f"import sys, django; django.setup(); {look}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"DJANGO_SETTINGS_MODULE": "trygo_backend.settings", "SECRET_KEY": "x"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_all_processes_of_a_server_are_added_up(tmp_path: Path, provider_server: ProviderServer) -> None:
    database = f"sqlite:///{migrated_database(tmp_path)}"
    wanted = {"IMAGE_METRICS": "1", "WEB_CONCURRENCY": "2"}
    with closing(Installation(tmp_path, provider_server, "", database, **wanted)) as installation, installation.web():
        for number in range(8):
            assert installation.ask(f"Number {number}").status_code == 200
        for _ in range(4):  # whichever process answers
            text = requests.get(f"{installation.url}/metrics", timeout=PATIENCE).text
            made = [value for (name, _labels), value in read(text).items() if name == "images_generations_total"]
            assert sum(made) == 8
