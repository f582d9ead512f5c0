"""What every view of the app has in common.

The host project may have DRF defaults of its own (authentication, permissions, renderers, an exception
handler, versioning, throttles). The contract must hold all the same, so nothing is left to the defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any, TypeVar

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.db import transaction
from django.http import HttpRequest, HttpResponseBase
from rest_framework import exceptions
from rest_framework.authentication import SessionAuthentication
from rest_framework.metadata import SimpleMetadata
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import JSONParser
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from ..conf import conf
from .authentication import ImagesTokenAuthentication, TrustedNetworkAuthentication
from .errors import PayloadTooLarge, exception_handler

View = TypeVar("View", bound=Callable[..., HttpResponseBase])


def non_atomic(view: View) -> View:
    """Exempt a view from `ATOMIC_REQUESTS` of every database: no transaction may be open while a provider works."""
    for alias in settings.DATABASES:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def _unchunk(request: HttpRequest) -> None:
    """Read a chunked body, which has no length: Django takes it for an empty one. It is limited as any other."""
    meta = request.META
    chunked = "chunked" in meta.get("HTTP_TRANSFER_ENCODING", "").lower()
    if chunked and not meta.get("CONTENT_LENGTH") and isinstance(request, WSGIRequest):
        body = request.environ["wsgi.input"].read(conf.max_body_bytes + 1)
        request._stream = BytesIO(body)
        meta["CONTENT_LENGTH"] = str(len(body))


class TolerantNegotiation(DefaultContentNegotiation):
    """Answers in JSON where the caller accepts nothing that we have: old callers send all sorts of `Accept`."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderers = list(renderers)
        try:
            renderer, media_type = super().select_renderer(request, renderers, format_suffix)
        except exceptions.NotAcceptable:
            renderer, media_type = renderers[0], renderers[0].media_type
        return renderer, media_type


class CarefulJSONParser(JSONParser):
    """JSON whose nesting cannot exhaust the stack."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError as err:
            raise exceptions.ParseError("JSON parse error - the body is nested too deeply.") from err


class ImagesAPIView(APIView):
    """Every policy spelled out, so that a host's DRF defaults change nothing."""

    authentication_classes = [ImagesTokenAuthentication, SessionAuthentication, TrustedNetworkAuthentication]
    permission_classes = [IsAuthenticated]
    parser_classes = [CarefulJSONParser]
    renderer_classes = [JSONRenderer, BrowsableAPIRenderer]
    throttle_classes: list[Any] = []
    content_negotiation_class = TolerantNegotiation
    metadata_class = SimpleMetadata
    versioning_class = None

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        _unchunk(request)
        return super().initialize_request(request, *args, **kwargs)

    def get_exception_handler(self) -> Callable[..., Any]:
        return exception_handler

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        # Django's own limit answers with a page of HTML, and DRF's parsers read past it.
        length = request.META.get("CONTENT_LENGTH") or "0"
        if not length.isdecimal() or int(length) > conf.max_body_bytes:
            raise PayloadTooLarge(f"The request body is larger than {conf.max_body_bytes} bytes.")
