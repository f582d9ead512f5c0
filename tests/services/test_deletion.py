"""`delete_image` and every other way a row can go: the file goes with it, once, and not before the commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import transaction
from pytest_django import Settings

from images.exceptions import ImageNotFound, StorageError
from images.models import GeneratedImage, GeneratedImageQuerySet, image_storage
from images.services import delete_image, generate_image
from tests.fakes.providers import FakeProvider, png
from tests.fakes.storages import COUNTING, CountingStorage, use_storage

WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def _delete_and_fail(image: GeneratedImage) -> None:
    delete_image(image=image)
    raise RuntimeError


@pytest.mark.django_db(transaction=True)
class TestDeletion:
    def test_waits_for_the_commit_of_somebodys_transaction(
        self, fake_provider: FakeProvider, media_root: Path
    ) -> None:
        image = generate_image(**WANTED)
        with transaction.atomic():
            delete_image(image=image)
            assert len(files(media_root)) == 1
        assert not files(media_root)

    def test_is_undone_with_somebodys_transaction(self, fake_provider: FakeProvider, media_root: Path) -> None:
        image = generate_image(**WANTED)
        with pytest.raises(RuntimeError), transaction.atomic():
            _delete_and_fail(image)
        assert len(files(media_root)) == 1
        assert GeneratedImage.objects.get().status == "ready"

    def test_of_a_whole_queryset_removes_the_files(self, fake_provider: FakeProvider, media_root: Path) -> None:
        generate_image(**WANTED)
        generate_image(**WANTED)
        GeneratedImage.objects.all().delete()
        assert not files(media_root)

    def test_that_cannot_remove_the_file_fails_and_can_be_repeated(
        self, fake_provider: FakeProvider, media_root: Path, monkeypatch: Any
    ) -> None:
        image = generate_image(**WANTED)
        place = media_root / image.file_name
        kept = place.read_bytes()
        place.unlink()
        place.mkdir()  # a directory cannot be unlinked, not even by root
        (place / "x").touch()
        with pytest.raises(StorageError):
            delete_image(image=image)
        assert GeneratedImage.objects.get().status == "deleting"
        (place / "x").unlink()
        place.rmdir()
        place.write_bytes(kept)
        delete_image(image=image)
        assert not GeneratedImage.objects.exists()
        assert not files(media_root)

    def test_of_an_image_that_is_gone_says_so(self, fake_provider: FakeProvider) -> None:
        image = generate_image(**WANTED)
        delete_image(image=GeneratedImage.objects.get())
        with pytest.raises(ImageNotFound):
            delete_image(image=image)

    @pytest.mark.parametrize("way", ["service", "row", "queryset", "transaction"])
    def test_asks_the_storage_once(self, fake_provider: FakeProvider, settings: Settings, way: str) -> None:
        use_storage(settings, COUNTING)
        image = generate_image(**WANTED)
        CountingStorage.calls.clear()
        if way == "service":
            delete_image(image=image)
        elif way == "row":
            image.delete()
        elif way == "queryset":
            GeneratedImage.objects.all().delete()
        else:
            with transaction.atomic():
                delete_image(image=image)
        assert CountingStorage.calls == [("delete", image.file_name)]

    def test_removes_a_file_that_is_stored_at_the_last_moment(
        self, fake_provider: FakeProvider, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A generation that ends between the removal of the file and that of the row."""
        use_storage(settings, COUNTING)
        image = generate_image(**WANTED)
        late = f"{image.file_stem}.webp"
        inner = GeneratedImageQuerySet.delete

        def delete(self: GeneratedImageQuerySet) -> Any:
            image_storage().save(late, ContentFile(png()))
            GeneratedImage.objects.update(file=late, status="ready")
            return inner(self)

        monkeypatch.setattr(GeneratedImageQuerySet, "delete", delete)
        delete_image(image=image)
        assert not image_storage().exists(late)
