"""The steps of a Dockerfile, carried out in a folder: enough of the format for ours, without a container engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Folders that the Dockerfile uses by absolute paths.
_FOLDERS = re.compile(r"(?<![\w.-])/(src|app|wheels|data)(?=[/\s\"':*]|$)")
#: What would change this machine's accounts.
_STUBS = ("useradd", "chown")


@dataclass(kw_only=True)
class Stage:
    """A stage of the build, in a folder that stands for its file system, with a Python of its own.

    Attributes:
        root: The folder.
        environment: What `ENV` said.
        folder: What `WORKDIR` said.
        user: What `USER` said.
        command: What `CMD` said.
        health: The command of `HEALTHCHECK`.
    """

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path = Path()
    user: str = "root"
    command: list[str] = field(default_factory=list)
    health: str = ""

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a command in this stage: nothing of this machine's but where packages come from."""
        path = f"{self.root}/stubs:{self.root}/usr/bin:/usr/bin:/bin"
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        return {"PATH": path, "HOME": str(self.root), **pip, **self.environment}

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command in the stage."""
        environment = {**self.variables, **variables}
        return subprocess.run(
            ["/bin/sh", "-c", self.inside(command)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
        )

    def inside(self, text: str) -> str:
        """A text with the absolute paths of the image, as paths of this machine."""
        return _FOLDERS.sub(lambda found: f"{self.root}{found[0]}", text)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Each instruction and its arguments."""
    joined = re.sub(r"\\\n", " ", text)
    for line in joined.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, arguments = line.partition(" ")
            yield name, arguments.strip()


def build(dockerfile: Path, context: Path, folder: Path) -> Stage:
    """Carry out every step and return the last stage.

    Args:
        dockerfile: The file.
        context: What may be copied.
        folder: An empty one.
    """
    stages: dict[str, Stage] = {}
    stage = Stage(root=folder)
    for name, arguments in instructions(dockerfile.read_text()):
        if name == "FROM":
            stage = _begin(folder / f"stage{len(stages)}")
            stages[arguments.partition(" AS ")[2] or "last"] = stage
        else:
            _carry_out(name, arguments, stage, stages, context)
    return stage


def _begin(root: Path) -> Stage:
    (root / "stubs").mkdir(parents=True)
    for name in _STUBS:
        stub = root / "stubs" / name
        stub.write_text("#!/bin/sh\n")
        stub.chmod(0o755)
    subprocess.run([sys.executable, "-m", "venv", str(root / "usr")], check=True)
    return Stage(root=root, folder=root)


def _carry_out(name: str, arguments: str, stage: Stage, stages: dict[str, Stage], context: Path) -> None:
    if name == "RUN":
        done = stage.run(arguments)
        assert done.returncode == 0, f"RUN {arguments}\n{done.stdout}{done.stderr}"
    elif name == "COPY":
        _copy(arguments, stage, stages, context)
    elif name == "WORKDIR":
        stage.folder = Path(stage.inside(arguments))
        stage.folder.mkdir(exist_ok=True)
    elif name == "ENV":
        pairs = (pair.partition("=") for pair in shlex.split(arguments))
        stage.environment |= {key: stage.inside(value) for key, _, value in pairs}
    elif name == "USER":
        stage.user = arguments
    elif name == "CMD":
        stage.command = json.loads(arguments)
    elif name == "HEALTHCHECK":
        stage.health = arguments.partition("CMD ")[2]
    else:
        assert name in {"EXPOSE", "VOLUME"}, f"this test does not know {name}"


def _copy(arguments: str, stage: Stage, stages: dict[str, Stage], context: Path) -> None:
    *sources, target = arguments.split()
    base = context
    if sources[0].startswith("--from="):
        origin = stages[sources.pop(0).removeprefix("--from=")]
        base, sources = origin.root, [source.lstrip("/") for source in sources]
    place = stage.folder / stage.inside(target)
    for source in sources:
        if (base / source).is_dir():
            shutil.copytree(base / source, place, dirs_exist_ok=True)
        else:
            place.mkdir(exist_ok=True)
            shutil.copy(base / source, place)
