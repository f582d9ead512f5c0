"""The way out: proxies, trusted certificates and connection pools, all as the environment says."""

from __future__ import annotations

import os
import ssl
import threading
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import certifi
from requests.utils import get_auth_from_url, get_environ_proxies, select_proxy
from urllib3 import PoolManager, ProxyManager
from urllib3.util import make_headers

from ..exceptions import ProviderNotConfigured
from .connections import SOCKET_OPTIONS, guarded

#: Idle connections kept for reuse, an origin. More may be open at once; the surplus is closed after use.
_IDLE_CONNECTIONS = 100

_BUNDLE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def tls_context() -> ssl.SSLContext:
    """The TLS settings for every connection out, built once for each bundle.

    A bundle named by `SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE` (a file or a directory) is trusted alone; else the
    operating system's certificates and certifi's together, so that slim containers work as well as
    companies that add their own authority to the system.

    Raises:
        ProviderNotConfigured: The bundle cannot be read.
    """
    variable = next((name for name in _BUNDLE_VARIABLES if os.environ.get(name)), "")
    try:
        return _context(os.environ.get(variable, ""))
    except OSError as err:
        raise ProviderNotConfigured(f"The certificates named by {variable or 'certifi'} cannot be read.") from err


@lru_cache(maxsize=4)
def _context(bundle: str) -> ssl.SSLContext:
    if bundle:
        if os.path.isdir(bundle):
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def proxy_for(url: str) -> str | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY (CIDRs too) name for `url`, if any."""
    proxy = select_proxy(url, get_environ_proxies(url))
    if not proxy:
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class Outbound:
    """Connection pools for any number of origins, each directly or through its proxy.

    Which proxy an origin needs is read from the environment once, at its first request.
    """

    def __init__(self) -> None:
        self._managers: dict[tuple[str, str], PoolManager] = {}
        self._lock = threading.Lock()

    def manager_for(self, url: str) -> PoolManager:
        """The pools to use for `url`.

        Raises:
            urllib3.exceptions.ProxySchemeUnknown: The proxy is neither http nor https (SOCKS, for example).
        """
        parts = urlsplit(url)
        origin = (parts.scheme, parts.netloc)
        with self._lock:
            if origin not in self._managers:
                self._managers[origin] = self._manager(parts.scheme, proxy_for(url))
            return self._managers[origin]

    def close(self) -> None:
        """Close every idle connection."""
        with self._lock:
            for manager in self._managers.values():
                manager.clear()

    @staticmethod
    def _manager(scheme: str, proxy: str | None) -> PoolManager:
        # Certificates take a tenth of a second and some megabytes to load: not for plain http on the loopback.
        context = tls_context() if scheme == "https" or (proxy or "").startswith("https:") else None
        settings: dict[str, Any] = {
            "num_pools": 4,
            "maxsize": _IDLE_CONNECTIONS,
            "ssl_context": context,
            "socket_options": SOCKET_OPTIONS,
        }
        if proxy is None:
            return guarded(PoolManager(**settings))
        address, headers = _without_credentials(proxy)
        return guarded(ProxyManager(address, proxy_headers=headers, proxy_ssl_context=context, **settings))


def _without_credentials(proxy: str) -> tuple[str, dict[str, str]]:
    """A proxy's address without user and password, which urllib3 would show in messages, and its headers."""
    user, password = get_auth_from_url(proxy)
    parts = urlsplit(proxy)
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return address, make_headers(proxy_basic_auth=f"{user}:{password}") if user else {}
