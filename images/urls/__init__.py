"""The app's addresses. One line plugs them in: `path("", include("images.urls"))`.

`images.urls.media` has the pictures alone, for projects that make images from Python only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpResponseBase
from django.urls import path
from django.utils.translation import gettext_lazy as _

from ..api.views import FORM_PARSERS, ImageViewSet, non_atomic
from . import media

app_name = media.app_name


def _view(actions: dict[str, Any], **initkwargs: Any) -> Callable[..., HttpResponseBase]:
    return non_atomic(ImageViewSet.as_view(actions, **initkwargs))


_COLLECTION = {"get": "list", "post": "create"}
_GENERATE = {"post": "generate"}
_ONE = {"get": "retrieve", "patch": "partial_update", "delete": "destroy"}
_PARSERS = [*ImageViewSet.parser_classes, *FORM_PARSERS]

# Old callers leave the trailing slash out and Django's APPEND_SLASH cannot redirect a POST, so both forms are routed.
# An OpenAPI schema shows one of them: `schema=None` keeps the other one out.
urlpatterns = [
    path("api/images/", _view(_COLLECTION, name=_("Images"), parser_classes=_PARSERS), name="image-list"),
    path("api/images", _view(_COLLECTION, name=_("Images"), parser_classes=_PARSERS, schema=None)),
    path("api/images/generate", _view(_GENERATE, name=_("Generate an image")), name="image-generate"),
    path("api/images/generate/", _view(_GENERATE, name=_("Generate an image"), schema=None)),
    # An id may hold slashes: the old form is contentItemId/filename.
    path("api/images/<path:image_id>", _view(_ONE, name=_("Image")), name="image-detail"),
    *media.urlpatterns,
]
