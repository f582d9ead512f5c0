"""The queue for Celery: `IMAGES["QUEUE"] = "celery"`. Only this module imports Celery.

The task is named `images.generate_image` and goes to the host's default queue; `task_routes` may send it elsewhere.
It is acknowledged when it is done, so that a worker that is killed loses nothing: who makes the image is decided by
the row (`images.services.queue`), however often the task is delivered. No result backend is needed.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from celery import Task, current_app, shared_task, signals
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from django.db import InterfaceError, OperationalError, connections

from ..conf import conf
from ..exceptions import StorageError
from ..logs import log_event
from ..services.generation import run_generation
from ..services.outbox import tend
from ..services.probes import look_for
from ..services.queue import worker_lost

logger = logging.getLogger("images")

TASK, PROBE = "images.generate_image", "images.probe"
#: Seconds after the longest time that a generation takes (`conf.longest_run`), when Celery interrupts the worker's
#: process (the soft limit) and when it kills it. Generations end by themselves without Celery's help.
SOFT_GRACE, GRACE = 10, 20
#: How publishing is retried if the broker does not answer: about a second in all.
RETRY_POLICY = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5}
#: Seconds after which a task comes back if the database or the storage does not answer: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
#: Its workers publish again what the queue has lost.
REPUBLISHES = True
#: Seconds between two times that a worker looks for it, give or take a half, so that workers do not look together.
TEND_EVERY = 10.0


class GenerationTask(Task):  # type: ignore[misc]
    """Reads at the moment of use what Celery keeps as class attributes.

    The limits are published with each task, so they hold in place of `CELERY_TASK_TIME_LIMIT` and
    `CELERY_TASK_SOFT_TIME_LIMIT`: a host's limit for its own tasks may be shorter than a generation that is paid for.
    """

    @property
    def soft_time_limit(self) -> float:
        """Seconds after which Celery raises `SoftTimeLimitExceeded` in the task."""
        return conf.longest_run + SOFT_GRACE

    @property
    def time_limit(self) -> float:
        """Seconds after which Celery kills the task's process."""
        return conf.longest_run + GRACE

    @property
    def reject_on_worker_lost(self) -> bool:
        """Whether the task goes back into the queue when its worker's process dies."""
        return conf.retry_lost


def _generate(task: Any, image_id: str, began: bool = False) -> None:
    """Make the image of a row, if this is the delivery that may.

    Args:
        task: Celery's task.
        image_id: The row.
        began: Some worker had begun with it before.
    """
    delivery = task.request.delivery_info or {}
    redelivered = began or bool(delivery.get("redelivered"))
    try:
        pause = run_generation(image_id, redelivered=redelivered, deferrable=True)
    except SoftTimeLimitExceeded:
        worker_lost(uuid.UUID(image_id))  # if the run was interrupted before it could record how it ended
        raise
    except (OperationalError, InterfaceError, StorageError) as err:
        raise _again_soon(task, err, began=redelivered) from err
    if pause is not None:
        raise task.retry(kwargs={"began": True}, countdown=pause)


def _again_soon(task: Any, err: Exception, *, began: bool) -> Exception:
    """Let a task come back that could not look at its row or its file, until IMAGE_QUEUE_TIMEOUT is about over."""
    pause = min(FIRST_PAUSE * 2**task.request.retries, LONGEST_PAUSE) * random.uniform(0.5, 1.5)  # noqa: S311
    most = math.ceil(conf.queue_timeout / LONGEST_PAUSE + math.log2(LONGEST_PAUSE / FIRST_PAUSE))
    log_event(logger, logging.WARNING, "generation_postponed", error=type(err).__name__, seconds=round(pause, 1))
    again: Exception = task.retry(exc=err, kwargs={"began": began}, countdown=pause, max_retries=most, throw=False)
    return again


generate_task: Any = shared_task(
    _generate,
    bind=True,
    base=GenerationTask,
    name=TASK,
    acks_late=True,
    ignore_result=True,
    max_retries=None,  # Celery's default of three would hold for `retry(max_retries=None)`, too
)


def enqueue(image_id: str) -> None:
    """Put an image into the queue.

    Args:
        image_id: The row's primary key.

    Raises:
        Exception: kombu's or the broker client's own, if the broker did not accept it.
    """
    generate_task.apply_async(args=[image_id], retry=True, retry_policy=RETRY_POLICY)


def count_workers() -> int | None:
    """How many workers answer within two seconds; `None` if the broker does not."""
    try:
        with current_app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0)
            return len(current_app.control.ping(timeout=2, connection=connection))
    except Exception as err:  # noqa: BLE001  (every broker's client has its own)
        log_event(logger, logging.WARNING, "queue_failed", error=type(err).__name__)
        return None


def _probe(task: Any, reply_to: str, question: dict[str, str]) -> None:
    """Tell the doctor what this worker sees.

    Args:
        task: Celery's task.
        reply_to: The queue in which the doctor waits for the answer.
        question: The arguments of `look_for`.
    """
    answer = {"worker": str(task.request.hostname), **look_for(**question)}
    with current_app.producer_or_acquire() as producer:  # to that queue by its name; if it is gone, to nobody
        producer.publish(answer, exchange="", routing_key=reply_to, serializer="json", delivery_mode="transient")


probe_task: Any = shared_task(_probe, bind=True, name=PROBE, ignore_result=True)


def ask_workers(question: Mapping[str, str], *, count: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Send probe tasks through the queue of generations, and yield the answers of the workers that take them.

    Args:
        question: The arguments of `images.services.probes.look_for`.
        count: How many tasks; a worker may take several.
        seconds: How long to wait for the answers, all together.
    """
    reply_to, end = f"images-probe-{uuid.uuid4()}", time.monotonic() + seconds
    route = current_app.amqp.router.route({}, TASK)
    with current_app.connection_for_read() as connection:
        answers = connection.SimpleBuffer(reply_to)
        try:
            for _ in range(count):
                probe_task.apply_async(args=[reply_to, dict(question)], expires=seconds, **route)
            for _ in range(count):
                yield answers.get(timeout=max(0.1, end - time.monotonic())).payload
        except answers.Empty:
            return
        finally:
            answers.close()
            connection.default_channel.queue_delete(reply_to)  # Redis keeps it otherwise


def _after_failure(sender: Any = None, exception: Any = None, args: Any = (), **_: Any) -> None:
    """Settle the row of a task whose process has died. It runs in the worker's main process, which survives."""
    if getattr(sender, "name", "") != TASK or not isinstance(exception, (WorkerLostError, TimeLimitExceeded)):
        return
    try:
        worker_lost(uuid.UUID(args[0]))
    except StorageError as err:  # the row counts as failed once its deadline has passed; reconcile_images repairs it
        log_event(logger, logging.ERROR, "generation_unsettled", image=args[0], error=err.message)
    finally:
        _forget_connections()


def _forget_connections() -> None:
    """Close what the main process has opened: the processes that it forks later must not inherit it."""
    for connection in connections.all(initialized_only=True):
        connection.close()
        if getattr(connection, "pool", None):
            connection.close_pool()  # type: ignore[attr-defined]


_stopping = threading.Event()


def _start_tending(**_: Any) -> None:
    """Look after the rows in a thread of the worker's main process, which is free however busy the pool is."""
    if conf.queue:
        threading.Thread(target=_tend_until_stopped, name="images-outbox", daemon=True).start()


def _tend_until_stopped() -> None:
    _leave_pools_alone()
    while not _stopping.wait(TEND_EVERY * random.uniform(0.5, 1.5)):  # noqa: S311
        try:
            tend()
        except Exception as err:  # noqa: BLE001  (of the database or of the broker's client; both may come back)
            log_event(logger, logging.WARNING, "outbox_failed", error=type(err).__name__)
        finally:
            connections.close_all()  # those of this thread


def _leave_pools_alone() -> None:
    """Give this thread connections of its own: a pool would not survive in the processes that `prefork` forks."""
    for alias in connections:
        connection = connections[alias].copy()
        connection.settings_dict["OPTIONS"].pop("pool", None)
        connections[alias] = connection


def _stop_tending(**_: Any) -> None:
    _stopping.set()


signals.task_failure.connect(_after_failure, weak=False)
signals.worker_ready.connect(_start_tending, weak=False)
signals.worker_shutting_down.connect(_stop_tending, weak=False)
