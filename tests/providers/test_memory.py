"""How many answers are in memory at one moment, and that an answer which stalls holds up none of the others."""

from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from images.exceptions import ProviderFailure, ProviderOverloaded, ProviderTimeout
from images.providers import http
from images.providers.base import Deadline
from images.providers.http import bounded_memory
from tests.fakes.provider_server import ProviderServer
from tests.providers.conftest import MakeProvider, both, request_for


class CountingSemaphore:
    """A semaphore that counts, so that a test can wait for what happens instead of sleeping."""

    def __init__(self, size: int) -> None:
        self._free = threading.BoundedSemaphore(size)
        self.taken = self.returned = self.most = 0
        self._changed = threading.Condition()

    def acquire(self, timeout: float) -> bool:
        got = self._free.acquire(timeout=timeout)
        with self._changed:
            self.taken += got
            self.most = max(self.most, self.taken - self.returned)
            self._changed.notify_all()
        return got

    def release(self) -> None:
        with self._changed:
            self.returned += 1
            self._changed.notify_all()
        self._free.release()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, 10)


@pytest.fixture
def semaphore(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CountingSemaphore:
    """The process's semaphore, for as many responses as an indirect parameter says, or for one."""
    semaphore = CountingSemaphore(getattr(request, "param", 1))
    monkeypatch.setattr(http, "responses_in_memory", semaphore)
    return semaphore


class Caller(threading.Thread):
    """Generates in a thread of its own, inside `bounded_memory`; `inside` runs before that ends."""

    def __init__(self, provider: Any, seconds: float = 20.0, inside: Callable[[], Any] = bool) -> None:
        super().__init__(daemon=True)
        self._provider, self._seconds, self._inside = provider, seconds, inside
        self.size = 0
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        with bounded_memory():
            try:
                self.size = len(self._provider.generate(request_for(self._seconds)).data)
            except ProviderFailure as err:
                self.error = err
            self._inside()


@both
@pytest.mark.parametrize("semaphore", [6], indirect=True)
@pytest.mark.parametrize("mode", ["hang_body", "slow_drip"])
def test_answers_that_stall_half_way_do_not_hold_up_a_good_one(
    either_provider: MakeProvider, provider_server: ProviderServer, semaphore: CountingSemaphore, mode: str
) -> None:
    provider = either_provider()
    provider_server.script(*[mode] * 6)
    stalled = [Caller(provider, 5.0) for _ in range(6)]
    semaphore.wait_until(lambda: semaphore.taken >= 6)  # Each has begun to read, with a reservation.
    provider_server.wait_for(6)

    good = Caller(provider, 3.0)
    good.join()

    assert good.size == provider_server.image_bytes
    assert all(caller.is_alive() for caller in stalled)
    provider_server.end_connections()
    for caller in stalled:
        caller.join()


@both
@pytest.mark.parametrize("semaphore", [2], indirect=True)
def test_no_more_answers_are_read_at_once_than_the_semaphore_allows(
    either_provider: MakeProvider, provider_server: ProviderServer, semaphore: CountingSemaphore
) -> None:
    provider = either_provider()
    provider_server.hold()
    callers = [Caller(provider) for _ in range(12)]
    provider_server.wait_for(12)
    assert semaphore.taken == 0  # Waiting for the provider reserves nothing.
    provider_server.release()
    for caller in callers:
        caller.join()
    assert [caller.size for caller in callers] == [provider_server.image_bytes] * 12
    assert semaphore.most <= 2
    assert semaphore.taken == semaphore.returned


@pytest.mark.parametrize("semaphore", [6], indirect=True)
@pytest.mark.parametrize("mode", ["ok", "chunked"])
def test_large_answers_are_read_one_at_a_time(
    openai_provider: MakeProvider,
    provider_server: ProviderServer,
    semaphore: CountingSemaphore,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    large = CountingSemaphore(1)
    monkeypatch.setattr(http, "large_responses_in_memory", large)
    monkeypatch.setattr(http, "LARGE", 100_000)
    provider, stored = openai_provider(), threading.Event()
    provider_server.script(mode, mode)
    first = Caller(provider, inside=lambda: stored.wait(20))
    large.wait_until(lambda: large.taken == 1)
    second = Caller(provider, 0.4)
    second.join()
    assert isinstance(second.error, ProviderTimeout)
    stored.set()
    first.join()
    assert large.taken == large.returned == 1
    assert semaphore.taken == semaphore.returned


def test_a_place_is_kept_until_the_image_is_stored(
    openai_provider: MakeProvider, provider_server: ProviderServer, semaphore: CountingSemaphore
) -> None:
    provider, stored = openai_provider(), threading.Event()
    first = Caller(provider, inside=lambda: stored.wait(20))
    semaphore.wait_until(lambda: semaphore.taken == 1)

    second = Caller(provider, 0.4)
    second.join()
    assert isinstance(second.error, ProviderTimeout)

    stored.set()
    first.join()
    third = Caller(provider)
    third.join()
    assert third.size == provider_server.image_bytes


@pytest.mark.slow
def test_an_answer_that_has_begun_is_read_after_the_deadline(
    openai_provider: MakeProvider, provider_server: ProviderServer, semaphore: CountingSemaphore
) -> None:
    provider, deadline = openai_provider(), Deadline.after(2, reading=60)
    assert semaphore.acquire(0)
    found: list[int] = []
    request = replace(request_for(), deadline=deadline)
    thread = threading.Thread(target=lambda: found.append(len(provider.generate(request).data)))
    thread.start()
    threading.Event().wait(deadline.remaining)
    assert thread.is_alive()
    semaphore.release()
    thread.join()
    assert found == [provider_server.image_bytes]


def test_asking_again_gives_the_place_back_while_waiting(
    openai_provider: MakeProvider, provider_server: ProviderServer, semaphore: CountingSemaphore
) -> None:
    provider = openai_provider()

    def again() -> None:
        provider_server.hold()
        provider.generate(request_for(20))

    first = Caller(provider, inside=again)
    provider_server.wait_for(2)
    semaphore.wait_until(lambda: semaphore.returned == 1)
    provider_server.release()
    first.join()
    assert semaphore.taken == semaphore.returned == 2


def test_an_error_answer_needs_no_place(
    openai_provider: MakeProvider, provider_server: ProviderServer, semaphore: CountingSemaphore
) -> None:
    assert semaphore.acquire(0)
    provider_server.script("http_503")
    with pytest.raises(ProviderOverloaded):
        openai_provider().generate(request_for(5))


def test_a_provider_alone_gives_its_place_back(
    openai_provider: MakeProvider, provider_server: ProviderServer, semaphore: CountingSemaphore
) -> None:
    provider = openai_provider()
    for _ in range(3):
        provider.generate(request_for())
    assert semaphore.taken == semaphore.returned == 3


@both
def test_an_image_that_was_handed_over_is_kept_nowhere(
    either_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    provider = either_provider(max_image_bytes=2_000_000)
    provider_server.image_bytes = 1_500_000
    provider.generate(request_for())
    tracemalloc.start()
    for _ in range(3):
        provider.generate(request_for())
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left < 500_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("vendor", ["openai", "gemini"])
def test_answers_of_40_mb_leave_nothing_behind(provider_server: ProviderServer, vendor: str) -> None:
    """Twelve at once in a process of its own: one is parsed at a time, and its buffers go back to the system."""
    provider_server.image_bytes = 30_000_000
    url = f"{provider_server.url}/v1" if vendor == "openai" else provider_server.url
    command = [sys.executable, "-m", "tests.providers.large_answers", vendor, url, "12"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    before, after, most = map(int, printed.split())
    assert after - before < 60
    assert most - before < 250  # The text three times (as received, in the parser, as its result), and pictures.
