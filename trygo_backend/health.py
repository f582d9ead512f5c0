"""`/health` and `/health/ready`, answered before every other middleware.

Platforms' probes use plain http and any host name, so neither the redirect to https nor ALLOWED_HOSTS may reject
them.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase

from images.conf import conf
from images.logs import log_event
from images.services.probes import PROBES, Finding, Level, broken, run_probes

logger = logging.getLogger("trygo_backend.health")

#: Images can be generated and served only if these probes succeed.
NECESSARY = ("database", "storage")
#: Seconds for which the results of the probes are shared.
KEEP = 1.0
#: Seconds to wait for the probes; a probe that has not answered by then counts as broken.
PATIENCE = 5.0


class HealthMiddleware:
    """Answers the two health addresses, with and without a trailing slash, and passes on everything else.

    `/health` says that the process answers, and touches nothing else. `/health/ready` says whether it can work:
    200 or 503, with a sentence for each probe that failed.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """The answer for a health address, or that of the rest of the server."""
        path = request.path_info.removesuffix("/")
        if path not in {"/health", "/health/ready"}:
            return self.get_response(request)
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD"], headers={"Content-Length": "0"})
        response = _json({"status": "ok"}) if path == "/health" else readiness()
        if request.method == "HEAD":
            response.content = b""  # the length stays that of a GET
        return response


def readiness() -> HttpResponse:
    """200 if the database and the storage can be used, otherwise 503 with the reasons.

    A queue without workers and a budget that is (nearly) used up are reported as `degraded` but do not cause a 503: a
    load balancer would take every web process out of service, and existing pictures could no longer be fetched.
    """
    findings = probe_results()
    checks = {name: public_sentence(findings[name]) for name in NECESSARY}
    ready = set(checks.values()) == {"ok"}
    if ready and conf.queue:
        checks["queue"] = public_sentence(findings["queue"])
    if ready and (conf.budget_day is not None or conf.budget_month is not None):
        checks["budget"] = public_sentence(findings["budget"])
    status = "unavailable" if not ready else "ok" if set(checks.values()) == {"ok"} else "degraded"
    return _json({"status": status, "checks": checks}, status=200 if ready else 503)


def public_sentence(finding: Finding) -> str:
    """`ok`, or a sentence about the problem without host names and paths."""
    return "ok" if finding.level == Level.FINE else finding.public or finding.sentence


# --- One round of probes at a time ------------------------------------------------------------------------------


class _Round:
    """One run of all probes. The thread that creates it runs it; other threads wait for its results."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.ended = 0.0
        self.results: dict[str, Finding] = {}
        self.done = threading.Event()

    @property
    def is_fresh(self) -> bool:
        """Whether it is still running, or ended a moment ago."""
        return not self.done.is_set() or time.monotonic() - self.ended < KEEP

    def run(self) -> None:
        """Run the probes in this thread, and log those that show that the process cannot work."""
        try:
            for name in PROBES:
                self.results = {**self.results, **run_probes(name)}  # never changed while another thread reads it
        finally:
            self.ended = time.monotonic()
            self.done.set()
        for name in NECESSARY:
            if (finding := self.results[name]).level == Level.BROKEN:
                log_event(logger, logging.WARNING, "health_check_failed", check=name, error=finding.sentence)

    def wait(self) -> dict[str, Finding]:
        """The results, at the latest `PATIENCE` seconds after the start."""
        self.done.wait(max(0.0, self.begun + PATIENCE - time.monotonic()))
        late = (broken(name.capitalize(), "It did not answer in time.", "Look for what hangs.") for name in PROBES)
        return {**dict(zip(PROBES, late, strict=True)), **self.results}


_lock = threading.Lock()
_latest: _Round | None = None


def probe_results() -> dict[str, Finding]:
    """What the probes of `images.services.probes` find, by name.

    A process runs them in one thread at a time. Requests that arrive meanwhile, or within `KEEP` seconds, share the
    results, because anyone may send them and every round opens database connections of its own. A thread waits at
    most `PATIENCE` seconds for another thread's round.
    """
    global _latest
    with _lock:
        current = _latest
        if begins := current is None or not current.is_fresh:
            current = _latest = _Round()
    if begins:
        current.run()
    return current.wait()


def _json(body: dict[str, Any], status: int = 200) -> HttpResponse:
    content = json.dumps(body).encode()
    headers = {"Cache-Control": "no-store", "Content-Length": str(len(content))}
    return HttpResponse(content, status=status, content_type="application/json", headers=headers)
