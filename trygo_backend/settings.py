"""The project's settings, read from the environment alone.

A value that cannot be used raises `ImproperlyConfigured` with one sentence (`environment.py`). The app's own settings
(`IMAGE_PROVIDER`, keys, models, ...) are read by `images.conf` at the moment of use and do not appear here.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from corsheaders.defaults import default_headers
from django.core.exceptions import ImproperlyConfigured

from .environment import Environment, allowed_hosts, cors_origins, database, public_origin
from .scaling import celery_transport, file_storage, need_celery

BASE_DIR = Path(__file__).resolve().parent.parent
_env = Environment(os.environ)

# --- What kind of installation this is ----------------------------------------------------------------------

DEBUG = _env.flag("DEBUG")
SECRET_KEY = _env.text("SECRET_KEY", "insecure-and-only-for-debug" if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "SECRET_KEY is not set. Make one with `python3 -c 'import secrets; print(secrets.token_urlsafe(50))'` and "
        "keep it in the environment (DEBUG=1 does without, on your own machine only)."
    )

_public = public_origin(_env)
_public_is_https = _public is not None and _public.scheme != "http"  # without a scheme: https
ALLOWED_HOSTS = allowed_hosts(_env, _public)

# --- Apps, middleware, addresses ----------------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "corsheaders",
    "rest_framework",
    "rest_framework.authtoken",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "axes",
    "images",
]
MIDDLEWARE = [
    # First, so that a probe is answered whatever the host, the scheme or the state of the database.
    "trygo_backend.health.HealthMiddleware",
    "django.middleware.security.SecurityMiddleware",
    # Before everything that can answer by itself: a browser must be able to read those answers too.
    "corsheaders.middleware.CorsMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "trygo_backend.pages.LanguageMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    # Last, as its documentation asks: it answers if a log-in was not tried.
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "trygo_backend.urls"
# The path under which a proxy publishes this server, and which it strips from requests: `/pics` for
# `https://www.example.com/pics/admin/`.
_subpath = _env.text("FORCE_SCRIPT_NAME").strip("/")
FORCE_SCRIPT_NAME = f"/{_subpath}" if _subpath else None
WSGI_APPLICATION = "trygo_backend.wsgi.application"
ASGI_APPLICATION = "trygo_backend.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "trygo_backend" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Logging in (login.py) ----------------------------------------------------------------------------------

# Django's own backend is listed for sessions that were started with it. It never checks a password.
AUTHENTICATION_BACKENDS = ["trygo_backend.login.LoginBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_REDIRECT_URL = "home"
# After five failures for an account from an address, or fifty from an address, that address is locked out for a
# while. Trying meanwhile does not prolong it.
AXES_HANDLER = "trygo_backend.login.LoginHandler"
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"], "ip_address"]
AXES_CLIENT_IP_CALLABLE = "trygo_backend.login.client_address"
AXES_LOCKOUT_CALLABLE = "trygo_backend.login.refusal"
# These go neither into the log nor into the table's copy of the form. Passwords never do.
AXES_SENSITIVE_PARAMETERS = ["username", "csrfmiddlewaretoken"]
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

# --- Database and files -------------------------------------------------------------------------------------

DATABASES: dict[str, dict[str, Any]] = {
    "default": database(
        _env.text("DATABASE_URL", "sqlite:///db.sqlite3"),
        base_dir=BASE_DIR,
        pool_size=_env.integer("DATABASE_POOL_SIZE", 10, minimum=0, maximum=1000),
    )
}

# Where files live: a folder, or an S3-compatible server's bucket (S3_BUCKET).
STORAGES: dict[str, dict[str, Any]] = {
    "default": file_storage(_env),
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
# The server creates the folder when it starts (preflight.py). Creating it here would hide a volume that is not
# mounted.
MEDIA_ROOT = str(BASE_DIR / Path(_env.text("STORAGE_ROOT", "media")).expanduser())
MEDIA_URL = "/media/"

# The admin's assets are served straight from the packages that ship them, without collectstatic.
STATIC_URL = f"{FORCE_SCRIPT_NAME or ''}/static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

# --- Who may call the API, and a queue, if one is configured -------------------------------------------------

# Old callers' accounts were never given permissions: every caller with credentials may generate.
IMAGES: dict[str, Any] = {"PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"]}
if CELERY_BROKER_URL := _env.text("CELERY_BROKER_URL"):
    need_celery()
    IMAGES["QUEUE"] = "celery"
    CELERY_BROKER_TRANSPORT_OPTIONS = celery_transport(
        CELERY_BROKER_URL, _env.text("IMAGE_DEADLINE", "90"), _env.text("IMAGE_STORAGE_TIMEOUT", "60")
    )
    CELERY_BROKER_CONNECTION_TIMEOUT = 3
    # Wait for a broker that is being restarted, however long it takes.
    CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
    CELERY_BROKER_CONNECTION_MAX_RETRIES = None
    CELERY_TASK_DEFAULT_QUEUE = _env.text("CELERY_QUEUE", "images")
    CELERY_TASK_IGNORE_RESULT = True
    # A generation mostly waits; a waiting thread takes a few megabytes, a process a hundred. This is a setting
    # because Celery cannot tell its own option `--pool prefork` from no option at all.
    CELERY_WORKER_POOL = _env.text("CELERY_POOL", "threads")
    CELERY_WORKER_CONCURRENCY = _env.integer("CELERY_CONCURRENCY", 20, minimum=1, maximum=1000)
    # A worker takes only what it can start at once; the rest stays in the queue for other workers.
    CELERY_WORKER_PREFETCH_MULTIPLIER = 1
    CELERY_WORKER_DISABLE_PREFETCH = CELERY_BROKER_URL.startswith("redis")
    CELERY_WORKER_HIJACK_ROOT_LOGGER = False

#: The port on which a worker serves metrics to Prometheus (IMAGE_METRICS); 0 for none.
METRICS_PORT = _env.integer("METRICS_PORT", 0, minimum=0, maximum=65535)
METRICS_ADDRESS = _env.text("METRICS_ADDRESS", "127.0.0.1")

# --- Limits -------------------------------------------------------------------------------------------------

# Above the app's own limit (`MAX_BODY_BYTES`, 2 MiB), so that the app answers first (413).
DATA_UPLOAD_MAX_MEMORY_SIZE = 3 * 1024 * 1024
# The page that confirms a bulk deletion in the admin sends one field for each row.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 20_000

# --- Behind TLS ---------------------------------------------------------------------------------------------

if TRUST_PROXY_HEADERS := _env.flag("TRUST_PROXY_HEADERS"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    USE_X_FORWARDED_HOST = True
SECURE_SSL_REDIRECT = _env.flag("SECURE_SSL_REDIRECT")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _public_is_https
# An hour protects a visit and is short enough to undo a mistake. Raise it once everything works.
SECURE_HSTS_SECONDS = _env.integer(
    "SECURE_HSTS_SECONDS", 3600 if _public_is_https else 0, minimum=0, maximum=100_000_000
)
CSRF_TRUSTED_ORIGINS = [_public.url("https")] if _public and _public_is_https else []
X_FRAME_OPTIONS = "DENY"
CSRF_FAILURE_VIEW = "trygo_backend.pages.csrf_failure"

# --- CORS ---------------------------------------------------------------------------------------------------

CORS_URLS_REGEX = r"^/(api|media)/"
_origins = cors_origins(_env, ("FRONTEND_URL", "PRODUCTION_FRONTEND_URL", "DEVELOPMENT_FRONTEND_URL"))
CORS_ALLOW_ALL_ORIGINS = "*" in _origins
CORS_ALLOWED_ORIGINS = [origin for origin in _origins if origin != "*"]
CORS_ALLOW_HEADERS = [*default_headers, "idempotency-key", "prefer"]
CORS_EXPOSE_HEADERS = ["Location", "Retry-After", "Idempotency-Replayed", "Preference-Applied"]
# Pages of other origins send a token; sessions are for this server's own pages.
CORS_ALLOW_CREDENTIALS = False

# --- The API's defaults (the app `images` sets its own explicitly) --------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.PageNumberPagination",
    "PAGE_SIZE": 50,
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Images",
    "DESCRIPTION": "Send a title, get the address of a generated picture.",
    "VERSION": "1",
    "SERVE_AUTHENTICATION": [],
    "SERVE_INCLUDE_SCHEMA": False,
    # The pages' scripts come with the package, so they need no internet access.
    "SWAGGER_UI_DIST": "SIDECAR",
    # Swagger UI would send the schema's address to a validator on the internet.
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": None},
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

# --- Time, language, log ------------------------------------------------------------------------------------

USE_TZ = True
# Also the log's times: Django passes it on to the C library.
TIME_ZONE = _env.time_zone("TIME_ZONE", "UTC")
USE_I18N = True
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("ru", "Русский")]
LOCALE_PATHS = [BASE_DIR / "trygo_backend" / "locale"]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "trygo_backend.logs.OneLineFormatter",
            "format": "{asctime} {levelname} {name} {message}",
            "style": "{",
        }
    },
    "filters": {"without_traceback": {"()": "trygo_backend.logs.WithoutTraceback"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "images": {"level": "INFO"},
        "trygo_backend": {"level": "INFO"},
        # Without Django's own handlers, so that nothing is written twice.
        "django": {"handlers": [], "level": "INFO"},
        # Its warnings are one line for each 404, which any caller can cause.
        "django.request": {"level": "ERROR"},
        "django.security.DisallowedHost": {"filters": ["without_traceback"]},
    },
}
