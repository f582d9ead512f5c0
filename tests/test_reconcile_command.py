"""`manage.py reconcile_images`."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tests.fakes.providers import FakeProvider
from tests.services.wrecks import ready, stopped, store

pytestmark = pytest.mark.django_db


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def run(*arguments: str, stderr: StringIO | None = None) -> tuple[str, int]:
    """What it prints and its exit status."""
    out = StringIO()
    try:
        call_command("reconcile_images", *arguments, stdout=out, stderr=stderr or StringIO(), no_color=True)
    except SystemExit as left:
        return out.getvalue(), int(left.code or 0)
    return out.getvalue(), 0


def test_says_so_where_all_is_well(fake_provider: FakeProvider) -> None:
    ready()
    assert run() == ("Rows and files agree.\n", 0)


def test_tells_without_apply_and_mends_with_it(fake_provider: FakeProvider) -> None:
    image = stopped()
    told, status = run()
    assert told.startswith(f"found   stale         {image.pk}: The server was stopped")
    assert told.endswith("1 found, 0 mended, 1 left. Nothing was changed; --apply repairs it.\n")
    assert status == 1
    done, status = run("--apply")
    assert done.startswith(f"mended  stale         {image.pk}: ")
    assert status == 0


def test_what_remains_is_in_the_exit_status_and_a_name_cannot_confuse_the_terminal(
    fake_provider: FakeProvider,
) -> None:
    store("item/\x1b[2Jpage.html", b"<p>")
    out, status = run("--apply")
    assert out.startswith(r"left    not_an_image  'draft-images/item/\x1b[2Jpage.html': ")
    assert status == 1
    assert run("--apply", "--delete-orphans") == (out, 1)


def test_prints_an_object_for_each_discrepancy_and_a_summary(fake_provider: FakeProvider) -> None:
    image = stopped()
    store("item/hero-1763049170351.png")
    lines = [json.loads(line) for line in run("--apply", "--json")[0].splitlines()]
    assert [(line["kind"], line["image_id"], line["mended"]) for line in lines[:2]] == [
        ("stale", str(image.pk), True),
        ("orphan", None, True),
    ]
    assert lines[2] == {"summary": {"findings": 2, "mended": 2, "remaining": 0, "by_kind": {"orphan": 1, "stale": 1}}}


def test_stops_with_a_sentence_where_the_disk_is_not_there(fake_provider: FakeProvider, media_root: Path) -> None:
    ready()
    media_root.rename(media_root.with_name("unmounted"))
    with pytest.raises(CommandError, match=r"mount its disk.* \(storage_error\)"):
        run("--apply")


def test_shows_progress_on_a_terminal_only(fake_provider: FakeProvider) -> None:
    ready()
    terminal, log = Terminal(), StringIO()
    run(stderr=terminal)
    run(stderr=log)
    assert "Looking at rows... 1" in terminal.getvalue()
    assert log.getvalue() == ""
