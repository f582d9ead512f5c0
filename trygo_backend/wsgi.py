"""The project as a WSGI application: what the production server runs (`serve.py`)."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trygo_backend.settings")

django_application = get_wsgi_application()

from .heads import RememberedHeads  # noqa: E402  (it needs the apps, which are loaded only now)

application = RememberedHeads(django_application)
