"""`generate_image` from Python: what is kept, what is refused, and what is never lost."""

from __future__ import annotations

import hashlib
import inspect
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.db.models.signals import post_save
from django.dispatch import Signal
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import Settings

from images import signals
from images.exceptions import (
    ImageNotFound,
    ImagesError,
    InvalidRequest,
    OpenTransactionError,
    ProviderBadImage,
    ProviderTimeout,
    StorageError,
    TooManyGenerations,
)
from images.models import GeneratedImage
from images.providers.http import responses_in_memory
from images.services import agenerate_image, delete_image, generate_image, generate_image_later
from images.services.reconciliation import reconcile
from tests.fakes.doctor import Configure
from tests.fakes.providers import FakeProvider, Gate, png
from tests.fakes.storages import OnceFullStorage, free_places, use_storage
from tests.services.wrecks import Failing

WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.django_db
class TestLedger:
    def test_keeps_what_was_made_and_what_it_took(self, fake_provider: FakeProvider, media_root: Path) -> None:
        image = generate_image(**WANTED, seed=7)
        image.refresh_from_db()
        assert image.status == "ready"
        assert (image.width, image.height, image.mime_type, image.size_bytes) == (16, 9, "image/png", len(png()))
        assert image.sha256 == hashlib.sha256(png()).hexdigest()
        assert (media_root / image.file_name).read_bytes() == png()
        assert image.usage == {"total_tokens": 1234}
        assert image.prompt == fake_provider.requests[0].prompt
        assert (image.seed, fake_provider.requests[0].seed) == (7, 7)
        assert image.style
        assert image.duration_ms is not None
        [attempt] = image.attempts
        assert (attempt["provider"], attempt["model"], attempt["code"]) == ("test", "test-model-1", "ok")
        assert attempt["request_id"] == "req-1"

    def test_unknown_usage_is_unknown_and_not_zero(self, fake_provider: FakeProvider) -> None:
        fake_provider.usage = None
        assert generate_image(**WANTED).usage is None

    def test_a_model_of_any_name_does_not_cost_the_picture(self, fake_provider: FakeProvider) -> None:
        fake_provider.model = "x" * 500
        image = generate_image(**WANTED)
        assert (image.status, image.model) == ("ready", "x" * 128)

    def test_the_same_seed_repeats_the_prompt_and_others_vary_it(self, fake_provider: FakeProvider) -> None:
        prompts = {seed: generate_image(**WANTED, seed=seed).prompt for seed in range(6)}
        assert generate_image(**WANTED, seed=3).prompt == prompts[3]
        assert len(set(prompts.values())) > 1

    def test_two_at_the_same_millisecond_do_not_collide(
        self, fake_provider: FakeProvider, monkeypatch: Any, media_root: Path
    ) -> None:
        now = generate_image(**WANTED).created_at
        monkeypatch.setattr("django.utils.timezone.now", lambda: now)
        generate_image(**WANTED)
        generate_image(**WANTED)
        assert len(files(media_root)) == 3


@pytest.mark.django_db
class TestRefusals:
    @pytest.mark.parametrize(
        "wrong",
        [{"title": " "}, {"title": "x" * 501}, {"content_item_id": ""}, {"variant": "poster"}, {"seed": -1},
         {"description": 7.5}, {"title": None}, {"title": "a\x00"}, {"idempotency_key": "x" * 256}],
    )  # fmt: skip
    def test_wrong_arguments_cost_nothing(self, fake_provider: FakeProvider, wrong: dict[str, Any]) -> None:
        with pytest.raises(InvalidRequest):
            generate_image(**{**WANTED, **wrong})
        assert not fake_provider.requests
        assert not GeneratedImage.objects.exists()

    @pytest.mark.parametrize("data", [b"<svg/>", b"<!DOCTYPE html>", b"", png()[:-5], b"GIF89a" + b"\0" * 50])
    def test_what_is_no_whole_picture_is_never_stored(
        self, fake_provider: FakeProvider, media_root: Path, data: bytes
    ) -> None:
        fake_provider.will(data)
        with pytest.raises(ProviderBadImage):
            generate_image(**WANTED)
        assert not files(media_root)
        assert GeneratedImage.objects.get().error_code == "provider_bad_image"

    def test_a_picture_above_the_limit_on_pixels_is_refused(self, fake_provider: FakeProvider, settings: Any) -> None:
        settings.IMAGES = {**settings.IMAGES, "MAX_IMAGE_PIXELS": 100}
        with pytest.raises(ProviderBadImage):
            generate_image(**WANTED)

    def test_a_root_that_cannot_be_written_is_seen_before_paying(
        self, fake_provider: FakeProvider, media_root: Path
    ) -> None:
        media_root.rmdir()
        media_root.write_text("a file where the folder should be")
        with pytest.raises(StorageError):
            generate_image(**WANTED)
        assert not fake_provider.requests
        assert GeneratedImage.objects.get().error_code == "storage_error"


@pytest.mark.django_db(transaction=True)
class TestDatabase:
    def test_refuses_inside_somebodys_transaction_before_paying(self, fake_provider: FakeProvider) -> None:
        with pytest.raises(OpenTransactionError, match="non_atomic_requests"), transaction.atomic():
            generate_image(**WANTED)
        assert not fake_provider.requests

    def test_holds_no_transaction_and_no_connection_while_the_provider_works(
        self, fake_provider: FakeProvider, settings: Any
    ) -> None:
        seen: list[tuple[bool, int]] = []

        def look(_: Any) -> bytes:
            seen.append((connection.in_atomic_block, GeneratedImage.objects.filter(status="pending").count()))
            return png()

        fake_provider.will(look)
        generate_image(**WANTED)
        assert seen == [(False, 1)]

    def test_writes_without_opening_a_transaction(self, fake_provider: FakeProvider) -> None:
        with CaptureQueriesContext(connection) as queries:
            generate_image(**WANTED)
        words = [query["sql"].split()[0] for query in queries]
        assert words.count("INSERT") == words.count("UPDATE") == 1
        assert not {"BEGIN", "SAVEPOINT", "COMMIT"}.intersection(words)

    @pytest.mark.parametrize("error", [RuntimeError, IntegrityError])
    def test_a_receiver_that_forbids_a_row_leaves_none_and_nothing_is_paid(
        self, fake_provider: FakeProvider, error: type[Exception]
    ) -> None:
        def forbid(created: bool, **_: Any) -> None:
            raise error("The host's receiver of post_save does not want it.")

        post_save.connect(forbid, GeneratedImage)
        try:
            with pytest.raises(error):
                generate_image(**WANTED, idempotency_key="k")
        finally:
            post_save.disconnect(forbid, GeneratedImage)
        assert not GeneratedImage.objects.exists()
        assert not fake_provider.requests
        assert generate_image(**WANTED, idempotency_key="k").is_ready

    def test_a_row_deleted_meanwhile_leaves_no_file(self, fake_provider: FakeProvider, media_root: Path) -> None:
        def delete(_: Any) -> bytes:
            delete_image(image=GeneratedImage.objects.get())
            return png()

        fake_provider.will(delete)
        with pytest.raises(ImageNotFound):
            generate_image(**WANTED)
        assert not files(media_root)
        assert not GeneratedImage.objects.exists()

    def test_a_row_declared_failed_meanwhile_becomes_ready_all_the_same(self, fake_provider: FakeProvider) -> None:
        def declare_failed(_: Any) -> bytes:
            GeneratedImage.objects.update(status="failed")
            return png()

        fake_provider.will(declare_failed)
        assert generate_image(**WANTED).status == "ready"
        assert GeneratedImage.objects.get().status == "ready"

    def test_an_interrupted_command_leaves_a_failed_row(self, fake_provider: FakeProvider) -> None:
        fake_provider.will(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            generate_image(**WANTED)
        image = GeneratedImage.objects.get()
        assert (image.status, image.error_code) == ("failed", "cancelled")
        assert image.may_have_billed
        assert "may have charged" in image.error_message


@pytest.mark.django_db(transaction=True)
def test_at_the_concurrency_limit_the_next_is_turned_away_at_once(fake_provider: FakeProvider, settings: Any) -> None:
    settings.IMAGES = {**settings.IMAGES, "MAX_CONCURRENCY": 1}
    gate = Gate()
    fake_provider.will(gate)

    def first() -> str:
        try:
            return generate_image(**WANTED).status
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(first)
        assert gate.entered.acquire(timeout=30)
        with pytest.raises(TooManyGenerations) as turned_away:
            generate_image(**WANTED)
        gate.open.set()
        assert running.result() == "ready"
    assert turned_away.value.retry_after
    assert generate_image(**WANTED).status == "ready"


@pytest.mark.django_db(transaction=True)
class TestSignals:
    @pytest.fixture
    def heard(self) -> Any:
        heard: list[tuple[Signal, dict[str, Any]]] = []
        ours = (signals.image_generated, signals.image_generation_failed, signals.image_deleted)

        def listen(signal: Signal, **kwargs: Any) -> None:
            assert not connection.in_atomic_block
            heard.append((signal, kwargs))
            raise RuntimeError("a receiver of the host's that is broken")

        for signal in ours:
            signal.connect(listen)
        yield heard
        for signal in ours:
            signal.disconnect(listen)

    def test_tell_of_everything_and_a_broken_receiver_hurts_nobody(
        self, fake_provider: FakeProvider, heard: Any
    ) -> None:
        image = generate_image(**WANTED)
        fake_provider.will(ProviderTimeout())
        with pytest.raises(ProviderTimeout):
            generate_image(**WANTED)
        delete_image(image=image)
        assert [signal for signal, _ in heard] == [
            signals.image_generated, signals.image_generation_failed, signals.image_deleted,
        ]  # fmt: skip
        assert heard[0][1]["image"] == image
        assert heard[1][1]["error"].code == "provider_timeout"
        assert heard[2][1]["image"].pk == image.pk


@pytest.mark.django_db(transaction=True)
class TestPaidFor:
    def test_a_database_that_fails_shortly_does_not_cost_the_picture(self, fake_provider: FakeProvider) -> None:
        with connection.execute_wrapper(Failing(2, "UPDATE")):
            image = generate_image(**WANTED)
        image.refresh_from_db()
        assert image.status == "ready"

    def test_a_picture_that_cannot_be_recorded_stays_and_is_found(
        self, fake_provider: FakeProvider, media_root: Path, caplog: pytest.LogCaptureFixture, settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        settings.IMAGES = {**settings.IMAGES, "DEADLINE": 1}
        fake_provider.usage = {"total_tokens": 1234, "cost": 0.04}
        monkeypatch.setattr("images.services.generation.WRITE_PATIENCE", 0)
        with (
            connection.execute_wrapper(Failing(100, "UPDATE")),
            pytest.raises(ImagesError, match="could not be recorded") as caught,
        ):
            generate_image(**WANTED)
        assert (caught.value.code, caught.value.retryable) == ("internal_error", False)
        assert "generation_unrecorded" in caplog.text
        assert [path.read_bytes() for path in files(media_root) if path.suffix == ".png"] == [png()]
        GeneratedImage.objects.update(deadline_at="2000-01-01T00:00:00Z")
        list(reconcile(apply=True))
        row = GeneratedImage.objects.get()
        assert row.status == "ready"
        assert len(fake_provider.requests) == 1
        assert (row.provider, row.model, row.usage) == ("test", "test-model-1", {"total_tokens": 1234, "cost": 0.04})
        assert (row.cost, row.cost_basis) == (Decimal("0.04"), "reported")
        assert [attempt["code"] for attempt in row.attempts] == ["ok"]
        assert [path.read_bytes() for path in files(media_root)] == [png()]

    def test_a_picture_that_waits_for_a_full_disk_keeps_no_other_answer_from_being_read(
        self, configure: Configure, media_root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        configure()
        settings.IMAGES = {**settings.IMAGES, "STORAGE_TIMEOUT": 20}
        use_storage(settings, "tests.fakes.storages.OnceFullStorage")
        monkeypatch.setattr("images.services.generation.FIRST_STORAGE_PAUSE", 0.01)
        monkeypatch.setattr(OnceFullStorage, "seen", [])
        image = generate_image(**WANTED)
        assert image.status == "ready"
        assert len((media_root / image.file_name).read_bytes()) == image.size_bytes
        with responses_in_memory:
            all_but_one = free_places()
        assert OnceFullStorage.seen == [all_but_one, all_but_one + 1]


@pytest.mark.parametrize("function", [generate_image, agenerate_image, generate_image_later])
def test_help_and_editors_see_every_argument(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    assert list(parameters) == [
        "content_item_id", "title", "description", "variant", "user", "idempotency_key", "idempotency_scope", "seed",
        "context", "new_scene",
    ]  # fmt: skip
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert [name for name, one in parameters.items() if one.default is one.empty] == ["content_item_id", "title"]
    assert inspect.iscoroutinefunction(function) == (function is agenerate_image)


if TYPE_CHECKING:  # mypy sees them too: it reports an `ignore` that it does not need

    async def _typed() -> None:
        assert_type(generate_image(content_item_id="x", title="x", seed=1), GeneratedImage)
        assert_type(await agenerate_image(content_item_id="x", title="x"), GeneratedImage)
        generate_image_later(content_item_id="x")  # type: ignore[call-arg]
        generate_image(content_item_id="x", title="x", seed="1")  # type: ignore[arg-type]
