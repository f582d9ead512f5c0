"""The same with a real RabbitMQ, which gives the task of a dead worker to the next one at once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from celery import Celery

from tests.queue.conftest import Install
from tests.queue.installation import Installation, kill
from tests.queue.services import PATIENCE, listens, need, until

pytestmark = pytest.mark.slow

BROKER = "amqp://guest:guest@127.0.0.1:5672//"


@pytest.fixture
def queue() -> Iterator[str]:
    """A queue of the test's own."""
    need(listens(5672), "RabbitMQ on port 5672")
    name = f"trygo-test-{uuid.uuid4()}"
    yield name
    with Celery(broker=BROKER).connection_for_write() as connection:
        connection.default_channel.queue_delete(name)


def kill_while_it_works(installation: Installation) -> str:
    """The image of a worker that is dead."""
    installation.provider.hold()
    with installation.worker() as worker:
        image_id = installation.queue()
        installation.provider.wait_for(1, PATIENCE)
        kill(worker)
    installation.provider.release()
    return image_id


def test_the_next_worker_does_not_pay_again_and_the_image_has_failed(install: Install, queue: str) -> None:
    installation = install(BROKER, CELERY_QUEUE=queue)
    with installation.web():
        image_id = kill_while_it_works(installation)
        installation.let_time_pass(image_id, "started_at", "deadline_at")
        with installation.worker():
            until(lambda: f"generation_failed image={image_id}" in installation.log, "the end of the lost image")
            assert installation.look(image_id)["error"]["code"] == "internal_error"
            installation.marker()
    assert installation.paid == 2  # with the marker


def test_a_worker_that_may_still_be_alive_is_given_its_time(install: Install, queue: str) -> None:
    installation = install(BROKER, CELERY_QUEUE=queue)
    with installation.web():
        image_id = kill_while_it_works(installation)
        with installation.worker():
            until(lambda: "Retry in" in installation.log, "the second look")
            assert installation.look(image_id)["status"] == "pending"
    assert installation.paid == 1


def test_an_operator_who_wants_it_gets_the_image_and_pays_twice(install: Install, queue: str) -> None:
    installation = install(BROKER, CELERY_QUEUE=queue, IMAGE_RETRY_LOST="1")
    with installation.web():
        image_id = kill_while_it_works(installation)
        installation.let_time_pass(image_id, "started_at")
        with installation.worker():
            assert installation.ended(image_id)["status"] == "ready"
    assert installation.paid == 2


def test_the_doctors_probe_goes_through_the_queue_and_leaves_nothing(install: Install, queue: str) -> None:
    installation = install(BROKER, CELERY_QUEUE=queue)
    with installation.worker():
        until(lambda: " ready." in installation.log, "the worker")
        assert "its worker sees the same rows and files" in installation.run_manage("images_doctor").stdout
