"""Pictures, before the middleware that only pages and the API need.

Sessions, logins, messages and the search for a view take twice as long as finding the file and answering. What
matters for a picture comes first all the same: the redirect to https, HSTS and CORS (`settings.MIDDLEWARE`), and
ALLOWED_HOSTS (here). The app's own address for pictures stays in the URLconf: it makes the links, and answers where
this middleware is left out.
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse


class PicturesMiddleware:
    """Answers `/media/draft-images/…` with the app's view and passes on everything else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        from images.media import serve  # not before the apps are loaded

        self.get_response = get_response
        self._serve = serve
        self._prefix = reverse("images:media", kwargs={"path": ""})

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """The picture, or the answer of the rest of the server."""
        if not request.path_info.startswith(self._prefix):
            return self.get_response(request)
        request.get_host()  # raises DisallowedHost, which becomes a 400
        return self._serve(request, request.path_info.removeprefix(self._prefix))
