"""`manage.py import_images`: the old service's pictures keep their addresses and get rows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from images.models import GeneratedImage, image_storage
from images.services import importing
from images.services.importing import OldFile
from tests.conftest import client_for
from tests.fakes.pictures import HTML, picture, png
from tests.fakes.storages import IN_MEMORY, use_storage

pytestmark = pytest.mark.django_db

ITEM = "665f1c2e9b1e8a0012345678"
NAME = f"draft-images/{ITEM}/hero-1763049170351.png"
DATA = png(160, 90)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The old service's storage folder with one picture."""
    put(tmp_path / "old", NAME)
    return tmp_path / "old"


def put(root: Path, name: str, data: bytes = DATA) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def run(directory: Path, *arguments: str) -> list[Any]:
    """What the command says with --json: an object for each file that it looked at, and the summary."""
    out = StringIO()
    with contextlib.suppress(SystemExit):
        call_command("import_images", directory, "--json", *arguments, stdout=out, stderr=StringIO())
    return [json.loads(line) for line in out.getvalue().splitlines()]


def counts(directory: Path, *arguments: str) -> tuple[int, int, int, int]:
    """Imported, present, no images, failed."""
    summary = run(directory, *arguments)[-1]["summary"]
    return summary["imported"], summary["present"], summary["not_an_image"], summary["failed"]


@pytest.mark.parametrize("mode", ["copy", "move", "leave"])
def test_a_picture_keeps_its_address_and_gets_a_row(mode: str, old: Path, media_root: Path) -> None:
    if mode == "leave":
        old = old.rename(media_root)
    assert counts(old, "--mode", mode) == (1, 0, 0, 0)

    image = GeneratedImage.objects.get()
    assert (image.content_item_id, image.variant, image.status, image.owner) == (ITEM, "hero", "ready", None)
    assert (image.provider, image.model, image.file.name, image.file_stem) == ("", "", NAME, NAME[:-4])
    assert (image.mime_type, image.width, image.height, image.size_bytes) == ("image/png", 160, 90, len(DATA))
    assert image.sha256 == hashlib.sha256(DATA).hexdigest()
    assert image.created_at == image.finished_at == datetime(2025, 11, 13, 15, 52, 50, 351000, UTC)
    answer = Client().get(f"/media/{NAME}")
    assert b"".join(answer) == DATA
    assert files_below(old) == ([] if mode == "move" else [NAME])
    if mode == "move":
        assert not (old / "draft-images" / ITEM).exists()


def test_a_picture_can_be_deleted_by_its_old_id(old: Path, media_root: Path, staff: Any) -> None:
    run(old)
    api: APIClient = client_for(staff)
    assert api.delete(f"/api/images/{ITEM}/hero-1763049170351.png").status_code == 200
    assert files_below(media_root) == []
    assert Client().get(f"/media/{NAME}").status_code == 404


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_second_run_finds_everything_done(mode: str, old: Path, media_root: Path) -> None:
    put(old, f"draft-images/{ITEM}/notes.txt", b"text")
    run(old, "--mode", mode)
    before = [(path, path.stat().st_mtime_ns) for path in media_root.rglob("*")]
    assert counts(old, "--mode", mode) == (0, 1 if mode == "copy" else 0, 1, 0)
    assert [(path, path.stat().st_mtime_ns) for path in media_root.rglob("*")] == before
    assert GeneratedImage.objects.count() == 1


def test_what_is_no_image_is_reported_and_left_alone(old: Path, media_root: Path) -> None:
    strange = {
        "item/hero-1763049170352.png": DATA[:-4],
        "item/hero-1763049170353.png": HTML,
        "item/hero-1763049170354.png": b"",
        "item/notes.txt": b"text",
        "item/.DS_Store": b"x",
        ".gitkeep": b"",
    }
    for name, data in strange.items():
        put(old, f"draft-images/{name}", data)
    (old / "draft-images/item/hero-1763049170355.png").symlink_to(old / NAME)
    (old / "draft-images/linked").symlink_to(media_root, target_is_directory=True)
    put(old, "elsewhere/secret.png")

    found = run(old, "--mode", "move")

    assert found[-1]["summary"] == {
        "imported": 1, "present": 0, "not_an_image": 8, "failed": 0, "bytes": len(DATA), "dry_run": False
    }  # fmt: skip
    assert files_below(media_root) == [NAME]
    assert len(files_below(old)) == 7  # and the links, of which one leads nowhere by now
    cut = next(file for file in found if file.get("name") == "draft-images/item/hero-1763049170352.png")
    assert (cut["outcome"], cut["sentence"]) == ("not_an_image", "It is no whole image: the PNG is cut off.")


def test_a_picture_that_cannot_be_kept_fails_and_the_exit_status_says_so(
    old: Path, settings: Settings, media_root: Path
) -> None:
    put(old, f"draft-images/{'x' * 200}/{'y' * 200}.png")
    put(old, os.fsdecode(b"draft-images/item/hero-\xff.png"))
    put(old, "draft-images/item/hero-1763049170352.png", png(16, 9, 5000))
    settings.IMAGES = {"MAX_IMAGE_BYTES": 4000}
    with pytest.raises(SystemExit) as caught:
        call_command("import_images", old, stdout=StringIO(), stderr=StringIO())
    assert caught.value.code == 1
    assert counts(old) == (0, 1, 0, 3)
    assert files_below(media_root) == [NAME]


def test_a_name_of_another_kind_takes_the_time_of_the_file(old: Path) -> None:
    path = put(old, "draft-images/cover.JPG", picture("jpeg", 40, 30))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    put(old, "draft-images/a/b/inline-1763049170351.webp", picture("webp", 40, 30))
    assert counts(old) == (3, 0, 0, 0)
    cover = GeneratedImage.objects.get(file="draft-images/cover.JPG")
    assert (cover.content_item_id, cover.variant, cover.mime_type) == ("unknown", "hero", "image/jpeg")
    assert cover.created_at == datetime.fromtimestamp(1_700_000_000, UTC)
    nested = GeneratedImage.objects.get(file="draft-images/a/b/inline-1763049170351.webp")
    assert (nested.content_item_id, nested.variant) == ("a/b", "inline")


def test_two_files_that_differ_in_their_extension_get_a_row_each(old: Path) -> None:
    put(old, f"{NAME[:-4]}.jpg", picture("jpeg", 40, 30))
    assert counts(old) == (2, 0, 0, 0)
    assert set(GeneratedImage.objects.values_list("file", flat=True)) == {NAME, f"{NAME[:-4]}.jpg"}


def test_a_dry_run_judges_everything_and_changes_nothing(old: Path, media_root: Path) -> None:
    put(old, "draft-images/item/notes.txt", b"text")
    media_root.rmdir()
    assert counts(old, "--mode", "move", "--dry-run") == (1, 0, 1, 0)
    assert not media_root.exists()
    assert len(files_below(old)) == 2
    assert not GeneratedImage.objects.exists()


def test_another_file_in_the_place_is_never_overwritten(old: Path, media_root: Path) -> None:
    put(media_root, NAME, png(16, 9))
    assert counts(old, "--mode", "move") == (0, 0, 0, 1)
    assert (media_root / NAME).read_bytes() == png(16, 9)
    assert (old / NAME).read_bytes() == DATA
    assert not GeneratedImage.objects.exists()


class TestInterrupted:
    def test_before_the_rows_the_next_run_writes_them(self, old: Path, media_root: Path) -> None:
        put(media_root, NAME)
        assert counts(old, "--mode", "move") == (1, 0, 0, 0)
        assert (files_below(old), files_below(media_root)) == ([], [NAME])

    def test_before_the_old_file_went_the_next_run_removes_it(self, old: Path, media_root: Path) -> None:
        run(old, "--mode", "copy")
        assert counts(old, "--mode", "move") == (0, 1, 0, 0)
        assert (files_below(old), files_below(media_root)) == ([], [NAME])

    def test_an_old_file_is_kept_where_the_imported_one_is_gone(self, old: Path, media_root: Path) -> None:
        run(old, "--mode", "copy")
        (media_root / NAME).unlink()
        assert counts(old, "--mode", "move") == (0, 0, 0, 1)
        assert files_below(old) == [NAME]

    def test_in_the_middle_of_a_batch_what_was_done_stays(
        self, old: Path, media_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(old, "draft-images/zzz/hero-1763049170352.png")
        inner = importing.read_picture

        def read(file: OldFile) -> Any:
            if "zzz" in file.name:
                raise KeyboardInterrupt
            return inner(file)

        with monkeypatch.context() as patch:
            patch.setattr(importing, "read_picture", read)
            with pytest.raises(CommandError, match="Run it again") as caught:
                call_command("import_images", old, "--mode", "move", stdout=StringIO(), stderr=StringIO())
        assert caught.value.returncode == 130
        assert GeneratedImage.objects.get().file.name == NAME
        assert counts(old, "--mode", "move") == (1, 1, 0, 0)
        assert files_below(old) == []
        assert len(files_below(media_root)) == 2


def test_a_missing_disk_stops_it_with_a_sentence(old: Path, media_root: Path) -> None:
    run(old)
    media_root.rename(media_root.with_name("unmounted"))
    with pytest.raises(CommandError, match=r"missing.*storage_error"):
        run(old)


def test_moving_links_where_it_can_so_that_it_needs_no_space(old: Path, media_root: Path) -> None:
    inode = (old / NAME).stat().st_ino
    os.chmod(old / NAME, 0o600)
    run(old, "--mode", "move")
    assert (media_root / NAME).stat().st_ino == inode
    assert (media_root / NAME).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_remote_storage_is_filled_through_its_own_api(mode: str, settings: Settings, old: Path) -> None:
    use_storage(settings, IN_MEMORY)
    assert counts(old, "--mode", mode) == (1, 0, 0, 0)
    with image_storage().open(NAME) as file:
        assert file.read() == DATA
    with pytest.raises(CommandError, match="must be copied or moved"):
        run(old, "--mode", "leave")


def test_a_directory_or_mode_that_cannot_be_meant_is_refused(old: Path, media_root: Path) -> None:
    with pytest.raises(CommandError, match="no folder draft-images"):
        run(old / "draft-images" / ITEM)
    with pytest.raises(CommandError, match="must be copied or moved"):
        run(old, "--mode", "leave")
    put(media_root, NAME)
    with pytest.raises(CommandError, match="can only be left there"):
        run(media_root, "--mode", "move")
    assert counts(media_root / "draft-images") == (1, 0, 0, 0)


def test_local_time_is_kept_where_the_host_has_no_time_zones(old: Path, settings: Settings) -> None:
    settings.USE_TZ = False
    settings.TIME_ZONE = "Asia/Tokyo"
    run(old)
    assert GeneratedImage.objects.get().created_at == datetime(2025, 11, 14, 0, 52, 50, 351000)


def test_files_cost_no_queries_of_their_own(old: Path, django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    for number in range(importing.BATCH - 1):
        put(old, f"draft-images/item{number}/hero-1763049170351.png")
    with django_assert_max_num_queries(10):
        run(old)


def test_people_see_a_bar_on_a_terminal_and_a_summary(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, terminal = StringIO(), StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    call_command("import_images", old, stdout=out, stderr=terminal)
    assert "[##############################] 1 of 1" in terminal.getvalue()
    assert out.getvalue() == "1 imported (372 bytes), 0 were there already, 0 no images, 0 failed.\n"
