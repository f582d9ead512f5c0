"""Fetching the image where a server answers with an address instead of bytes.

The address comes from outside, so it may point anywhere: at the machine itself, at the cloud's metadata service, at
a file that never ends. Its host is resolved once, every address is checked, and the connection goes to a checked
one, so that a name which resolves differently the second time gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.exceptions import HTTPError

from ..exceptions import ProviderBadResponse, ProviderFailure, ProviderTimeout
from .addresses import is_public
from .base import Deadline
from .body import BodyTooLarge, read_body
from .connections import SOCKET_OPTIONS, guarded
from .exchange import Exchange, exchange
from .lifting import decode_base64
from .outbound import proxy_for, tls_context
from .transport import CONNECT_TIMEOUT

_DATA_URL = "data:"
_HINT = "The operator can allow its host in IMAGE_FETCH_ALLOWED_HOSTS."
_LATE = "The image could not be fetched from the provider's address in time."


class AddressRefused(ValueError):
    """A host resolves to an address that is not of the public internet."""


def fetch_image(url: str, *, deadline: Deadline, max_bytes: int, allowed_hosts: Sequence[str] = ()) -> bytes:
    """The bytes behind `url`, fetched once.

    Args:
        url: `https://…`, or `data:…;base64,…`, which is decoded in place.
        deadline: The total deadline.
        max_bytes: The most bytes to accept.
        allowed_hosts: Host names for which plain http and addresses inside the network are fine.

    Raises:
        ProviderBadResponse: The address is refused or redirects, the file is missing, too large or broken.
        ProviderTimeout: The deadline passed.
    """
    if url[: len(_DATA_URL)].lower() == _DATA_URL:
        return _from_data_url(url, max_bytes)
    request = _prepared(url)
    parts = urlsplit(str(request.url))
    host = (parts.hostname or "").lower()
    trusted = host in {allowed.lower() for allowed in allowed_hosts}
    if parts.scheme != "https" and not (trusted and parts.scheme == "http"):
        raise ProviderBadResponse(f"The provider sent an address that is not https. {_HINT}")
    proxy = proxy_for(str(request.url))
    if not trusted:
        _refuse_inside(host, behind_proxy=proxy is not None)
    # A proxy resolves by itself, and the address that we connect to is its own.
    permit = None if trusted or proxy else _permit_public
    with exchange(deadline, permit=permit) as opened:
        try:
            data = _download(request, proxy, max_bytes, opened)
        except (requests.RequestException, HTTPError, OSError, ValueError, BodyTooLarge) as err:
            raise _translated(err, opened) from err
        if opened.guard.expired:  # A file that ends with its connection looks whole when the watchdog ended it.
            raise ProviderTimeout(_LATE)
    return data


def _prepared(url: str) -> requests.PreparedRequest:
    """The request as it will be sent: the address is judged in the form in which it is connected to.

    Two parsers may read one odd address differently; so the first one's output is all that the second one sees.
    """
    headers = {"Accept": "image/*", "Accept-Encoding": "identity"}
    try:
        request = requests.Request("GET", url, headers=headers).prepare()
        parts = urlsplit(str(request.url))
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError as err:  # Also what requests raises for a missing scheme and the like.
        raise ProviderBadResponse("The provider sent an address that is none.") from err
    if not valid or "@" in parts.netloc or "@" in urlsplit(url).netloc:
        raise ProviderBadResponse("The provider sent an address that is none, or one with a password in it.")
    return request


def _download(request: requests.PreparedRequest, proxy: str | None, max_bytes: int, opened: Exchange) -> bytes:
    # Waiting for somebody else again: the place in which the answer was read goes back.
    opened.working_set.give_back()
    left = opened.deadline.remaining
    if left <= 0:
        raise ProviderTimeout(_LATE)
    with requests.Session() as session:
        # Nothing of the environment but the proxy given below: no other one, and no passwords from ~/.netrc.
        session.trust_env = False
        session.mount("https://", _GuardedAdapter())
        session.mount("http://", _GuardedAdapter())
        with session.send(
            request,
            proxies={"http": proxy, "https": proxy} if proxy else {},
            timeout=(min(CONNECT_TIMEOUT, left), left),
            allow_redirects=False,
            stream=True,
        ) as response:
            if response.status_code != requests.codes.ok:
                raise ProviderBadResponse(
                    f"The address that the provider sent answers with status {response.status_code}."
                )
            return read_body(response.raw, max_bytes)


class _GuardedAdapter(HTTPAdapter):
    """An adapter on the connections of this app: under the exchange's guard, to permitted addresses only."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=tls_context(), socket_options=SOCKET_OPTIONS, **kwargs)
        guarded(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> PoolManager:
        context = tls_context()
        return guarded(super().proxy_manager_for(proxy, ssl_context=context, proxy_ssl_context=context, **kwargs))

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave verification to `tls_context`: `requests` would add its own authorities to the configured ones."""


def _permit_public(address: str) -> None:
    if not is_public(address):
        raise AddressRefused("not a public address")


def _refuse_inside(host: str, *, behind_proxy: bool) -> None:
    """Refuse a host that is inside the network, as far as that can be told before connecting.

    Directly, every address is checked again when it is connected to. Behind a proxy this is the only check: the
    name is looked up here as well, and one that only the proxy can resolve is left to the proxy's own rules.
    """
    try:
        addresses = [_literal(host)]
    except ValueError:
        addresses = _looked_up(host) if behind_proxy else []
    inside = host.rstrip(".").rpartition(".")[2] in {"localhost", "local", "internal"}
    if inside or not all(is_public(address) for address in addresses):
        raise _refused()


def _literal(host: str) -> str:
    """`host` as the address that it is, also in decimal, octal, hexadecimal or shortened form.

    Raises:
        ValueError: It is a name.
    """
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return str(ipaddress.ip_address(host))


def _looked_up(host: str) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):  # Unknown here: the proxy may know it.
        return []


def _translated(err: Exception, opened: Exchange) -> ProviderFailure:
    if isinstance(err, AddressRefused):
        return _refused()
    if isinstance(err, BodyTooLarge):
        return ProviderBadResponse("The image behind the provider's address is too large.")
    if opened.guard.expired or opened.deadline.remaining <= 0:
        return ProviderTimeout(_LATE)
    return ProviderBadResponse("The image could not be fetched from the address that the provider sent.")


def _refused() -> ProviderBadResponse:
    return ProviderBadResponse(f"The provider sent an address that is not allowed. {_HINT}")


def _from_data_url(url: str, max_bytes: int) -> bytes:
    kind, comma, text = url.partition(",")
    if len(text) > max_bytes * 4 // 3 + 4:
        raise ProviderBadResponse("The image in the provider's data address is too large.")
    try:
        if not comma or not kind.lower().endswith(";base64"):
            raise ValueError("not base64")
        return decode_base64(text)
    except ValueError as err:
        raise ProviderBadResponse("The provider sent a data address that cannot be decoded.") from err
