"""In a test run no provider is asked that costs money, unless the test says so."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from urllib.parse import urlsplit

from django.conf import settings
from django.core import mail

from ..exceptions import RealProviderError
from ..providers import ImageProvider

_lock = Lock()
_allowances = 0


@contextmanager
def allow_real_providers() -> Iterator[None]:
    """Let the tests in this block ask real providers, which costs money: for smoke tests against a vendor."""
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def _count(step: int) -> None:
    global _allowances
    with _lock:
        _allowances += step


def refuse_in_test_run(alias: str, provider: ImageProvider) -> None:
    """Refuse to ask a provider with a key in a test run.

    A provider on the loopback (`base_url`) costs nothing, and neither does one without an `api_key`.

    Args:
        alias: Its name in the settings.
        provider: The provider.

    Raises:
        RealProviderError: A test was about to spend money.
    """
    if not provider.options.get("api_key") or _allowances or not in_test_run():
        return
    if _is_loopback(str(provider.options.get("base_url") or "")):
        return
    raise RealProviderError(
        f"This test run was about to ask the image provider {alias!r}, which costs money. Make images inside "
        "images.testing.fake_images(), or say that you mean it with images.testing.allow_real_providers()."
    )


def in_test_run() -> bool:
    """Whether Django's test environment is set up, as its test runner and pytest-django do it."""
    return hasattr(mail, "outbox") and "testserver" in settings.ALLOWED_HOSTS


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
