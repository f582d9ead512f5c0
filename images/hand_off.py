"""Letting somebody else send a picture's bytes: the storage itself, by a redirect, or nginx, by `X-Accel-Redirect`.

The picture's own address stays the same and never expires: what is signed and short-lived is only where the browser
is sent next, anew at each request. That the file is there has been looked up before, so a deleted picture is gone at
once.
"""

from __future__ import annotations

from urllib.parse import quote

from django.core.files.storage import Storage
from django.http import HttpResponse

from .conf import conf
from .local_files import local_path
from .names import ROOT


def hand_off(storage: Storage, path: str) -> HttpResponse | None:
    """The answer that makes somebody else send a file, as `IMAGE_MEDIA_DELIVERY` says.

    Args:
        storage: Where the file is.
        path: What follows `draft-images/` in the address; plain, and there is such a file.

    Returns:
        The answer, or `None` where this process sends the bytes.

    Raises:
        Exception: Whatever the storage raises where it cannot sign an address.
    """
    delivery, name = conf.media_delivery, f"{ROOT}/{path}"
    if delivery == "stream":
        return None
    is_local = local_path(storage, name) is not None
    if delivery == "accel":
        return _accel(name) if is_local else None
    return None if is_local else _redirect(storage.url(name))


def _redirect(url: str) -> HttpResponse | None:
    if not url.startswith(("https://", "http://")):
        return None  # an address on this very server would lead in a circle
    # Nobody may keep it: the signature runs out, and the picture may be deleted.
    return HttpResponse(status=302, headers={"Location": url, "Cache-Control": "no-store"})


def _accel(name: str) -> HttpResponse:
    """nginx puts its own Content-Length, ETag and Last-Modified, and answers ranges and conditions by itself.

    A library for it (django-sendfile2) would be four settings of the host's for one header, and set others that we
    set better.
    """
    return HttpResponse(headers={"X-Accel-Redirect": quote(conf.media_accel_prefix + name)})
