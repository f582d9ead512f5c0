"""The quick tests on every Python and Django that the metadata promises: `make test-matrix`.

`lowest` has the lowest versions that pyproject.toml allows, `newest` the newest of everything, and a number that
series of Django with the newest of everything else. `make test-matrix ARGS="--tags ends"` runs the two ends, as CI
does.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
#: The first Python of each series of Django.
DJANGOS = {"5.2": "3.11", "6.0": "3.12", "6.1": "3.12"}
#: What the tests do without: style and types are checked once, by `make lint`.
LINTERS = re.compile(r"mypy|ruff|nox|types-.*|.*-stubs")
#: Interpreters of pyenv count, too.
PYENV = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.*/bin"))

os.environ["PATH"] = os.pathsep.join([*map(str, PYENV), os.environ["PATH"]])
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "no"


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def is_there(python: str) -> bool:
    """Whether this machine has the interpreter; a shim for one that is not installed does not count."""
    try:
        return subprocess.run([f"python{python}", "-c", ""], capture_output=True).returncode == 0
    except OSError:
        return False


FOUND = [python for python in PYTHONS if is_there(python)]
if MISSING := [python for python in PYTHONS if python not in FOUND]:
    print(f"Skipped, since this machine does not have them: Python {', '.join(MISSING)}.", file=sys.stderr)


def matrix() -> list[object]:
    """Every pair of a Python and a choice of versions that go together."""
    pairs = [("3.11", "lowest")]
    for python in PYTHONS:
        pairs += [(python, django) for django, first in DJANGOS.items() if number(first) <= number(python)]
        pairs.append((python, "newest"))
    ends = {("3.11", "lowest"), (FOUND[-1], "newest")} if FOUND else set()
    return [nox.param(*pair, tags=["ends"] if pair in ends else []) for pair in pairs]


@nox.session
@nox.parametrize(("python", "versions"), matrix())
def tests(session: nox.Session, versions: str) -> None:
    """Install the versions and run the tests that are not slow."""
    constraints = Path(session.create_tmp()) / "constraints.txt"
    lines = lowest() if versions == "lowest" else [] if versions == "newest" else [f"Django=={versions}.*"]
    constraints.write_text("".join(f"{line}\n" for line in lines))
    session.install("--quiet", "--disable-pip-version-check", *packages(), "--constraint", str(constraints))
    workers = os.environ.get("TEST_WORKERS", "2")
    command = ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", workers, "--dist", "loadfile"]
    session.run(*command, "-m", "not slow", *session.posargs)


def packages() -> list[str]:
    """What the project and its tests use, without versions."""
    found = []
    for name in ("requirements.in", "requirements-scaling.in", "requirements-dev.in"):
        lines = (line.strip() for line in (ROOT / name).read_text().splitlines())
        found += [re.split(r"[<>=~!; ]", line)[0] for line in lines if line and line[0] not in "#-"]
    return sorted({name for name in found if not LINTERS.fullmatch(name)})


def lowest() -> list[str]:
    """The lower bounds of the metadata as pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = [
        *project["dependencies"],
        *(text for extra in project["optional-dependencies"].values() for text in extra),
    ]
    found = [re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+).*", bound) for bound in bounds]
    return sorted({f"{match[1]}=={match[2]}" for match in found if match})
