"""`make demo` works where nothing is configured, and keeps away from what is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from trygo_backend.demo import demo_environment

ROOT = Path(__file__).resolve().parents[2]
BASE = "http://127.0.0.1:8000"


def test_the_demo_makes_a_picture_over_http_and_fetches_it_back(tmp_path: Path) -> None:
    folder = tmp_path / "demo folder +%"
    outer = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": "postgres://u:p@127.0.0.1/production",
        "STORAGE_ROOT": "/nowhere/at/all",
        "ALLOWED_HOSTS": "production.example",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    command = [sys.executable, "-m", "trygo_backend.demo", "--exit", "--folder", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=outer, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "/media/draft-images/demo/hero-" in done.stdout
    assert "curl -H 'Authorization: Token " in done.stdout
    assert "login demo, password " in done.stdout
    assert len(list((folder / "media" / "draft-images" / "demo").iterdir())) == 1
    assert stat.S_IMODE((folder / "secret_key").stat().st_mode) == 0o600


def test_a_demo_that_cannot_start_says_so(tmp_path: Path) -> None:
    outer = {"PATH": os.environ["PATH"], "PORT": "eighty"}
    command = [sys.executable, "-m", "trygo_backend.demo", "--exit", "--folder", str(tmp_path / "demo")]
    done = subprocess.run(command, cwd=ROOT, env=outer, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("The demo failed. PORT must be")


@pytest.mark.parametrize(
    ("outer", "provider"),
    [
        ({}, "placeholder"),
        ({"IMAGE_PROVIDER": "gemini", "GEMINI_API_KEY": " "}, "placeholder"),
        ({"OPENAI_API_KEY": "k"}, "openai"),
        ({"GOOGLE_API_KEY": "k"}, "gemini"),
        ({"OPENAI_API_KEY": "k", "GEMINI_API_KEY": "k"}, "gemini,openai"),
        ({"OPENAI_API_KEY": "k", "GEMINI_API_KEY": "k", "IMAGE_PROVIDER": "openai"}, "openai"),
    ],
)
def test_a_key_chooses_the_provider(tmp_path: Path, outer: dict[str, str], provider: str) -> None:
    assert demo_environment(outer, folder=tmp_path, base=BASE)["IMAGE_PROVIDER"] == provider


def test_a_real_installations_settings_are_left_aside_and_providers_kept(tmp_path: Path) -> None:
    outer = {
        "SECRET_KEY": "real",
        "DATABASE_URL": "postgres://u:p@host/real",
        "PUBLIC_URL": "https://real.example",
        "IMAGE_TRUSTED_NETWORKS": "0.0.0.0/0",
        "OPENAI_BASE_URL": "http://127.0.0.1:1234/v1",
    }
    environment = demo_environment(outer, folder=tmp_path, base=BASE)
    assert environment["SECRET_KEY"] != "real"
    assert environment["DATABASE_URL"].startswith("sqlite:////")
    assert environment["PUBLIC_URL"] == BASE
    assert "IMAGE_TRUSTED_NETWORKS" not in environment
    assert environment["OPENAI_BASE_URL"] == outer["OPENAI_BASE_URL"]


def test_the_secret_key_stays_the_same(tmp_path: Path) -> None:
    first, second = (demo_environment({}, folder=tmp_path, base=BASE)["SECRET_KEY"] for _ in range(2))
    assert first == second
