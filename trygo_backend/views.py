"""The project's own front page."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from images.addresses import absolute_url

#: What there is to see, by name.
LINKS = {
    "api": "/api/images/",
    "docs": "/api/docs/",
    "schema": "/api/schema/",
    "admin": "/admin/",
    "health": "/health",
    "ready": "/health/ready",
}


@require_safe
@never_cache
def home(request: HttpRequest) -> HttpResponse:
    """Where everything is: a page, or JSON for clients that ask for it."""
    links = {name: absolute_url(path, request) for name, path in LINKS.items()}
    if request.get_preferred_type(["text/html", "application/json"]) == "application/json":
        return JsonResponse(links)
    return render(request, "trygo_backend/home.html", {"links": links})
