"""Files a second, by wrk: 2 threads, 50 connections, as long as `seconds` says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import nginx, servers
from benchmarks.processes import Watch
from benchmarks.servers import Server

SIZES = {"50 KB": 50_000, "1.5 MB": 1_500_000}


@dataclass(frozen=True, kw_only=True)
class Served:
    """What one server did with one file.

    Attributes:
        per_second: Answers a second.
        cpu_us: CPU time of the server's process tree for each answer, in microseconds.
    """

    per_second: float
    cpu_us: float


def is_installed() -> bool:
    """Whether there is a wrk. On Debian: apt-get install wrk."""
    return shutil.which("wrk") is not None


def floor() -> str:
    """The name of the server beside which the others are set."""
    return "nginx" if nginx.is_installed() else "sendfile"


def measure(folder: Path, *, rounds: int, seconds: int) -> dict[tuple[str, str], Served]:
    """Answers a second by (server, what is asked for); medians over rounds in which the servers take turns."""
    found: dict[tuple[str, str], list[Served]] = {}
    with ExitStack() as stack:
        targets = _start(folder, stack)
        for _ in range(rounds):
            for what, path in _paths().items():
                for name, server in targets.items():
                    for key, header in _requests(name, what, server.base + path):
                        found.setdefault(key, []).append(_wrk(server, path, seconds, header))
    return {
        key: Served(per_second=median(one.per_second for one in all_), cpu_us=median(one.cpu_us for one in all_))
        for key, all_ in found.items()
    }


def _paths() -> dict[str, str]:
    return {what: f"/media/draft-images/item/{size}.png" for what, size in SIZES.items()}


def _start(folder: Path, stack: ExitStack) -> dict[str, Server]:
    """The servers, and the files that all of them serve."""
    # No generation is asked for here, so there need not be a provider.
    ours = stack.enter_context(servers.ours(folder, "http://127.0.0.1:9"))
    media = folder / "media"
    item = media / "draft-images" / "item"
    item.mkdir(parents=True)
    for size in SIZES.values():
        (item / f"{size}.png").write_bytes(os.urandom(size))
    plain = stack.enter_context(servers.plain_django(folder, "http://127.0.0.1:9"))
    (folder / "plain" / "draft-images").symlink_to(media / "draft-images")
    root = folder / "www"
    root.mkdir()
    (root / "media").symlink_to(media)
    if not nginx.is_installed():
        return {"sendfile": stack.enter_context(servers.sendfile(folder, root)), "plain Django": plain, "ours": ours}
    return {
        "nginx": stack.enter_context(nginx.plain(folder, root)),
        "nginx as documented": stack.enter_context(nginx.as_documented(folder, media, ours.base)),
        "plain Django": plain,
        "ours": ours,
    }


def _requests(name: str, what: str, url: str) -> Iterator[tuple[tuple[str, str], str]]:
    """What to ask for: the file, and whether it has changed."""
    yield (name, what), ""
    with urllib.request.urlopen(url) as answer:
        etag, modified = answer.headers["ETag"], answer.headers["Last-Modified"]
        answer.read()
    # Django's own view for files knows no ETag.
    unchanged = f"If-None-Match: {etag}" if etag else f"If-Modified-Since: {modified}"
    yield (name, f"{what}, 304"), unchanged


def _wrk(server: Server, path: str, seconds: int, header: str) -> Served:
    command = ["wrk", "-t2", "-c50", f"-d{seconds}s", *(["-H", header] if header else []), server.base + path]
    with Watch(server.pid) as watch:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in told, told
    total, rate = re.search(r"(\d+) requests in", told), re.search(r"Requests/sec:\s*([\d.]+)", told)
    assert total is not None, told
    assert rate is not None, told
    return Served(per_second=float(rate[1]), cpu_us=1e6 * watch.usage.cpu_seconds / max(1, int(total[1])))
