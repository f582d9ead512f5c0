"""The project's own settings, in a clean environment: whatever the machine sets for itself must not reach a test."""

from __future__ import annotations

import os
import tempfile

_PREFIXES = (
    *("OPENAI_", "GEMINI_", "GOOGLE_", "IMAGE_", "SECURE_"),
    *("CELERY_", "S3_", "AWS_", "METRICS_", "PROMETHEUS_"),
)
_NAMES = {
    "FORCE_SCRIPT_NAME",
    "ACCESS_LOG",
    "ALLOWED_HOSTS",
    "BIND_ADDRESS",
    "DATABASE_POOL_SIZE",
    "DATABASE_URL",
    "DEBUG",
    "DEVELOPMENT_FRONTEND_URL",
    "FRONTEND_URL",
    "GUNICORN_CMD_ARGS",
    "MIGRATE_ON_START",
    "PORT",
    "PRODUCTION_FRONTEND_URL",
    "PUBLIC_URL",
    "STORAGE_ROOT",
    "TIME_ZONE",
    "TRUST_PROXY_HEADERS",
    "WEB_CONCURRENCY",
}
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
for _name in list(os.environ):
    if _name.startswith(_PREFIXES) or _name in _NAMES or _name.upper() in _PROXIES:
        del os.environ[_name]
#: A storage that fails is not asked again, unless a test wants it.
os.environ["IMAGE_STORAGE_TIMEOUT"] = "0"
os.environ["SECRET_KEY"] = "only-for-tests-" + "x" * 50
#: The whole suite on another database: TEST_DATABASE_URL=postgres://user:password@host/name make test
if _url := os.environ.get("TEST_DATABASE_URL"):
    os.environ["DATABASE_URL"] = _url

if _url and _url.startswith("mysql:"):
    import pymysql

    pymysql.install_as_MySQLdb()  # it needs no compiler, unlike mysqlclient

from trygo_backend.settings import *  # noqa: E402, F403
from trygo_backend.settings import DATABASES  # noqa: E402

os.environ.pop("DATABASE_URL", None)  # tests read the environment, too

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # A file, as in production: a database in memory knows neither WAL nor waiting for a lock, so that threads of a
    # test would fail at random ("table is locked"). The process's number keeps parallel runs apart.
    DATABASES["default"]["TEST"] = {"NAME": os.path.join(tempfile.gettempdir(), f"trygo-test-{os.getpid()}.sqlite3")}
