"""The queue and shared storage, from the environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from tests.project.test_server import ROOT
from tests.project.test_settings import settings_with
from trygo_backend.environment import Environment
from trygo_backend.scaling import celery_transport, file_storage


def test_without_a_broker_there_is_no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    values = settings_with(monkeypatch)
    assert "QUEUE" not in values["IMAGES"]
    assert not [name for name in values if name.startswith("CELERY_") and values[name]]


def test_a_broker_is_all_that_a_queue_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    values = settings_with(monkeypatch, CELERY_BROKER_URL="redis://broker/0", CELERY_CONCURRENCY="7")
    assert values["IMAGES"]["QUEUE"] == "celery"
    assert (values["CELERY_WORKER_CONCURRENCY"], values["CELERY_WORKER_POOL"]) == (7, "threads")


def test_a_broker_without_celery_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "celery", None)
    with pytest.raises(ImproperlyConfigured, match=r"requirements-scaling\.txt"):
        settings_with(monkeypatch, CELERY_BROKER_URL="redis://broker/0")


@pytest.mark.parametrize(("deadline", "least"), [("90", 90 + 20), ("600", 600 + 20), ("nonsense", 90 + 20)])
def test_redis_gives_a_task_to_another_worker_only_when_its_worker_is_surely_over(deadline: str, least: int) -> None:
    assert celery_transport("redis://broker/0", deadline)["visibility_timeout"] > least


def test_rabbitmq_confirms_what_it_has_taken() -> None:
    assert celery_transport("amqp://broker//", "90")["confirm_publish"] is True


def test_files_live_in_a_folder_or_in_a_bucket_that_stays_private() -> None:
    assert file_storage(Environment({}))["BACKEND"] == "django.core.files.storage.FileSystemStorage"
    options = file_storage(Environment({"S3_BUCKET": "pictures", "S3_REGION": "eu-1"}))["OPTIONS"]
    assert (options["bucket_name"], options["region_name"]) == ("pictures", "eu-1")
    assert options["querystring_auth"] is True
    assert options["default_acl"] is None
    assert "endpoint_url" not in options


def test_the_task_is_found_under_the_name_that_is_documented() -> None:
    from images.tasks import TASK

    assert TASK in (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"CELERY_BROKER_URL": ""}, "set CELERY_BROKER_URL"),
        (
            {"CELERY_BROKER_URL": "redis://:a-password@127.0.0.1:1/0"},
            "broker does not answer (redis://:**@127.0.0.1:1/0",
        ),
        ({"OPENAI_API_KEY": ""}, "OPENAI_API_KEY"),
        ({"DATABASE_URL": "postgres://nobody@127.0.0.1:1/x"}, "DATABASE_URL"),
        ({"METRICS_PORT": "taken", "IMAGE_METRICS": "1"}, "METRICS_PORT"),
    ],
    ids=["no queue", "broker", "key", "database", "port"],
)
@pytest.mark.slow
def test_a_worker_that_cannot_work_says_so_in_one_sentence(
    variables: dict[str, str], words: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        env = {
            "PATH": os.environ["PATH"],
            "SECRET_KEY": "x" * 60,
            "STORAGE_ROOT": str(tmp_path),
            "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
            "CELERY_BROKER_URL": "memory://",
            "IMAGE_PROVIDER": "openai",
            "OPENAI_API_KEY": "sk-secret",
            **{name: port if value == "taken" else value for name, value in variables.items()},
        }
        command = [sys.executable, "-m", "trygo_backend.worker"]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=90)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("The worker cannot start. ")
    assert words in last
    assert "a-password" not in done.stderr
    assert "Traceback" not in done.stderr
