"""Metrics for Prometheus (extra `[metrics]`), if `IMAGE_METRICS` is on; otherwise nothing here is imported.

What happened is counted in the process in which it happened, as the app's signals tell it. What is under way is read
from the database when Prometheus asks: that is right across processes and machines, and no killed process leaves its
share behind. Every web process tells the same figure there, so take `max()` of it, not `sum()`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any, cast
from wsgiref.simple_server import WSGIServer

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.models import Count, Min, Q
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from .api.views import ImagesAPIView
from .exceptions import ImagesError
from .models import GeneratedImage, Status
from .services.budgets import standings
from .services.database import rows
from .services.incidents import Incident
from .signals import image_deleted, image_generated, image_generation_failed, queue_incident

try:
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.exposition import start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector
except ImportError as err:
    raise ImproperlyConfigured("IMAGE_METRICS needs prometheus-client: pip install 'trygo-images[metrics]'") from err

_LABELS = ("provider", "model", "variant")
_SECONDS = (1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120)

_registry = CollectorRegistry()
GENERATIONS = Counter(
    "images_generations", 'Generations that ended; outcome is "ready" or the code of the error.',
    [*_LABELS, "outcome"], registry=_registry,
)  # fmt: skip
DURATION = Histogram(
    "images_generation_seconds", "How long generations took, from being taken up to their end.",
    [*_LABELS, "outcome"], buckets=_SECONDS, registry=_registry,
)  # fmt: skip
QUEUED = Histogram(
    "images_queue_seconds", "How long requests waited for a worker.", buckets=(0.1, 1, *_SECONDS[2:], 300, 900),
    registry=_registry,
)  # fmt: skip
BYTES = Counter("images_stored_bytes", "Bytes of the pictures that were stored.", _LABELS[:2], registry=_registry)
ERRORS = Counter(
    "images_provider_errors", "Calls of a provider that gave no picture, by the code of the error.",
    [*_LABELS[:2], "code"], registry=_registry,
)  # fmt: skip
DELETED = Counter("images_deleted", "Pictures that were deleted.", registry=_registry)
INCIDENTS = Counter(
    "images_queue_incidents", "What went wrong between the queue, its workers and the rows, or was put right.",
    ["kind"], registry=_registry,
)  # fmt: skip
for _kind in Incident:  # from the beginning, so that the first one is an increase
    INCIDENTS.labels(_kind)


def connect() -> None:
    """Begin to count. Called once, when the app is ready."""
    image_generated.connect(_count_ready, dispatch_uid="images.metrics")
    image_generation_failed.connect(_count_failed, dispatch_uid="images.metrics")
    image_deleted.connect(_count_deleted, dispatch_uid="images.metrics")
    queue_incident.connect(_count_incident, dispatch_uid="images.metrics")


def _count_ready(image: GeneratedImage, **_: Any) -> None:
    _count(image, Status.READY)
    BYTES.labels(image.provider, image.model).inc(image.size_bytes or 0)


def _count_failed(image: GeneratedImage, error: ImagesError, **_: Any) -> None:
    _count(image, error.code)


def _count_deleted(**_: Any) -> None:
    DELETED.inc()


def _count_incident(kind: str, **_: Any) -> None:
    INCIDENTS.labels(kind).inc()


def _count(image: GeneratedImage, outcome: str) -> None:
    labels = (image.provider, image.model, image.variant)
    GENERATIONS.labels(*labels, outcome).inc()
    if image.duration_ms is not None:
        kind = "ready" if outcome == Status.READY else "failed"
        DURATION.labels(*labels, kind).observe(image.duration_ms / 1000)
    if image.started_at is not None and image.started_at != image.created_at:
        QUEUED.observe((image.started_at - image.created_at).total_seconds())
    for attempt in image.attempts:
        if attempt["code"] != "ok":
            ERRORS.labels(attempt["provider"], attempt["model"], attempt["code"]).inc()


def _under_way() -> Iterator[Any]:
    """Ask the database; nothing if it does not answer."""
    pending, stale = rows().in_status(Status.PENDING), rows().in_status(Status.FAILED).filter(status=Status.PENDING)
    unstarted = Q(started_at__isnull=True)
    refused = unstarted & ~Q(error_code="")
    try:
        found = pending.aggregate(
            running=Count("pk", filter=~unstarted),
            queued=Count("pk", filter=unstarted & ~refused),
            waiting=Count("pk", filter=refused),
            oldest=Min("created_at", filter=unstarted),
        )
        unsettled = stale.aggregate(expired=Count("pk", filter=unstarted), lost=Count("pk", filter=~unstarted))
    except DatabaseError:
        return
    finally:
        _let_go()
    under_way = GaugeMetricFamily("images_under_way", "Generations that have not ended.", labels=["state"])
    for state in ("running", "queued", "waiting"):
        under_way.add_metric([state], found[state])
    yield under_way
    left = GaugeMetricFamily(
        "images_unsettled", "Requests whose time is over, and nobody has said so.", labels=["kind"]
    )
    for kind, count in unsettled.items():
        left.add_metric([kind], count)
    yield left
    waited = (timezone.now() - found["oldest"]).total_seconds() if found["oldest"] else 0.0
    yield GaugeMetricFamily("images_queue_oldest_seconds", "Age of the first request in the queue.", value=waited)


def _budgets() -> Iterator[Any]:
    """What is spent and reserved of the installation's budgets; nothing without any, and if nothing answers."""
    try:
        known = standings()
    except DatabaseError:
        return
    finally:
        _let_go()
    for name, told in (("spent", "What was spent"), ("reserved", "What is reserved"), ("limit", "The budget")):
        gauge = GaugeMetricFamily(f"images_budget_{name}_usd", f"{told} in the running period.", labels=["period"])
        for standing in known:
            value = standing.budget.limit if name == "limit" else getattr(standing, name)
            gauge.add_metric([standing.budget.kind], float(value))
        if known:
            yield gauge


def _let_go() -> None:
    """Close the connection: a worker's server gives each request of Prometheus a thread of its own."""
    connection = connections[rows().db]
    if not connection.in_atomic_block:
        connection.close()


class _Everything:
    """What was counted, by all processes that share a `PROMETHEUS_MULTIPROC_DIR` if any do, and what is under way."""

    def describe(self) -> list[Any]:
        """Nothing, since no other collector registers these."""
        return []

    def collect(self) -> Iterator[Any]:
        """All families of metrics."""
        counted = _registry
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            counted = CollectorRegistry()
            MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
        yield from counted.collect()
        yield from _under_way()
        yield from _budgets()


_exposed = CollectorRegistry()
_exposed.register(cast("Any", _Everything()))


class SeesAll(BasePermission):
    """Staff and trusted networks: callers who see all images may see the metrics, too."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Whether the caller is one of them."""
        return any(getattr(request.user, name, False) is True for name in ("is_staff", "is_trusted"))


class MetricsView(ImagesAPIView):
    """`GET /metrics`. Prometheus sends a staff user's token: `authorization: {credentials: …}`."""

    permission_classes = [SeesAll]
    schema = None

    def get(self, request: Request) -> HttpResponse:
        """The metrics as text."""
        return HttpResponse(
            generate_latest(_exposed), content_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"}
        )


def serve(port: int, address: str) -> tuple[WSGIServer, threading.Thread]:
    """Serve the metrics of a process that has no web server: a queue's worker.

    Args:
        port: 0 for any that is free.
        address: Where to listen.
    """
    return start_http_server(port, addr=address, registry=_exposed)
