"""`delete_image` and every other way a row can go: the file goes with it, once, and not before the commit."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.db import transaction
from django.db.models.signals import post_save
from pytest_django import Settings

from images.exceptions import ImageNotFound, StorageError
from images.models import DeletedImage, GeneratedImage, GeneratedImageQuerySet, image_storage
from images.providers import ImageRequest
from images.services import delete_image, generate_image
from tests.fakes.providers import FakeProvider, png
from tests.fakes.storages import COUNTING, CountingStorage, use_storage

WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def _delete_and_fail(image: GeneratedImage) -> None:
    delete_image(image=image)
    raise RuntimeError


@pytest.fixture
def demo_owner(transactional_db: None) -> User:
    return User.objects.create_user("demo")


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
        assert DeletedImage.objects.get().at_first_try is False

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

    @pytest.mark.parametrize("way", ["service", "queryset", "transaction"])
    def test_keeps_what_the_image_cost_and_nothing_of_its_content(
        self, fake_provider: FakeProvider, demo_owner: User, way: str
    ) -> None:
        image = generate_image(**WANTED, user=demo_owner)
        GeneratedImage.objects.update(cost=Decimal("0.0412"), cost_basis="reported")
        if way == "service":
            delete_image(image=image)
        elif way == "queryset":
            GeneratedImage.objects.all().delete()
        else:
            with transaction.atomic():
                delete_image(image=image)
        kept = DeletedImage.objects.get()
        assert (kept.cost, kept.cost_basis, kept.status) == (Decimal("0.0412"), "reported", "ready")
        assert (kept.pk, kept.owner, kept.created_at) == (image.pk, demo_owner, image.created_at)
        assert (kept.provider, kept.model, kept.duration_ms) == (image.provider, image.model, image.duration_ms)
        assert not {"title", "description", "prompt", "file"} & {field.name for field in DeletedImage._meta.fields}

    def test_that_is_undone_keeps_nothing(self, fake_provider: FakeProvider) -> None:
        image = generate_image(**WANTED)
        with pytest.raises(RuntimeError), transaction.atomic():
            _delete_and_fail(image)
        assert not DeletedImage.objects.exists()

    def test_of_a_row_that_a_provider_still_works_for_keeps_what_that_will_cost(
        self, fake_provider: FakeProvider
    ) -> None:
        def deleted_meanwhile(_: ImageRequest) -> bytes:
            delete_image(image=GeneratedImage.objects.get())
            return png()

        fake_provider.will(deleted_meanwhile)
        with pytest.raises(ImageNotFound):
            generate_image(**WANTED)
        kept = DeletedImage.objects.get()
        assert (kept.status, kept.error_code, kept.provider) == ("failed", "not_found", "test")
        assert kept.duration_ms is not None

    def test_of_a_row_that_nothing_was_paid_for_keeps_nothing(self, fake_provider: FakeProvider) -> None:
        def refuse(**_: Any) -> None:
            raise RuntimeError

        post_save.connect(refuse, sender=GeneratedImage)
        try:
            with pytest.raises(RuntimeError):
                generate_image(**WANTED)
        finally:
            post_save.disconnect(refuse, sender=GeneratedImage)
        assert not GeneratedImage.objects.exists()
        assert not DeletedImage.objects.exists()

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
