"""Projects of strangers, made with `django-admin startproject` and README's section on plugging in."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.ports import reserve_port, wait_until_listening

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class PlugInSection:
    """README's section, block by block."""

    install: str
    settings: str
    media_root: str
    urls: str
    commands: list[str]


def plug_in_section() -> PlugInSection:
    """What README tells somebody who plugs the app into a project."""
    section = re.search(r"^## Plugging.*?(?=^## )", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert section, "README has no section on plugging in"
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", section[0], re.MULTILINE | re.DOTALL)
    shell = [text for language, text in blocks if language == "sh"]
    python = [text for language, text in blocks if language == "python"]
    assert "pip install" in shell[0]
    assert "INSTALLED_APPS" in python[0]
    assert "MEDIA_ROOT" in python[1]
    assert 'include("images.urls")' in python[2]
    commands = [line.partition("#")[0].strip() for line in shell[1].splitlines()]
    return PlugInSection(
        install=shell[0].strip(), settings=python[0], media_root=python[1], urls=python[2], commands=commands
    )


@dataclass(frozen=True)
class Host:
    """A host project.

    Attributes:
        folder: Where its `manage.py` is.
        python: Its interpreter.
        env: Its environment.
    """

    folder: Path
    python: str
    env: dict[str, str]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run its Python in its folder."""
        done = subprocess.run(
            [self.python, *arguments], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=300
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def visit(self, outside: str = "", inside: str = "") -> Any:
        """What happens when everybody around uses it: the facts that `visit.py` tells."""
        return json.loads(self.run("visit.py", outside, inside).stdout)


def make_host(
    folder: Path,
    *,
    settings: str = "",
    before: str = "",
    media_root: bool = True,
    urls_before: str = "",
    urls: str | None = None,
    newsroom: bool = True,
    python: str = sys.executable,
    **variables: str,
) -> Host:
    """Make a project and follow README.

    Args:
        folder: Where to; made by this.
        settings: Lines after README's at the end of `settings.py`.
        before: Lines before README's.
        media_root: Follow README's lines for a project without a `MEDIA_ROOT`.
        urls_before: Lines before README's at the end of `urls.py`.
        urls: Lines at the end of `urls.py` instead of README's.
        newsroom: Give the project an app of its own.
        python: Its interpreter; the tests' own runs the app from the checkout.
        variables: Its environment.
    """
    section = plug_in_section()
    folder.mkdir()
    env = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **variables}
    if python == sys.executable:
        env["PYTHONPATH"] = str(ROOT)
    host = Host(folder=folder, python=python, env=env)
    host.run("-m", "django", "startproject", "host", ".")
    tail = f"{before}\n{section.settings}\n{section.media_root if media_root else ''}\n{settings}\n"
    urls = f"{urls_before}\n{section.urls if urls is None else urls}"
    if newsroom:
        shutil.copytree(HERE / "newsroom", folder / "newsroom", ignore=shutil.ignore_patterns("__pycache__"))
        if "newsroom.Journalist" not in settings:
            (folder / "newsroom" / "models.py").unlink()
        tail += 'INSTALLED_APPS += ["newsroom"]\n'
        urls += '\nfrom django.urls import include\nurlpatterns += [path("newsroom/", include("newsroom.urls"))]\n'
    for name, text in (("settings.py", tail), ("urls.py", urls)):
        with (folder / "host" / name).open("a") as file:
            file.write(f"\n{text}")
    shutil.copy(HERE / "visit.py", folder)
    return host


def follow_commands(host: Host, *account: str, name: str = "ann") -> None:
    """Carry out README's commands, and look at the picture over HTTP as a browser would.

    Args:
        host: The project.
        account: What `createsuperuser` would ask for.
        name: What the account logs in with.
    """
    path = ""
    for command in plug_in_section().commands:
        _python, *arguments = shlex.split(command)
        if "runserver" in arguments:
            assert see(host, path) == (200, "image/png")
            continue
        if "createsuperuser" in arguments:
            arguments += ["--noinput", *account]
        if "drf_create_token" in arguments:
            arguments[-1] = name
        printed = host.run(*arguments).stdout
        if "generate_image" in arguments:
            path = printed.strip()
            assert re.fullmatch(r"/media/draft-images/42/hero-\d+-\w+\.png", path)
        if "drf_create_token" in arguments:
            assert name in printed


def see(host: Host, path: str) -> tuple[int, str]:
    """Status and type of what `manage.py runserver` answers at a path."""
    with reserve_port() as kept:
        port = kept.getsockname()[1]
    command = [host.python, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    server = subprocess.Popen(
        command, cwd=host.folder, env=host.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until_listening(port, is_alive=lambda: server.poll() is None)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status, answer.headers["Content-Type"]
    finally:
        server.terminate()
        server.wait()
