"""The project's Celery app (`make worker`). It is imported only if a broker is configured."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trygo_backend.settings")

app = Celery("trygo_backend")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


def _serve_metrics(**_: Any) -> None:
    """Serve a worker's metrics to Prometheus (`METRICS_PORT`): workers have no web server."""
    from django.conf import settings

    from images.conf import conf

    if conf.metrics and settings.METRICS_PORT:
        from images.metrics import serve

        serve(settings.METRICS_PORT, settings.METRICS_ADDRESS)


signals.worker_init.connect(_serve_metrics, weak=False)
