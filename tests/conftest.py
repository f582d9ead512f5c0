from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from pytest_django.fixtures import Settings
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from images.services import rate_limits
from tests.fakes.providers import FakeProvider
from trygo_backend import health

pytest_plugins = ["tests.fakes.fixtures", "tests.fakes.doctor"]


@pytest.fixture(autouse=True)
def media_root(settings: Settings, tmp_path: Path) -> Path:
    """Every test writes its files into a folder of its own."""
    root = tmp_path / "media"
    root.mkdir()
    settings.MEDIA_ROOT = str(root)
    return root


@pytest.fixture(autouse=True)
def _probes_are_run_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `/health/ready` found for one test says nothing about the next."""
    monkeypatch.setattr(health, "KEEP", 0.0)


@pytest.fixture(autouse=True)
def _no_provider_has_refused() -> None:
    """What a provider told one test says nothing about the next."""
    rate_limits.forget()


@pytest.fixture
def fake_provider(settings: Settings) -> FakeProvider:
    """The only configured provider; the test says what it answers."""
    fake_provider = FakeProvider()
    entry = {"BACKEND": "tests.fakes.providers.FakeBackend", "OPTIONS": {"fake_provider": fake_provider}}
    own = {"PROVIDER": "test", "PROVIDERS": {"test": entry}, "PUBLIC_URL": "https://pics.example"}
    settings.IMAGES = {**settings.IMAGES, **own}
    return fake_provider


@pytest.fixture
def user(db: None) -> User:
    return User.objects.create_user("ann", password="ann-password")


@pytest.fixture
def stranger(db: None) -> User:
    return User.objects.create_user("bob", password="bob-password")


@pytest.fixture
def staff(db: None) -> User:
    return User.objects.create_user("eve", password="eve-password", is_staff=True)


def client_for(user: User) -> APIClient:
    """A client that sends the user's token."""
    client = APIClient()
    client.raise_request_exception = False
    client.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.get_or_create(user=user)[0].key}")
    return client


@pytest.fixture
def api(user: User) -> APIClient:
    return client_for(user)


@pytest.fixture
def anonymous(db: None) -> APIClient:
    client = APIClient()
    client.raise_request_exception = False
    return client
