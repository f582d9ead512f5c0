"""What several machines share: the queue's connection and the storage, from the environment (`docs/scaling.md`)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from .environment import Environment

#: Seconds for which an address that was signed for one request of a picture is good.
SIGNATURE_SECONDS = 300


def celery_transport(url: str, deadline: str) -> dict[str, Any]:
    """Celery's `broker_transport_options`: publishing gives up soon, and what a dead worker held comes back.

    Args:
        url: The broker's.
        deadline: Of a generation, in seconds, as the environment has it; the app's own check says where it is none.
    """
    options: dict[str, Any] = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5}
    if not url.startswith("redis"):
        return {**options, "confirm_publish": True}  # published is what the broker has, not what was sent
    try:
        seconds = float(deadline)
    except ValueError:
        seconds = 90.0
    # Longer than the longest that a worker may rightly hold a task: a run, and the pause before a second look.
    visibility = int(2 * seconds + 120)
    return {
        **options,
        "visibility_timeout": visibility,
        "unacked_restore_throttle": 1,  # look for what has become visible every 10 s, not every 100
        "socket_connect_timeout": 3,
        "socket_timeout": 5,
    }


def need_celery() -> None:
    """Say what to install where a broker is configured.

    Raises:
        ImproperlyConfigured: Celery is not installed.
    """
    if find_spec("celery") is None:
        raise ImproperlyConfigured("CELERY_BROKER_URL needs more packages: pip install -r requirements-scaling.txt")


def file_storage(environment: Environment) -> dict[str, Any]:
    """Django's `STORAGES["default"]`: a folder (`STORAGE_ROOT`), or a bucket where `S3_BUCKET` names one.

    Keys are read by the client itself: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or the machine's role.

    Raises:
        ImproperlyConfigured: The package for it is not installed.
    """
    bucket = environment.text("S3_BUCKET")
    if not bucket:
        return {"BACKEND": "django.core.files.storage.FileSystemStorage"}
    try:
        import storages  # noqa: F401
        from botocore.config import Config
    except ImportError as err:
        raise ImproperlyConfigured("S3_BUCKET needs more packages: pip install -r requirements-scaling.txt") from err
    options: dict[str, Any] = {
        "bucket_name": bucket,
        "file_overwrite": False,
        "default_acl": None,
        "querystring_auth": True,
        "querystring_expire": SIGNATURE_SECONDS,
        "object_parameters": {"CacheControl": "no-cache"},
        # A storage that hangs must not hang a request for minutes, as the client's own defaults would let it.
        "client_config": Config(
            signature_version="s3v4",
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=50,
            s3={"addressing_style": environment.text("S3_ADDRESSING_STYLE", "auto")},
        ),
    }
    for name, variable in {"endpoint_url": "S3_ENDPOINT_URL", "region_name": "S3_REGION"}.items():
        if value := environment.text(variable):
            options[name] = value
    return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
