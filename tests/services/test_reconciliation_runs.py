"""`reconcile` as a whole: lost disks, races, dry runs, what it tells and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from images import signals
from images.exceptions import StorageError
from images.models import GeneratedImage, image_storage
from images.services.reconciliation import Discrepancy, Kind, file_problems, reconcile, row_problems
from images.services.repair import adopt
from tests.fakes.providers import FakeProvider
from tests.fakes.storages import BROKEN, use_storage
from tests.services.wrecks import mend, ready, stopped, store

pytestmark = pytest.mark.django_db


class TestLostDisk:
    def lose(self, media_root: Path, how: str) -> None:
        media_root.rename(media_root.with_name("unmounted"))
        if how == "an empty mount point":
            media_root.mkdir()
        elif how == "an empty folder":
            (media_root / "draft-images").mkdir(parents=True)

    @pytest.mark.parametrize("how", ["no root", "an empty mount point", "an empty folder"])
    def test_fails_no_row(self, fake_provider: FakeProvider, media_root: Path, how: str) -> None:
        ready()
        self.lose(media_root, how)
        with pytest.raises(StorageError, match="mount"):
            list(reconcile(apply=True))
        assert GeneratedImage.objects.get().status == "ready"

    def test_that_goes_during_the_run_fails_no_row(self, fake_provider: FakeProvider, media_root: Path) -> None:
        ready()
        problems = row_problems(verify=False, accept_loss=False, count=lambda _: None)
        self.lose(media_root, "an empty mount point")
        with pytest.raises(StorageError, match="mount"):
            list(problems)

    def test_can_be_accepted(self, fake_provider: FakeProvider, media_root: Path) -> None:
        ready()
        self.lose(media_root, "an empty mount point")
        assert mend(accept_loss=True) == [(Kind.MISSING, True)]

    def test_a_storage_that_does_not_answer_changes_nothing(
        self, fake_provider: FakeProvider, settings: Settings
    ) -> None:
        ready()
        use_storage(settings, BROKEN)
        found = list(reconcile(apply=True, verify=True, accept_loss=True))
        assert {discrepancy.kind for discrepancy in found} == {Kind.UNREADABLE}
        assert not any(discrepancy.mended or "secret" in discrepancy.sentence for discrepancy in found)
        assert GeneratedImage.objects.get().status == "ready"


class TestRaces:
    """Somebody is faster between the look and the mending: whoever comes second changes nothing."""

    @pytest.mark.parametrize("status", ["ready", "failed", "deleting"])
    def test_a_row_that_has_moved_on_is_left_alone(self, fake_provider: FakeProvider, status: str) -> None:
        image = stopped()
        [problem] = row_problems(verify=False, accept_loss=False, count=lambda _: None)
        GeneratedImage.objects.update(status=status)
        assert problem.repair
        assert problem.repair() is False
        image.refresh_from_db()
        assert image.status == status

    def test_a_file_that_was_adopted_meanwhile_gets_one_row_only(self, fake_provider: FakeProvider) -> None:
        name = store("item/hero-1763049170351.png")
        [orphan] = file_problems(delete_orphans=False, count=lambda _: None)
        [removable] = file_problems(delete_orphans=True, count=lambda _: None)
        assert orphan.contents
        assert removable.repair
        assert adopt({name: orphan.contents}) == {name: True}
        assert adopt({name: orphan.contents}) == {name: False}
        assert removable.repair() is False
        assert GeneratedImage.objects.count() == 1
        assert image_storage().exists(name)

    def test_a_file_that_was_deleted_meanwhile_gets_no_row(self, fake_provider: FakeProvider) -> None:
        names = [store(f"item/hero-176304917035{number}.png") for number in range(3)]
        problems = file_problems(delete_orphans=False, count=lambda _: None)
        files = {problem.name: problem.contents for problem in problems if problem.contents}
        image_storage().delete(names[1])
        assert adopt(files) == {names[0]: True, names[1]: False, names[2]: True}
        assert set(GeneratedImage.objects.values_list("file", flat=True)) == {names[0], names[2]}

    def test_a_storage_that_stops_answering_leaves_no_row(
        self, fake_provider: FakeProvider, settings: Settings
    ) -> None:
        store("item/hero-1763049170351.png")
        [problem] = file_problems(delete_orphans=False, count=lambda _: None)
        assert problem.contents
        use_storage(settings, BROKEN)
        [outcome] = adopt({problem.name: problem.contents}).values()
        assert isinstance(outcome, StorageError)
        assert not GeneratedImage.objects.exists()


class TestRun:
    def test_without_apply_nothing_is_changed_and_everything_told(
        self, fake_provider: FakeProvider, media_root: Path
    ) -> None:
        ready(status="deleting")
        stopped()
        (media_root / str(ready().file.name)).unlink()
        store("item/hero-1.png")
        before = list(GeneratedImage.objects.order_by("pk").values()), sorted(media_root.rglob("*"))
        found = [discrepancy.kind for discrepancy in reconcile(verify=True)]
        assert found == [Kind.STALE, Kind.HALF_DELETED, Kind.MISSING, Kind.ORPHAN]
        assert not any(discrepancy.mended for discrepancy in reconcile())
        assert before == (list(GeneratedImage.objects.order_by("pk").values()), sorted(media_root.rglob("*")))

    def test_what_cannot_be_mended_is_told_and_stops_nothing(
        self, fake_provider: FakeProvider, media_root: Path
    ) -> None:
        stuck = ready(status="deleting")
        place = media_root / str(stuck.file.name)
        place.unlink()
        (place / "in the way").mkdir(parents=True)
        stopped()
        found: list[Discrepancy] = list(reconcile(apply=True))
        assert [(discrepancy.kind, discrepancy.mended) for discrepancy in found] == [
            (Kind.STALE, True),
            (Kind.HALF_DELETED, False),
        ]
        assert "could not be removed" in found[1].sentence
        assert str(media_root) not in found[1].sentence

    @pytest.mark.django_db(transaction=True)
    def test_tells_other_apps_what_the_stopped_server_could_not(
        self, fake_provider: FakeProvider, media_root: Path
    ) -> None:
        kept, lost = stopped(), stopped()
        (media_root / f"{lost.file_stem}.png").unlink()
        heard = {}

        def listen(signal: Any, image: GeneratedImage, **_: Any) -> None:
            heard[image.pk] = (signal, image.status)

        signals.image_generated.connect(listen)
        signals.image_generation_failed.connect(listen)
        mend()
        signals.image_generated.disconnect(listen)
        signals.image_generation_failed.disconnect(listen)
        assert heard == {
            kept.pk: (signals.image_generated, "ready"),
            lost.pk: (signals.image_generation_failed, "failed"),
        }

    def test_asks_the_database_in_groups(
        self, fake_provider: FakeProvider, media_root: Path, django_assert_max_num_queries: Any
    ) -> None:
        images = []
        for number in range(2000):
            stem = f"draft-images/item-{number % 700}/hero-{number}"
            images.append(GeneratedImage(status="ready", file_stem=stem, file=f"{stem}.png", content_item_id="x"))
            path = media_root / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        GeneratedImage.objects.bulk_create(images)
        seen = []
        with django_assert_max_num_queries(20):
            assert list(reconcile(apply=True, progress=lambda stage, count: seen.append((stage, count)))) == []
        assert seen[3::4] == [("rows", 2000), ("files", 2000)]

    def test_makes_rows_in_groups(self, fake_provider: FakeProvider, django_assert_max_num_queries: Any) -> None:
        for number in range(150):
            store(f"item-{number // 7}/hero-{1763049170351 + number}.png")
        with django_assert_max_num_queries(25):
            assert mend() == [(Kind.ORPHAN, True)] * 150
