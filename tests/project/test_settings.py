"""The settings module follows from the environment."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

ROOT = Path(__file__).resolve().parents[2]


def run(module: str) -> dict[str, Any]:
    """The values of one of the project's modules, executed afresh."""
    return runpy.run_path(str(ROOT / "trygo_backend" / f"{module}.py"), run_name=f"trygo_backend.{module}_afresh")


def settings_with(monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, Any]:
    """The settings module's values in an environment with these variables."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return run("settings")


def test_the_defaults_are_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    values = settings_with(monkeypatch)
    assert values["DEBUG"] is False
    assert values["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]"]
    assert values["CORS_ALLOWED_ORIGINS"] == []
    assert values["CORS_ALLOW_ALL_ORIGINS"] is values["CORS_ALLOW_CREDENTIALS"] is False
    assert "SECURE_PROXY_SSL_HEADER" not in values
    assert values["SECURE_SSL_REDIRECT"] is False
    assert values["MEDIA_ROOT"] == str(ROOT / "media")
    assert values["DATABASES"]["default"]["NAME"] == str(ROOT / "db.sqlite3")


def test_without_a_secret_key_it_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"SECRET_KEY is not set.*secrets\.token_urlsafe"):
        settings_with(monkeypatch, SECRET_KEY=" ")
    assert settings_with(monkeypatch, SECRET_KEY="", DEBUG="1")["SECRET_KEY"]


@pytest.mark.parametrize("public_url", ["https://images.example.com", "images.example.com/"])
def test_a_public_https_address_turns_on_what_belongs_to_tls(
    monkeypatch: pytest.MonkeyPatch, public_url: str
) -> None:
    values = settings_with(monkeypatch, PUBLIC_URL=public_url)
    assert values["SESSION_COOKIE_SECURE"] is values["CSRF_COOKIE_SECURE"] is True
    assert values["SECURE_HSTS_SECONDS"] == 3600
    assert values["CSRF_TRUSTED_ORIGINS"] == ["https://images.example.com"]
    assert values["ALLOWED_HOSTS"][0] == "images.example.com"


@pytest.mark.parametrize("public_url", ["http://intranet:8000", "/app", "./"])
def test_a_public_http_address_and_a_path_do_not(monkeypatch: pytest.MonkeyPatch, public_url: str) -> None:
    values = settings_with(monkeypatch, PUBLIC_URL=public_url)
    assert values["SESSION_COOKIE_SECURE"] is values["CSRF_COOKIE_SECURE"] is False
    assert values["SECURE_HSTS_SECONDS"] == 0
    assert values["CSRF_TRUSTED_ORIGINS"] == []


def test_proxy_headers_count_only_when_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    values = settings_with(monkeypatch, TRUST_PROXY_HEADERS="yes")
    assert values["SECURE_PROXY_SSL_HEADER"] == ("HTTP_X_FORWARDED_PROTO", "https")
    assert values["USE_X_FORWARDED_HOST"] is True


def test_the_storage_root_may_be_relative_and_is_not_made_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert settings_with(monkeypatch, STORAGE_ROOT="pictures")["MEDIA_ROOT"] == str(ROOT / "pictures")
    settings_with(monkeypatch, STORAGE_ROOT=str(tmp_path / "missing"))
    assert not (tmp_path / "missing").exists()


def test_the_three_frontend_variables_become_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    values = settings_with(
        monkeypatch,
        FRONTEND_URL="https://a.example/",
        PRODUCTION_FRONTEND_URL="https://a.example,https://b.example",
        DEVELOPMENT_FRONTEND_URL="http://localhost:5173",
    )
    assert values["CORS_ALLOWED_ORIGINS"] == ["https://a.example", "https://b.example", "http://localhost:5173"]
    assert settings_with(monkeypatch, FRONTEND_URL="*")["CORS_ALLOW_ALL_ORIGINS"] is True


def test_a_command_says_what_is_wrong_in_one_sentence() -> None:
    environment = {"SECRET_KEY": "x", "DATABASE_URL": "postgres://u:hunter2/x@host/name"}
    command = [sys.executable, str(ROOT / "manage.py"), "check"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: DATABASE_URL cannot be understood.")
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
