"""`/health` and `/health/ready`, before every other middleware.

A platform's probe speaks plain http and names whatever host it likes, so neither the redirect to https nor
ALLOWED_HOSTS may stand in its way.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase

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
    """200 where the database and the storage can be used, 503 with the reasons where not."""
    checks = {"database": database_problem() or "ok", "storage": storage_problem() or "ok"}
    ready = all(result == "ok" for result in checks.values())
    return _json({"status": "ok" if ready else "unavailable", "checks": checks}, status=200 if ready else 503)


def database_problem() -> str | None:
    """A sentence where the database does not answer or has not been migrated, else `None`.

    It asks over a connection of its own: one of the pool's may be in use for as long as the pool's patience lasts,
    which is longer than a probe's.
    """
    probe = connection.copy()
    leave_the_pool(probe)
    try:
        with probe.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM django_migrations")
    except (DatabaseError, ImproperlyConfigured) as err:
        logger.warning("health_check_failed check=database error=%s", type(err).__name__)
        return "The database does not answer, or has not been migrated. The server's log says more."
    finally:
        probe.close()
    return None


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
