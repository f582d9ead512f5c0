"""Who may call: tokens, sessions with CSRF, and trusted networks."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import override_settings
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from images.models import GeneratedImage
from tests.fakes.providers import FakeProvider

URL = "/api/images/generate"
BODY = {"contentItemId": "unknown", "title": "A quiet harbour at dawn"}
#: What proxies, load balancers and CDNs add.
PROXY_HEADERS = [
    "Via", "Forwarded", "X-Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
    "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Client-Cert", "X-Original-Forwarded-For",
    "X-Real-IP", "X-Client-IP", "X-Cluster-Client-IP", "True-Client-IP", "CF-Connecting-IP", "CF-Ray",
    "CDN-Loop", "CloudFront-Viewer-Address", "Fastly-Client-IP", "Fly-Client-IP", "X-Envoy-External-Address",
    "X-Azure-ClientIP", "DO-Connecting-IP", "X-NF-Client-Connection-IP", "X-Remote-Addr", "X-Originating-IP",
    "WL-Proxy-Client-IP", "X-ProxyUser-Ip", "X-Varnish",
]  # fmt: skip

pytestmark = pytest.mark.django_db


@pytest.fixture
def trusting(fake_provider: FakeProvider, settings: Any) -> None:
    settings.IMAGES = {**settings.IMAGES, "TRUSTED_NETWORKS": "10.0.0.0/8, fd00::/8"}


def test_without_credentials_it_is_a_401_that_says_how(anonymous: APIClient, fake_provider: FakeProvider) -> None:
    answer = anonymous.post(URL, BODY, format="json")
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
    assert answer["WWW-Authenticate"] == "Token"
    assert not fake_provider.requests


@pytest.mark.parametrize("keyword", ["Token", "Bearer", "bearer"])
def test_a_token_is_let_in_under_either_keyword(
    anonymous: APIClient, fake_provider: FakeProvider, user: User, keyword: str
) -> None:
    key = Token.objects.create(user=user).key
    answer = anonymous.post(URL, BODY, format="json", headers={"authorization": f"{keyword} {key}"})
    assert answer.status_code == 200
    assert GeneratedImage.objects.get().owner == user


@pytest.mark.parametrize("header", ["Token wrong", "Bearer wrong", "Token", "Bearer a b", "Token \xff"])
def test_a_wrong_token_is_a_401_with_its_own_code(
    anonymous: APIClient, fake_provider: FakeProvider, header: str
) -> None:
    answer = anonymous.post(URL, BODY, format="json", headers={"authorization": header})
    assert (answer.status_code, answer.json()["code"]) == (401, "authentication_failed")
    assert "WWW-Authenticate" in answer


@pytest.mark.parametrize("keyword", ["Token", "Bearer"])
def test_a_token_is_a_401_in_a_project_without_tokens(
    anonymous: APIClient, fake_provider: FakeProvider, settings: Any, keyword: str
) -> None:
    with override_settings(INSTALLED_APPS=[app for app in settings.INSTALLED_APPS if not app.endswith("authtoken")]):
        answer = anonymous.post(URL, BODY, format="json", headers={"authorization": f"{keyword} 0123abcd"})
    assert (answer.status_code, answer.json()["code"]) == (401, "authentication_failed")


def test_a_revoked_token_and_a_disabled_account_are_turned_away(
    api: APIClient, fake_provider: FakeProvider, user: User
) -> None:
    user.is_active = False
    user.save()
    assert api.get("/api/images/").status_code == 401
    user.is_active = True
    user.save()
    assert api.get("/api/images/").status_code == 200
    Token.objects.all().delete()
    assert api.get("/api/images/").status_code == 401


def test_a_session_needs_a_csrf_token(fake_provider: FakeProvider, user: User) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(user)
    answer = client.post(URL, BODY, format="json")
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    client.cookies["csrftoken"] = "a" * 32
    assert client.post(URL, BODY, format="json", headers={"x-csrftoken": "a" * 32}).status_code == 200


class TestTrustedNetworks:
    @pytest.mark.parametrize("address", ["10.1.2.3", "fd00::7", "::ffff:10.1.2.3"])
    def test_a_neighbour_without_credentials_is_let_in(
        self, anonymous: APIClient, trusting: None, address: str
    ) -> None:
        answer = anonymous.post(URL, BODY, format="json", REMOTE_ADDR=address)
        assert answer.status_code == 200
        assert GeneratedImage.objects.get().owner is None

    def test_it_sees_and_deletes_everything(self, anonymous: APIClient, api: APIClient, trusting: None) -> None:
        made = api.post(URL, BODY, format="json").json()
        assert anonymous.get("/api/images/", REMOTE_ADDR="10.1.2.3").json()["count"] == 1
        assert anonymous.delete(f"/api/images/{made['id']}", REMOTE_ADDR="10.1.2.3").status_code == 200

    @pytest.mark.parametrize("address", ["11.0.0.1", "127.0.0.1", "::1", "", "unix:"])
    def test_other_addresses_are_not(self, anonymous: APIClient, trusting: None, address: str) -> None:
        assert anonymous.post(URL, BODY, format="json", REMOTE_ADDR=address).status_code == 401

    def test_no_network_is_trusted_by_default(self, anonymous: APIClient, fake_provider: FakeProvider) -> None:
        assert anonymous.post(URL, BODY, format="json", REMOTE_ADDR="127.0.0.1").status_code == 401

    @pytest.mark.parametrize(
        "header",
        [
            {"x-forwarded-for": "10.9.9.9"},
            {"x-forwarded-for": ""},
            {"origin": "https://evil.example"},
            {"sec-fetch-site": "cross-site"},
            {"authorization": "Token wrong"},
            {"authorization": ""},
        ],
    )
    def test_a_proxy_a_browser_or_credentials_rule_it_out(
        self, anonymous: APIClient, trusting: None, header: dict[str, str]
    ) -> None:
        assert anonymous.post(URL, BODY, format="json", REMOTE_ADDR="10.1.2.3", headers=header).status_code == 401
        assert anonymous.get("/api/images/", REMOTE_ADDR="10.1.2.3", headers=header).status_code == 401

    @pytest.mark.parametrize("name", PROXY_HEADERS)
    def test_any_header_of_a_proxy_rules_it_out(self, anonymous: APIClient, trusting: None, name: str) -> None:
        answer = anonymous.get("/api/images/", REMOTE_ADDR="10.1.2.3", headers={name: "x"})
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")

    def test_what_services_send_by_themselves_does_not(self, anonymous: APIClient, trusting: None) -> None:
        headers = dict.fromkeys(["X-Request-ID", "Traceparent", "X-Amzn-Trace-Id", "User-Agent", "Accept"], "x")
        # A development server hands its own environment over, with the proxy for requests on the way out.
        meta: dict[str, Any] = {"REMOTE_ADDR": "10.1.2.3", "HTTP_PROXY": "http://proxy.internal:3128"}
        assert anonymous.get("/api/images/", headers=headers, **meta).status_code == 200

    def test_a_form_is_not_let_in(self, anonymous: APIClient, trusting: None) -> None:
        answer = anonymous.post("/api/images/", BODY, format="multipart", REMOTE_ADDR="10.1.2.3")
        assert answer.status_code == 401
