"""The package: what is in it, and what somebody gets who installs it into an empty environment and follows README."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.plugging.projects import ROOT, Host, follow_commands, make_host, plug_in_section
from tests.plugging.test_hosts import Variant, check_api, check_host_is_untouched, check_own_code

pytestmark = pytest.mark.slow

#: What is not to be needed for importing, checking, migrating and serving.
OPTIONAL = ["openai", "google.genai", "PIL", "orjson", "pybase64", "drf_spectacular", "corsheaders", "celery"]


def pip(python: str | Path, *arguments: str) -> None:
    """Run pip with the machine's own configuration, which says where packages come from."""
    done = subprocess.run([python, "-m", "pip", *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, so that nothing is left in it, with what an earlier build may have left behind."""
    copy = tmp_path_factory.mktemp("checkout") / "copy"
    made = (".git", ".venv", ".demo", "__pycache__", ".*_cache", ".hypothesis", "*.sqlite3*", "staticfiles", "media")
    shutil.copytree(ROOT, copy, ignore=lambda folder, names: shutil.ignore_patterns(*made)(folder, names))
    stale = copy / "build" / "lib" / "images" / "stale.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build_wheel(checkout, tmp_path_factory.mktemp("wheel"))


def build_wheel(source: Path, folder: Path) -> Path:
    """Build the wheel of a folder or of a source distribution."""
    pip(sys.executable, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source))
    [found] = folder.glob("trygo_images-*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of this checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "build", "--sdist", "--outdir", str(folder), str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    [found] = folder.glob("trygo_images-*.tar.gz")
    return found


@pytest.fixture(scope="module")
def stranger(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an empty environment into which the wheel was installed, without extras."""
    folder = tmp_path_factory.mktemp("stranger") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip(python, "install", "--quiet", str(wheel))
    return str(python)


def test_the_wheel_holds_the_whole_app_and_nothing_else(wheel: Path) -> None:
    app = {str(path.relative_to(ROOT)) for path in (ROOT / "images").rglob("*") if path.is_file()}
    app = {name for name in app if "__pycache__" not in name}
    held = zipfile.ZipFile(wheel).namelist()
    assert {name for name in held if ".dist-info/" not in name} == app
    for kind in ("migrations/0001_initial.py", "templates/", "static/", "py.typed", "fonts/", "commands/"):
        assert any(kind in name for name in app), kind


def test_the_source_distribution_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    assert build_wheel(sdist, tmp_path).read_bytes() == wheel.read_bytes()


def test_the_tests_run_from_the_source_distribution(sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [folder] = tmp_path.glob("trygo_images-*")
    for arguments in (["tests/test_testing.py", "tests/test_readme.py", "-m", "not slow"], ["--collect-only"]):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr


def test_an_index_can_show_the_description(wheel: Path) -> None:
    """Relative links and pictures lead nowhere on an index page."""
    text = metadata(wheel).partition("\n\n")[2]
    assert text.startswith("# Images\n")
    assert re.findall(r"\]\((?!https?://)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)) == []
    assert "[" not in re.findall(r"^\| .*`IMAGES.*$", text, re.MULTILINE)[0].replace('["', "")


def metadata(wheel: Path) -> str:
    archive = zipfile.ZipFile(wheel)
    [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    return archive.read(name).decode()


def test_the_metadata_has_ranges_for_hosts_and_sdks_as_extras(wheel: Path) -> None:
    lines = metadata(wheel).splitlines()
    required = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    assert required
    assert not [line for line in required if "==" in line.partition(";")[0]]
    assert {"License-Expression: BSD-3-Clause", "License-File: LICENSE"} <= set(lines)
    for extra in ("openai", "gemini"):
        assert any(line.endswith(f"extra == '{extra}'") for line in required)
    needed = {re.match(r"[\w-]+", line)[0].lower() for line in required if "extra" not in line}  # type: ignore[index]
    assert needed == {"certifi", "django", "djangorestframework", "httpcore2", "httpx2", "requests"}


def test_without_extras_it_checks_and_migrates_and_says_which_to_install(stranger: str, tmp_path: Path) -> None:
    host = make_host(tmp_path / "site", newsroom=False, python=stranger)
    missing = f"import importlib.util as u; print([n for n in {OPTIONAL} if u.find_spec(n.split('.')[0])])"
    assert host.run("-c", missing).stdout == "[]\n"
    host.run("manage.py", "migrate", "--verbosity", "0")
    for provider in ("gemini", "openai", "placeholder"):
        says_which_extra_to_install(host, provider)


def says_which_extra_to_install(host: Host, provider: str) -> None:
    sentence = f"pip install 'trygo-images[{provider}]'"
    with (host.folder / "host" / "settings.py").open("a") as file:
        key = f'"{provider.upper()}_API_KEY": "no-real-key"' if provider != "placeholder" else ""
        file.write(f'\nIMAGES = {{"PROVIDER": "{provider}", {key}}}\n')
    assert sentence in host.run("manage.py", "check").stderr
    arguments = ("manage.py", "generate_image", "--content-item", "42", "--title", "A quiet harbour")
    refused = host.run(*arguments, check=False)
    assert refused.returncode == 1
    assert sentence in refused.stderr
    assert "provider_not_configured" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_readme_word_for_word_makes_serves_and_deletes_images(stranger: str, wheel: Path, tmp_path: Path) -> None:
    section = plug_in_section()
    _python, *install = shlex.split(section.install.replace("/path/to/checkout", str(wheel)))
    done = subprocess.run([stranger, *install], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr

    host = make_host(tmp_path / "site", newsroom=False, python=stranger, DJANGO_SUPERUSER_PASSWORD="of-a-stranger")
    follow_commands(host, "--username", "ann", "--email", "ann@example.com")

    folder = tmp_path / "visited"
    facts = make_host(folder, python=stranger).visit()
    check_api(facts, Variant(), folder)
    check_own_code(facts, Variant())
    check_host_is_untouched(facts, Variant())
    assert os.listdir(folder / "media") == ["draft-images"]
