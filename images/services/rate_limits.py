"""When a provider may be asked next: after it has refused for now (a pause), and below a limit that is known.

A pause is kept in the memory of the process: one refusal speaks for all of its generations at that provider, and
after it they begin one by one, so that the next refusal meets one of them and not all.

A known limit (`IMAGES["RATE_LIMITS"]`) is kept in the database, for all processes together. A provider that may be
called five times a minute has five rows (`RateLimitSlot`). A call takes the one that was used longest ago, with one
conditional UPDATE; none is used twice within the minute, so no minute, whenever it begins, sees a sixth call.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import QuerySet

from ..conf import RateLimit, conf
from ..exceptions import (
    RATE_LIMIT_PAUSE,
    ProviderFailure,
    ProviderOverloaded,
    ProviderRateLimited,
    ProviderUnreachable,
)
from ..models import RateLimitSlot
from .database import before_paying, release_connections, rows

#: The failures after which the same request can succeed, and for which no provider charges.
TEMPORARY = (ProviderRateLimited, ProviderOverloaded, ProviderUnreachable)

#: Seconds of the first pause if a provider that is overloaded or unreachable names none; doubled with each more.
FIRST_PAUSE = 1.0
#: The longest pause in seconds that a provider did not name itself.
LONGEST_PAUSE = 60.0
#: Seconds between the first two generations after a pause. Each that begins makes the next come a tenth sooner, until
#: they are `SHORTEST_GAP` apart.
FIRST_GAP, SHORTEST_GAP = 0.5, 0.05
#: Seconds after a pause when it is forgotten.
MEMORY = 30.0
#: The longest time in seconds for which a delivery of the queue is put off. A broker may hold it only for so long.
LONGEST_DELAY = 120.0

LIMIT_REACHED = "As many images as the operator allows (IMAGE_RATE_LIMITS) are being made. Try again a little later."

#: Seconds that are added to a limit's period: a call may be faster on its way than the one before it.
MARGIN = 0.1
#: How often a slot is looked for if other processes take the one that was found.
_TRIES = 10
#: How many slots are looked at together.
_LOOK_AT = 8


# --- What the callers learn -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A provider will not be asked now.

    Attributes:
        failure: What it said last, or that the operator's limit is reached.
        seconds: From now, until it may be asked again.
    """

    failure: ProviderFailure
    seconds: float

    def error(self) -> ProviderFailure:
        """The exception for a generation that cannot wait so long: the provider's, with the time that is left."""
        return type(self.failure)(self.failure.message, retry_after=self.seconds)


def refusal(aliases: Sequence[str]) -> Refusal | None:
    """Why none of the providers can be asked now: the refusal that ends first. `None` if one can be asked.

    Raises:
        django.db.DatabaseError: The database does not answer.
    """
    found = []
    for alias in aliases:
        paused = _paused(alias)
        limited = None if paused else _limited(alias)
        if paused is None and limited is None:
            return None
        found.append(paused or limited)
    return min(filter(None, found), key=lambda each: each.seconds, default=None)


def enter(alias: str, *, patience: float, queued: bool) -> float:
    """Count a call of a provider that is about to be made.

    Args:
        alias: The provider.
        patience: Seconds that the caller can wait for its turn.
        queued: The generation can be taken up again later. Any other is stopped only by a time that the provider
            has named: it has no second chance, and the provider may be better than we guess.

    Returns:
        Seconds to wait before the call.

    Raises:
        ProviderFailure: That is longer than `patience`; nothing was counted.
        DatabaseUnavailable: The database does not answer.
    """
    with _lock:
        pause = _pauses.get(alias)
        wait = pause.wait() if pause and (queued or pause.was_named) else 0.0
        if pause and wait > patience:
            raise Refusal(failure=pause.failure, seconds=wait).error()
        if pause and (queued or pause.was_named):
            pause.begin(wait)
            if pause.is_over():
                del _pauses[alias]
    limit = conf.rate_limits.get(alias)
    return wait if limit is None else _take_slot(alias, limit, after=wait, patience=patience)


def delay(aliases: Sequence[str], seconds: float) -> float:
    """Seconds after which to deliver a request again, if no provider can be asked for some.

    Deliveries get turns one after the other: if all came at once, each pause would end with a burst of refusals.
    """
    limits = [conf.rate_limits[alias] for alias in aliases if alias in conf.rate_limits]
    gap = min((limit.period / limit.count for limit in limits), default=SHORTEST_GAP)
    with _lock:
        turns = _turns.setdefault(tuple(aliases), _Turns())
        return min(turns.next(seconds, gap), LONGEST_DELAY)


# --- Pauses ---------------------------------------------------------------------------------------------------------


class _Pause:
    """A provider's latest refusal, as this process remembers it. Use it only under `_lock`."""

    def __init__(self, failure: ProviderFailure, earlier: _Pause | None) -> None:
        self.failure, self.was_named = failure, failure.retry_after is not None
        self.rounds: int = earlier.rounds + 1 if earlier else 1
        self.end = time.monotonic() + _length(failure, self.rounds)
        self.next_start, self.gap = self.end, FIRST_GAP

    def wait(self) -> float:
        """Seconds until another generation may begin."""
        left = max(self.end, self.next_start) - time.monotonic()
        return left if left > self.gap / 4 else 0.0  # timers are not that exact

    def begin(self, wait: float) -> None:
        """Let a generation begin after these seconds."""
        self.next_start = time.monotonic() + wait + self.gap
        self.gap *= 0.9

    def prolong(self, failure: ProviderFailure) -> None:
        """Heed another refusal of requests that were under way together."""
        self.end = max(self.end, time.monotonic() + (failure.retry_after or 0))
        self.next_start = max(self.next_start, self.end)

    def is_over(self) -> bool:
        """Whether generations may begin without any order again."""
        return self.gap < SHORTEST_GAP or time.monotonic() > self.end + MEMORY


class _Turns:
    """Whose turn is when, among the deliveries that are put off."""

    def __init__(self) -> None:
        self.last, self.gap = 0.0, FIRST_GAP

    def next(self, seconds: float, shortest: float) -> float:
        """Seconds until the next free turn, at least `seconds` from now."""
        now = time.monotonic()
        if self.last < now + seconds:
            self.last, self.gap = now + seconds, FIRST_GAP
        else:
            self.last, self.gap = self.last + max(self.gap, shortest), max(self.gap * 0.9, SHORTEST_GAP)
        return self.last - now


_lock = threading.Lock()
_pauses: dict[str, _Pause] = {}
_turns: dict[tuple[str, ...], _Turns] = {}


def refused(alias: str, failure: ProviderFailure) -> None:
    """Remember that a provider has refused a generation."""
    if not (failure.retry_same and isinstance(failure, TEMPORARY)):
        return
    with _lock:
        pause = _pauses.get(alias)
        if pause and time.monotonic() < pause.end:
            pause.prolong(failure)
        else:
            _pauses[alias] = _Pause(failure, pause)


def answered(alias: str) -> None:
    """Remember that a provider has made an image: the next pause is a short one again."""
    if pause := _pauses.get(alias):
        pause.rounds = 0


def forget() -> None:
    """Forget every refusal, for tests."""
    with _lock:
        _pauses.clear()
        _turns.clear()


def _length(failure: ProviderFailure, rounds: int) -> float:
    """Seconds of a pause: what the provider has named, or longer each time; no two processes come back together."""
    if failure.retry_after is not None:
        return failure.retry_after + random.uniform(0, min(1.0, 0.1 * failure.retry_after))  # noqa: S311 (jitter)
    first = RATE_LIMIT_PAUSE if isinstance(failure, ProviderRateLimited) else FIRST_PAUSE
    return min(first * 2.0 ** min(rounds - 1, 10), LONGEST_PAUSE) * random.uniform(0.75, 1.25)  # noqa: S311


def _paused(alias: str) -> Refusal | None:
    with _lock:
        pause = _pauses.get(alias)
        wait = pause.wait() if pause else 0.0
    return Refusal(failure=pause.failure, seconds=wait) if pause and wait else None


# --- Known limits ---------------------------------------------------------------------------------------------------


def _limited(alias: str) -> Refusal | None:
    limit = conf.rate_limits.get(alias)
    if limit is None:
        return None
    seconds = _free_in(_oldest_slots(alias, limit)[0], limit)
    return _limit_reached(seconds) if seconds > 0 else None


def _limit_reached(seconds: float) -> Refusal:
    return Refusal(failure=ProviderRateLimited(LIMIT_REACHED), seconds=seconds)


def _take_slot(alias: str, limit: RateLimit, *, after: float, patience: float) -> float:
    """Take a slot for a call that begins in `after` seconds at the earliest. Returns the seconds until then."""
    try:
        for _ in range(_TRIES):
            with before_paying():
                found = _oldest_slots(alias, limit)
                seconds = max(after, _free_in(found[0], limit))
                if seconds > patience:
                    raise _limit_reached(seconds).error()
                free = [slot for slot in found if _free_in(slot, limit) <= seconds]
                if _use(random.choice(free), seconds):  # noqa: S311  (so that processes seldom want the same one)
                    return seconds
    finally:
        release_connections()
    raise _limit_reached(max(1.0, limit.period / limit.count)).error()  # others were faster each time


def _slots(alias: str, limit: RateLimit) -> QuerySet[RateLimitSlot]:
    """The slots of a provider, the one that was used longest ago first."""
    slots = RateLimitSlot.objects.using(rows().db)
    return slots.filter(provider=alias, number__lt=limit.count).order_by("used_at", "number")


def _oldest_slots(alias: str, limit: RateLimit) -> list[RateLimitSlot]:
    """The first of `_slots`. Missing ones are written: the provider has been given a limit, or a higher one."""
    slots = _slots(alias, limit)
    found = list(slots[:_LOOK_AT])
    if not found or (_free_in(found[0], limit) > 0 and slots.count() < limit.count):
        new = [RateLimitSlot(provider=alias, number=number) for number in range(limit.count)]
        RateLimitSlot.objects.using(slots.db).bulk_create(new, ignore_conflicts=True)
        found = list(slots.all()[:_LOOK_AT])
    return found


def _free_in(slot: RateLimitSlot, limit: RateLimit) -> float:
    return slot.used_at / 1000 + limit.period + MARGIN - time.time()


def _use(slot: RateLimitSlot, seconds: float) -> bool:
    """Use a slot in some seconds, unless another process has taken it. Returns whether it was taken."""
    found = RateLimitSlot.objects.using(rows().db).filter(pk=slot.pk, used_at=slot.used_at)
    return bool(found.update(used_at=int((time.time() + seconds) * 1000) + 1))
