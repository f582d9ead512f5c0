"""The files that platforms read: the Dockerfile's own steps are carried out, the others are held to the settings."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.dockerfile import Stage, build, instructions

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = dict(instructions((ROOT / "Dockerfile").read_text()))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
[RENDER] = yaml.safe_load((ROOT / "render.yaml").read_text())["services"]
PROCFILE = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())

#: Variables of others: Python, PostgreSQL's image, Render.
THEIRS = {"PYTHONUNBUFFERED", "PYTHON_VERSION", "POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}
GIVEN = {
    "SECRET_KEY": "s" * 50,
    "PUBLIC_URL": "images.example.com",
    "POSTGRES_PASSWORD": "pass",
    "GEMINI_API_KEY": "k",
}


def make_command(target: str) -> str:
    """What `make TARGET` starts."""
    line = re.search(
        rf"^{target}:.*\n\t@exec \$\(BIN\)/(.+) \$\(ARGS\)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert line
    return line[1]


def substituted(environment: dict[str, str]) -> dict[str, str]:
    """An environment of compose.yaml with the variables of `.env`."""

    def replace(found: re.Match[str]) -> str:
        return GIVEN.get(found[1], found[2] or "")

    return {name: re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?\}", replace, str(value)) for name, value in environment.items()}


def render_environment() -> dict[str, str]:
    return {entry["key"]: entry.get("value") or GIVEN[entry["key"]] for entry in RENDER["envVars"]}


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in DOCKERFILE["ENV"].split())


ENVIRONMENTS = {
    "Dockerfile": {**image_environment(), "SECRET_KEY": GIVEN["SECRET_KEY"]},
    "compose web": substituted(COMPOSE["services"]["web"]["environment"]),
    "compose worker": substituted(COMPOSE["services"]["worker"]["environment"]),
    "render": {**render_environment(), "PUBLIC_URL": GIVEN["PUBLIC_URL"]},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_variable_is_a_documented_setting(name: str) -> None:
    documented = set(re.findall(r"^### `([A-Z_0-9]+)`$", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE))
    assert set(ENVIRONMENTS[name]) - THEIRS - documented == set()


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_project_accepts_the_environment(name: str) -> None:
    environment = {"PATH": os.environ["PATH"], **ENVIRONMENTS[name]}
    command = [sys.executable, "manage.py", "check", "--tag", "images", "--fail-level", "ERROR"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    errors = [line for line in done.stderr.splitlines() if "images.E" in line]
    # The folders are those of another machine.
    assert [line for line in errors if "folder" not in line and "MEDIA_ROOT" not in line] == [], done.stderr


def test_they_all_start_what_make_starts() -> None:
    serve, worker = make_command("serve"), make_command("worker")
    assert {"web": serve, "worker": worker} == PROCFILE
    assert COMPOSE["services"]["worker"]["command"] == worker
    assert RENDER["startCommand"].endswith(f" exec {serve}")
    assert DOCKERFILE["CMD"] == str(serve.split()).replace("'", '"')


def test_compose_names_only_what_is_there() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"web", "worker", "postgres", "redis", "nginx"}
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        for source, *_ in (volume.split(":") for volume in service.get("volumes", ())):
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), source
        assert "image" in service


def test_a_stop_leaves_time_for_what_is_under_way() -> None:
    assert RENDER["maxShutdownDelaySeconds"] >= 120
    for name in ("web", "worker"):
        assert int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s")) >= 120


def test_render_gives_the_service_its_bare_host_name(tmp_path: Path) -> None:
    """Its start command, with a program in place of the server that tells what it was given."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$PUBLIC_URL"\n')
    python.chmod(0o755)
    told = []
    for variables in ({"RENDER_EXTERNAL_HOSTNAME": "x.example"}, {"PUBLIC_URL": "own.example"}):
        environment = {"PATH": f"{tmp_path}:/bin:/usr/bin", "RENDER_EXTERNAL_HOSTNAME": "x.example", **variables}
        done = subprocess.run(
            ["/bin/sh", "-c", RENDER["startCommand"]], env=environment, capture_output=True, text=True
        )
        told.append(done.stdout.strip())
    assert told == ["x.example", "own.example"]


def test_files_are_on_the_disk_that_stays() -> None:
    mount = RENDER["disk"]["mountPath"]
    environment = render_environment()
    # A folder in the mount, not the mount itself: a disk that is missing is noticed.
    assert Path(environment["STORAGE_ROOT"]).parent == Path(mount)
    assert environment["DATABASE_URL"].startswith(f"sqlite:///{mount}/")
    assert DOCKERFILE["VOLUME"] == str(Path(image_environment()["STORAGE_ROOT"]).parent)


def test_nginx_of_compose_hands_on_what_the_documented_one_does(tmp_path: Path) -> None:
    conf = (ROOT / "deploy" / "nginx.conf").read_text()
    documented = (ROOT / "docs" / "nginx-accel.conf").read_text()
    assert set(re.findall(r"add_header .*;", documented)) == set(re.findall(r"add_header .*;", conf))
    if shutil.which("nginx") is None:
        assert not os.environ.get("CI_REQUIRE_ALL"), "nginx is missing"
        pytest.skip("nginx is not installed")
    conf = conf.replace("listen 80;", "listen unix:s;").replace("web:8000", "127.0.0.1:9")
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{conf}\n}}\n")
    command = ["nginx", "-t", "-e", str(tmp_path / "log"), "-c", str(tmp_path / "nginx.conf")]
    # By a relative name: paths of sockets are short, and pytest's folders are not.
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- The Dockerfile -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """What the Dockerfile's own steps make, from what `.dockerignore` lets through."""
    context = tmp_path_factory.mktemp("context")
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    for name in (line.removeprefix("!") for line in lines if line.startswith("!")):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, context)
    return build(ROOT / "Dockerfile", context, tmp_path_factory.mktemp("image"))


@pytest.fixture
def port() -> Iterator[str]:
    """A port of the kernel's choice, kept from others until the server takes it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield str(holder.getsockname()[1])


@pytest.mark.slow
def test_the_image_serves_as_another_user_and_stops(image: Stage, port: str) -> None:
    assert image.user not in {"root", "0"}
    assert sorted(path.name for path in image.folder.glob("*.py")) == ["manage.py"]
    variables = {"SECRET_KEY": "s" * 50, "IMAGE_PROVIDER": "placeholder", "PORT": port}
    assert image.run(image.health, **variables).returncode != 0
    environment = {**image.variables, **variables}
    with (image.root / "log").open("w") as log:
        command = [f"{image.root}/usr/bin/{image.command[0]}", *image.command[1:]]
        server = subprocess.Popen(command, cwd=image.folder, env=environment, stdout=log, stderr=log)
    try:
        wait_until_healthy(image, server, variables)
        made = image.run("python manage.py generate_image --content-item 42 --title 'A harbour'", **variables)
        path = made.stdout.strip()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            assert answer.headers["Content-Type"] == "image/png"
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    assert code == 0, (image.root / "log").read_text()
    assert list((image.root / "data" / "media" / "draft-images" / "42").glob("hero-*.png"))
    installed = image.run("python -c 'import images; print(images.__file__)'", PYTHONSAFEPATH="1").stdout
    assert "site-packages" in installed


def wait_until_healthy(image: Stage, server: subprocess.Popen[bytes], variables: dict[str, str]) -> None:
    limit = time.monotonic() + 60
    while image.run(image.health, **variables).returncode != 0:
        assert server.poll() is None, (image.root / "log").read_text()
        assert time.monotonic() < limit, (image.root / "log").read_text()
