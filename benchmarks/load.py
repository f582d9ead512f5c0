"""The load generator, a process of its own: callers that ask at once, and one that asks again and again.

It speaks HTTP over asyncio's streams and does nothing else, so that one core holds thousands of callers.
`python -m benchmarks.load generate URL --at-once 10 --count 300` and
`python -m benchmarks.load probe URL --seconds 3` print one line of JSON (`Outcome`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

_GIVE_UP = 300.0


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        seconds: From the first request to the last answer.
        cpu_seconds: What the load generator itself took.
        statuses: How often each HTTP status came; `0` stands for no answer at all.
        taken: The seconds each answer took.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    taken: list[float] = field(default_factory=list)


class Caller:
    """One connection, kept alive as long as the server likes."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._path = parts.path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, body: bytes = b"") -> int:
        """Send one request and read the whole answer; its status, 0 where there is none."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            writer.write(self._head(method, body) + body)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0]
            await reader.readexactly(int(length or 0))
            if b"\r\nconnection: close" in head:
                self.close()
            return int(head.split(b" ", 2)[1])
        except (OSError, EOFError):
            self.close()
            return 0

    def _head(self, method: str, body: bytes) -> bytes:
        lines = [f"{method} {self._path} HTTP/1.1", f"Host: {self._host}:{self._port}", "Accept: application/json"]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def generate(url: str, at_once: int, count: int) -> Outcome:
    """Ask for `count` images, `at_once` at a time."""
    outcome, numbers = Outcome(), iter(range(count))

    async def call() -> None:
        caller = Caller(url)
        for number in numbers:
            body = json.dumps({"contentItemId": f"item-{number % 200}", "title": f"A quiet harbour {number}"})
            await timed(outcome, caller, "POST", body.encode())
        caller.close()

    started = time.perf_counter()
    async with asyncio.timeout(_GIVE_UP):
        await asyncio.gather(*(call() for _ in range(at_once)))
    outcome.seconds = time.perf_counter() - started
    return outcome


async def probe(url: str, seconds: float) -> Outcome:
    """Ask with GET, again and again, with a short pause in between."""
    outcome, caller = Outcome(), Caller(url)
    started = time.perf_counter()
    while (now := time.perf_counter()) < started + seconds:
        await timed(outcome, caller, "GET", b"")
        await asyncio.sleep(max(0.0, now + 0.01 - time.perf_counter()))
    outcome.seconds = time.perf_counter() - started
    return outcome


async def timed(outcome: Outcome, caller: Caller, method: str, body: bytes) -> None:
    """Ask once and note what came of it."""
    began = time.perf_counter()
    status = await caller.ask(method, body)
    outcome.taken.append(time.perf_counter() - began)
    outcome.statuses[str(status)] = outcome.statuses.get(str(status), 0) + 1


def main() -> None:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(description="Puts load on a server.")
    parser.add_argument("what", choices=["generate", "probe"])
    parser.add_argument("url")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    if options.what == "generate":
        outcome = asyncio.run(generate(options.url, options.at_once, options.count))
    else:
        outcome = asyncio.run(probe(options.url, options.seconds))
    outcome.cpu_seconds = time.process_time()
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
