"""Pictures come before most of the middleware, and nothing that protects them is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

PATH = "/media/draft-images/item-1/hero-1.png"

pytestmark = pytest.mark.usefixtures("picture")

# No test here may use the database: not even somebody with a session makes a picture ask it.


def test_a_picture_is_answered_without_a_look_at_the_session(client: Client) -> None:
    client.cookies["sessionid"] = "any"
    answer = client.get(PATH)
    assert answer.status_code == 200
    assert b"".join(answer.streaming_content) == b"\x89PNG picture"  # type: ignore[attr-defined]
    assert "Cookie" not in answer["Vary"]


@pytest.mark.parametrize("path", ["/media/draft-images/", "/media/draft-images/item-1/other.png"])
def test_what_is_no_picture_is_a_404_that_nobody_keeps(client: Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer["Cache-Control"]) == (404, "no-store")


def test_other_uploads_are_not_served(client: Client, media_root: Path) -> None:
    (media_root / "other.png").write_bytes(b"private")
    assert client.get("/media/other.png").status_code == 404


def test_the_host_has_to_be_ours(client: Client) -> None:
    assert client.get(PATH, headers={"host": "evil.example"}).status_code == 400


def test_the_redirect_to_https_comes_first(client: Client, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    answer = client.get(PATH)
    assert (answer.status_code, answer["Location"]) == (301, f"https://testserver{PATH}")


def test_pages_of_the_configured_origins_may_read_it(client: Client, settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://www.example.com"]
    allowed = client.get(PATH, headers={"origin": "https://www.example.com"})
    assert allowed["Access-Control-Allow-Origin"] == "https://www.example.com"
    assert "Access-Control-Allow-Origin" not in client.get(PATH, headers={"origin": "https://evil.example"})
