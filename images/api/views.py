"""The REST API: thin adapters over `images.services`.

The host project may have DRF defaults of its own (authentication, permissions, renderers, an exception
handler, versioning, throttles). The contract must hold all the same, so nothing is left to the defaults.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeVar

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.db import transaction
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from rest_framework import exceptions, status, viewsets
from rest_framework.authentication import SessionAuthentication
from rest_framework.metadata import SimpleMetadata
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.pagination import PageNumberPagination
from rest_framework.parsers import FormParser, JSONParser, MultiPartParser
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from ..conf import conf
from ..exceptions import ImageNotFound, TooManyGenerations
from ..models import GeneratedImage, GeneratedImageQuerySet, Status, absolute_url
from ..services import delete_image, generate_image, generate_image_later
from ..services.generation import limit_concurrency
from ..services.queue import finished, wait_for
from ..storage import ROOT, safe_directory
from .authentication import ImagesTokenAuthentication, TrustedNetworkAuthentication
from .errors import PayloadTooLarge, exception_handler
from .schema import documented
from .serializers import (
    FilterSerializer,
    GenerateSerializer,
    ImageSerializer,
    PendingImageSerializer,
    Preferences,
    parse_preferences,
)

#: Seconds after which a caller may look whether its image is there.
RETRY_AFTER = 5

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


class ImagePagination(PageNumberPagination):
    page_size = 20
    page_size_query_param = "pageSize"
    max_page_size = 100


class ImageViewSet(ImagesAPIView, viewsets.GenericViewSet[GeneratedImage]):
    """Images: list, make, look at, delete."""

    queryset = GeneratedImage.objects.all()
    serializer_class = ImageSerializer
    pagination_class = ImagePagination
    filter_backends: list[Any] = []

    def get_queryset(self) -> GeneratedImageQuerySet:
        """The images that the caller may see: their own; all for staff and trusted networks."""
        images = GeneratedImage.objects.all()
        user = self.request.user
        # A host's own users need not have a field `is_staff`.
        if getattr(user, "is_trusted", False) or getattr(user, "is_staff", False):
            return images
        return images.filter(owner_id=user.pk)

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        return GenerateSerializer if self.action in {"create", "generate"} else ImageSerializer

    def get_parsers(self) -> list[Any]:
        # The browsable API's form at the collection posts as a form; services send JSON. DRF looks at the attribute
        # for the forms that it may show.
        forms = [FormParser, MultiPartParser] if getattr(self, "action_map", {}).get("post") == "create" else []
        self.parser_classes = [CarefulJSONParser, *forms]
        return [parser() for parser in self.parser_classes]

    @documented("list")
    def list(self, request: Request) -> Response:
        images = self.get_queryset().exclude(status=Status.DELETING).defer("description", "prompt")
        page = self.paginate_queryset(self._filtered(images))
        return self.get_paginated_response(ImageSerializer(page, many=True, context=self._context()).data)

    @documented("create")
    def create(self, request: Request) -> Response:
        return self._generate(request, status.HTTP_201_CREATED)

    @documented("generate")
    def generate(self, request: Request) -> Response:
        return self._generate(request, status.HTTP_200_OK)

    @documented("retrieve")
    def retrieve(self, request: Request, image_id: str) -> Response:
        image = self._find(image_id, self.get_queryset().exclude(status=Status.DELETING))
        return self._answer(image, status.HTTP_200_OK)

    @documented("destroy")
    def destroy(self, request: Request, image_id: str) -> Response:
        delete_image(image=self._find(image_id, self.get_queryset()))
        return Response({"success": True, "id": image_id.rstrip("/")})

    # --- helpers ------------------------------------------------------------------------------------------

    def _generate(self, request: Request, code: int) -> Response:
        serializer = GenerateSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        trusted = getattr(request.user, "is_trusted", False)
        arguments = {
            **serializer.arguments(),
            "user": None if trusted else request.user,
            "idempotency_key": _idempotency_key(request),
            "idempotency_scope": "trusted" if trusted else None,
        }
        outcome = generate_in_time(parse_preferences(request.headers.get("Prefer", "")), arguments)
        headers = {"Preference-Applied": outcome.applied} if outcome.applied else {}
        location = self._location(outcome.image)
        if outcome.image.status == Status.PENDING:
            headers |= {"Location": location, "Retry-After": str(RETRY_AFTER)}
            body = PendingImageSerializer(outcome.image, context={**self._context(), "statusUrl": location}).data
            return Response(body, status=status.HTTP_202_ACCEPTED, headers=headers)
        if code == status.HTTP_201_CREATED:
            headers["Location"] = location
        return self._answer(outcome.image, code, headers)

    def _answer(self, image: GeneratedImage, code: int, headers: dict[str, str] | None = None) -> Response:
        headers = dict(headers or {})
        if image.replayed:
            headers["Idempotency-Replayed"] = "true"
        return Response(ImageSerializer(image, context=self._context()).data, status=code, headers=headers)

    def _location(self, image: GeneratedImage) -> str:
        """The image's address in this API."""
        path = reverse("images:image-detail", kwargs={"image_id": str(image.pk)})
        return absolute_url(path, self.request._request)

    def _context(self) -> dict[str, Any]:
        return {"request": self.request._request}

    def _filtered(self, images: GeneratedImageQuerySet) -> GeneratedImageQuerySet:
        serializer = FilterSerializer(data=self.request.query_params)
        serializer.is_valid(raise_exception=True)
        wanted = {name: value for name, value in serializer.validated_data.items() if value}
        if "contentItemId" in wanted:
            images = images.filter(content_item_id=wanted["contentItemId"])
        if "variant" in wanted:
            images = images.filter(variant=wanted["variant"])
        return images.in_status(wanted["status"]) if "status" in wanted else images

    @staticmethod
    def _find(image_id: str, images: GeneratedImageQuerySet) -> GeneratedImage:
        """By UUID, or by the old form `contentItemId/filename`."""
        image_id = image_id.rstrip("/")
        item, slash, filename = image_id.rpartition("/")
        if "\x00" in image_id:
            raise ImageNotFound
        if slash:
            # The caller may have kept the id it sent, or have taken the directory out of the picture's address.
            names = {f"{ROOT}/{item}/{filename}", f"{ROOT}/{safe_directory(item)}/{filename}"}
            found = images.filter(file__in=names)
        else:
            try:
                found = images.filter(pk=uuid.UUID(image_id))
            except ValueError:
                raise ImageNotFound from None
        image = found.first()
        if image is None:
            raise ImageNotFound
        return image


def _idempotency_key(request: Request) -> str | None:
    """The header as text. WSGI hands headers over as Latin-1; callers write them in UTF-8."""
    value = request.headers.get("Idempotency-Key")
    if value is None:
        return None
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a request.

    Attributes:
        image: Ready, or pending where the caller did not want to wait any longer.
        applied: What the answer says in `Preference-Applied`, or "".
    """

    image: GeneratedImage
    applied: str


def generate_in_time(preferences: Preferences, arguments: dict[str, Any]) -> Outcome:
    """Make an image, or queue it where the caller prefers not to wait for it.

    Without a queue it is made at once, and the answer claims only what was kept.

    Args:
        preferences: The caller's.
        arguments: Those of `generate_image`.

    Raises:
        ImagesError: As `generate_image` and `generate_image_later` do.
    """
    patience, started = preferences.patience, time.monotonic()
    if patience is None or not conf.queue:
        image = generate_image(**arguments)
        in_time = preferences.wait is not None and time.monotonic() - started <= preferences.wait
        return Outcome(image=image, applied=preferences.applied(in_time=True) if in_time else "")
    image = generate_image_later(**arguments)
    if image.status == Status.PENDING and patience:
        image = _wait(image, patience)
    in_time = image.current_status != Status.PENDING
    return Outcome(image=finished(image) if in_time else image, applied=preferences.applied(in_time=in_time))


def _wait(image: GeneratedImage, seconds: float) -> GeneratedImage:
    """Wait, but not longer than a generation takes, and not where that would take the last free thread."""
    try:
        with limit_concurrency():
            return wait_for(image, min(seconds, conf.deadline))
    except TooManyGenerations:
        return image
