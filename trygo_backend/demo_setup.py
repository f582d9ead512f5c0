"""What `demo.py` needs before the first picture: a separate environment, and a login."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

USER = "demo"

#: A real installation's settings, which the demo ignores. Providers' settings are kept.
FOREIGN = {
    "ACCESS_LOG",
    "ALLOWED_HOSTS",
    "CELERY_BROKER_URL",
    "DATABASE_POOL_SIZE",
    "DEBUG",
    "DEVELOPMENT_FRONTEND_URL",
    "FORCE_SCRIPT_NAME",
    "FRONTEND_URL",
    "GUNICORN_CMD_ARGS",
    "IMAGE_TRUSTED_NETWORKS",
    "MIGRATE_ON_START",
    "PORT",
    "PRODUCTION_FRONTEND_URL",
    "SECURE_HSTS_SECONDS",
    "SECURE_SSL_REDIRECT",
    "TRUST_PROXY_HEADERS",
    "WEB_CONCURRENCY",
}


@dataclass(frozen=True, kw_only=True)
class Account:
    """The demo's login."""

    password: str
    token: str


def demo_environment(outer: Mapping[str, str], *, folder: Path, base: str) -> dict[str, str]:
    """The environment of the demo's server: that of the caller, with the demo's own database, files and key.

    Args:
        outer: The caller's environment. Its provider settings apply: a provider whose key it holds generates the
            images (`IMAGE_PROVIDER` chooses among several), or the offline placeholder if it holds none.
        folder: The demo's folder.
        base: The server's address.
    """
    keys = {"gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"), "openai": ("OPENAI_API_KEY",)}
    usable = [alias for alias, names in keys.items() if any(outer.get(name, "").strip() for name in names)]
    wanted = [alias.strip() for alias in outer.get("IMAGE_PROVIDER", "").split(",")]
    chosen = [alias for alias in wanted if alias in usable]
    return {
        **{name: value for name, value in outer.items() if not _is_foreign(name)},
        "DJANGO_SETTINGS_MODULE": "trygo_backend.settings",
        "SECRET_KEY": _kept_secret(folder / "secret_key"),
        "DATABASE_URL": "sqlite:///" + quote(str(folder / "db.sqlite3")),
        "PUBLIC_URL": base,
        "STORAGE_ROOT": str(folder / "media"),
        "IMAGE_PROVIDER": ",".join(chosen or usable) or "placeholder",
        "PYTHONUNBUFFERED": "1",
    }


def _is_foreign(name: str) -> bool:
    """Whether a variable belongs to a real installation: its storage, queue and metrics are not the demo's."""
    return name in FOREIGN or name.startswith(("S3_", "CELERY_", "METRICS_", "PROMETHEUS_", "IMAGE_"))


def _kept_secret(path: Path) -> str:
    """A random text that stays the same from one demo to the next."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(40))
    return path.read_text()


def prepare_account(environment: Mapping[str, str], folder: Path) -> Account:
    """Create the demo's superuser and its token, or reset them.

    Args:
        environment: The server's, which this process adopts. The server has already migrated the database.
        folder: The demo's folder.
    """
    os.environ.clear()
    os.environ.update(environment)
    import django

    django.setup()
    from django.contrib.auth.models import User
    from rest_framework.authtoken.models import Token

    password = _kept_secret(folder / "password")[:12]
    user, _created = User.objects.get_or_create(username=USER)
    user.is_staff = user.is_superuser = user.is_active = True
    user.set_password(password)
    user.save()
    return Account(password=password, token=Token.objects.get_or_create(user=user)[0].key)
