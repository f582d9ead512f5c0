"""The list's images as a gallery, and the small previews that the admin alone shows.

Previews are made when they are looked at, never stored, and bounded in work and memory.
"""

from __future__ import annotations

import io
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotFound, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.utils.cache import get_conditional_response
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from ..conf import conf
from ..models import GeneratedImage
from .columns import State, admin_url, file_links, listed_of, state_of

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[GeneratedImage]
else:
    AdminBase = object

#: The preview's greatest width and height in pixels; the list shows it at half that size.
WIDTH, HEIGHT = 240, 320
#: Pixels above which an image is not decoded here. At 4 bytes each, two at once take 160 MB at the most.
MAX_DECODED_PIXELS = 20_000_000
#: Seconds a request waits for its turn, and after which a browser that was sent away may ask again.
PATIENCE = 10
CACHE_CONTROL = "private, max-age=3600"

#: Pillow's modes that can be made smaller well as they are, without a second copy of all pixels.
_SHRINKABLE = {"RGB", "RGBA", "L", "LA", "CMYK"}
_turns = threading.BoundedSemaphore(2)


class Gallery(AdminBase):
    """The gallery and the previews; a part of the admin class."""

    def gallery_view(self, request: HttpRequest) -> HttpResponse:
        """The list as a gallery, with the same search, filters and actions."""
        return self.changelist_view(request, {"gallery": True, "title": _("Gallery of images")})

    @method_decorator(require_safe)
    def preview_view(self, request: HttpRequest, image_id: UUID) -> HttpResponseBase:
        """A small JPEG of the image, for users who may view images.

        Raises:
            PermissionDenied: This user may not view images.
            django.http.Http404: There is no such image, or it has no picture.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        image = get_object_or_404(
            self.get_queryset(request).prefetch_related(None).only("file", "sha256", "status"), pk=image_id
        )
        return preview_response(request, image)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """An image of the gallery."""

    image: GeneratedImage
    state: State
    address: str
    file: dict[str, str]
    item_query: str


def tiles(model_admin: AdminBase, images: Iterable[GeneratedImage]) -> list[Tile]:
    """A page's images for the gallery."""
    return [
        Tile(
            image=image,
            state=state_of(image),
            address=admin_url(model_admin, "change", image.pk, filters=listed_of(image).filters),
            file=file_links(image),
            item_query=urlencode({"content_item_id": image.content_item_id}),
        )
        for image in images
    ]


class NoPreview(Exception):
    """Nothing can be shown: the file is gone, broken, or larger than any image may be."""


class TooCostly(Exception):
    """The image is fine, but decoding it here is not worth it, or Pillow is not installed."""


def preview_response(request: HttpRequest, image: GeneratedImage) -> HttpResponse:
    """Answer with a preview of an image.

    Returns:
        200 with a JPEG, 304 if the browser has it, a redirect to the picture itself if a preview would cost too much
        or Pillow is missing, 404 if there is nothing to show, 503 while too many are being made.
    """
    if not image.is_ready:
        return HttpResponseNotFound()
    etag = f'"{image.pk.hex}-{image.sha256[:16]}-{WIDTH}"'
    response = get_conditional_response(request, etag=etag) or _fresh_response(image)
    if response.status_code in {200, 304}:
        response["ETag"] = etag
        response["Cache-Control"] = CACHE_CONTROL
    return response


def _fresh_response(image: GeneratedImage) -> HttpResponse:
    if not _turns.acquire(timeout=PATIENCE):
        return HttpResponse(status=503, headers={"Retry-After": str(PATIENCE)})
    try:
        with image.file.open("rb") as source:
            preview = make_preview(source, max_pixels=conf.max_image_pixels)
    except TooCostly:
        return HttpResponseRedirect(image.get_absolute_url())
    except (NoPreview, OSError):
        return HttpResponseNotFound()
    finally:
        _turns.release()
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'"}
    return HttpResponse(preview, content_type="image/jpeg", headers=headers)


def make_preview(source: IO[bytes], *, max_pixels: int) -> bytes:
    """Make a JPEG of at most `WIDTH` x `HEIGHT` pixels.

    The header is judged before a single pixel is decoded, and only by the decoders of the three formats that are
    stored: a file that was swapped on the disk reaches nothing else of Pillow.

    Args:
        source: A seekable file with a PNG, JPEG or WebP image.
        max_pixels: The largest image that may exist at all.

    Raises:
        NoPreview: It is no such image, a broken one, or larger than `max_pixels`.
        TooCostly: It is larger than `MAX_DECODED_PIXELS`, or Pillow is missing.
    """
    try:
        from PIL import Image  # optional, and slow to import
    except ImportError as err:
        raise TooCostly from err
    try:
        with Image.open(source, formats=("PNG", "JPEG", "WEBP")) as picture:
            _refuse_large(picture.width * picture.height, max_pixels)
            picture.draft("RGB", (2 * WIDTH, 2 * HEIGHT))  # a JPEG is decoded at a fraction of its size
            small = picture if picture.mode in _SHRINKABLE else picture.convert("RGB")
            small.thumbnail((WIDTH, HEIGHT))
            out = io.BytesIO()
            small.convert("RGB").save(out, "JPEG", quality=80)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as err:
        raise NoPreview from err
    return out.getvalue()


def _refuse_large(pixels: int, max_pixels: int) -> None:
    if pixels > max_pixels:
        raise NoPreview
    if pixels > MAX_DECODED_PIXELS:
        raise TooCostly
