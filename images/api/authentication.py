"""Who is calling: a token, a session, or a service in a trusted network."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from django.apps import apps
from django.contrib.auth.models import AnonymousUser
from rest_framework.authentication import (
    BaseAuthentication,
    SessionAuthentication,
    TokenAuthentication,
    get_authorization_header,
)
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from ..conf import conf
from .errors import PayloadTooLarge

#: Headers that proxies, load balancers and CDNs add, by the words in their names: `X-Forwarded-*`, `X-Real-IP`,
#: `True-Client-IP`, `X-Envoy-External-Address` and the like. Their presence alone means that the socket's address is
#: not the caller's. `HTTP_PROXY` itself is not among them: a development server passes its environment on.
PROXY_HEADERS = re.compile(
    r"HTTP_(VIA|CDN_LOOP|X_VARNISH|X_SCHEME"
    r"|(CF|CLOUDFRONT|FLY|FASTLY|AKAMAI|X_AKAMAI|X_ENVOY|X_AZURE|X_ARR|X_VERCEL|X_NF|X_AMZ_CF|X_APPENGINE)_.+"
    r"|.*(FORWARDED|FORWARD_FOR|X_ORIGINAL|PROXIED|PROXY.+|.PROXY|BLUECOAT|CLIENT_?IP|EXTERNAL_ADDRESS"
    r"|(REAL|REMOTE|CONNECTING|CONNECTION|ORIGINATING|USER|SRC|SOURCE)_(IP|ADDR)).*)"
)
#: Headers that browsers add. A page in a browser on the internal network is not a trusted service.
BROWSER_HEADERS = ("HTTP_ORIGIN", "HTTP_SEC_FETCH_SITE")


class TrustedCaller(AnonymousUser):
    """A service in a trusted network. It has no account, and sees and deletes every image."""

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

    def authenticate_credentials(self, key: str) -> tuple[Any, Any]:
        if not apps.is_installed("rest_framework.authtoken"):
            raise AuthenticationFailed("This server knows no tokens: rest_framework.authtoken is not installed.")
        return super().authenticate_credentials(key)

    def authenticate_header(self, request: Request) -> str:
        return "Token"


class ImagesSessionAuthentication(SessionAuthentication):
    """A session, with Django's CSRF check, which may read a form's body to find the token."""

    def enforce_csrf(self, request: Request) -> None:
        check_length(request)
        super().enforce_csrf(request)


class TrustedNetworkAuthentication(BaseAuthentication):
    """Callers without credentials, by the socket's own address, if the operator lists their network.

    Nothing that a caller writes into the request can widen this. A proxy's header, an `Origin`, a form, or an
    `Authorization` header, even an empty one, rules it out.
    """

    def authenticate(self, request: Request) -> tuple[TrustedCaller, None] | None:
        meta = request.META
        if not _in_trusted_network(meta.get("REMOTE_ADDR", "")):
            return None
        if "HTTP_AUTHORIZATION" in meta or any(name in meta for name in BROWSER_HEADERS) or came_by_proxy(meta):
            return None
        if request.method == "POST" and not _is_json(meta.get("CONTENT_TYPE", "")):
            return None
        return TrustedCaller(), None


def came_by_proxy(meta: Mapping[str, Any]) -> bool:
    """Whether a request carries a header that shows a proxy.

    Args:
        meta: Django's `request.META`.
    """
    return any(PROXY_HEADERS.fullmatch(name) for name in meta)


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


def check_length(request: Request) -> None:
    """Refuse a body by its length, before any of it is read.

    Raises:
        PayloadTooLarge: The body is longer than `MAX_BODY_BYTES`.
    """
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or int(length) > conf.max_body_bytes:
        raise PayloadTooLarge(f"The request body must not be larger than {conf.max_body_bytes} bytes.")
