"""A vendor with a rate limit, a bad minute now and then, and a bill that names each request."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter, deque

from tests.fakes.provider_server import Recorded

TITLE = "Chaos number {:04}"
_TITLE = re.compile(rb"Chaos number \d{4}")


class Vendor:
    """Decides what the provider's server answers, and writes the bill.

    Args:
        per_second: How many pictures it makes in any second; more get 429.
        seed: Of its moods.

    Attributes:
        bill: How often each title was, or may have been, charged for.
        refused: How many requests were over the limit.
    """

    def __init__(self, *, per_second: int, seed: int) -> None:
        self.bill: Counter[str] = Counter()
        self.refused = 0
        self._per_second, self._random = per_second, random.Random(seed)
        self._latest: deque[float] = deque()
        self._lock = threading.Lock()

    def policy(self, request: Recorded) -> str:
        """The mode of the answer; it comes after as long as a picture takes."""
        found = _TITLE.search(request.body)
        assert found, "a prompt without its title"
        with self._lock:
            mode = self._mode(time.monotonic())
            if mode in {"ok", "http_500"}:
                self.bill[found[0].decode()] += 1
            seconds = self._random.uniform(0.3, 2)
        if mode == "ok":
            time.sleep(seconds)
        return mode

    def _mode(self, now: float) -> str:
        while self._latest and self._latest[0] < now - 1:
            self._latest.popleft()
        if len(self._latest) >= self._per_second:
            self.refused += 1
            return "http_429"
        self._latest.append(now)
        return self._random.choices(["ok", "http_503", "http_500"], [96, 3, 1])[0]
