"""Imports go one way: views, commands and the admin -> services -> providers, models, storage -> conf, exceptions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import images

ROOT = Path(images.__file__).parent

#: From the bottom up. A module may import from its own layer and from those before it.
LAYERS: list[set[str]] = [
    {
        "bucket",
        "conf",
        "exceptions",
        "failures",
        "fields",
        "file_names",
        "logs",
        "signals",
        "image_formats",
        "local_files",
        "price_table",
        "pricing",
        "provenance",
        "variants",
    },
    {"models"},
    {"providers", "storage"},
    {"services"},
    {"queues"},
    {"api", "admin", "management", "tasks", "media", "stored_files", "checks", "metrics"},
    {"urls", "apps", "testing", "conformance", "templatetags"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path for path in ROOT.rglob("*.py") if "migrations" not in path.parts)


def top(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The names directly below `images` that a module imports, and other packages as they are called."""
    package = ["images", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = [*base, *(node.module or "").split(".")] if node.module else base
            yield from (".".join([*full, alias.name]) for alias in node.names)


def internal(path: Path) -> set[str]:
    parts = (name.split(".") for name in imported(path))
    return {part[1] for part in parts if part[0] == "images" and len(part) > 1 and part[1] in LEVEL}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_downwards(path: Path) -> None:
    name = top(path)
    if name == "__init__":
        return
    assert name in LEVEL, f"put {name} into a layer"
    upwards = {other for other in internal(path) if LEVEL[other] > LEVEL[name]}
    assert not upwards, f"{name} must not know {upwards}"


@pytest.mark.parametrize(
    ("part", "forbidden"),
    [
        ("providers", ("rest_framework", "django.db", "images.models")),
        ("services", ("rest_framework", "images.api")),
        ("models.py", ("rest_framework",)),
        ("storage.py", ("rest_framework",)),
        ("", ("trygo_backend", "tests", "corsheaders", "environ")),
    ],
)
def test_a_part_does_not_know_what_it_must_not(part: str, forbidden: tuple[str, ...]) -> None:
    base = ROOT / part
    for path in [base] if base.is_file() else sorted(base.rglob("*.py")):
        for name in imported(path):
            assert not name.startswith(forbidden), f"{path.relative_to(ROOT)} imports {name}"


def test_every_part_that_has_a_layer_exists() -> None:
    assert set(LEVEL) <= {top(path) for path in MODULES}


def test_the_test_sees_relative_imports() -> None:
    """Guards the guard: a module that is known to import downwards is seen to."""
    assert {"models", "conf", "storage", "providers"} <= internal(ROOT / "services" / "generation.py")
