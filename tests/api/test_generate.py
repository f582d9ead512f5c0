"""`POST /api/images/generate`, as the contract fixes it."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIRequest
from django.test import RequestFactory
from django.urls import resolve
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from images.exceptions import (
    ContentRejected,
    ProviderBadResponse,
    ProviderOverloaded,
    ProviderRateLimited,
    ProviderTimeout,
    StorageError,
)
from images.models import GeneratedImage
from images.services import rate_limits
from tests.fakes.providers import FakeProvider, png

URL = "/api/images/generate"
BODY = {"contentItemId": "665f1c2e9b1e8a0012345678", "title": "A quiet harbour at dawn"}

pytestmark = pytest.mark.django_db


def post(client: APIClient, url: str = URL, **body: Any) -> Any:
    return client.post(url, {**BODY, **body}, format="json")


@pytest.mark.parametrize("url", [URL, URL + "/"])
def test_answers_200_with_the_absolute_address_of_a_stored_picture(
    api: APIClient, fake_provider: FakeProvider, media_root: Path, url: str
) -> None:
    answer = post(api, url)
    assert answer.status_code == 200, answer.data
    data = answer.json()
    pattern = r"https://pics\.example(/media/draft-images/665f1c2e9b1e8a0012345678/hero-\d{13}-[0-9a-f]+\.png)"
    match = re.fullmatch(pattern, data["imageUrl"])
    assert match, data["imageUrl"]
    picture = api.get(match[1])
    assert b"".join(picture) == png()
    assert picture["Content-Type"] == "image/png"


def test_tells_everything_the_contract_lists(api: APIClient, fake_provider: FakeProvider) -> None:
    data = post(api, variant="inline").json()
    image = GeneratedImage.objects.get()
    assert data == {
        "id": str(image.pk),
        "imageUrl": data["imageUrl"],
        "contentItemId": BODY["contentItemId"],
        "title": BODY["title"],
        "altText": None,
        "variant": "inline",
        "status": "ready",
        "provider": "test",
        "model": "test-model-1",
        "mimeType": "image/png",
        "width": 16,
        "height": 9,
        "createdAt": data["createdAt"],
        "aiGenerated": True,
        "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
        "contentCredentials": False,
        "error": None,
        "waiting": None,
        "cost": None,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", data["createdAt"])


def test_the_address_comes_from_the_request_where_public_url_is_not_set(
    api: APIClient, fake_provider: FakeProvider, settings: Any
) -> None:
    settings.IMAGES = {**settings.IMAGES, "PUBLIC_URL": ""}
    settings.ALLOWED_HOSTS = ["images.internal"]
    answer = api.post(URL, BODY, format="json", headers={"host": "images.internal:8123"})
    assert answer.json()["imageUrl"].startswith("http://images.internal:8123/media/draft-images/")


def test_create_answers_201_with_a_location_that_can_be_read(api: APIClient, fake_provider: FakeProvider) -> None:
    answer = post(api, "/api/images/")
    assert answer.status_code == 201
    assert answer["Location"] == f"https://pics.example/api/images/{answer.json()['id']}"
    assert api.get(answer["Location"].removeprefix("https://pics.example")).json() == answer.json()


@pytest.mark.parametrize("description", [None, "", "An outline.\n" * 1700, "ж" * 100_000])
def test_any_description_up_to_100_000_characters_is_accepted(
    api: APIClient, fake_provider: FakeProvider, description: str | None
) -> None:
    assert post(api, description=description).status_code == 200
    assert len(fake_provider.requests[0].prompt) < 3000
    assert GeneratedImage.objects.get().description == (description or "").strip()


@pytest.mark.parametrize(
    "item",
    ["unknown", "507f1f77bcf86cd799439011", "../../etc/passwd", "/etc/passwd", "CON", "ж" * 255, "🎨 art", " x "],
)
def test_any_content_item_id_is_kept_to_the_letter_and_its_file_stays_below_draft_images(
    api: APIClient, fake_provider: FakeProvider, media_root: Path, item: str
) -> None:
    data = post(api, contentItemId=item).json()
    assert data["contentItemId"] == item
    assert GeneratedImage.objects.get().content_item_id == item
    [file] = [path for path in media_root.rglob("*") if path.is_file()]
    assert file.parent.parent == media_root / "draft-images"
    assert api.get(data["imageUrl"].removeprefix("https://pics.example")).status_code == 200


def test_a_number_as_content_item_id_is_its_text(api: APIClient, fake_provider: FakeProvider) -> None:
    assert post(api, contentItemId=42).json()["contentItemId"] == "42"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"title": "x" * 501}, "title"),
        ({"title": ["a"]}, "title"),
        ({"title": {"a": 1}}, "title"),
        ({"title": "a\x00b"}, "title"),
        ({"title": "a\ud800b"}, "title"),
        ({"title": True}, "title"),
        ({"contentItemId": "x" * 256}, "contentItemId"),
        ({"contentItemId": False}, "contentItemId"),
        ({"contentItemId": {"$ne": 1}}, "contentItemId"),
        ({"contentItemId": "a\x00"}, "contentItemId"),
        ({"description": "x" * 100_001}, "description"),
        ({"description": ["x"]}, "description"),
        ({"variant": "poster"}, "variant"),
        ({"variant": ["hero"]}, "variant"),
    ],
)
def test_wrong_fields_are_named_in_a_400(
    api: APIClient, fake_provider: FakeProvider, change: dict[str, Any], field: str
) -> None:
    answer = api.post(URL, json.dumps({**BODY, **change}), content_type="application/json")
    assert answer.status_code == 400, answer.data
    assert answer.json()["code"] == "invalid_request"
    assert set(answer.json()["details"]) == {field}
    assert not fake_provider.requests
    assert not GeneratedImage.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"title": "x"},
        {"contentItemId": "x"},
        {"contentItemId": "", "title": "x"},
        {"contentItemId": "x", "title": " \t\n "},
        {"contentItemId": "  ", "title": "x"},
        {"contentItemId": None, "title": "x"},
    ],
)
def test_a_missing_required_field_gets_the_sentence_old_callers_know(
    api: APIClient, fake_provider: FakeProvider, body: dict[str, Any]
) -> None:
    answer = api.post(URL, body, format="json")
    assert answer.status_code == 400
    assert answer.json()["error"] == "contentItemId and title are required"


@pytest.mark.parametrize("raw", ["", "{", "[1]", '"text"', "null", "[" * 100_000, '{"title": NaN}', "\xff\xfe"])
def test_a_body_that_is_no_json_object_is_a_400(api: APIClient, fake_provider: FakeProvider, raw: str) -> None:
    answer = api.post(URL, raw.encode("latin-1"), content_type="application/json")
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"


def test_another_content_type_is_a_415(api: APIClient, fake_provider: FakeProvider) -> None:
    answer = api.post(URL, "title=x", content_type="text/plain")
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_a_body_that_is_too_large_is_a_413(api: APIClient, fake_provider: FakeProvider, settings: Any) -> None:
    answer = api.post(URL, {**BODY, "description": "x" * (2 * 1024 * 1024)}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize(
    ("failure", "status", "retryable"),
    [
        (ContentRejected(), 400, False),
        (ProviderBadResponse(), 502, True),
        (ProviderOverloaded("busy", retry_after=1000), 503, True),
        (ProviderTimeout(), 504, True),
    ],
)
def test_a_provider_s_failure_is_told_and_kept_on_the_row(
    api: APIClient, fake_provider: FakeProvider, failure: Any, status: int, retryable: bool
) -> None:
    fake_provider.will(failure)
    answer = post(api)
    body = answer.json()
    assert (answer.status_code, body["code"], body["retryable"]) == (status, failure.code, retryable)
    image = GeneratedImage.objects.get()
    assert (image.status, image.error_code, image.error_message) == ("failed", failure.code, failure.message)
    assert image.attempts[0]["code"] == failure.code
    shown = api.get(f"/api/images/{image.pk}").json()
    assert (shown["status"], shown["imageUrl"]) == ("failed", None)
    billed = {"mayHaveBilled": True} if failure.may_have_billed else {}
    assert (
        shown["error"]
        == {
            "code": failure.code,
            "message": failure.message,
            "retryable": retryable,
        }
        | billed
    )
    assert body.get("mayHaveBilled") == billed.get("mayHaveBilled")


def test_a_rate_limit_that_does_not_fit_is_passed_on_with_retry_after(
    api: APIClient, fake_provider: FakeProvider
) -> None:
    fake_provider.will(ProviderRateLimited(retry_after=61.2))
    answer = post(api)
    assert (answer.status_code, answer["Retry-After"]) == (503, "62")
    assert len(fake_provider.requests) == 1
    assert 61 <= int(post(api)["Retry-After"]) <= 64  # it said so of the next requests, too, which are not sent
    assert len(fake_provider.requests) == 1
    rate_limits.forget()
    fake_provider.will(ProviderRateLimited())
    assert post(api)["Retry-After"] == "20"  # promised also where the vendor does not say


def test_what_nobody_foresaw_is_a_500_without_details(
    api: APIClient, fake_provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    fake_provider.will(KeyError("sk-secret"))
    answer = post(api)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "sk-secret" not in answer.content.decode()
    assert GeneratedImage.objects.get().status == "failed"


def test_a_full_disk_is_a_storage_error_before_anything_is_paid(
    api: APIClient, fake_provider: FakeProvider, settings: Any
) -> None:
    settings.IMAGES = {**settings.IMAGES, "MIN_FREE_BYTES": 10**18}
    answer = post(api)
    assert (answer.status_code, answer.json()["code"]) == (500, StorageError.code)
    assert not fake_provider.requests
    assert GeneratedImage.objects.get().error_code == "storage_error"


def test_the_log_has_one_line_at_the_start_and_one_at_the_end(
    api: APIClient, fake_provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        post(api, contentItemId="a\nforged=1")
        fake_provider.will(ProviderTimeout())
        post(api)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in lines] == [
        "generation_started", "generation_finished", "generation_started", "generation_failed",
    ]  # fmt: skip
    assert 'content_item="a\\nforged=1"' in lines[1]
    assert re.search(r"provider=test model=test-model-1 bytes=\d+ ms=\d+", lines[1])
    assert "code=provider_timeout" in lines[3]


class Body(BytesIO):
    """A body that remembers how much of it was read at once."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.sizes: list[int] = []

    def read(self, size: int | None = -1, /) -> bytes:
        self.sizes.append(-1 if size is None else size)
        return super().read(size)


class BrokenBody(Body):
    def __init__(self, content: bytes, error: type[OSError] = ConnectionResetError) -> None:
        super().__init__(content)
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        raise self._error


def send(body: Body, *, token: str = "", chunked: bool = False, **headers: str) -> Any:
    """Post a body; a client that streams it sends no length, and the server hands the chunks over joined."""
    length = "" if chunked else str(len(body.getvalue()))
    meta = {"HTTP_AUTHORIZATION": f"Token {token}"} if token else {}
    if chunked:
        meta["HTTP_TRANSFER_ENCODING"] = "chunked"
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    environ = {**RequestFactory().get(URL, headers=headers).environ, **meta, "REQUEST_METHOD": "POST"}
    environ |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": length, "wsgi.input": body}
    return resolve(URL).func(WSGIRequest(environ)).render()


@pytest.fixture
def token(api: APIClient, fake_provider: FakeProvider, user: User) -> str:
    return str(Token.objects.get(user=user).key)


@pytest.mark.parametrize("chunked", [False, True])
class TestBody:
    """How a body is read."""

    def test_whole_and_in_large_pieces(self, token: str, chunked: bool) -> None:
        body = Body(json.dumps({**BODY, "description": "x" * 90_000}).encode())
        assert send(body, token=token, chunked=chunked).data["status"] == "ready"
        assert len(body.sizes) <= 4

    @pytest.mark.parametrize("accept", ["application/json", "text/html"])
    def test_not_at_all_if_its_caller_is_not_known(
        self, fake_provider: FakeProvider, db: None, accept: str, chunked: bool
    ) -> None:
        body = Body(json.dumps(BODY).encode())
        assert send(body, chunked=chunked, accept=accept).status_code == 401
        assert send(body, token="wrong", chunked=chunked, accept=accept).status_code == 401
        assert body.sizes == []

    def test_not_further_than_the_limit(self, token: str, settings: Any, chunked: bool) -> None:
        settings.IMAGES = {**settings.IMAGES, "MAX_BODY_BYTES": 100_000}
        body = Body(b" " * 10_000_000)
        answer = send(body, token=token, chunked=chunked)
        assert (answer.status_code, answer.data["code"]) == (413, "payload_too_large")
        assert sum(body.sizes) <= 100_001

    @pytest.mark.parametrize("limit", ["BODY_TIMEOUT", "BODY_CPU"])
    def test_not_for_ever(self, token: str, monkeypatch: pytest.MonkeyPatch, chunked: bool, limit: str) -> None:
        monkeypatch.setattr(f"images.api.views.{limit}", -1)
        answer = send(Body(json.dumps(BODY).encode()), token=token, chunked=chunked)
        assert (answer.status_code, answer.data["code"]) == (408, "request_timeout")
        assert answer.data["retryable"]

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
    def test_with_or_without_a_byte_order_mark(self, token: str, chunked: bool, encoding: str) -> None:
        body = Body(json.dumps({**BODY, "title": "Тихая гавань"}, ensure_ascii=False).encode(encoding))
        assert send(body, token=token, chunked=chunked).data["title"] == "Тихая гавань"

    @pytest.mark.parametrize(("encoding", "status"), [("gzip", 415), ("br, gzip", 415), ("identity", 200)])
    def test_not_if_it_is_compressed(self, token: str, chunked: bool, encoding: str, status: int) -> None:
        body = Body(json.dumps(BODY).encode())
        answer = send(body, token=token, chunked=chunked, content_encoding=encoding)
        assert answer.status_code == status
        if status == 415:
            assert answer.data["code"] == "unsupported_media_type"
            assert encoding in answer.data["error"]
            assert body.sizes == []

    def test_one_that_breaks_off_is_a_400(self, token: str, chunked: bool) -> None:
        answer = send(BrokenBody(b"{}"), token=token, chunked=chunked)
        assert (answer.status_code, answer.data["code"]) == (400, "invalid_request")

    def test_one_that_the_server_gives_up_waiting_for_may_be_sent_again(self, token: str, chunked: bool) -> None:
        answer = send(BrokenBody(b"{}", TimeoutError), token=token, chunked=chunked)
        assert (answer.status_code, answer.data["code"], answer.data["retryable"]) == (408, "request_timeout", True)


def test_the_csrf_check_of_a_session_reads_no_form_above_the_limit(
    user: User, fake_provider: FakeProvider, settings: Any
) -> None:
    settings.IMAGES = {**settings.IMAGES, "MAX_BODY_BYTES": 1024}
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(user)
    client.cookies["csrftoken"] = "a" * 32
    answer = client.post("/api/images/", "title=" + "x" * 2000, content_type="application/x-www-form-urlencoded")
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
