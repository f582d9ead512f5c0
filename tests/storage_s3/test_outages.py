"""The real server and a bucket that is away, or slow, while many images are under way: what is paid for is stored."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests

from images.storage import PROBE
from tests.fakes.provider_server import ProviderServer
from tests.load.callers import PATIENCE, Callers, Server, server_for, until
from tests.storage_s3.server import BUCKET, KEY, SECRET, CountingBucket

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket() -> Iterator[CountingBucket]:
    with closing(CountingBucket()) as server:
        yield server


@contextmanager
def server_with(bucket: CountingBucket, provider: ProviderServer, folder: Path, **variables: str) -> Iterator[Server]:
    """The project's server with one process, configured for the bucket, which it has looked at."""
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    wanted = {"S3_BUCKET": BUCKET, "S3_ENDPOINT_URL": bucket.url, "S3_REGION": "us-east-1", **keys, **variables}
    with server_for(provider, folder, **wanted) as server:
        assert requests.get(f"{server.base}/health/ready", timeout=PATIENCE).ok
        yield server


def pictures(bucket: CountingBucket) -> set[str]:
    return bucket.objects.keys() - {PROBE}


def test_ten_of_ten_are_stored_although_the_bucket_is_away_for_three_seconds(
    bucket: CountingBucket, provider_server: ProviderServer, tmp_path: Path
) -> None:
    with server_with(bucket, provider_server, tmp_path) as server:
        provider_server.hold()
        with Callers(server.generate_url, 10) as callers:
            provider_server.wait_for(10)
            with bucket.away():
                provider_server.release()
                until(lambda: server.log.count("action=save") >= 10, "each has tried to be stored")
                time.sleep(3)
        assert callers.statuses == {"200": 10}
        assert server.rows("status") == [("ready",)] * 10
        assert {name for (name,) in server.rows("file")} == pictures(bucket)
        assert "Signature" not in server.log


def test_a_slow_bucket_makes_no_other_image_late_and_fills_no_memory(
    bucket: CountingBucket, provider_server: ProviderServer, tmp_path: Path
) -> None:
    provider_server.image_bytes = 2_500_000
    bucket.slowness = 6.0
    times = {"IMAGE_DEADLINE": "20", "IMAGE_STORAGE_TIMEOUT": "8"}  # six at a time would take 40 s
    with server_with(bucket, provider_server, tmp_path, **times) as server:
        provider_server.hold()
        before = most_memory(server)
        with Callers(server.generate_url, 40) as callers:
            provider_server.wait_for(40)
            provider_server.release()
        assert callers.statuses == {"200": 40}
        assert len(pictures(bucket)) == 40
        assert most_memory(server) - before < 110


def most_memory(server: Server) -> float:
    """The most memory, in MB, that the server's processes have had so far."""
    master = server.process.pid
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in (str(master), *children)]
    peaks = [re.search(r"VmHWM:\s+(\d+) kB", status) for status in statuses]
    return sum(int(peak[1]) for peak in peaks if peak) / 1000
