"""The project as an ASGI application, for platforms that run nothing else. WSGI (`wsgi.py`) serves files faster."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trygo_backend.settings")

application = get_asgi_application()
