"""Which IP addresses belong to the public internet."""

from __future__ import annotations

import ipaddress

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: IPv6 ranges that lead elsewhere than their numbers say: IPv4-compatible, local NAT64, Teredo, site-local.
_NEVER = tuple(ipaddress.ip_network(network) for network in ("::/96", "64:ff9b:1::/48", "2001::/32", "fec0::/10"))


def is_public(address: str) -> bool:
    """Whether `address` is one of the public internet.

    Private, loopback, link-local, reserved, multicast and unspecified addresses are not, nor are IPv6 addresses in
    which such an IPv4 address is wrapped (mapped, 6to4, NAT64).

    Raises:
        ValueError: It is no IP address.
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
