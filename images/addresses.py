"""Absolute addresses: from `PUBLIC_URL`, or from the request."""

from __future__ import annotations

from django.http import HttpRequest

from .conf import conf


def absolute_url(path: str, request: HttpRequest | None = None) -> str:
    """The address under which the world reaches `path`.

    Args:
        path: A path on this server, with a leading slash, as `reverse` returns it.
        request: Tells scheme and host where `PUBLIC_URL` is not set.

    Returns:
        An absolute URL, or `path` itself where neither `PUBLIC_URL` nor a request is known.
    """
    base = conf.public_url
    if not base:
        return request.build_absolute_uri(path) if request else path
    scheme, _, rest = base.partition("://")
    host, _, prefix = rest.partition("/")
    if prefix and path.startswith(f"/{prefix}/"):  # FORCE_SCRIPT_NAME has put the prefix there already
        return f"{scheme}://{host}{path}"
    return base + path
