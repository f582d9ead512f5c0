"""Logging in to the admin and the browsable API: password guessing is limited, and so is hashing.

django-axes counts failures in the database, which all processes and machines share. This module decides which
failures count together, and limits how many passwords are hashed at once: each takes a third of a second of CPU.
Callers with a token do not log in.
"""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from axes.backends import AxesStandaloneBackend
from axes.handlers.database import AxesDatabaseHandler
from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Sum
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_noop

from .pages import error_page

#: How many failures from an address, for any accounts, count as much as one for a single account from it. So an
#: office behind one address is not locked out by one colleague's typing errors.
ADDRESS_WEIGHT = 10
#: How many log-ins may wait while a process hashes another password, and for how many seconds.
WAITING, PATIENCE = 4, 5

#: Some proxies add the caller's port: `192.0.2.1:4711`, `[2001:db8::1]:4711`.
_WITH_PORT = re.compile(r"(\[.+\]|[\d.]+):\d+")

_waiting = threading.BoundedSemaphore(1 + WAITING)
_hashing = threading.Lock()


class LoginBackend(AxesStandaloneBackend, ModelBackend):  # type: ignore[misc]
    """Checks Django's users and passwords, one at a time in each process, unless axes has locked the caller out.

    After a wrong password no other backend is asked, so it is not hashed again.
    """

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User:
        """Check a password.

        Raises:
            PermissionDenied: It is wrong, the account is locked for this address, or the server is busy.
        """
        with _turn(request):  # axes is asked inside, so that it counts callers that had to wait
            AxesStandaloneBackend.authenticate(self, request, username=username, password=password, **kwargs)
            user = ModelBackend.authenticate(self, request, username=username, password=password, **kwargs)
        if user is None:
            raise PermissionDenied
        return user


@contextmanager
def _turn(request: HttpRequest | None) -> Iterator[None]:
    """Let one caller at a time hash a password in this process, and a few others wait."""
    if not _waiting.acquire(blocking=False):
        raise _busy(request)
    try:
        if not _hashing.acquire(timeout=PATIENCE):
            raise _busy(request)
        try:
            yield
        finally:
            _hashing.release()
    finally:
        _waiting.release()


def _busy(request: HttpRequest | None) -> PermissionDenied:
    # With these set, axes counts no failure, and its middleware calls `refusal` for the response.
    vars(request or HttpRequest()).update(axes_locked_out=True, login_busy=True)
    return PermissionDenied("too many log-ins at once")


class LoginHandler(AxesDatabaseHandler):  # type: ignore[misc]
    """Counts failures by account and address together, and by address, in the order of `AXES_LOCKOUT_PARAMETERS`.

    It does not count by account alone: then anyone could lock anyone else out, from anywhere and for ever.
    """

    def get_failures(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """The failures that count against `AXES_FAILURE_LIMIT`."""
        attempts = self.get_user_attempts(request, credentials)
        account, address = (each.aggregate(sum=Sum("failures_since_start"))["sum"] or 0 for each in attempts)
        return max(account, address // ADDRESS_WEIGHT)

    def user_login_failed(
        self, sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **kwargs: Any
    ) -> None:
        """Count a failure. A log-in that was refused without being tried is not counted or written."""
        if not getattr(request, "axes_locked_out", False):
            super().user_login_failed(sender, credentials, request, **kwargs)

    def reset_user_attempts(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """Forget the failures of an account that has logged in, but not the address's failures for other accounts."""
        account, _ = self.filter_user_attempts(request, credentials)
        deleted: int = account.delete()[0]
        return deleted


def client_address(request: HttpRequest) -> str | None:
    """The address under which attempts are counted (`AXES_CLIENT_IP_CALLABLE`): IPv4, or an IPv6 network of 64 bits.

    It is the socket's address. Behind a trusted proxy (`TRUST_PROXY_HEADERS`) it is the last address in
    `X-Forwarded-For`, which that proxy has written; the caller may have invented those before it.
    """
    address = request.META.get("REMOTE_ADDR", "")
    if settings.TRUST_PROXY_HEADERS:
        last = request.META.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()
        found = _WITH_PORT.fullmatch(last)
        address = (found[1] if found else last) or address
    try:
        ip = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:  # a Unix socket has none
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False).network_address)
    return str(ip)


def refusal(request: HttpRequest, response: HttpResponse, credentials: Any) -> HttpResponse:
    """The response to a log-in that was not tried (`AXES_LOCKOUT_CALLABLE`)."""
    if getattr(request, "login_busy", False):
        sentence = gettext_noop("Too many people are logging in at the moment. Try again in a few seconds.")
        return error_page(503, sentence, retry_after=PATIENCE)
    sentence = gettext_noop("Too many log-ins have failed. Try again in 15 minutes.")
    return error_page(429, sentence, retry_after=int(settings.AXES_COOLOFF_TIME.total_seconds()))
