"""What a bucket is asked, and how much it sends: as little as can be, and also if it lets nobody list it."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from io import BytesIO
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from images import storage
from images.exceptions import StorageError
from images.models import GeneratedImage
from images.services import generate_image, generation
from images.services.diagnostics import examine_storage
from images.services.probes import Level
from images.services.reconciliation import Kind, reconcile
from images.services.repair import adopt, judge
from images.storage import PROBE
from tests.fakes.providers import FakeProvider, png
from tests.storage_s3.server import CountingBucket, Stored

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

KEY = "draft-images/item/hero-1763049170351.png"
URL = f"/media/{KEY}"
DATA = bytes(range(256)) * 1000
WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}


@pytest.fixture
def stored(bucket: CountingBucket) -> CountingBucket:
    bucket.objects[KEY] = Stored(DATA)
    return bucket


# --- serving ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        ({}, 200, DATA),
        ({"Range": "bytes=100-199"}, 206, DATA[100:200]),
        ({"Range": "bytes=-10"}, 206, DATA[-10:]),
        ({"Range": "bytes=255990-"}, 206, DATA[255990:]),
        ({"Range": "bytes=9-1"}, 200, DATA),
        ({"Range": "bytes=0-1,5-6"}, 200, DATA),
        ({"Range": "bytes=100-199", "If-Range": Stored(DATA).etag}, 206, DATA[100:200]),
        ({"If-None-Match": Stored(DATA).etag}, 304, b""),
        ({"If-None-Match": f"W/{Stored(DATA).etag}"}, 304, b""),
        ({"If-None-Match": '"other"'}, 200, DATA),
        ({"If-None-Match": '"\xe9  <>"'}, 200, DATA),
    ],
)
def test_a_request_is_one_call_that_sends_what_the_caller_gets(
    client: Client, stored: CountingBucket, headers: dict[str, str], status: int, body: bytes
) -> None:
    answer = client.get(URL, headers=headers)
    assert (answer.status_code, answer.getvalue()) == (status, body)
    assert (stored.calls, stored.sent) == ([f"GET {KEY}"], len(body))
    assert answer["ETag"] == Stored(DATA).etag


def test_a_part_beyond_the_end_is_416_after_one_call(client: Client, stored: CountingBucket) -> None:
    answer = client.get(URL, headers={"Range": f"bytes={len(DATA)}-"})
    assert (answer.status_code, answer["Content-Range"]) == (416, f"bytes */{len(DATA)}")
    assert stored.calls == [f"GET {KEY}"]


def test_what_the_bucket_cannot_judge_is_judged_by_its_answer(client: Client, stored: CountingBucket) -> None:
    assert client.get(URL, headers={"If-None-Match": f'"other", {Stored(DATA).etag}'}).status_code == 304
    assert client.get(URL, headers={"If-Match": '"other"'}).status_code == 412
    assert len(stored.calls) == 2
    whole = client.get(URL, headers={"Range": "bytes=1-2", "If-Range": '"another version"'})
    assert (whole.status_code, whole.getvalue()) == (200, DATA)


@pytest.mark.parametrize("delivery", ["stream", "redirect"])
def test_head_is_one_call_and_says_what_get_would(
    client: Client, settings: Settings, stored: CountingBucket, delivery: str
) -> None:
    settings.IMAGES = {**settings.IMAGES, "MEDIA_DELIVERY": delivery}
    answer = client.head(URL)
    assert (answer.status_code, answer["Content-Length"], answer["ETag"]) == (200, "256000", Stored(DATA).etag)
    assert (stored.calls, stored.sent) == ([f"HEAD {KEY}"], 0)


def test_a_redirect_is_one_call(client: Client, settings: Settings, stored: CountingBucket) -> None:
    settings.IMAGES = {**settings.IMAGES, "MEDIA_DELIVERY": "redirect"}
    assert client.get(URL).status_code == 302
    assert (stored.calls, stored.sent) == ([f"HEAD {KEY}"], 0)


@pytest.mark.parametrize("denied", [set(), {"s3:ListBucket"}], ids=["404", "403"])
@pytest.mark.parametrize("delivery", ["stream", "redirect"])
@pytest.mark.parametrize("method", ["get", "head"])
def test_what_is_not_there_is_404_after_one_call(
    client: Client, settings: Settings, bucket: CountingBucket, denied: set[str], delivery: str, method: str
) -> None:
    bucket.denied |= denied
    settings.IMAGES = {**settings.IMAGES, "MEDIA_DELIVERY": delivery}
    assert getattr(client, method)(URL).status_code == 404
    assert len(bucket.calls) == 1


@pytest.mark.parametrize("method", ["get", "head"])
def test_an_address_that_no_key_can_have_is_404(client: Client, bucket: CountingBucket, method: str) -> None:
    assert getattr(client, method)(f"/media/draft-images/{'x' * 1020}.png").status_code == 404


def test_a_wrong_key_is_not_a_missing_picture(
    client: Client, stored: CountingBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    answer = client.get(URL)
    assert answer.status_code == 503, (stored.calls, answer.content)


def test_slow_readers_cost_little_memory(client: Client, bucket: CountingBucket) -> None:
    bucket.objects[KEY] = Stored(bytes(20_000_000))
    client.get(URL).close()
    tracemalloc.start()
    answers = [client.get(URL) for _ in range(20)]
    firsts = [len(next(iter(answer))) for answer in answers]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for answer in answers:
        answer.close()
    assert firsts == [65536] * 20
    assert most < 12_000_000


# --- storing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("denied", [set(), {"s3:ListBucket"}], ids=["may list", "may not list"])
def test_an_image_is_stored_with_one_call_and_one_look_a_minute_before_paying(
    bucket: CountingBucket, fake_provider: FakeProvider, denied: set[str]
) -> None:
    bucket.denied |= denied
    first, second = generate_image(**WANTED), generate_image(**WANTED)
    assert bucket.calls == [f"PUT {PROBE}", f"PUT {first.file_name}", f"PUT {second.file_name}"]
    assert bucket.objects[first.file_name].data == png()


def test_a_bucket_that_takes_no_files_is_seen_before_paying_and_its_permission_named(
    client: Client, bucket: CountingBucket, fake_provider: FakeProvider
) -> None:
    bucket.denied.add("s3:PutObject")
    with pytest.raises(StorageError, match=r"s3:PutObject on draft-images/\*") as caught:
        generate_image(**WANTED)
    assert not caught.value.may_have_billed
    assert fake_provider.requests == []
    assert "s3:PutObject" in client.get("/health/ready").json()["checks"]["storage"]


def test_storing_is_tried_again_while_the_bucket_is_away(
    bucket: CountingBucket, fake_provider: FakeProvider, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.IMAGES = {**settings.IMAGES, "STORAGE_TIMEOUT": 20}
    monkeypatch.setattr(generation, "FIRST_STORAGE_PAUSE", 0.01)
    generate_image(**WANTED)
    bucket.forget()
    bucket.drops = 3
    image = generate_image(**WANTED)
    assert bucket.calls == [f"PUT {image.file_name}"] * 4
    assert (image.status, bucket.objects[image.file_name].data) == ("ready", png())


def test_what_cannot_be_stored_keeps_its_usage_and_says_that_it_was_made(
    bucket: CountingBucket, fake_provider: FakeProvider
) -> None:
    generate_image(**WANTED)
    bucket.drops = 1
    with pytest.raises(StorageError, match="was made, but could not be stored") as caught:
        generate_image(**WANTED)
    assert caught.value.may_have_billed
    row = GeneratedImage.objects.get(status="failed")
    assert (row.error_code, row.usage, row.file_name) == ("storage_error", {"total_tokens": 1234}, "")
    assert (row.provider, row.may_have_billed) == ("test", True)
    assert row.error_message == str(caught.value)


def test_a_picture_that_waits_for_a_bucket_is_on_the_disk(bucket: CountingBucket) -> None:
    with storage.spool(DATA) as waiting:
        assert not isinstance(waiting, BytesIO)
        assert storage.save("draft-images/item/hero-1", "png", waiting) == "draft-images/item/hero-1.png"
    assert bucket.objects["draft-images/item/hero-1.png"].data == DATA


# --- reconciliation and the doctor --------------------------------------------------------------------------------


def counted(bucket: CountingBucket) -> Counter[str]:
    """How often each kind of call was made."""
    return Counter(call.partition(" ")[0] for call in bucket.calls)


def test_reconciliation_lists_what_is_there_and_looks_only_for_what_is_missing(
    bucket: CountingBucket, fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [generate_image(**WANTED) for _ in range(5)]
    lost = generate_image(**WANTED)
    del bucket.objects[lost.file_name]
    monkeypatch.setattr(bucket, "page", 4)
    bucket.forget()
    assert [found.kind for found in reconcile(apply=True)] == [Kind.MISSING]
    assert counted(bucket) == {"LIST": 6, "HEAD": 1}  # one page says that the bucket is not empty
    assert {row.status for row in GeneratedImage.objects.filter(pk__in=[image.pk for image in kept])} == {"ready"}


def test_adopting_reads_each_picture_once_and_looks_again_in_the_listing(bucket: CountingBucket) -> None:
    names = [f"draft-images/item-{number}/cover.png" for number in range(30)]
    for name in names:
        bucket.objects[name] = Stored(png())
    assert [found.mended for found in reconcile(apply=True)] == [True] * 30
    assert counted(bucket) == {"LIST": 3, "GET": 30}
    assert GeneratedImage.objects.get(file=names[0]).created_at == bucket.objects[names[0]].modified


def test_a_file_that_is_deleted_while_it_is_adopted_gets_no_row(bucket: CountingBucket) -> None:
    names = [f"draft-images/item/hero-176304917035{number}.png" for number in range(3)]
    files = {name: judge(png()) for name in names}
    bucket.objects[names[0]] = bucket.objects[names[2]] = Stored(png())
    assert adopt(files) == {names[0]: True, names[1]: False, names[2]: True}
    assert GeneratedImage.objects.count() == 2


def test_a_bucket_that_may_not_be_listed_is_not_taken_for_empty(
    bucket: CountingBucket, fake_provider: FakeProvider
) -> None:
    generate_image(**WANTED)
    bucket.denied.add("s3:ListBucket")
    with pytest.raises(StorageError, match="s3:ListBucket"):
        list(reconcile(apply=True))
    assert GeneratedImage.objects.get().status == "ready"


@pytest.mark.parametrize("permission", ["s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:ListBucket"])
def test_the_doctor_names_the_permission_that_is_missing(bucket: CountingBucket, permission: str) -> None:
    assert {finding.level for finding in examine_storage()} == {Level.FINE}
    bucket.denied.add(permission)
    findings = list(examine_storage())
    assert any(permission in finding.sentence and finding.level != Level.FINE for finding in findings)
