"""How every command ends if something goes wrong, and what it shows on a terminal meanwhile."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import OutputWrapper

from images.management.base import ProgressLine
from images.management.commands import reconcile_images
from images.providers import ImageRequest
from tests.fakes.providers import FakeProvider

ROOT = Path(__file__).resolve().parents[2]
GENERATE = ("generate_image", "--content-item", "42", "--title", "A quiet harbour")


def manage(
    folder: Path, *arguments: str, stdout: int = subprocess.PIPE, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of the project with a new, empty database."""
    environment = {
        "PATH": os.environ["PATH"],
        "SECRET_KEY": "only-for-tests",
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "STORAGE_ROOT": str(folder),
        "IMAGE_PROVIDER": "placeholder",
        **variables,
    }
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )


@pytest.mark.parametrize("arguments", [GENERATE, ("reconcile_images", "--accept-loss")], ids=lambda a: a[0])
def test_a_database_that_was_not_migrated_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = manage(tmp_path, *arguments)
    [sentence] = [line for line in done.stderr.splitlines() if line.startswith("CommandError")]
    assert done.returncode == 1
    assert sentence.startswith("CommandError: The database cannot be used: no such table")
    assert sentence.endswith("run: manage.py migrate")
    assert "Traceback" not in done.stderr


def test_a_database_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    done = manage(tmp_path / "missing", *GENERATE)
    assert done.returncode == 1
    assert "CommandError: The database cannot be used: unable to open database file" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_django_starts_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "stopped.py").write_text("raise KeyboardInterrupt")
    done = manage(tmp_path, "check", DJANGO_SETTINGS_MODULE="stopped", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")


def test_output_that_is_not_read_ends_the_command_quietly(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = manage(tmp_path, "images_doctor", "--json", stdout=writer)
    os.close(writer)
    assert done.returncode == 141
    assert "Error" not in done.stderr


@pytest.mark.django_db
def test_ctrl_c_during_a_generation_says_that_it_may_be_billed(fake_provider: FakeProvider) -> None:
    def interrupt(request: ImageRequest) -> bytes:
        raise KeyboardInterrupt

    fake_provider.will(interrupt)
    with pytest.raises(CommandError, match="may still bill") as caught:
        call_command(*GENERATE, stdout=io.StringIO(), stderr=io.StringIO())
    assert caught.value.returncode == 130


def test_ctrl_c_ends_a_command_that_can_be_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reconcile_images, "reconcile", interrupt)
    with pytest.raises(CommandError, match="Run it again to continue") as caught:
        call_command("reconcile_images", stdout=io.StringIO(), stderr=io.StringIO())
    assert caught.value.returncode == 130


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_record_does_not_continue_the_line_of_progress() -> None:
    terminal = Terminal()
    line = ProgressLine(OutputWrapper(terminal))
    handler = logging.StreamHandler(terminal)
    logger = logging.getLogger("images")
    logger.addHandler(handler)
    try:
        line.show("Generating... 3 s")
        logger.error("provider_timeout")
        line.show("Generating... 4 s")
        line.clear()
    finally:
        logger.removeHandler(handler)
    erased = f"\r{' ' * len('Generating... 3 s')}\r"
    assert terminal.getvalue() == f"\rGenerating... 3 s{erased}provider_timeout\n\rGenerating... 4 s{erased}"
    assert not handler.filters
