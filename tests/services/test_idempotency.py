"""One image for one idempotency key, however often it is asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone
from rest_framework.test import APIClient

from images.exceptions import IdempotencyKeyReused, ProviderTimeout, RequestInProgress
from images.models import GeneratedImage
from images.services import delete_image, generate_image, run_generation
from tests.conftest import client_for
from tests.fakes.providers import FakeProvider, Gate, png
from tests.services.test_queue import queued

WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}
BODY = {"contentItemId": "item-1", "title": "A quiet harbour at dawn"}
KEY = "order-66"


def keyed(**changes: Any) -> GeneratedImage:
    return generate_image(**{**WANTED, "idempotency_key": KEY, **changes})


def write_as_the_earlier_release(image: GeneratedImage) -> None:
    """Write the row anew as code writes it that knows only the columns of the first release."""
    state = MigrationLoader(connection).project_state([("images", "0002_compare_identities_to_the_letter")])
    columns = [field.column for field in state.apps.get_model("images", "GeneratedImage")._meta.concrete_fields]
    names = ", ".join(map(connection.ops.quote_name, columns))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {names} FROM {GeneratedImage._meta.db_table}")
        [row] = cursor.fetchall()
        cursor.execute(f"DELETE FROM {GeneratedImage._meta.db_table}")
        places = ", ".join(["%s"] * len(row))
        cursor.execute(f"INSERT INTO {GeneratedImage._meta.db_table} ({names}) VALUES ({places})", row)


@pytest.mark.django_db
class TestService:
    def test_the_same_key_and_content_is_the_same_image_paid_once(self, fake_provider: FakeProvider) -> None:
        first, again = keyed(), keyed()
        assert (first.pk, first.replayed) == (again.pk, False)
        assert again.replayed
        assert len(fake_provider.requests) == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"title": "Other"},
            {"content_item_id": "item-2"},
            {"variant": "inline"},
            {"description": "Other"},
            {"context": "For children"},
        ],
    )
    def test_the_same_key_with_other_content_is_refused(
        self, fake_provider: FakeProvider, change: dict[str, str]
    ) -> None:
        keyed()
        with pytest.raises(IdempotencyKeyReused):
            keyed(**change)
        assert len(fake_provider.requests) == 1

    def test_a_key_from_before_there_was_a_context_stands_for_the_same_as_ever(
        self, fake_provider: FakeProvider
    ) -> None:
        first = keyed(context=None)
        write_as_the_earlier_release(first)
        assert keyed().pk == keyed(context="  ").pk == first.pk
        with pytest.raises(IdempotencyKeyReused):
            keyed(context="For children")
        with_context = keyed(idempotency_key="other", context="For children")
        assert keyed(idempotency_key="other", context=" For children\n").pk == with_context.pk
        assert len(fake_provider.requests) == 2

    def test_a_failed_attempt_does_not_use_the_key_up_even_for_other_content(
        self, fake_provider: FakeProvider
    ) -> None:
        fake_provider.will(ProviderTimeout())
        with pytest.raises(ProviderTimeout):
            keyed()
        assert keyed(title="Reworded").status == "ready"
        assert GeneratedImage.objects.count() == 2

    def test_after_the_image_was_deleted_a_new_one_is_made(self, fake_provider: FakeProvider) -> None:
        delete_image(image=keyed())
        assert not keyed().replayed
        assert len(fake_provider.requests) == 2

    def test_a_key_expires(self, fake_provider: FakeProvider, settings: Any) -> None:
        first = keyed()
        GeneratedImage.objects.update(created_at=timezone.now() - timedelta(hours=24, seconds=1))
        second = keyed()
        assert second.pk != first.pk
        assert keyed().pk == second.pk
        settings.IMAGES = {**settings.IMAGES, "IDEMPOTENCY_TTL": 0}
        assert not keyed().replayed

    def test_keys_are_each_users_own(self, fake_provider: FakeProvider, user: User, stranger: User) -> None:
        pks = {keyed(user=user).pk, keyed(user=stranger).pk, keyed().pk, keyed(idempotency_scope="cron").pk}
        assert len(pks) == 4
        assert keyed(user=user).pk in pks

    def test_while_the_first_is_under_way_the_second_is_told_to_wait(self, fake_provider: FakeProvider) -> None:
        told: list[Any] = []

        def ask_again(_: Any) -> bytes:
            with pytest.raises(RequestInProgress) as waiting:
                keyed()
            told.append((waiting.value.retry_after, waiting.value.image))
            return png()

        fake_provider.will(ask_again)
        image = keyed()
        assert told == [(5, image)]

    def test_a_killed_process_blocks_no_key(self, fake_provider: FakeProvider) -> None:
        GeneratedImage.objects.create(
            **WANTED, file_stem="s", idempotency_scope="process", idempotency_key=KEY,
            deadline_at=timezone.now() - timedelta(minutes=5),
        )  # fmt: skip
        assert keyed().status == "ready"

    def test_a_picture_that_a_killed_process_had_stored_is_not_paid_for_again(
        self, fake_provider: FakeProvider, media_root: Path
    ) -> None:
        stem = "draft-images/item-1/hero-1763049170351-0123456789ab"
        row = GeneratedImage.objects.create(
            **WANTED, file_stem=stem, idempotency_scope="process", idempotency_key=KEY,
            deadline_at=timezone.now() - timedelta(minutes=5),
        )  # fmt: skip
        (media_root / stem).parent.mkdir(parents=True)
        (media_root / f"{stem}.png").write_bytes(png())
        again = keyed()
        assert (again.pk, again.status, again.replayed) == (row.pk, "ready", True)
        assert not fake_provider.requests

    def test_without_a_key_every_request_makes_its_own(self, fake_provider: FakeProvider) -> None:
        assert len({generate_image(**WANTED).pk for _ in range(3)}) == 3


@pytest.mark.django_db(transaction=True)
def test_many_racing_with_one_key_make_one_call(fake_provider: FakeProvider) -> None:
    gate = Gate()
    fake_provider.will(gate)

    def ask(_: int) -> str:
        try:
            return str(keyed().pk)
        except RequestInProgress:
            return "wait"
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(ask, number) for number in range(8)]
        early = list(islice(as_completed(running, timeout=30), 7))  # all but the winner, who still waits at the gate
        gate.open.set()
        answers = [future.result() for future in running]
    assert [future.result() for future in early] == ["wait"] * 7
    assert answers.count("wait") == 7
    assert len(fake_provider.requests) == 1
    assert GeneratedImage.objects.count() == 1


@pytest.mark.django_db
class TestAPI:
    @pytest.mark.parametrize(("url", "status"), [("/api/images/generate", 200), ("/api/images/", 201)])
    def test_a_replay_says_so_and_has_the_first_answer(
        self, api: APIClient, fake_provider: FakeProvider, url: str, status: int
    ) -> None:
        first = api.post(url, BODY, format="json", headers={"idempotency-key": KEY})
        again = api.post(url, BODY, format="json", headers={"idempotency-key": KEY})
        assert (first.status_code, again.status_code) == (status, status)
        assert "Idempotency-Replayed" not in first
        assert again["Idempotency-Replayed"] == "true"
        assert again.json() == first.json()

    def test_other_content_is_a_422(self, api: APIClient, fake_provider: FakeProvider) -> None:
        api.post("/api/images/generate", BODY, format="json", headers={"idempotency-key": KEY})
        answer = api.post(
            "/api/images/generate", {**BODY, "title": "x"}, format="json", headers={"idempotency-key": KEY}
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")

    @pytest.mark.parametrize("prefer", [None, "respond-async"])
    def test_without_a_queue_a_running_one_is_a_409_that_names_it(
        self, api: APIClient, user: User, fake_provider: FakeProvider, prefer: str | None
    ) -> None:
        row = GeneratedImage.objects.create(
            **WANTED, owner=user, file_stem="s", idempotency_scope=f"user:{user.pk}", idempotency_key=KEY,
            deadline_at=timezone.now() + timedelta(minutes=1),
        )  # fmt: skip
        headers = {"idempotency-key": KEY} | ({"prefer": prefer} if prefer else {})
        answer = api.post("/api/images/generate", BODY, format="json", headers=headers)
        body, location = answer.json(), f"https://pics.example/api/images/{row.pk}"
        assert (answer.status_code, body["code"], body["id"]) == (409, "request_in_progress", str(row.pk))
        assert (answer["Location"], body["statusUrl"]) == (location, location)
        assert answer["Retry-After"] == "5"
        assert body["retryable"] is True

    @pytest.mark.parametrize("key", ["", "   ", "x" * 256, "a\tb", "a\x01"])
    def test_a_key_that_is_none_is_a_400(self, api: APIClient, fake_provider: FakeProvider, key: str) -> None:
        answer = api.post("/api/images/generate", BODY, format="json", headers={"idempotency-key": key})
        assert answer.status_code == 400
        assert set(answer.json()["details"]) == {"Idempotency-Key"}

    def test_a_stranger_cannot_replay_somebodys_key(
        self, api: APIClient, stranger: User, fake_provider: FakeProvider
    ) -> None:
        mine = api.post("/api/images/generate", BODY, format="json", headers={"idempotency-key": KEY})
        theirs = client_for(stranger).post(
            "/api/images/generate", BODY, format="json", headers={"idempotency-key": KEY}
        )
        assert mine.json()["id"] != theirs.json()["id"]


@pytest.mark.django_db(transaction=True)
class TestQueued:
    """The same request leads to the same place, before, while and after a worker makes the image."""

    def ask(self, api: APIClient, prefer: str) -> Any:
        headers = {"idempotency-key": KEY, "prefer": prefer}
        return api.post("/api/images/generate", BODY, format="json", headers=headers)

    def test_a_repetition_is_told_the_same_place_and_may_wait_there(
        self, api: APIClient, fake_provider: FakeProvider, settings: Any
    ) -> None:
        queued.clear()
        settings.IMAGES = {**settings.IMAGES, "QUEUE": "tests.services.test_queue.enqueue"}
        first, again, short = (self.ask(api, prefer) for prefer in ("respond-async", "respond-async", "wait=0"))
        assert {answer.status_code for answer in (first, again, short)} == {202}
        assert len({(each["Location"], each.json()["id"], each.json()["statusUrl"]) for each in (first, again)}) == 1
        assert (again["Preference-Applied"], short["Preference-Applied"]) == ("respond-async", "wait=0")
        assert queued == [first.json()["id"]]
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.ask, api, "wait=30")
            pool.submit(connections.close_all)
            run_generation(first.json()["id"])
            assert (waiting.result().status_code, waiting.result().json()["id"]) == (200, first.json()["id"])
        assert len(fake_provider.requests) == 1

    def test_other_content_is_still_a_422(self, api: APIClient, fake_provider: FakeProvider, settings: Any) -> None:
        settings.IMAGES = {**settings.IMAGES, "QUEUE": "tests.services.test_queue.enqueue"}
        self.ask(api, "respond-async")
        headers = {"idempotency-key": KEY, "prefer": "respond-async"}
        answer = api.post("/api/images/generate", {**BODY, "title": "x"}, format="json", headers=headers)
        assert answer.json()["code"] == "idempotency_key_reused"
