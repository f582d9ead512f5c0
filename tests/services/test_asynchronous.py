"""`agenerate_image`: the loop goes on, nothing paid for is lost, no connection is left behind."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from images.exceptions import InvalidRequest, OpenTransactionError, TooManyGenerations
from images.models import GeneratedImage
from images.services import agenerate_image
from images.signals import image_generated
from tests.fakes.providers import FakeProvider, Gate

WANTED: dict[str, Any] = {"content_item_id": "item-1", "title": "A quiet harbour at dawn"}


async def entered(gate: Gate) -> None:
    """Wait until the painting has begun. The loop stays free meanwhile."""
    assert await asyncio.to_thread(gate.entered.acquire, timeout=30)


def generation_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("images-generation")]


@pytest.mark.django_db
def test_works_inside_a_test_cases_transaction(fake_provider: FakeProvider) -> None:
    image = async_to_sync(agenerate_image)(**WANTED, seed=7)
    assert GeneratedImage.objects.get() == image
    assert (image.status, image.seed) == ("ready", 7)


@pytest.mark.django_db(transaction=True)
class TestOwnThread:
    def test_twenty_wait_at_once_while_the_loop_goes_on(self, fake_provider: FakeProvider) -> None:
        gate = Gate()
        fake_provider.will(*[gate] * 20)

        async def main() -> list[GeneratedImage]:
            tasks = [asyncio.create_task(agenerate_image(**WANTED)) for _ in range(20)]
            for _ in tasks:
                await entered(gate)
            gate.open.set()  # reached only where all twenty wait and none holds up the loop
            return await asyncio.gather(*tasks)

        assert len({image.pk for image in asyncio.run(main())}) == 20
        assert GeneratedImage.objects.filter(status="ready").count() == 20

    def test_beyond_the_limit_the_answer_is_prompt(self, fake_provider: FakeProvider, settings: Any) -> None:
        settings.IMAGES = {**settings.IMAGES, "MAX_CONCURRENCY": 1}
        gate = Gate()
        fake_provider.will(gate)

        async def main() -> None:
            first = asyncio.create_task(agenerate_image(**WANTED))
            await entered(gate)
            with pytest.raises(TooManyGenerations):
                await agenerate_image(**WANTED)
            gate.open.set()
            await first

        asyncio.run(main())

    @pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_cancelled_callers_image_is_stored_all_the_same(self, fake_provider: FakeProvider) -> None:
        gate = Gate()
        fake_provider.will(gate)

        async def main() -> None:
            task = asyncio.create_task(agenerate_image(**WANTED))
            await entered(gate)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())  # the loop is closed before the picture is there
        [thread] = generation_threads()
        gate.open.set()
        thread.join(30)
        assert GeneratedImage.objects.get().status == "ready"

    def test_the_threads_connection_is_closed_at_its_end(self, fake_provider: FakeProvider) -> None:
        used: list[BaseDatabaseWrapper] = []

        def keep(**_: Any) -> None:
            used.append(connections["default"])
            used[0].ensure_connection()

        image_generated.connect(keep)
        try:
            asyncio.run(agenerate_image(**WANTED))
        finally:
            image_generated.disconnect(keep)
        assert used[0] is not connections["default"]
        assert used[0].connection is None

    def test_refuses_inside_somebodys_transaction(self, fake_provider: FakeProvider) -> None:
        with transaction.atomic(), pytest.raises(OpenTransactionError, match="on_commit"):
            async_to_sync(agenerate_image)(**WANTED)
        assert not fake_provider.requests

    def test_errors_reach_the_caller(self, fake_provider: FakeProvider) -> None:
        with pytest.raises(InvalidRequest):
            asyncio.run(agenerate_image(content_item_id="item-1", title=" "))
