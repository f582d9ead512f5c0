"""How many answers are read at one moment, and that an answer which stalls holds up nobody."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from images.exceptions import ProviderFailure, ProviderTimeout
from images.providers.throttle import ReadingPlaces, working_set
from tests.fakes.provider_server import ProviderServer
from tests.providers.conftest import MakeProvider, both, request_for


class WatchedPlaces(ReadingPlaces):
    """Places that count, so that a test can wait for what happens instead of sleeping."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.taken = self.returned = self.most = 0
        self._changed = threading.Condition()

    def take(self, timeout: float) -> bool:
        got = super().take(timeout)
        with self._changed:
            self.taken += got
            self.most = max(self.most, self.taken - self.returned)
            self._changed.notify_all()
        return got

    def give_back(self) -> None:
        with self._changed:
            self.returned += 1
            self._changed.notify_all()
        super().give_back()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, 10)


class Painting(threading.Thread):
    """Paints in a thread of its own, inside a `working_set`; `inside` runs before that ends."""

    def __init__(
        self, provider: Any, places: ReadingPlaces, seconds: float = 20.0, inside: Callable[[], Any] = bool
    ) -> None:
        super().__init__(daemon=True)
        self._provider, self._places, self._seconds, self._inside = provider, places, seconds, inside
        self.size = 0
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        with working_set(self._places):
            try:
                self.size = len(self._provider.paint(request_for(self._seconds)).data)
            except ProviderFailure as err:
                self.error = err
            self._inside()


@both
@pytest.mark.parametrize("mode", ["hang_body", "slow_drip"])
def test_answers_that_stall_half_way_do_not_hold_up_a_good_one(
    either_provider: MakeProvider, provider_server: ProviderServer, mode: str
) -> None:
    provider, places = either_provider(), WatchedPlaces(6)
    provider_server.script(*[mode] * 6)
    stalled = [Painting(provider, places, 5.0) for _ in range(6)]
    places.wait_until(lambda: places.taken >= 6)  # Each has begun to read, and had a place for it.
    provider_server.wait_for(6)

    good = Painting(provider, places, 3.0)
    good.join()

    assert good.size == provider_server.image_bytes
    assert all(painting.is_alive() for painting in stalled)
    provider_server.end_connections()
    for painting in stalled:
        painting.join()


@both
def test_no_more_answers_are_read_at_once_than_there_are_places(
    either_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    provider, places = either_provider(), WatchedPlaces(2)
    provider_server.hold()
    paintings = [Painting(provider, places) for _ in range(12)]
    provider_server.wait_for(12)
    assert places.taken == 0  # Waiting for the provider costs no place.
    provider_server.release()
    for painting in paintings:
        painting.join()
    assert [painting.size for painting in paintings] == [provider_server.image_bytes] * 12
    assert places.most <= 2
    assert places.taken == places.returned


def test_a_place_is_kept_until_the_working_set_ends(
    openai_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    provider, places, stored = openai_provider(), WatchedPlaces(1), threading.Event()
    first = Painting(provider, places, inside=lambda: stored.wait(20))
    places.wait_until(lambda: places.taken == 1)

    second = Painting(provider, places, 0.4)
    second.join()
    assert isinstance(second.error, ProviderTimeout)

    stored.set()
    first.join()
    third = Painting(provider, places)
    third.join()
    assert third.size == provider_server.image_bytes


def test_asking_again_gives_the_place_back_while_waiting(
    openai_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    provider, places = openai_provider(), WatchedPlaces(1)

    def again() -> None:
        provider_server.hold()
        provider.paint(request_for(20))

    first = Painting(provider, places, inside=again)
    provider_server.wait_for(2)
    places.wait_until(lambda: places.returned == 1)
    provider_server.release()
    first.join()
    assert places.taken == places.returned == 2


def test_an_error_answer_needs_no_place(openai_provider: MakeProvider, provider_server: ProviderServer) -> None:
    places = ReadingPlaces(1)
    assert places.take(0)
    provider_server.script("http_503")
    with working_set(places), pytest.raises(Exception, match="overloaded"):
        openai_provider().paint(request_for(5))


def test_a_provider_alone_gives_its_place_back(
    openai_provider: MakeProvider, provider_server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = WatchedPlaces(1)
    monkeypatch.setattr("images.providers.throttle.reading_places", places)
    provider = openai_provider()
    for _ in range(3):
        provider.paint(request_for())
    assert places.taken == places.returned == 3


def test_a_working_set_inside_another_is_the_same() -> None:
    places = WatchedPlaces(1)
    with working_set(places) as outer:
        assert outer.take(0)
        with working_set() as inner:
            assert inner is outer
        assert places.returned == 0
    assert places.returned == 1


@both
def test_an_image_that_was_handed_over_is_kept_nowhere(
    either_provider: MakeProvider, provider_server: ProviderServer
) -> None:
    """A pooled connection remembers its last answer; a hundred of them would remember a hundred images."""
    provider = either_provider(max_image_bytes=2_000_000)
    provider_server.image_bytes = 1_500_000
    provider.paint(request_for())
    tracemalloc.start()
    for _ in range(3):
        provider.paint(request_for())
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left < 500_000
