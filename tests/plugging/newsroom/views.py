"""Views of the host that make images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from rest_framework.response import Response
from rest_framework.views import APIView

from images.exceptions import OpenTransactionError
from images.services import agenerate_image, generate_image

View = TypeVar("View", bound=Callable[..., Any])


def outside_transactions(view: View) -> View:
    """Exempt a view from `ATOMIC_REQUESTS` of every database."""
    for alias in settings.DATABASES:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


@outside_transactions
def illustrate(request: HttpRequest) -> JsonResponse:
    """Make an image as README says."""
    image = generate_image(content_item_id="42", title="A quiet harbour at dawn", user=request.user)
    return JsonResponse({"url": image.public_url(request)})


@outside_transactions
async def aillustrate(request: HttpRequest) -> JsonResponse:
    """The same from an async view."""
    image = await agenerate_image(content_item_id="43", title="A quiet harbour at noon")
    return JsonResponse({"url": image.public_url(request)})


def illustrate_within(request: HttpRequest) -> JsonResponse:
    """Make an image where a transaction is open."""
    try:
        with transaction.atomic():
            generate_image(content_item_id="42", title="A quiet harbour at dawn")
    except OpenTransactionError as err:
        return JsonResponse({"refused": str(err)})
    return JsonResponse({})


class HostsOwn(APIView):
    """A view under the host's own defaults."""

    schema = None

    def get(self, request: Any) -> Response:
        return Response({"the host says": "come in"})
