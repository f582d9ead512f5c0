"""The project's addresses. `/health` is answered before them, by `trygo_backend.health`."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.utils.translation import gettext_lazy as _
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from images.conf import conf

from .pages import favicon, home

admin.site.site_header = admin.site.site_title = _("TRYGO images")
admin.site.index_title = _("Administration")

DOCS = SpectacularSwaggerView.as_view(url_name="schema", template_name="trygo_backend/docs.html")

urlpatterns = [
    path("", home, name="home"),
    path("favicon.ico", favicon),
    path("admin/", admin.site.urls),
    path("api/auth/", include("rest_framework.urls")),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", DOCS, name="docs"),
    path("", include("images.urls")),
]

if conf.metrics:
    from images.metrics import MetricsView  # it needs an optional package

    urlpatterns.insert(0, path("metrics", MetricsView.as_view(), name="metrics"))

handler400 = "trygo_backend.pages.bad_request"
handler403 = "trygo_backend.pages.permission_denied"
handler404 = "trygo_backend.pages.not_found"
handler500 = "trygo_backend.pages.server_error"
