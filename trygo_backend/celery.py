"""The project's Celery app (`make worker`). It is imported only where there is a broker."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trygo_backend.settings")

app = Celery("trygo_backend")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


def _serve_metrics(**_: Any) -> None:
    """Workers have no web server of their own, so that Prometheus gets one (`METRICS_PORT`)."""
    from django.conf import settings

    from images.conf import conf

    if conf.metrics and settings.METRICS_PORT:
        from images.metrics import serve

        serve(settings.METRICS_PORT, settings.METRICS_ADDRESS)


signals.worker_init.connect(_serve_metrics, weak=False)
