"""The project as an ASGI application, for hosts that run nothing else. Threads (`wsgi.py`) serve files faster."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trygo_backend.settings")

application = get_asgi_application()
