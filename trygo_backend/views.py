"""The project's own front page."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import get_script_prefix, reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from images.addresses import absolute_url
from images.conf import conf
from images.exceptions import ProviderNotConfigured
from images.providers import get_provider

from .health import database_problem, storage_problem

#: What there is to see, by name: the names of the addresses.
PAGES = {"api": "images:image-list", "docs": "docs", "schema": "schema", "admin": "admin:index"}
#: The addresses that a middleware answers, which have no names.
HEALTH = {"health": "health", "ready": "health/ready"}


@require_safe
@never_cache
def home(request: HttpRequest) -> HttpResponse:
    """What this is, whether it works and where everything is: a page, or JSON for clients that ask for it."""
    paths = {name: reverse(view) for name, view in PAGES.items()}
    paths |= {name: get_script_prefix() + path for name, path in HEALTH.items()}
    links = {name: absolute_url(path, request) for name, path in paths.items()}
    if request.get_preferred_type(["text/html", "application/json"]) == "application/json":
        return JsonResponse({"status": "unavailable" if problems() else "ok", **links})
    return render(request, "trygo_backend/home.html", {"links": links, "problems": problems()})


def problems() -> list[str]:
    """Sentences about what does not work, in the reader's language; empty where everything does.

    The page is public, so they name no host, no path and no provider.
    """
    found = []
    if database_problem():
        found.append(_("The database does not answer, or has not been migrated."))
    if storage_problem():
        found.append(_("Images cannot be stored."))
    if not _any_provider():
        found.append(_("No provider of images is ready to be asked. The operator has to look at IMAGE_PROVIDER."))
    return found


def _any_provider() -> bool:
    """Whether at least one provider of the chain has what it needs; nothing is sent."""
    try:
        return any(not get_provider(alias).check() for alias in conf.providers)
    except (ImproperlyConfigured, ProviderNotConfigured):
        return False
