"""The queue, where there is one: the broker answers, workers answer, and nothing waits for long."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from ...conf import conf
from ..queueing import queue_problem, waiting
from .findings import Finding, attention, broken, fine

QUEUE = "Queue"

_BROKER_STEP = "Start the broker, or correct CELERY_BROKER_URL."
_WORKER_STEP = "Start a worker: make worker (celery -A YOUR_PROJECT worker)."


def examine_queue() -> Iterator[Finding]:
    """Ask the broker for its workers, and the database for what waits. Nothing where no queue is configured."""
    if not conf.queue:
        return
    module = import_module(conf.queue.rpartition(".")[0])
    count_workers = getattr(module, "count_workers", None)  # a queue of somebody else's making need not have it
    workers = count_workers() if count_workers else None
    if count_workers and workers is None:
        yield broken(QUEUE, "The queue's broker does not answer.", _BROKER_STEP)
    elif workers == 0:
        yield broken(QUEUE, "The queue's broker answers, but no worker does.", _WORKER_STEP)
    elif workers:
        yield fine(QUEUE, f"The queue's broker answers, and so do its workers ({workers}).")
    oldest = waiting().values_list("created_at", flat=True).first()
    if problem := queue_problem(oldest):
        yield attention(QUEUE, problem, _WORKER_STEP)
    else:
        yield fine(QUEUE, "No request has been waiting for long.")
