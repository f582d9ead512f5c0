"""The project as a WSGI application: what the production server runs (`server.py`)."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trygo_backend.settings")

application = get_wsgi_application()
