"""The app's addresses. One line plugs them in: `path("", include("images.urls"))`.

`images.urls.media` has the pictures alone, for projects that make images from Python only.
"""

from __future__ import annotations

from django.urls import path

from ..api.views import FORM_PARSERS, ImageViewSet, non_atomic
from . import media

app_name = media.app_name

_collection = non_atomic(
    ImageViewSet.as_view(
        {"get": "list", "post": "create"}, parser_classes=[*ImageViewSet.parser_classes, *FORM_PARSERS]
    )
)
_generate = non_atomic(ImageViewSet.as_view({"post": "generate"}))
_detail = non_atomic(ImageViewSet.as_view({"get": "retrieve", "delete": "destroy"}))

# Old callers leave the trailing slash out and Django's APPEND_SLASH cannot redirect a POST, so both forms are routed.
urlpatterns = [
    path("api/images/", _collection, name="image-list"),
    path("api/images", _collection),
    path("api/images/generate", _generate, name="image-generate"),
    path("api/images/generate/", _generate),
    # An id may hold slashes: the old form is contentItemId/filename.
    path("api/images/<path:image_id>", _detail, name="image-detail"),
    *media.urlpatterns,
]
