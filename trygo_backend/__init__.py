"""The Django project around the app `images`: settings, server, demo, health.

Celery is imported only if a broker is configured: otherwise it costs no memory and need not be installed.
"""

import os
from importlib.util import find_spec

# If Celery is not installed, the settings module says so.
if os.environ.get("CELERY_BROKER_URL", "").strip() and find_spec("celery"):
    # Web processes need the app, which knows the broker, to send tasks.
    from .celery import app as celery_app

    __all__ = ["celery_app"]
