"""Generations that nobody waits for: their rows are written, and the caller goes on at once.

With a queue its workers make them. Without one, the waiting rows themselves are the queue: a few threads of this
process take one after the other. A process that stops finishes what it has begun and leaves the rest waiting, for
another process or for its own successor (`resume`).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from django.db import Error, connections, transaction
from django.utils import timezone

from ..conf import conf
from ..exceptions import RequestInProgress, TooManyGenerations
from ..logs import log_event
from ..models import GeneratedImage
from .database import before_paying, rows
from .generation import limit_concurrency, run_generation
from .queue import publish_quietly, waiting
from .request import GenerationRequest

logger = logging.getLogger("images")

#: How many generations run at once in the background of a process that has no queue.
MAX_THREADS = 5
#: The names of the threads that publish rows, and of those that work without a queue.
_THREADS = _PUBLISHES, _WORKS = "images-publish", "images-background"
#: Seconds between two looks for room in a process that runs as many generations as it may.
PAUSE = 1.0

_lock = threading.Lock()
_running = 0
#: The rows that this process has tried. Each is tried once, whatever became of it.
_tried: set[uuid.UUID] = set()
_stopping = threading.Event()


def start_generations(*, requests: Sequence[GenerationRequest]) -> list[GeneratedImage]:
    """Let images be made in the background, and return their rows at once.

    Either all of them are started or none. It can be called inside `transaction.atomic()`: then they are started when
    the transaction commits.

    Args:
        requests: What to make. A request whose idempotency key was used before starts nothing.

    Returns:
        One row for each request, in status `pending`; or the earlier image, `replayed`, for a repeated key.

    Raises:
        images.exceptions.InvalidRequest: A request is not valid.
        images.exceptions.IdempotencyKeyReused: A key was used for other content.
        images.exceptions.BudgetExhausted: A budget does not cover all of them.
        images.exceptions.DatabaseUnavailable: The database is locked, full or gone.
    """
    cleaned = [request.cleaned() for request in requests]
    using = rows().db
    with before_paying(), transaction.atomic(using=using):
        images = [_row(request) for request in cleaned]
        new = [image for image in images if not image.replayed]
        _let_wait_for_each_other(new)
    if new:
        transaction.on_commit(partial(start_rows, new), using=using, robust=True)
    return images


def start_rows(images: Sequence[GeneratedImage]) -> None:
    """Start generations whose rows are committed and wait."""
    if conf.queue:  # in a thread, since a broker may take seconds to answer, and some queues work at once
        _start_thread(partial(_publish, images), _PUBLISHES)
    else:
        resume()


def seconds_for(count: int) -> float:
    """For how long each of so many rows may wait: the last of many gets the time that those before it may take."""
    others = conf.longest_run * count / MAX_THREADS if count > MAX_THREADS else 0.0
    return conf.queue_timeout + others


def wait() -> None:
    """Wait until this process has nothing to do in the background: for commands, whose end would end it, too."""
    for thread in threading.enumerate():
        if thread.name in _THREADS:
            thread.join()


def _row(request: GenerationRequest) -> GeneratedImage:
    try:
        return request.find_earlier() or request.write_row(queued=True, durable=False)
    except RequestInProgress:
        key = {"idempotency_scope": request.idempotency_scope, "idempotency_key": request.idempotency_key}
        earlier = rows().filter(**key).first()
        if earlier is None:
            raise
        earlier.replayed = True
        return earlier


def _let_wait_for_each_other(images: Sequence[GeneratedImage]) -> None:
    if len(images) > MAX_THREADS:
        deadline = timezone.now() + timedelta(seconds=seconds_for(len(images)))
        rows().filter(pk__in=[image.pk for image in images]).update(deadline_at=deadline)


def _publish(images: Sequence[GeneratedImage]) -> None:
    try:
        for image in images:
            publish_quietly(image)
    finally:
        connections.close_all()


# --- without a queue ------------------------------------------------------------------------------------------------


def resume() -> None:
    """Go on with the rows that wait, those of a process that was stopped included. With a queue it does nothing.

    Each row is claimed by one thread of one process, so nothing is paid for twice.
    """
    global _running
    if conf.queue or _is_stopping():
        return
    wanted = waiting()[:MAX_THREADS].count()
    with _lock:
        # Those that run have claimed other rows, or are about to; a thread that finds none ends at once.
        missing = min(wanted, MAX_THREADS - _running)
        _running += missing
    for _ in range(missing):
        _start_thread(_work, _WORKS)


def _start_thread(target: Callable[[], None], name: str) -> None:
    """Start a thread that Python waits for at the end, as it does for requests that are being answered.

    Without `daemon` a thread is what the one that starts it is, and a server's threads that Python did not start
    count as daemons.
    """
    threading.Thread(target=target, name=name, daemon=False).start()


def stop() -> None:
    """Begin no further generation in this process, which is about to end."""
    _stopping.set()


def _is_stopping() -> bool:
    return _stopping.is_set() or not threading.main_thread().is_alive()


def _work() -> None:
    """Make one waiting image after the other, in a thread, until none is left."""
    try:
        while (key := _take()) is not None:
            _generate(key)
    finally:
        connections.close_all()


def _take() -> uuid.UUID | None:
    """The row to make next; `None` if this thread is to end, which is then counted."""
    global _running
    with _lock:  # a row is committed before `resume` takes the lock, so none is overlooked
        key = _next()
        if key is not None:
            _tried.add(key)
            return key
        _running -= 1
        if not _running:
            _tried.clear()
        return None


def _next() -> uuid.UUID | None:
    if _is_stopping():
        return None
    try:
        return waiting().exclude(pk__in=list(_tried)).values_list("pk", flat=True).first()
    except Error as err:
        log_event(logger, logging.ERROR, "background_failed", exc_info=err)
        return None


def _generate(key: uuid.UUID) -> None:
    """Make the image of a row as soon as this process may run another generation."""
    end = time.monotonic() + conf.queue_timeout
    while not _is_stopping() and time.monotonic() < end:
        try:
            with limit_concurrency():
                pause = run_generation(key, deferrable=True)
            if pause is None and not waiting().filter(pk=key).exists():
                return  # if it waits still, another row's turn came first
            if pause is None:
                continue
            _stopping.wait(pause)  # until a provider can be asked again
        except TooManyGenerations:
            _stopping.wait(PAUSE)
        except Exception as err:  # noqa: BLE001  (a provider may be third-party code; the thread goes on)
            log_event(logger, logging.ERROR, "background_failed", exc_info=err, image=key)
            return
