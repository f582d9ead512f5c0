"""`agenerate_image`: the async twin of `generate_image`, for callers on an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from asgiref.sync import sync_to_async
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import connections

from ..models import GeneratedImage
from .generation import generate_image

Result = TypeVar("Result")


async def agenerate_image(
    *,
    content_item_id: str,
    title: str,
    description: str | None = None,
    variant: str = "hero",
    user: AbstractBaseUser | AnonymousUser | None = None,
    idempotency_key: str | None = None,
    idempotency_scope: str | None = None,
    seed: int | None = None,
) -> GeneratedImage:
    """Make an image, store it and return its row, while the event loop goes on with other work.

    Arguments, answer and errors are those of `generate_image`. The work is done in a thread of its own, which closes
    its database connections at its end; the receivers of signals are called there. Inside a test case's transaction,
    which is tied to a thread, it is done where Django's own async calls reach the database.

    Cancelling the caller's task does not stop it: the provider bills all the same, so the image is stored and found
    by its content item or its idempotency key.
    """

    def generate() -> GeneratedImage:
        return generate_image(
            content_item_id=content_item_id,
            title=title,
            description=description,
            variant=variant,
            user=user,
            idempotency_key=idempotency_key,
            idempotency_scope=idempotency_scope,
            seed=seed,
        )

    if await sync_to_async(_inside_transaction)():
        # A test case's, or somebody else's, in which the call is refused; a thread of its own would see neither.
        return await sync_to_async(generate)()
    return await _in_own_thread(generate)


def _inside_transaction() -> bool:
    """Whether the caller has a transaction open."""
    return any(connection.in_atomic_block for connection in connections.all(initialized_only=True))


async def _in_own_thread(work: Callable[[], Result]) -> Result:
    """Run `work` to its end, whatever becomes of the caller.

    The loop's own pool of threads would do for a few: it has as many as the machine has cores, and four more, and the
    loop's name look-ups wait in the same queue. How many work at once is bounded by `IMAGE_MAX_CONCURRENCY`.
    """
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()  # from now on nobody can cancel it
    context = contextvars.copy_context()
    threading.Thread(target=_run, args=(future, context, work), name="images-generation").start()
    return await asyncio.wrap_future(future)


def _run(future: Future[Result], context: contextvars.Context, work: Callable[[], Result]) -> None:
    try:
        try:
            result = context.run(work)
        finally:
            connections.close_all()  # only this thread's
    except BaseException as err:  # noqa: BLE001  (handed to the caller, who raises it)
        future.set_exception(err)
    else:
        future.set_result(result)
