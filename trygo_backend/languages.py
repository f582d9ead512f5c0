"""Which language an answer is in: the reader's on pages, English in what programs read."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.locale import LocaleMiddleware
from django.utils import translation


class LanguageMiddleware(LocaleMiddleware):
    """Django's choice by cookie and `Accept-Language`, for pages only.

    The API's sentences are part of its contract, whatever a caller's HTTP library says about languages. And pictures
    are the same in every language: a `Vary: Accept-Language` would split what caches keep of them.
    """

    def process_request(self, request: HttpRequest) -> None:
        """Choose the language for this thread."""
        if is_page(request):
            super().process_request(request)
        else:
            translation.activate(settings.LANGUAGE_CODE)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Say which language it became, where there was a choice."""
        return super().process_response(request, response) if is_page(request) else response


def is_page(request: HttpRequest) -> bool:
    """Whether the answer is for a person: not a file, and below `/api/` only where the client prefers HTML."""
    if request.path_info.startswith("/media/"):
        return False
    if not request.path_info.startswith("/api/"):
        return True
    return request.get_preferred_type(["application/json", "text/html"]) == "text/html"
