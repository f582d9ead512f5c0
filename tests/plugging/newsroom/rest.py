"""REST framework defaults that would break every contract but the host's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException, AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle


class NobodyGetsIn(BaseAuthentication):
    def authenticate(self, request: Request) -> NoReturn:
        raise AuthenticationFailed("The host lets nobody in.")


class NobodyMay(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        return False


class AlwaysTooMany(BaseThrottle):
    def allow_request(self, request: Request, view: Any) -> bool:
        return False


class Enveloped(JSONRenderer):
    """Puts every answer into an envelope."""

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> Any:
        return super().render({"envelope": data}, accepted_media_type, renderer_context)


def handle_exception(err: Exception, context: Mapping[str, Any]) -> Response:
    """The host's own body for errors."""
    status = err.status_code if isinstance(err, APIException) else 500
    return Response({"the host says": str(err)}, status=status)
