"""The Django project around the app `images`: settings, server, demo, health.

Celery is imported only where a broker is configured: without one it costs neither memory nor an installation.
"""

import os
from importlib.util import find_spec

# Where it is not installed, the settings say so in a sentence.
if os.environ.get("CELERY_BROKER_URL", "").strip() and find_spec("celery"):
    # Tasks that are sent from web processes have to know the app, and with it the broker.
    from .celery import app as celery_app

    __all__ = ["celery_app"]
