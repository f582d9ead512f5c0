"""What several machines share: the queue's connection and the storage, from the environment (`docs/scaling.md`)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from .environment import Environment

#: Seconds for which the signed address of a picture is valid.
SIGNATURE_SECONDS = 300


def celery_transport(url: str, *times: str) -> dict[str, Any]:
    """Celery's `broker_transport_options`: publishing fails fast, and a dead worker's tasks are delivered again.

    Args:
        url: The broker's URL.
        times: What a generation may take in seconds (`IMAGE_DEADLINE`, `IMAGE_STORAGE_TIMEOUT`), as text from the
            environment; if one is not a number, the app's own check reports it.
    """
    options: dict[str, Any] = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5}
    if not url.startswith("redis"):
        return {**options, "confirm_publish": True}  # a task counts as published once the broker has it
    try:
        seconds = sum(map(float, times))
    except ValueError:
        seconds = 150.0
    # Longer than a live worker may hold a task: a run, and the pause before it is checked again.
    visibility = int(2 * seconds + 120)
    return {
        **options,
        "visibility_timeout": visibility,
        "unacked_restore_throttle": 1,  # look for tasks to deliver again every 10 s, not every 100
        "socket_connect_timeout": 3,
        "socket_timeout": 5,
    }


def need_celery() -> None:
    """Say what to install if a broker is configured without Celery.

    Raises:
        ImproperlyConfigured: Celery is not installed.
    """
    if find_spec("celery") is None:
        raise ImproperlyConfigured("CELERY_BROKER_URL needs more packages: pip install -r requirements-scaling.txt")


def file_storage(environment: Environment) -> dict[str, Any]:
    """Django's `STORAGES["default"]`: a folder (`STORAGE_ROOT`), or the bucket that `S3_BUCKET` names.

    The S3 client itself reads the keys: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or the machine's role.

    Raises:
        ImproperlyConfigured: The packages for S3 are not installed.
    """
    bucket = environment.text("S3_BUCKET")
    if not bucket:
        return {"BACKEND": "django.core.files.storage.FileSystemStorage"}
    try:
        import storages  # noqa: F401
        from boto3.s3.transfer import TransferConfig
        from botocore.config import Config
    except ImportError as err:
        raise ImproperlyConfigured("S3_BUCKET needs more packages: pip install -r requirements-scaling.txt") from err
    options: dict[str, Any] = {
        "bucket_name": bucket,
        "file_overwrite": True,  # names are unique, so nothing has to be asked before a file is stored
        "default_acl": None,
        "querystring_auth": True,
        "querystring_expire": SIGNATURE_SECONDS,
        "object_parameters": {"CacheControl": "no-cache"},
        # One call for a file of any size that is accepted, from the caller's own thread.
        "transfer_config": TransferConfig(multipart_threshold=1024**3, use_threads=False),
        # The client's default timeouts would let an unresponsive storage block a request for minutes. The app itself
        # tries again.
        "client_config": Config(
            signature_version="s3v4",
            connect_timeout=5,
            read_timeout=10,
            retries={"mode": "standard", "total_max_attempts": 2},
            max_pool_connections=50,
            s3={"addressing_style": environment.text("S3_ADDRESSING_STYLE", "auto")},
        ),
    }
    for name, variable in {"endpoint_url": "S3_ENDPOINT_URL", "region_name": "S3_REGION"}.items():
        if value := environment.text(variable):
            options[name] = value
    return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
