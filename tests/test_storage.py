from __future__ import annotations

import logging
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import FileSystemStorage, Storage
from pytest_django import Settings

from images import local_files, storage
from images.exceptions import StorageError
from images.models import GeneratedImage, image_storage
from tests.fakes.storages import BROKEN, CLOSING, COUNTING, IN_MEMORY, CountingStorage, VendorError, use_storage

STEM = "draft-images/item/hero-1763049170351-0123456789ab"
NAME = f"{STEM}.png"
DATA = os.urandom(200_000)


def files_below(root: Path) -> list[str]:
    """Every file, hidden ones too."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def small_disk(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    """A media root on a file system of its own, of 256 KB."""
    root = tmp_path / "small"
    root.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", root], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting needs root")
    settings.MEDIA_ROOT = str(root)
    yield root
    subprocess.run(["umount", root], check=True)


# --- saving ---------------------------------------------------------------------------------------------------


def test_a_file_is_stored_under_its_stem_and_nothing_else_is_left(media_root: Path) -> None:
    assert storage.save(STEM, "png", DATA) == NAME
    assert (media_root / NAME).read_bytes() == DATA
    assert files_below(media_root) == [NAME]


def test_an_empty_file_can_be_stored(media_root: Path) -> None:
    storage.save(STEM, "png", b"")

    assert (media_root / NAME).read_bytes() == b""


def test_a_taken_name_is_not_overwritten_and_the_new_one_returned(media_root: Path) -> None:
    storage.save(STEM, "png", b"first")
    other = storage.save(STEM, "png", b"second")

    assert other != NAME
    assert (media_root / NAME).read_bytes() == b"first"
    assert (media_root / other).read_bytes() == b"second"


def test_permissions_are_those_of_the_settings(settings: Settings, media_root: Path) -> None:
    settings.FILE_UPLOAD_PERMISSIONS = 0o640
    settings.FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o2751
    storage.save(STEM, "png", DATA)

    assert stat.S_IMODE((media_root / NAME).stat().st_mode) == 0o640
    assert stat.S_IMODE((media_root / NAME).parent.stat().st_mode) == 0o2751
    assert stat.S_IMODE((media_root / "draft-images").stat().st_mode) == 0o2751


def test_without_permissions_in_the_settings_the_umask_decides(settings: Settings, media_root: Path) -> None:
    settings.FILE_UPLOAD_PERMISSIONS = None
    umask = os.umask(0o027)
    try:
        storage.save(STEM, "png", DATA)
    finally:
        os.umask(umask)

    assert stat.S_IMODE((media_root / NAME).stat().st_mode) == 0o640


def test_a_fetchable_name_never_shows_half_a_file(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    inner = FileSystemStorage._save  # type: ignore[attr-defined]

    def look_before(self: FileSystemStorage, name: str, content: object) -> str:
        seen.extend(files_below(media_root))
        return str(inner(self, name, content))

    monkeypatch.setattr(FileSystemStorage, "_save", look_before)
    storage.save(STEM, "png", DATA)

    assert [Path(name).name.startswith(".") for name in seen] == [True]


def test_a_missing_media_root_is_an_error_and_stays_missing(media_root: Path) -> None:
    media_root.rmdir()

    with pytest.raises(StorageError, match="missing"):
        storage.save(STEM, "png", DATA)
    assert not media_root.exists()


def test_a_full_disk_is_reported_and_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(StorageError, match="disk is full"):
        storage.save(STEM, "png", DATA * 2)
    assert files_below(small_disk) == []

    assert storage.save(STEM, "png", b"small") == NAME  # once there is room, all goes on


def test_a_read_only_disk_is_reported(small_disk: Path) -> None:
    storage.save(STEM, "png", b"small")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    with pytest.raises(StorageError, match="not writable"):
        storage.save(STEM + "2", "png", b"small")
    with pytest.raises(StorageError, match="not writable"):
        storage.remove(NAME)
    with pytest.raises(StorageError, match="not writable"):
        storage.check_space(STEM)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_stops_half_way_leaves_nothing(media_root: Path) -> None:
    with largest_file(100_000), pytest.raises(StorageError, match="larger than"):
        storage.save(STEM, "png", DATA)

    assert files_below(media_root) == []


def test_a_failure_after_the_rename_leaves_nothing(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FileSystemStorage, path: str) -> None:
        raise PermissionError(1, "Operation not permitted", path)

    monkeypatch.setattr(FileSystemStorage, "_ensure_location_group_id", refuse)
    with pytest.raises(StorageError):
        storage.save(STEM, "png", DATA)

    assert files_below(media_root) == []


def test_a_failure_spares_the_file_that_was_there_before(media_root: Path) -> None:
    storage.save(STEM, "png", b"first")
    with largest_file(100_000), pytest.raises(StorageError):
        storage.save(STEM, "png", DATA)

    assert (media_root / NAME).read_bytes() == b"first"


def test_a_file_in_the_folders_place_is_an_error(media_root: Path) -> None:
    (media_root / "draft-images").write_bytes(b"not a folder")

    with pytest.raises(StorageError):
        storage.save(STEM, "png", DATA)


def test_a_stem_that_leads_out_of_the_media_root_is_refused(media_root: Path) -> None:
    with pytest.raises(StorageError):
        storage.save("draft-images/../../outside", "png", DATA)

    assert files_below(media_root.parent) == []


def test_errors_keep_paths_to_the_log(media_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    media_root.rmdir()
    with caplog.at_level(logging.ERROR, logger="images"), pytest.raises(StorageError) as caught:
        storage.save(STEM, "png", DATA)

    assert str(media_root) not in str(caught.value)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["storage_failed"]


# --- removing -------------------------------------------------------------------------------------------------


def test_removing_takes_the_file_and_its_empty_folder_and_can_be_repeated(media_root: Path) -> None:
    storage.save(STEM, "png", DATA)

    storage.remove(NAME)
    storage.remove(NAME)

    assert os.listdir(media_root / "draft-images") == []


def test_removing_keeps_the_folder_while_it_holds_another_file(media_root: Path) -> None:
    storage.save(STEM, "png", DATA)
    other = storage.save(STEM, "webp", DATA)

    storage.remove(NAME)

    assert files_below(media_root) == [other]


def test_removing_a_file_without_a_folder_of_its_own_keeps_the_root(media_root: Path) -> None:
    name = storage.save("draft-images/old", "png", DATA)
    storage.remove(name)

    assert (media_root / "draft-images").is_dir()


@pytest.mark.parametrize(
    "name", ["other/upload.png", "draft-images/../upload.png", "/etc/passwd", "", "draft-images/"]
)
def test_other_uploads_are_not_removed(media_root: Path, name: str) -> None:
    (media_root / "draft-images").mkdir()
    (media_root / "other").mkdir()
    (media_root / "other" / "upload.png").write_bytes(DATA)
    (media_root / "upload.png").write_bytes(DATA)

    with pytest.raises(StorageError):
        storage.remove(name)
    assert files_below(media_root) == ["other/upload.png", "upload.png"]


def test_a_file_on_a_vanished_disk_is_not_taken_for_removed(media_root: Path) -> None:
    storage.save(STEM, "png", DATA)
    media_root.rename(media_root.with_name("elsewhere"))

    with pytest.raises(StorageError, match="missing"):
        storage.remove(NAME)


def test_a_file_that_cannot_be_removed_is_reported(media_root: Path) -> None:
    (media_root / NAME / "a folder that is not empty").mkdir(parents=True)

    with pytest.raises(StorageError, match="could not be removed") as caught:
        storage.remove(NAME)
    assert str(media_root) not in str(caught.value)


def test_a_folder_that_a_rival_removes_is_made_again(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, rivals = local_files._make_folders, iter([os.rmdir, os.rmdir])

    def make_then_lose(storage: Storage, folder: str) -> None:
        inner(storage, folder)
        next(rivals, str)(folder)

    monkeypatch.setattr(local_files, "_make_folders", make_then_lose)

    assert storage.save(STEM, "png", DATA) == NAME


def test_saving_and_removing_at_once_in_one_folder_never_fails(media_root: Path) -> None:
    failures: list[StorageError] = []

    def work(worker: int) -> None:
        try:
            for count in range(50):
                storage.remove(storage.save(f"{STEM}-{worker}-{count}", "png", b"data"))
        except StorageError as err:
            failures.append(err)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert files_below(media_root) == []


# --- looking before paying ------------------------------------------------------------------------------------


def test_space_is_fine_before_the_first_file_and_nothing_is_written(media_root: Path) -> None:
    storage.check_space(STEM)

    assert storage.storage_problem() is None
    assert os.listdir(media_root) == []


def test_too_little_space_is_seen_before_paying(settings: Settings) -> None:
    settings.IMAGES = {"MIN_FREE_BYTES": 2**62}

    with pytest.raises(StorageError, match="disk is full"):
        storage.check_space(STEM)


def test_a_disk_without_room_for_one_more_file_is_full(settings: Settings, small_disk: Path) -> None:
    settings.IMAGES = {"MIN_FREE_BYTES": 0}
    storage.check_space(STEM)
    subprocess.run(["mount", "-o", "remount,nr_inodes=1", small_disk], check=True)

    with pytest.raises(StorageError, match="disk is full"):
        storage.check_space(STEM)


def recorded_image(**fields: Any) -> GeneratedImage:
    values = {"content_item_id": "item", "title": "A title", "file_stem": STEM, "file": NAME, "status": "ready"}
    return GeneratedImage.objects.create(**values | fields)


@pytest.mark.django_db
def test_the_first_image_of_all_makes_the_media_root(settings: Settings, media_root: Path) -> None:
    settings.FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o2751
    media_root.rmdir()
    recorded_image(status="pending", file="")

    storage.check_space(STEM)

    assert stat.S_IMODE(media_root.stat().st_mode) == 0o2751
    storage.check_space(STEM)


@pytest.mark.django_db
def test_a_media_root_is_made_at_any_depth_as_the_check_promises(settings: Settings, tmp_path: Path) -> None:
    settings.FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o2751
    settings.MEDIA_ROOT = str(tmp_path / "volume" / "deep" / "media")

    assert local_files.unwritable_reason(settings.MEDIA_ROOT) == ""
    storage.check_space(STEM)
    assert storage.save(STEM, "png", DATA) == NAME
    assert stat.S_IMODE((tmp_path / "volume").stat().st_mode) == 0o2751


@pytest.mark.django_db
def test_a_media_root_that_cannot_be_made_is_an_error_that_the_check_foresees(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    settings.MEDIA_ROOT = str(tmp_path / "file" / "deep" / "media")

    assert local_files.unwritable_reason(settings.MEDIA_ROOT) == "not a directory"
    with pytest.raises(StorageError, match="missing"):
        storage.check_space(STEM)


@pytest.mark.parametrize("name", ["O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"])
def test_the_app_can_be_imported_without_posix_flags(name: str) -> None:
    """As on Windows. In a process of its own, since modules are imported once."""
    code = f"import os; del os.{name}; import images.local_files"
    subprocess.run([sys.executable, "-c", code], check=True, env={"DJANGO_SETTINGS_MODULE": "tests.settings"})


@pytest.mark.django_db
@pytest.mark.parametrize("status", ["ready", "deleting"])
def test_a_missing_media_root_is_seen_before_paying_where_there_are_images(media_root: Path, status: str) -> None:
    media_root.rmdir()
    recorded_image(status=status)

    with pytest.raises(StorageError, match="missing"):
        storage.check_space(STEM)
    assert not media_root.exists()


def test_the_health_sentence_holds_no_path(media_root: Path) -> None:
    media_root.rmdir()
    problem = storage.storage_problem()

    assert problem
    assert str(media_root) not in problem


def test_an_item_folder_that_is_a_file_is_seen_before_paying(media_root: Path) -> None:
    (media_root / "draft-images").mkdir()
    (media_root / "draft-images" / "item").write_bytes(b"")

    with pytest.raises(StorageError):
        storage.check_space(STEM)


# --- storages elsewhere ---------------------------------------------------------------------------------------


def test_a_remote_storage_is_handed_the_bytes(settings: Settings, media_root: Path) -> None:
    use_storage(settings, IN_MEMORY)
    storage.check_space(STEM)

    name = storage.save(STEM, "png", DATA)
    with image_storage().open(name) as file:
        assert file.read() == DATA
    storage.remove(name)
    storage.remove(name)

    assert not image_storage().exists(name)
    assert files_below(media_root) == []


def test_a_remote_storages_own_errors_become_storage_errors(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    use_storage(settings, BROKEN)

    for action in (lambda: storage.save(STEM, "png", DATA), lambda: storage.remove(NAME)):
        with caplog.at_level(logging.ERROR, logger="images"), pytest.raises(StorageError) as caught:
            action()
        assert isinstance(caught.value.__cause__, VendorError)
        assert "bucket" not in str(caught.value)
    assert len(caplog.records) == 2
    problem = storage.storage_problem()
    assert problem
    assert "bucket" not in problem
    with pytest.raises(StorageError):
        storage.check_space(STEM)


def test_a_remote_storage_is_not_asked_before_a_file_is_saved_unless_its_name_may_be_taken(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_storage(settings, COUNTING)
    calls: list[tuple[str, str]] = []
    monkeypatch.setattr(CountingStorage, "calls", calls)
    assert storage.save(STEM, "png", DATA) == storage.save(STEM, "png", DATA) == NAME
    assert calls == []
    assert storage.save(STEM, "png", b"another", ask_first=True) != NAME
    assert ("exists", NAME) in calls


def test_a_file_that_waits_for_a_remote_storage_takes_no_memory_unless_the_disk_is_full(
    settings: Settings, tmp_path: Path
) -> None:
    use_storage(settings, IN_MEMORY)
    with storage.spool(DATA) as waiting:
        assert not isinstance(waiting, BytesIO)
        assert storage.save(STEM, "png", waiting) == NAME
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "none")
    with storage.spool(DATA) as waiting:
        assert isinstance(waiting, BytesIO)


def test_a_file_that_waits_has_no_name_and_can_be_read_by_nobody_else(settings: Settings, tmp_path: Path) -> None:
    use_storage(settings, IN_MEMORY)
    folder = tmp_path / "temporary"
    folder.mkdir()
    settings.FILE_UPLOAD_TEMP_DIR = str(folder)
    with storage.spool(DATA) as waiting:
        assert stat.S_IMODE(os.fstat(waiting.fileno()).st_mode) & 0o177 == 0
        assert list(folder.iterdir()) == []


def test_a_storage_that_closes_what_it_is_given_can_be_tried_again(settings: Settings) -> None:
    use_storage(settings, CLOSING)
    with storage.spool(DATA) as waiting:
        with pytest.raises(StorageError):
            storage.save(STEM, "png", waiting)
        assert storage.save(STEM, "png", waiting) == NAME
    assert storage.read(NAME) == DATA
