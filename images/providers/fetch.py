"""Fetching the image from an address, if a server answers with one instead of bytes.

The address comes from outside, so it may point anywhere: at the machine itself, at the cloud's metadata service, at
a file that never ends. Its host is resolved once, every address is checked, and the connection goes to a checked
one, so that a name which resolves differently the second time gains nothing.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Sequence

import httpx2

from ..exceptions import ProviderBadResponse, ProviderTimeout
from ..logs import log_event
from .base import Deadline, decode_base64
from .errors import find_obstacle
from .http import Call, ResponseTooLarge, Transport, open_call, proxy_for

logger = logging.getLogger("images.providers")

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
        allowed_hosts: Hosts for which plain http and addresses inside the network are fine.

    Raises:
        ProviderBadResponse: The address is refused or redirects, the file is missing, too large or broken.
        ProviderTimeout: The deadline passed.
    """
    if url[: len(_DATA_URL)].lower() == _DATA_URL:
        return _from_data_url(url, max_bytes)
    target = _parsed(url)
    trusted = target.host.lower() in {allowed.lower() for allowed in allowed_hosts}
    if target.scheme != "https" and not (trusted and target.scheme == "http"):
        raise ProviderBadResponse(f"The provider sent an address that is not https. {_HINT}")
    behind_proxy = proxy_for(str(target)) is not None
    if not trusted:
        _refuse_inside(target.host.lower(), behind_proxy=behind_proxy)
    # A proxy resolves by itself, and the address that we connect to is its own.
    permit = None if trusted or behind_proxy else _permit_public
    request = httpx2.Request("GET", target, headers={"Accept": "image/*", "User-Agent": "images"})
    with open_call(deadline, permit=permit) as call:
        try:
            response = Transport(max_body_bytes=max_bytes).handle_request(request)
        except AddressRefused as err:
            raise _refused() from err
        except ResponseTooLarge as err:
            raise ProviderBadResponse("The image behind the provider's address is too large.") from err
        except httpx2.TransportError as err:
            if isinstance(err, httpx2.TimeoutException) and deadline.remaining <= 0:
                raise ProviderTimeout(_LATE) from err
            raise _not_fetched(err, call) from err
    if call.status != httpx2.codes.OK:
        raise ProviderBadResponse(f"The address that the provider sent answers with status {call.status}.")
    return response.content


def _not_fetched(err: httpx2.TransportError, call: Call) -> ProviderBadResponse:
    sentence = "The image could not be fetched from the address that the provider sent"
    if call.sent:
        return ProviderBadResponse(f"{sentence}: the response broke off, or was not HTTP.")
    obstacle = find_obstacle(err, call)
    log_event(logger, logging.WARNING, "image_not_fetched", cause=obstacle.cause, reason=obstacle.reason)
    return ProviderBadResponse(f"{sentence}: {obstacle.phrase}.")


def _parsed(url: str) -> httpx2.URL:
    """The address as it will be connected to. There is one parser, so that two cannot read it differently."""
    try:
        target = httpx2.URL(url)
        valid = bool(target.host) and target.port != 0
    except (httpx2.InvalidURL, ValueError) as err:
        raise ProviderBadResponse("The provider sent an address that cannot be read.") from err
    if not valid or target.userinfo or "\\" in url:
        raise ProviderBadResponse("The provider sent an address that cannot be read, or one with a password in it.")
    return target


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


# --- the public internet -----------------------------------------------------------------------------------------

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: IPv6 ranges that lead elsewhere than their numbers say: IPv4-compatible, local NAT64, Teredo, site-local.
_NEVER = tuple(ipaddress.ip_network(network) for network in ("::/96", "64:ff9b:1::/48", "2001::/32", "fec0::/10"))


def is_public(address: str) -> bool:
    """Whether `address` is one of the public internet.

    Private, loopback, link-local, reserved, multicast and unspecified addresses are not, nor are IPv6 addresses in
    which such an IPv4 address is wrapped (mapped, 6to4, NAT64).

    Raises:
        ValueError: It is not an IP address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = _wrapped(ip)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local or any(ip in network for network in _NEVER):
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local)


def _wrapped(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour
