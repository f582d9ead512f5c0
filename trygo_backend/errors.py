"""What a caller sees where no view has answered: the contract's error body under `/api/`, in English; a small page
elsewhere, in the reader's language."""

from __future__ import annotations

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.utils.translation import gettext, gettext_noop

from images.api.errors import error_body


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's `handler400`: a request that no view should see, for example one for a host that is not ours."""
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
    """Django's `handler500`: the log has the story."""
    sentence = gettext_noop("Something went wrong on our side. The server's log has the details.")
    return _answer(request, 500, "internal_error", sentence)


def _answer(request: HttpRequest, status: int, code: str, sentence: str) -> HttpResponse:
    headers = {"Cache-Control": "no-store"}
    if request.path_info.startswith("/api/"):
        return JsonResponse(error_body(code, sentence), status=status, headers=headers)
    # Rendered without the request: its context processors would ask for the user, which may be what just failed.
    page = render_to_string("trygo_backend/error.html", {"status": status, "sentence": gettext(sentence)})
    return HttpResponse(page, status=status, headers=headers)
