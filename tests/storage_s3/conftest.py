from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from botocore.config import Config
from pytest_django import Settings

from tests.storage_s3.server import BUCKET, KEY, SECRET, CountingBucket
from trygo_backend.environment import Environment
from trygo_backend.scaling import file_storage


@pytest.fixture(scope="package")
def counting_server() -> Iterator[CountingBucket]:
    with closing(CountingBucket()) as server:
        yield server


@pytest.fixture
def bucket(
    counting_server: CountingBucket, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CountingBucket]:
    """An empty bucket, with the project's own configuration of it; only the client itself does not try again."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    variables = {"S3_BUCKET": BUCKET, "S3_ENDPOINT_URL": counting_server.url, "S3_REGION": "us-east-1"}
    storage = file_storage(Environment(variables))
    once = Config(retries={"total_max_attempts": 1})
    storage["OPTIONS"]["client_config"] = storage["OPTIONS"]["client_config"].merge(once)
    settings.STORAGES = {**settings.STORAGES, "default": storage}
    yield counting_server
    counting_server.objects.clear()
    counting_server.denied.clear()
    counting_server.drops = 0
    counting_server.forget()
