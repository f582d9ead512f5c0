"""The project's own pages: the front page, error pages, and the language of both.

Under `/api/` an error has the contract's body, in English; elsewhere it is a small page in the reader's language.
"""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware.locale import LocaleMiddleware
from django.shortcuts import render
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.urls import get_script_prefix, reverse
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from images.api.errors import error_body
from images.models import absolute_url
from images.services.probes import Level

from .health import probe_results

#: The pages that the front page links to, and the names of their URLs.
PAGES = {"api": "images:image-list", "docs": "docs", "schema": "schema", "admin": "admin:index"}
#: Addresses that a middleware answers, so they have no names.
HEALTH = {"health": "health", "ready": "health/ready"}
#: What the front page says if a probe fails. The page is public, so these name no host, path or provider.
PROBLEMS = {
    "database": gettext_noop("The database does not answer, or has not been migrated."),
    "storage": gettext_noop("Images cannot be stored."),
    "providers": gettext_noop("No image provider is ready. The operator should check IMAGE_PROVIDER."),
}


@require_safe
@never_cache
def home(request: HttpRequest) -> HttpResponse:
    """What this server is, whether it works, and links: a page, or JSON for clients that prefer it."""
    paths = {name: reverse(view) for name, view in PAGES.items()}
    paths |= {name: get_script_prefix() + path for name, path in HEALTH.items()}
    links = {name: absolute_url(path, request) for name, path in paths.items()}
    findings = probe_results()
    problems = [_(sentence) for name, sentence in PROBLEMS.items() if findings[name].level == Level.BROKEN]
    if request.get_preferred_type(["text/html", "application/json"]) == "application/json":
        return JsonResponse({"status": "unavailable" if problems else "ok", **links})
    # The user comes from the database: the page has to work without one, too.
    user = request.user if findings["database"].level != Level.BROKEN else None
    return render(request, "trygo_backend/home.html", {"links": links, "problems": problems, "person": user})


def favicon(request: HttpRequest) -> HttpResponse:
    """Where browsers look for a page's icon without being told."""
    return HttpResponseRedirect(static("images/favicon.svg"))


# --- Errors -------------------------------------------------------------------------------------------------


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's `handler400`, for example for a request with an unknown host name."""
    if isinstance(exception, DisallowedHost):
        sentence = gettext_noop(
            "This server does not answer to that host name. Its operator can add it to ALLOWED_HOSTS."
        )
    else:
        sentence = gettext_noop("The request is not valid.")
    return _answer(request, 400, "invalid_request", sentence)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's `handler403`."""
    return _answer(request, 403, "permission_denied", gettext_noop("You are not allowed to do this."))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Django's `CSRF_FAILURE_VIEW`."""
    return _answer(
        request, 403, "permission_denied", gettext_noop("The CSRF check failed. Reload the page and try again.")
    )


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's `handler404`."""
    return _answer(request, 404, "not_found", gettext_noop("There is nothing at this address."))


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's `handler500`: the log has the details."""
    sentence = gettext_noop("Something went wrong on our side. The server's log has the details.")
    return _answer(request, 500, "internal_error", sentence)


def _answer(request: HttpRequest, status: int, code: str, sentence: str) -> HttpResponse:
    if request.path_info.startswith("/api/"):
        return JsonResponse(error_body(code, sentence), status=status, headers={"Cache-Control": "no-store"})
    return error_page(status, sentence)


def error_page(status: int, sentence: str, *, retry_after: int | None = None) -> HttpResponse:
    """A small page in the reader's language.

    Args:
        status: The HTTP status.
        sentence: What happened, in English; it is translated here.
        retry_after: Seconds after which to try again, if that helps.
    """
    headers = {"Cache-Control": "no-store"} | ({} if retry_after is None else {"Retry-After": str(retry_after)})
    # Rendered without the request: its context processors would load the user, which may be what just failed.
    page = render_to_string(
        "trygo_backend/error.html",
        {"status": status, "sentence": _(sentence), "home": reverse("home"), "admin": reverse("admin:index")},
    )
    return HttpResponse(page, status=status, headers=headers)


# --- Language -----------------------------------------------------------------------------------------------


class LanguageMiddleware(LocaleMiddleware):
    """Django's choice by cookie and `Accept-Language`, for pages only.

    What programs read is English. Pictures are the same in every language, and `Vary: Accept-Language` would make
    caches store each of them several times.
    """

    def process_request(self, request: HttpRequest) -> None:
        """Choose the language for this thread."""
        if is_page(request):
            super().process_request(request)
        else:
            translation.activate(settings.LANGUAGE_CODE)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Add the language headers to pages."""
        return super().process_response(request, response) if is_page(request) else response


def is_page(request: HttpRequest) -> bool:
    """Whether the answer is for a person: not a file, and under `/api/` only if the client prefers HTML."""
    if request.path_info.startswith("/media/"):
        return False
    if not request.path_info.startswith("/api/"):
        return True
    return request.get_preferred_type(["application/json", "text/html"]) == "text/html"
