"""Who is calling: a token, a session, or a neighbour from a trusted network."""

from __future__ import annotations

import ipaddress
from typing import Any

from django.contrib.auth.models import AnonymousUser
from rest_framework.authentication import BaseAuthentication, TokenAuthentication, get_authorization_header
from rest_framework.request import Request

from ..conf import conf

#: Headers that a proxy adds. Their presence alone means that the socket's address is not the caller's.
FORWARDING_HEADERS = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP")
#: Headers that a browser adds. A page in some internal browser is not a trusted service.
BROWSER_HEADERS = ("HTTP_ORIGIN", "HTTP_SEC_FETCH_SITE")


class TrustedCaller(AnonymousUser):
    """A service from a trusted network: it has no account, and sees and deletes every image."""

    is_trusted = True

    @property
    def is_authenticated(self) -> bool:  # type: ignore[override]
        return True

    def __str__(self) -> str:
        return "TrustedCaller"


class ImagesTokenAuthentication(TokenAuthentication):
    """`Authorization: Token <key>` or `Authorization: Bearer <key>`."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        words = get_authorization_header(request).split()
        if words and words[0].lower() == b"bearer":
            self.keyword = "Bearer"
        return super().authenticate(request)

    def authenticate_header(self, request: Request) -> str:
        return "Token"


class TrustedNetworkAuthentication(BaseAuthentication):
    """Callers without credentials, by the socket's own address, where the operator lists their networks.

    Nothing a caller can write into the request widens it: a forwarding header, an `Origin`, a form or an
    `Authorization` header all end it.
    """

    def authenticate(self, request: Request) -> tuple[TrustedCaller, None] | None:
        meta = request.META
        if any(name in meta for name in (*FORWARDING_HEADERS, *BROWSER_HEADERS)) or get_authorization_header(request):
            return None
        if request.method == "POST" and not _is_json(meta.get("CONTENT_TYPE", "")):
            return None
        if not _in_trusted_network(meta.get("REMOTE_ADDR", "")):
            return None
        return TrustedCaller(), None


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _in_trusted_network(address: str) -> bool:
    networks = conf.trusted_networks
    if not networks:
        return False
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a Unix socket has no address
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return any(ip in network for network in networks)
