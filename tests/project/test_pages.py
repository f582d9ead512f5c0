"""What the project adds to the app: pages, assets, CORS, and errors that no view has answered."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
from django.contrib.staticfiles import finders
from django.test import Client
from pytest_django import Settings

ORIGIN = "https://www.example.com"


@pytest.mark.django_db
def test_the_front_page_leads_everywhere(client: Client) -> None:
    page = client.get("/").text
    for path in ("/admin/", "/api/images/", "/api/docs/", "/health"):
        assert f'href="http://testserver{path}"' in page


@pytest.mark.django_db
def test_the_front_page_is_json_for_those_who_ask(client: Client) -> None:
    assert client.get("/", headers={"accept": "application/json"}).json()["docs"] == "http://testserver/api/docs/"


def test_the_api_docs_need_no_internet(client: Client) -> None:
    page = client.get("/api/docs/").text
    assets = re.findall(r'(?:<script src|<link [^>]*href)="([^"]+)"', page)
    assert assets
    for asset in assets:
        assert asset.startswith("/static/"), asset
        assert client.get(asset).status_code == 200, asset


def test_the_schema_is_public_and_holds_the_api(client: Client) -> None:
    response = client.get("/api/schema/", headers={"accept": "application/json"})
    assert response.status_code == 200
    assert "/api/images/generate" in response.json()["paths"]


def test_the_admins_assets_are_served_without_debug(client: Client, settings: Settings) -> None:
    assert settings.DEBUG is False
    assert finders.find("admin/css/base.css")
    response = client.get("/static/admin/css/base.css")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/css")


def test_the_browsable_api_has_a_login(client: Client) -> None:
    assert client.get("/api/auth/login/").status_code == 200


@pytest.mark.parametrize("path", ["/api/images/generate", "/media/draft-images/a/hero-1.png"])
def test_a_preflight_allows_what_the_contract_promises(client: Client, settings: Settings, path: str) -> None:
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]
    asked = {"origin": ORIGIN, "access-control-request-method": "POST"}
    response = client.options(path, headers=asked)
    assert response.status_code == 200
    assert response["Access-Control-Allow-Origin"] == ORIGIN
    allowed = set(response["Access-Control-Allow-Headers"].split(", "))
    assert {"authorization", "content-type", "idempotency-key", "prefer"} <= allowed
    assert "DELETE" in response["Access-Control-Allow-Methods"]
    assert "Access-Control-Allow-Credentials" not in response


def test_an_answer_exposes_the_headers_a_page_needs(client: Client, settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]
    response = client.get("/api/unknown", headers={"origin": ORIGIN})
    exposed = set(response["Access-Control-Expose-Headers"].split(", "))
    assert exposed == {"Location", "Retry-After", "Idempotency-Replayed", "Preference-Applied"}


@pytest.mark.parametrize(("origin", "path"), [("https://evil.example", "/api/images/"), (ORIGIN, "/admin/")])
def test_other_origins_and_other_pages_get_no_cors(
    client: Client, settings: Settings, origin: str, path: str
) -> None:
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]
    response = client.options(path, headers={"origin": origin, "access-control-request-method": "GET"})
    assert "Access-Control-Allow-Origin" not in response


def test_an_unknown_address_of_the_api_has_the_contracts_body(client: Client) -> None:
    response = client.get("/api/unknown")
    body = response.json()
    assert response.status_code == 404
    assert body["code"] == "not_found"
    assert body["retryable"] is False
    assert datetime.fromisoformat(body["timestamp"])
    assert response["Cache-Control"] == "no-store"


def test_an_unknown_address_elsewhere_has_a_page(client: Client) -> None:
    response = client.get("/unknown")
    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")


def test_a_foreign_host_is_told_which_setting_to_look_at(client: Client) -> None:
    response = client.get("/api/unknown", headers={"host": "evil.example"})
    assert response.status_code == 400
    assert response.json()["code"] == "invalid_request"
    assert "ALLOWED_HOSTS" in response.json()["error"]
    assert "evil.example" not in response.text


def test_a_crash_gives_nothing_away(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("hunter2")

    client.raise_request_exception = False
    monkeypatch.setattr("drf_spectacular.views.SpectacularAPIView._get_schema_response", crash)
    response = client.get("/api/schema/")
    assert response.status_code == 500
    assert response.json()["code"] == "internal_error"
    assert "hunter2" not in response.text


@pytest.mark.django_db
def test_a_failed_csrf_check_of_the_api_has_the_contracts_body() -> None:
    response = Client(enforce_csrf_checks=True).post("/api/auth/login/", {"username": "a", "password": "b"})
    assert response.status_code == 403
    assert response.json()["code"] == "permission_denied"
