"""Projects of strangers, made with `django-admin startproject` and README's section on plugging in."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class PlugInSection:
    """README's section, block by block."""

    install: str
    settings: str
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
    assert 'include("images.urls")' in python[1]
    commands = [line.partition("#")[0].strip() for line in shell[1].splitlines()]
    return PlugInSection(install=shell[0].strip(), settings=python[0], urls=python[1], commands=commands)


@dataclass(frozen=True)
class Host:
    """A project of somebody else's.

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
    tail = f"{before}\n{section.settings}\n{settings}\n"
    urls = section.urls if urls is None else urls
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
