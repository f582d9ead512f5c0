"""`reconcile`: what it makes of stopped generations, of files without a row and of rows without a file."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.utils import timezone
from pytest_django import Settings

from images.file_names import note_stem
from images.models import GeneratedImage, image_storage
from images.services.reconciliation import Kind, reconcile, rescue
from tests.fakes.providers import FakeProvider, png
from tests.fakes.storages import IN_MEMORY, ONE_WAY, use_storage
from tests.services.wrecks import OTHER, mend, ready, stopped, store

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["local", IN_MEMORY, ONE_WAY])
def any_storage(request: Any, settings: Settings, fake_provider: FakeProvider) -> None:
    if request.param != "local":
        use_storage(settings, request.param)


@pytest.mark.usefixtures("any_storage")
class TestStopped:
    def test_a_picture_that_reached_the_storage_is_kept(self) -> None:
        image = stopped()
        assert mend() == [(Kind.STALE, True)]
        image.refresh_from_db()
        assert image.current_status == "ready"
        assert image_storage().open(str(image.file.name)).read() == png()
        assert (image.mime_type, image.width, image.height, image.size_bytes) == ("image/png", 16, 9, len(png()))
        assert len(image.sha256) == 64
        assert image.finished_at
        assert (image.ai_generated, image.content_credentials) == (True, False)

    def test_without_a_file_the_row_fails_and_says_why(self) -> None:
        image = stopped()
        image_storage().delete(f"{image.file_stem}.png")
        store("keep/hero-1.png")
        assert mend() == [(Kind.STALE, True), (Kind.ORPHAN, True)]
        image.refresh_from_db()
        assert (image.status, image.error_code) == ("failed", "internal_error")
        assert "stopped" in image.error_message

    def test_a_half_written_file_is_removed_and_the_row_fails(self) -> None:
        image = stopped()
        image_storage().delete(f"{image.file_stem}.png")
        store(f"{image.file_stem.removeprefix('draft-images/')}.png", png()[:-4])
        assert mend() == [(Kind.STALE, True)]
        image.refresh_from_db()
        assert image.status == "failed"
        assert not image_storage().exists(f"{image.file_stem}.png")

    def test_a_generation_under_way_is_not_reported(self) -> None:
        stopped(deadline_at=timezone.now())
        assert mend() == []

    def test_a_failed_row_gets_its_paid_picture(self) -> None:
        image = ready(status="failed", file="", error_code="internal_error", error_message="The database was gone.")
        assert mend() == [(Kind.UNRECORDED, True)]
        image.refresh_from_db()
        assert (image.status, image.error_code, image.error_message) == ("ready", "", "")
        assert (image.provider, image.model) == ("test", "test-model-1")

    def test_whoever_comes_upon_one_row_can_rescue_its_picture(self) -> None:
        image = stopped()
        assert rescue(image)
        image.refresh_from_db()
        assert (image.status, image.size_bytes) == ("ready", len(png()))
        lost = stopped()
        image_storage().delete(f"{lost.file_stem}.png")
        assert not rescue(lost)
        lost.refresh_from_db()
        assert lost.status == "pending"

    def test_a_deletion_is_finished(self) -> None:
        image = ready(status="deleting")
        assert mend() == [(Kind.HALF_DELETED, True)]
        assert not GeneratedImage.objects.exists()
        assert not image_storage().exists(str(image.file.name))


@pytest.mark.usefixtures("any_storage")
class TestFiles:
    def test_a_ready_row_without_its_file_fails_and_recovers_with_it(self) -> None:
        ready()
        image = ready()
        image_storage().delete(str(image.file.name))
        assert mend() == [(Kind.MISSING, True)]
        image.refresh_from_db()
        assert (image.status, image.error_code) == ("failed", "storage_error")
        assert "missing" in image.error_message
        image_storage().save(str(image.file.name), ContentFile(png()))
        assert mend() == [(Kind.UNRECORDED, True)]
        image.refresh_from_db()
        assert image.status == "ready"

    def test_an_old_services_file_gets_a_row_told_by_its_name(self) -> None:
        store("65f0c1/inline-1763049170351.png")
        store("65f0c1/inline-1763049170351.jpg")
        assert mend() == [(Kind.ORPHAN, True)] * 2
        image = GeneratedImage.objects.get(file="draft-images/65f0c1/inline-1763049170351.jpg")
        assert (image.content_item_id, image.variant, image.owner, image.status) == (
            "65f0c1",
            "inline",
            None,
            "ready",
        )
        assert image.created_at == datetime(2025, 11, 13, 15, 52, 50, 351000, UTC)
        assert (image.size_bytes, image.mime_type) == (len(OTHER), "image/png")

    def test_a_name_that_tells_nothing_does_not_keep_a_picture_out(self) -> None:
        store("cover.png")
        assert mend() == [(Kind.ORPHAN, True)]
        image = GeneratedImage.objects.get()
        assert (image.content_item_id, image.variant) == ("unknown", "hero")

    @pytest.mark.parametrize(
        ("name", "item", "variant"),
        [
            ("a/b/inline-1763049170351.webp", "a/b", "inline"),
            ("item/cover-1763049170351.JPG", "item", "hero"),
        ],
    )
    def test_nested_folders_and_unknown_variants_are_adopted_as_the_importer_does(
        self, name: str, item: str, variant: str
    ) -> None:
        store(name)
        assert mend() == [(Kind.ORPHAN, True)]
        image = GeneratedImage.objects.get()
        assert (image.content_item_id, image.variant) == (item, variant)
        assert image.created_at == datetime(2025, 11, 13, 15, 52, 50, 351000, UTC)

    def test_what_is_no_whole_picture_is_left_alone(self) -> None:
        left = {store("item/broken.png", OTHER[:-1]), store("item/page.html", b"<p>"), store("item/a.png/b", OTHER)}
        found = list(reconcile(apply=True))
        assert [(discrepancy.kind, discrepancy.mended) for discrepancy in found] == [(Kind.NOT_AN_IMAGE, False)] * 3
        assert {discrepancy.name for discrepancy in found} == left
        assert all(image_storage().exists(name) for name in left)
        assert not GeneratedImage.objects.exists()

    def test_orphans_are_removed_on_request_and_nothing_else(self) -> None:
        kept = ready()
        gone = [store("item/hero-1.png"), store("item/page.html", b"<p>")]
        assert mend(delete_orphans=True) == [(Kind.ORPHAN, True), (Kind.NOT_AN_IMAGE, True)]
        assert image_storage().exists(str(kept.file.name))
        assert not any(image_storage().exists(name) for name in gone)


@pytest.mark.usefixtures("any_storage")
class TestVerify:
    def test_finds_nothing_where_all_is_well(self) -> None:
        ready()
        assert mend(verify=True) == []

    def test_corrects_the_row_of_another_whole_picture(self) -> None:
        image = ready(size_bytes=7, sha256="")
        assert mend() == []
        assert mend(verify=True) == [(Kind.CHANGED, True)]
        image.refresh_from_db()
        assert (image.status, image.size_bytes, len(image.sha256)) == ("ready", len(png()), 64)

    def test_takes_a_damaged_file_away(self) -> None:
        image = ready()
        image_storage().delete(str(image.file.name))
        image_storage().save(str(image.file.name), ContentFile(png()[:-9] + b"\0" * 9))
        assert mend(verify=True) == [(Kind.DAMAGED, True)]
        image.refresh_from_db()
        assert (image.status, image.error_code) == ("failed", "storage_error")
        assert "damaged" in image.error_message
        assert not image_storage().exists(str(image.file.name))


class TestLeftovers:
    def test_go_after_an_hour_and_not_before(self, fake_provider: FakeProvider, media_root: Path) -> None:
        folder = media_root / "draft-images" / "item"
        folder.mkdir(parents=True)
        old, new = folder / ".hero-1.png.0123.part", folder / ".hero-2.png.0123.part"
        old.write_bytes(b"half")
        new.write_bytes(b"half")
        os.utime(old, times=(time.time() - 3660,) * 2)
        assert mend() == [(Kind.LEFTOVER, True)]
        assert (old.exists(), new.exists()) == (False, True)
        assert not GeneratedImage.objects.exists()

    def test_a_note_goes_with_its_picture(self, fake_provider: FakeProvider, media_root: Path) -> None:
        image = ready()
        for name in (image.file_name, "draft-images/item-1/gone.png"):
            note = media_root / f"{note_stem(name)}.json"
            note.write_text("{}")
            os.utime(note, times=(time.time() - 3660,) * 2)
        assert mend() == [(Kind.LEFTOVER, True)]
        assert (media_root / f"{note_stem(image.file_name)}.json").exists()

    @pytest.mark.parametrize("note", [b"", b"no JSON", b"[]", b'{"provider": 7}', b'{"attempts": "x"}'])
    def test_a_damaged_note_does_not_keep_a_picture_from_being_found(
        self, fake_provider: FakeProvider, media_root: Path, note: bytes
    ) -> None:
        row = stopped(provider="")
        (media_root / f"{note_stem(f'{row.file_stem}.png')}.json").write_bytes(note)
        assert mend() == [(Kind.STALE, True)]
        row.refresh_from_db()
        assert (row.status, row.provider, row.cost, row.cost_basis) == ("ready", "", None, "")

    def test_other_hidden_files_and_what_links_lead_to_are_not_ours(
        self, fake_provider: FakeProvider, media_root: Path
    ) -> None:
        elsewhere = media_root / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "hero-1.png").write_bytes(OTHER)
        (media_root / "draft-images" / ".snapshots").mkdir(parents=True)
        (media_root / "draft-images" / ".snapshots" / "hero-1.png").write_bytes(OTHER)
        (media_root / "draft-images" / ".keep").touch()
        (media_root / "draft-images" / "link").symlink_to(elsewhere)
        assert mend(delete_orphans=True) == []
        assert (elsewhere / "hero-1.png").exists()
