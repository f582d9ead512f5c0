"""`/health` and `/health/ready`, before every other middleware.

A platform's probe speaks plain http and names whatever host it likes, so neither the redirect to https nor
ALLOWED_HOSTS may stand in its way.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase

from images.conf import conf

logger = logging.getLogger("trygo_backend.health")

#: Seconds to wait for a database that does not answer (libpq's least is 2).
DATABASE_TIMEOUT = 3


class HealthMiddleware:
    """Answers the two health addresses, with and without a trailing slash, and passes on everything else.

    `/health` says that the process answers, and touches nothing else. `/health/ready` says whether it can work:
    200 or 503, with a sentence for each check that failed.
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
    """200 where the database and the storage can be used, 503 with the reasons where not.

    A queue that nobody works on is told (`degraded`) and no reason for a 503: a load balancer would take every web
    process out of service, and with them the pictures that are there.
    """
    checks = {"database": database_problem() or "ok", "storage": storage_problem() or "ok"}
    ready = all(result == "ok" for result in checks.values())
    if ready and conf.queue:
        checks["queue"] = queue_problem() or "ok"
    status = "unavailable" if not ready else "ok" if checks.get("queue", "ok") == "ok" else "degraded"
    return _json({"status": status, "checks": checks}, status=200 if ready else 503)


def database_problem() -> str | None:
    """A sentence where the database does not answer or has not been migrated, else `None`.

    It asks over a connection of its own: one of the pool's may be in use for as long as the pool's patience lasts,
    which is longer than a probe's.
    """
    try:
        with _own_connection(DEFAULT_DB_ALIAS) as probe, probe.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM django_migrations")
    except (Error, ImproperlyConfigured) as err:
        logger.warning("health_check_failed check=database error=%s", type(err).__name__)
        return "The database does not answer, or has not been migrated. The server's log says more."
    return None


def queue_problem() -> str | None:
    """A sentence where nobody takes up what is queued, else `None`."""
    from images.services.queue import queue_problem as problem  # not before the apps are loaded
    from images.services.queue import waiting

    oldest = waiting().values_list("created_at")[:1]
    try:
        with _own_connection(oldest.db) as probe:
            found = next(iter(oldest.query.get_compiler(connection=probe).results_iter()), None)
    except Error as err:
        logger.warning("health_check_failed check=queue error=%s", type(err).__name__)
        return "The database does not tell what is queued. The server's log says more."
    return problem(found[0]) if found else None


@contextmanager
def _own_connection(alias: str) -> Iterator[BaseDatabaseWrapper]:
    probe = connections[alias].copy()
    leave_the_pool(probe)
    try:
        yield probe
    finally:
        probe.close()


def leave_the_pool(probe: BaseDatabaseWrapper) -> None:
    """Make a connection that is not open yet one of its own, which gives up after `DATABASE_TIMEOUT`."""
    options = probe.settings_dict["OPTIONS"]  # a copy's settings are its own
    options.pop("pool", None)
    if probe.vendor == "postgresql":
        options["connect_timeout"] = DATABASE_TIMEOUT


def storage_problem() -> str | None:
    """A sentence where images cannot be stored, else `None`."""
    from images.storage import storage_problem as problem  # not before the apps are loaded

    return problem()


def _json(body: dict[str, Any], status: int = 200) -> HttpResponse:
    content = json.dumps(body).encode()
    headers = {"Cache-Control": "no-store", "Content-Length": str(len(content))}
    return HttpResponse(content, status=status, content_type="application/json", headers=headers)
