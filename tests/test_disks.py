"""Full, read-only and vanished disks, for real: nothing half-written, no needless bill, and then all goes on."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from images.models import GeneratedImage
from tests.fakes.pictures import png
from tests.fakes.providers import FakeProvider

pytestmark = pytest.mark.django_db

BODY = {"contentItemId": "item-1", "title": "A quiet harbour at dawn"}
PICTURE = png(160, 90, 200_000)


@dataclass(frozen=True)
class Trouble:
    """Something that happens to a disk, and how it ends."""

    begin: Callable[[], Any]
    end: Callable[[], Any]
    sentence: str


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@pytest.fixture
def disk(media_root: Path) -> Iterator[Path]:
    """A media root on a disk of its own, of one megabyte."""
    try:
        mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", media_root)
    except (subprocess.CalledProcessError, FileNotFoundError):
        reason = "mounting a small disk needs root and mount(8)"
        if os.environ.get("CI_REQUIRE_ALL"):
            pytest.fail(reason)
        pytest.skip(reason)
    yield media_root
    # Lazily, in case a failed test has left a file open on it.
    subprocess.run(["umount", "--lazy", media_root], check=True)


@pytest.fixture
def full(disk: Path) -> Trouble:
    filler = disk / "somebody else's"

    return Trouble(
        lambda: filler.write_bytes(bytes(shutil.disk_usage(disk).free)), filler.unlink, "The disk is full."
    )


@pytest.fixture
def read_only(disk: Path) -> Trouble:
    return Trouble(
        lambda: mount("-o", "remount,ro", disk),
        lambda: mount("-o", "remount,rw", disk),
        "The media root (MEDIA_ROOT) is not writable.",
    )


@pytest.fixture
def vanished(media_root: Path) -> Trouble:
    elsewhere = media_root.with_name("unmounted")
    return Trouble(
        lambda: media_root.rename(elsewhere),
        lambda: elsewhere.rename(media_root),
        "The media root (MEDIA_ROOT) is missing.",
    )


@pytest.fixture(params=["full", "read_only", "vanished"])
def trouble(request: pytest.FixtureRequest) -> Trouble:
    """Each of the three."""
    found: Trouble = request.getfixturevalue(request.param)
    return found


@pytest.fixture(autouse=True)
def healthy_provider(fake_provider: FakeProvider, settings: Settings, tmp_path: Path) -> FakeProvider:
    """A provider whose pictures need more room than is looked for before it is asked."""
    settings.IMAGES = {**settings.IMAGES, "MIN_FREE_BYTES": 50_000}
    fake_provider.will(*[PICTURE] * 5)
    return fake_provider


def pictures(media_root: Path) -> list[Path]:
    """Every file under `draft-images/`, hidden ones too."""
    return [path for path in media_root.rglob("draft-images/**/*") if path.is_file()]


def made(api: APIClient) -> str:
    """The id of a new image."""
    answer = api.post("/api/images/generate", BODY)
    assert answer.status_code == 200, answer.content
    return str(answer.json()["id"])


def assert_refused(answer: Any, sentence: str, media_root: Path) -> None:
    """A clear answer, a row that says why, and no path in either."""
    assert (answer.status_code, answer.json()["code"]) == (500, "storage_error")
    assert sentence in answer.json()["error"]
    row = GeneratedImage.objects.get(status="failed")
    assert row.error_code == "storage_error"
    assert row.error_message == answer.json()["error"]
    assert str(media_root) not in answer.content.decode()


def assert_all_goes_on(api: APIClient, client: Client, media_root: Path) -> None:
    """The same request works, and the health endpoint says so."""
    made(api)
    assert [path.read_bytes() for path in pictures(media_root)] == [PICTURE]
    assert client.get("/health/ready").status_code == 200


def test_is_seen_before_paying_and_by_the_health_endpoint(
    trouble: Trouble, healthy_provider: FakeProvider, api: APIClient, client: Client, media_root: Path
) -> None:
    # A media root without any image may simply be made; this one has to be mounted.
    earlier = made(api)
    assert client.get("/health/ready").status_code == 200
    trouble.begin()
    health = client.get("/health/ready")
    assert health.status_code == 503
    assert trouble.sentence in health.json()["checks"]["storage"]
    assert_refused(api.post("/api/images/generate", BODY), trouble.sentence, media_root)
    assert len(healthy_provider.requests) == 1
    trouble.end()
    api.delete(f"/api/images/{earlier}")
    assert_all_goes_on(api, client, media_root)


def test_that_comes_while_the_provider_works_leaves_nothing_half_written(
    trouble: Trouble, healthy_provider: FakeProvider, api: APIClient, client: Client, media_root: Path
) -> None:
    def begin_trouble(_: Any) -> bytes:
        trouble.begin()
        return PICTURE

    healthy_provider.script.insert(0, begin_trouble)
    answer = api.post("/api/images/generate", BODY)
    assert_refused(answer, trouble.sentence, media_root)
    assert pictures(media_root) == []
    trouble.end()
    assert pictures(media_root) == []
    assert_all_goes_on(api, client, media_root)


@pytest.mark.parametrize("trouble", ["read_only", "vanished"], indirect=True)
def test_a_deletion_that_cannot_remove_the_file_says_so_and_can_be_repeated(
    trouble: Trouble, api: APIClient, media_root: Path
) -> None:
    address = f"/api/images/{made(api)}"
    trouble.begin()
    for _ in range(2):
        answer = api.delete(address)
        assert (answer.status_code, answer.json()["code"]) == (500, "storage_error")
        assert str(media_root) not in answer.content.decode()
    assert GeneratedImage.objects.get().status == "deleting"
    trouble.end()
    assert api.delete(address).status_code == 200
    assert not GeneratedImage.objects.exists()
    assert pictures(media_root) == []


def test_a_deletion_makes_room_on_a_full_disk(full: Trouble, api: APIClient, media_root: Path) -> None:
    image_id = made(api)
    full.begin()
    assert api.delete(f"/api/images/{image_id}").status_code == 200
    assert made(api)


def test_a_limit_on_the_size_of_files_leaves_nothing_half_written(
    healthy_provider: FakeProvider, api: APIClient, client: Client, media_root: Path
) -> None:
    """As `ulimit -f` and some quotas set it. The database's own files stay far below."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    healthy_provider.script.insert(0, png(160, 90, 9_000_000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, before[1]))
    try:
        answer = api.post("/api/images/generate", BODY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_refused(answer, "The file is larger than the disk or the process may hold.", media_root)
    assert pictures(media_root) == []
    assert_all_goes_on(api, client, media_root)
