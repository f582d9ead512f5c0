"""The pictures' addresses without the API: `path("", include("images.urls.media"))`."""

from __future__ import annotations

from django.urls import re_path

from ..api.views import non_atomic
from ..media import serve

app_name = "images"

urlpatterns = [
    # Whatever follows, line breaks included, is answered by the view: its 404 is never cached.
    re_path(r"^media/draft-images/(?P<path>[\s\S]*)\Z", non_atomic(serve), name="media"),
]
