"""The one path that every generation takes, from the arguments to `ready` or `failed`.

Input, row, concurrency, prompt, failover, file, ready: in this process, or on one of the queue's workers.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import random
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial, wraps
from io import BytesIO
from typing import IO, Any, ParamSpec, TypeVar, cast

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, InterfaceError, OperationalError, connections, transaction
from django.utils import timezone

from .. import storage
from ..conf import conf
from ..exceptions import (
    RETRY_AFTER,
    GenerationCancelled,
    ImageNotFound,
    ImagesError,
    InvalidRequest,
    ProviderFailure,
    StorageError,
    TooManyGenerations,
)
from ..logs import log_event
from ..models import STALE_AFTER, GeneratedImage, Status
from ..pricing import cost_of
from ..providers import Deadline, ImageProvider, ImageRequest
from ..providers.http import Reservation, bounded_memory
from ..signals import image_generated, image_generation_failed
from ..variants import aspect_ratio_of
from . import budgets, queue
from .database import release_connections, rows
from .deletion import keep_late_cost
from .failover import VerifiedImage, ask_providers
from .repair import fail_stopped, leave_note
from .request import GenerationRequest
from .scenes import add_scene, is_of_scene

logger = logging.getLogger("images")

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

#: Seconds for which writing a result is tried at least, if the database does not answer. Writing a paid picture is
#: tried until the generation's time is over, too.
WRITE_PATIENCE = 2.0
#: Seconds between two tries: at first, and at most.
FIRST_WRITE_PAUSE, LONGEST_WRITE_PAUSE = 0.2, 2.0
#: Seconds between two attempts to store a paid image: at first, and at most.
FIRST_STORAGE_PAUSE, LONGEST_STORAGE_PAUSE = 0.5, 5.0


# --- the public functions -------------------------------------------------------------------------------------------


def _with_arguments_of(
    build: Callable[Arguments, GenerationRequest],
) -> Callable[[Callable[[GenerationRequest], Result]], Callable[Arguments, Result]]:
    """Let a function that takes a request be called with the request's fields, so that they are declared only once.

    Type checkers, `help()` and `inspect.signature` see the fields.
    """

    def decorate(function: Callable[[GenerationRequest], Result]) -> Callable[Arguments, Result]:
        @wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            return function(build(*args, **kwargs))

        @wraps(function)
        async def acall(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Any:
            return await cast("Awaitable[Any]", function(build(*args, **kwargs)))

        outer: Any = acall if inspect.iscoroutinefunction(function) else call
        returns = inspect.signature(function).return_annotation
        signature = inspect.signature(build).replace(return_annotation=returns)
        outer.__signature__ = signature
        parameters = signature.parameters.values()
        outer.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": returns}
        return cast("Callable[Arguments, Result]", outer)

    return decorate


@_with_arguments_of(GenerationRequest)
def generate_image(request: GenerationRequest) -> GeneratedImage:
    """Make an image, store it and return its row.

    It blocks until the image is stored: 5 to 90 seconds (`IMAGE_DEADLINE`). While the provider works, this thread's
    database connections are closed (except SQLite's), so do not call it while you iterate over a queryset.

    Args:
        content_item_id: What the image belongs to, in the caller's own terms; 1 to 255 characters.
        title: 1 to 500 characters.
        description: Up to 100,000 characters; a summary of it goes into the prompt.
        variant: `"hero"` (16:9), `"inline"` (4:3), or a name from `IMAGES["VARIANTS"]`.
        user: The user who will own the image and see it in the API.
        idempotency_key: Up to 255 characters. The same key and content return the same image, which is paid for once.
        idempotency_scope: Up to 80 characters. The same key in another scope counts as another key. By default each
            user has a scope.
        seed: Repeats the choice of style and hints of an earlier image, and its scene, if the content is the same.
        context: Audience, brand and mood, up to 4,000 characters; shortened, it goes into the prompt, or to the text
            model that thinks up the scene.
        new_scene: Have a new scene thought up, whatever the seed.

    Returns:
        The row in status `ready`; `image.public_url()` is the picture's address. `image.replayed` is true if an
        idempotency key was repeated.

    Raises:
        images.exceptions.OpenTransactionError: Inside `transaction.atomic()`; the sentence says what to do instead.
        images.exceptions.InvalidRequest: The arguments are not valid.
        images.exceptions.RequestInProgress: The image for this key is being generated at this moment; the exception's
            `image` is its row.
        images.exceptions.IdempotencyKeyReused: The key was used for other content.
        images.exceptions.DatabaseUnavailable: The database is locked, full or gone, so no provider was asked.
        images.exceptions.BudgetExhausted: A budget does not cover it, so no provider was asked.
        images.exceptions.TooManyGenerations: This process already runs `IMAGE_MAX_CONCURRENCY` generations.
        images.exceptions.ProviderFailure: No provider made an image; the subclasses say why.
        images.exceptions.StorageError: The image could not be stored.
        images.exceptions.QueueUnavailable: With `IMAGE_RUN_ON_WORKERS`: no worker started it.
    """
    return _generate(request)


@_with_arguments_of(GenerationRequest)
async def agenerate_image(request: GenerationRequest) -> GeneratedImage:
    """Make an image, store it and return its row, while the event loop goes on with other work.

    Arguments, result and errors are those of `generate_image`. The work runs in a separate thread, which closes its
    database connections at the end; signal receivers are called there. Inside a test case's transaction, which is
    tied to a thread, it runs in the thread that Django's async calls use for the database.

    Cancelling the caller's task does not stop the generation, which the provider bills anyway: the image is stored
    and can be found by its content item or its idempotency key.
    """
    if await sync_to_async(_in_transaction)():
        # A separate thread would not see this transaction: a test case's, or one in which the call is refused.
        return await sync_to_async(_generate)(request)
    # Not the event loop's own pool: it has few threads, and name look-ups need them. IMAGE_MAX_CONCURRENCY is the
    # limit.
    executor = ThreadPoolExecutor(1, thread_name_prefix="images-generation")
    try:
        return await sync_to_async(_generate_and_close, thread_sensitive=False, executor=executor)(request)
    finally:
        executor.shutdown(wait=False)


@_with_arguments_of(GenerationRequest)
def generate_image_later(request: GenerationRequest) -> GeneratedImage:
    """Let one of the queue's workers make an image, and return its row at once.

    It can be called inside `transaction.atomic()`: the request is queued when the transaction commits, and dropped if
    it is rolled back. If the queue cannot be reached then, Celery's workers publish the request later; with another
    queue the row fails and `image_generation_failed` is sent.

    The arguments are those of `generate_image`.

    Returns:
        The row in status `pending`; for a repeated key the earlier row, in status `ready`. Receivers of
        `image_generated` and `image_generation_failed` are called on the worker.
        If the queue works at once, as Django's `ImmediateBackend` does, the row is `ready` or `failed`: a generation
        that fails raises nothing here. Inside `transaction.atomic()` the row changes when the transaction commits.

    Raises:
        django.core.exceptions.ImproperlyConfigured: There is no queue (`IMAGES["QUEUE"]`).
        images.exceptions.InvalidRequest: The arguments are not valid.
        images.exceptions.RequestInProgress: The image for this key is being generated, or waits in the queue; the
            exception's `image` is its row.
        images.exceptions.IdempotencyKeyReused: The key was used for other content.
        images.exceptions.DatabaseUnavailable: The database is locked, full or gone, so the row could not be written.
        images.exceptions.BudgetExhausted: A budget does not cover it, so nothing was queued.
        images.exceptions.QueueUnavailable: The queue cannot be reached, and no transaction is open.
    """
    return queue_generation(request, release=False)


def run_generation(image_id: uuid.UUID | str, *, redelivered: bool = False, deferrable: bool = False) -> float | None:
    """Make the image of a queued row, unless another delivery of the same request does.

    Args:
        image_id: The row's primary key, as a UUID or as the text that the queue was given.
        redelivered: The queue has delivered this request to a worker before.
        deferrable: The queue does what a number that is returned asks for. Then a request that the providers refuse
            for now, or that could not be stored now, waits instead of failing, and a delivery stands for any request
            of the queue: the one whose turn it is comes first.

    Returns:
        `None` if nothing is left to do. Otherwise the number of seconds after which to call again with
        `redelivered`: another worker has started, or the image that was made could not be recorded, and only then can
        be told whether that worker was lost; or, if `deferrable`, no provider can be asked for now.

    Raises:
        ValueError: The text is not a UUID.
        django.db.OperationalError: The database does not answer; call again later. Also `InterfaceError`.
        images.exceptions.StorageError: The storage cannot tell whether a lost worker stored the file; call again
            later with `redelivered`.
    """
    key = image_id if isinstance(image_id, uuid.UUID) else uuid.UUID(image_id)
    found = queue.claim(key, redelivered=redelivered, deferrable=deferrable)
    if not isinstance(found, GeneratedImage):
        return found
    run = GenerationRun(found, deferrable=deferrable)
    with suppress(ImagesError):  # recorded on the row and in the log; there is no caller to raise it to
        run.run()
    return run.again_in if run.is_recorded else run.deadline.remaining + STALE_AFTER.total_seconds()


# --- the path -------------------------------------------------------------------------------------------------------


def _generate(request: GenerationRequest) -> GeneratedImage:
    request, on_workers = request.cleaned(), conf.run_on_workers
    if earlier := request.find_earlier():
        return earlier
    with limit_concurrency():
        if not on_workers:
            image = request.write_row(queued=False)
            return image if image.replayed else GenerationRun(image).run()
        image = request.write_row(queued=True, caller_waits=True, timeout=conf.deadline)
        if image.replayed:
            return image
        release_connections()
        queue.publish(image)
        return queue.wait_for_worker(image)


def _generate_and_close(request: GenerationRequest) -> GeneratedImage:
    try:
        return _generate(request)
    finally:
        connections.close_all()  # those of this thread


def _in_transaction() -> bool:
    return any(connection.in_atomic_block for connection in connections.all(initialized_only=True))


def queue_generation(request: GenerationRequest, *, release: bool, caller_waits: bool = False) -> GeneratedImage:
    """Do what `generate_image_later` does.

    Args:
        request: Its arguments.
        release: Release this thread's database connections while the queue is asked, which may take seconds. Do not
            set it if the caller may be iterating over a queryset.
        caller_waits: The caller waits for the image for some time, so it comes before those that nobody waits for.
    """
    if not conf.queue:
        raise ImproperlyConfigured('generate_image_later() needs a queue: IMAGES["QUEUE"] = "celery", for example.')
    request = request.cleaned()
    if earlier := request.find_earlier():
        return earlier
    image = request.write_row(queued=True, durable=False, caller_waits=caller_waits)
    if image.replayed:
        return image
    using = rows().db
    if transaction.get_connection(using).in_atomic_block:
        # After the commit there is no caller to raise to.
        transaction.on_commit(partial(queue.publish_quietly, image), using=using, robust=True)
        return image
    if release:
        release_connections()
    queue.publish(image)
    queue.reread(image)
    return image


# --- one run --------------------------------------------------------------------------------------------------------


class GenerationRun:
    """One run of a row that this process has claimed (`started_at`).

    Args:
        image: The pending row.
        deferrable: If the providers refuse it for now, it is given back to the queue.

    Attributes:
        again_in: Seconds after which to deliver the request again, if it was given back.
    """

    def __init__(self, image: GeneratedImage, *, deferrable: bool = False) -> None:
        self.image, self.deferrable = image, deferrable
        self.again_in: float | None = None
        self.deadline = Deadline.after(conf.deadline, reading=conf.storage_timeout / 2)
        self.started = time.monotonic()
        self.is_recorded = True
        # An earlier run of the same row may have paid, for a scene or for a picture that was lost.
        self.attempts: list[dict[str, Any]] = list(image.attempts)
        self.unwritten: dict[str, Any] = {}

    def run(self) -> GeneratedImage:
        """Make the image.

        Returns:
            The row in status `ready`.

        Raises:
            ImagesError: It could not be made; the row says why.
        """
        with under_way(self.image):
            self._make()
            self._finish()
        return self.image

    def _make(self) -> None:
        log_event(logger, logging.INFO, "generation_started", **self._names())
        try:
            self.aspect_ratio = self._find_aspect_ratio()
            storage.check_space(self.image.file_stem)
            release_connections()
            self.unwritten = add_scene(self.image, self.deadline, self.attempts)
            with bounded_memory() as memory:  # only a few images are read, verified and written at once
                verified = ask_providers(self._request, self.deadline, self.attempts, queued=self.deferrable)
                facts, extension = self._describe(verified), verified.info.extension
                with storage.spool(verified.image.data) as file:
                    del verified
                    self._store(file, extension, memory)
            for name, value in facts.items():
                setattr(self.image, name, value)
        except BaseException as err:
            if not self._give_back(err):
                self._fail(err)
            raise

    def _find_aspect_ratio(self) -> tuple[int, int]:
        """The variant's, which may have been taken away while the request waited in the queue."""
        found = aspect_ratio_of(self.image.variant)
        if found is None:
            raise InvalidRequest(f"The variant {self.image.variant!r} has been taken away. Ask for another one.")
        return found

    def _request(self, provider: ImageProvider, deadline: Deadline) -> ImageRequest:
        image = self.image
        return ImageRequest(
            prompt=image.prompt,
            negative_prompt=image.negative_prompt if provider.supports_negative_prompt else "",
            title=image.title,
            variant=image.variant,
            aspect_ratio=self.aspect_ratio,
            seed=image.seed,
            deadline=deadline,
            context=image.context,
            scene=image.scene,
        )

    def _describe(self, verified: VerifiedImage) -> dict[str, Any]:
        """Record what was paid for, whether or not it can be stored. Returns the columns that describe the file."""
        image, data = self.image, verified.image.data
        self._record_provider(verified.provider, verified.image.model)
        image.usage = dict(verified.image.usage) if verified.image.usage is not None else None
        return {
            "mime_type": verified.info.mime_type,
            "size_bytes": len(data),
            "width": verified.info.width,
            "height": verified.info.height,
            "sha256": hashlib.sha256(data).hexdigest(),
            "source_type": verified.source_type,
            "content_credentials": verified.info.content_credentials,
        }

    def _store(self, file: IO[bytes], extension: str, memory: Reservation) -> None:
        """Store the image, which is paid for. It is tried again until the time for that is over.

        While it waits it lies on the disk, so that a slow storage keeps no other answer from being read.

        Raises:
            StorageError: It could not be stored.
        """
        end, pause = min(time.monotonic(), self.deadline.at) + conf.storage_timeout, FIRST_STORAGE_PAUSE
        with ExitStack() as stack:
            while True:
                if not isinstance(file, BytesIO):
                    memory.release()
                try:
                    self.image.file.name = storage.save(self.image.file_stem, extension, file)
                    return
                except StorageError as err:
                    left = end - time.monotonic()
                    if left <= 0:
                        raise StorageError(f"The image was made, but could not be stored. {err.message}") from err
                file = stack.enter_context(storage.move_to_disk(file))
                time.sleep(min(pause * random.uniform(0.75, 1.25), left))  # noqa: S311 (jitter)
                pause = min(2 * pause, LONGEST_STORAGE_PAUSE)

    def _record_provider(self, provider: str, model: str) -> None:
        """Record who made the image. A model's name may have any length; the picture is paid for, so it is cut."""
        for name, value in (("provider", provider), ("model", model)):
            setattr(self.image, name, value[: getattr(GeneratedImage._meta.get_field(name), "max_length", None)])

    def _finish(self) -> None:
        image = self.image
        image.status = Status.READY
        try:
            written = self._write(patience=self.deadline.at + conf.storage_timeout - time.monotonic())
        except Error as err:
            self.is_recorded = False
            log_event(
                logger, logging.ERROR, "generation_unrecorded", exc_info=err, file=image.file_name, **self._names()
            )
            leave_note(image)
            raise self._billed(ImagesError(_UNRECORDED)) from err
        if not written:  # deleted, or claimed by another worker
            storage.remove(image.file_name)
            raise self._billed(ImageNotFound("The image was deleted while it was being generated."))
        log_event(
            logger,
            logging.INFO,
            "generation_finished",
            **self._names(),
            provider=image.provider,
            model=image.model,
            bytes=image.size_bytes,
            ms=image.duration_ms,
        )
        self._after_commit(lambda: image_generated.send_robust(GeneratedImage, image=image))

    def _give_back(self, err: BaseException) -> bool:
        """Let the row wait in the queue again if nothing can have been billed. Returns whether it does."""
        billed = any(attempt["may_have_billed"] for attempt in self.attempts if not is_of_scene(attempt))
        if not self.deferrable or billed or not isinstance(err, queue.TEMPORARY):
            return False
        self.image.attempts = self.attempts
        with suppress(Error):
            self.again_in = queue.give_back(self.image, err, self.unwritten)
        return self.again_in is not None

    def _fail(self, err: BaseException) -> None:
        """Record the failure on the row, if the database still answers."""
        image = self.image
        other = GenerationCancelled() if isinstance(err, KeyboardInterrupt) else ImagesError()
        known = self._billed(err if isinstance(err, ImagesError) else other)
        # A bug of a provider or of a receiver goes on to the caller as it is, and the API makes an answer of it.
        err.__dict__["may_have_billed"] = known.may_have_billed
        image.status, image.error_code, image.error_message = Status.FAILED, known.code, known.message
        if isinstance(known, ProviderFailure) and known.retry_after:
            image.retry_at = timezone.now() + timedelta(seconds=known.retry_after)
        last: dict[str, Any] = next((attempt for attempt in reversed(self.attempts) if not is_of_scene(attempt)), {})
        self._record_provider(last.get("provider", ""), last.get("model", ""))
        try:
            self._write()
        except Error as database_err:
            log_event(logger, logging.ERROR, "generation_unrecorded", exc_info=database_err, **self._names())
        log_event(  # without a traceback: the exception goes on to the caller
            logger,
            logging.WARNING,
            "generation_failed",
            **self._names(),
            provider=image.provider,
            model=image.model,
            code=known.code,
            ms=image.duration_ms,
            request_id=last.get("request_id", ""),
        )
        self._after_commit(lambda: image_generation_failed.send_robust(GeneratedImage, image=image, error=known))

    def _billed(self, err: ImagesError) -> ImagesError:
        return err.with_billing(any(attempt["may_have_billed"] for attempt in self.attempts))

    @staticmethod
    def _after_commit(send: Callable[[], Any]) -> None:
        transaction.on_commit(send, using=rows().db, robust=True)

    def _write(self, *, patience: float = 0.0) -> bool:
        """Write the outcome. Returns whether the row was still there and still claimed by this process.

        Args:
            patience: Seconds for which to try while the database is away, if they are more than `WRITE_PATIENCE`.

        A row that was marked as failed in the meantime becomes ready after all, since the picture is paid for. A row
        that another worker has claimed since is left to that worker.
        """
        image = self.image
        image.attempts, cost = self.attempts, cost_of(self.attempts)
        image.cost, image.cost_basis, image.prices_dated = cost.usd, cost.basis, cost.dated
        image.finished_at = timezone.now()
        image.duration_ms = round((time.monotonic() - self.started) * 1000)
        names = [field.attname for field in GeneratedImage._meta.concrete_fields if field.attname in _OUTCOME]
        values = {name: getattr(image, name) for name in names} | self.unwritten
        found = rows().filter(pk=image.pk, started_at=image.started_at).exclude(status=Status.DELETING)
        begun, pause = time.monotonic(), FIRST_WRITE_PAUSE
        while True:
            try:
                if budgets.record(found, **values):
                    return True
                keep_late_cost(image)
                return False
            except Error as err:
                is_away = isinstance(err, (OperationalError, InterfaceError))
                left = begun + max(patience if is_away else 0.0, WRITE_PATIENCE) - time.monotonic()
                if left <= 0 or transaction.get_connection(found.db).in_atomic_block:
                    raise
            release_connections()  # the connection may be the one that broke
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, LONGEST_WRITE_PAUSE)

    def _names(self) -> dict[str, Any]:
        return {"image": self.image.pk, "content_item": self.image.content_item_id, "variant": self.image.variant}


#: Not `DatabaseUnavailable`: callers would repeat the request and pay again.
_UNRECORDED = "The image was made, but could not be recorded. The operator can recover it with reconcile_images."

_OUTCOME = {
    "status", "file", "mime_type", "width", "height", "size_bytes", "sha256", "provider", "model", "usage",
    "attempts", "cost", "cost_basis", "prices_dated", "duration_ms", "error_code", "error_message", "finished_at",
    "retry_at",
    "source_type", "content_credentials",
}  # fmt: skip


# --- concurrency ----------------------------------------------------------------------------------------------------

_concurrency_lock = threading.Lock()
_running = 0


@contextmanager
def limit_concurrency() -> Iterator[None]:
    """Count as one of the `IMAGE_MAX_CONCURRENCY` generations of this process, until the block ends.

    A caller is rejected at once rather than queued: a queue in memory would hide from the load balancer that this
    process is full.

    Raises:
        TooManyGenerations: The limit is reached.
    """
    global _running
    with _concurrency_lock:
        if _running >= conf.max_concurrency:
            raise TooManyGenerations(retry_after=RETRY_AFTER)
        _running += 1
    try:
        yield
    finally:
        with _concurrency_lock:
            _running -= 1


# --- shutdown -------------------------------------------------------------------------------------------------------

_under_way_lock = threading.Lock()
_under_way: set[Any] = set()


@contextmanager
def under_way(image: GeneratedImage) -> Iterator[None]:
    """Remember that this process is making `image`, until the block ends."""
    with _under_way_lock:
        _under_way.add(image.pk)
    try:
        yield
    finally:
        with _under_way_lock:
            _under_way.discard(image.pk)


def abandon_generations() -> int:
    """Mark the generations of this process as failed, at the end of a graceful shutdown.

    Otherwise the rows would stay `pending` until long after their deadline, and their keys would stay in use. A
    generation that finishes before the process ends still becomes ready, since it is paid for.

    Returns:
        How many were marked.

    Raises:
        django.db.DatabaseError: The database does not answer.
    """
    with _under_way_lock:
        keys = list(_under_way)
    marked = [fail_stopped(row, []) for row in rows().filter(pk__in=keys, status=Status.PENDING)]
    if marked:
        log_event(logger, logging.WARNING, "generations_abandoned", count=sum(marked))
    return sum(marked)
