"""Callers that ask once each, at a time of their own, and again with the same key if they get no answer."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import requests

from tests.chaos.vendor import TITLE
from tests.queue.installation import Installation

#: How a caller asks: for an answer that may follow, for one within some seconds, or in the plain old way.
_WAYS = {"respond-async": 6, "wait=5": 2, "": 2}
MOST_TRIES = 6
#: Seconds after the last caller has begun, when nobody asks again.
PATIENCE = 20.0


@dataclass
class Callers:
    """What the callers were told.

    Attributes:
        accepted: The ids that they were given, by title.
        answers: How often each kind of answer came.
    """

    installation: Installation
    accepted: dict[str, set[str]] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)

    def ask(self, *, count: int, seconds: float, seed: int) -> None:
        """Let `count` callers ask within `seconds`; returns when all have been answered."""
        chance, begun = random.Random(seed), time.monotonic()
        ways = chance.choices(list(_WAYS), list(_WAYS.values()), k=count)
        plans = sorted((chance.uniform(0, seconds), way) for way in ways)
        with ThreadPoolExecutor(24) as pool:
            for number, (moment, way) in enumerate(plans):
                pool.submit(self._call, TITLE.format(number), way, begun + moment, begun + seconds + PATIENCE)

    def _call(self, title: str, way: str, moment: float, end: float) -> None:
        time.sleep(max(0.0, moment - time.monotonic()))
        headers = {"Prefer": way} if way else {}
        for tries in range(MOST_TRIES):
            if tries and time.monotonic() > end:
                return
            try:
                answer = self.installation.ask(title, Idempotency_Key=title, **headers)
            except requests.RequestException as err:
                self.answers[type(err).__name__] += 1
            else:
                self.answers[str(answer.status_code)] += 1
                if answer.status_code in {200, 202, 409}:
                    self.accepted.setdefault(title, set()).add(str(answer.json()["id"]))
                    return
            time.sleep(1 + tries)
