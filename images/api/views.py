"""The REST API: thin adapters over `images.services`.

The host project may have DRF defaults of its own (authentication, permissions, renderers, an exception
handler, versioning, throttles). The contract must hold regardless, so nothing is left to the defaults.
"""

from __future__ import annotations

import codecs
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeVar
from urllib.parse import urlsplit

from django.conf import settings
from django.core.paginator import Paginator
from django.db import InterfaceError, OperationalError, transaction
from django.http import HttpRequest, HttpResponseBase
from django.utils import translation
from django.utils.functional import cached_property
from django.utils.module_loading import import_string
from django.utils.translation import gettext
from rest_framework import exceptions, status, viewsets
from rest_framework.authentication import BaseAuthentication
from rest_framework.metadata import SimpleMetadata
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.pagination import PageNumberPagination
from rest_framework.parsers import BaseParser, FormParser, JSONParser, MultiPartParser
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from ..conf import conf
from ..exceptions import (
    RETRY_AFTER,
    ImageNotFound,
    ImagesError,
    InvalidRequest,
    RequestInProgress,
    TooManyGenerations,
)
from ..file_names import ROOT, safe_directory
from ..models import GeneratedImage, GeneratedImageQuerySet, Status, absolute_url
from ..services import delete_image, generate_image, set_alt_text
from ..services.generation import limit_concurrency, queue_generation
from ..services.queue import finished, set_caller_waits, wait_for
from ..services.request import GenerationRequest
from ..variants import variant_names
from .authentication import check_length
from .browsable import ImagesBrowsableRenderer
from .errors import PayloadTooLarge, RequestTimeout, exception_handler, image_location
from .schema import documented
from .serializers import (
    AltTextSerializer,
    FilterSerializer,
    GenerateSerializer,
    ImageSerializer,
    PendingImageSerializer,
    Preferences,
    parse_preferences,
)

#: Seconds within which a request's body has to arrive.
BODY_TIMEOUT = 30
#: Seconds of CPU that reading it may take: a body in chunks of one byte takes a thousand times as much as any other.
BODY_CPU = 1
#: Bytes of a body that are read at a time.
PIECE = 64 * 1024

View = TypeVar("View", bound=Callable[..., HttpResponseBase])


def non_atomic(view: View) -> View:
    """Exempt a view from `ATOMIC_REQUESTS` of every database: no transaction may be open while a provider works."""
    for alias in settings.DATABASES:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


class TolerantNegotiation(DefaultContentNegotiation):
    """Responds with JSON to callers that accept nothing we have: old callers send all kinds of `Accept`."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderers = list(renderers)
        try:
            renderer, media_type = super().select_renderer(request, renderers, format_suffix)
        except exceptions.NotAcceptable:
            renderer, media_type = renderers[0], renderers[0].media_type
        return renderer, media_type


class BoundedParser(BaseParser):
    """Reads a body within limits of size and time, and has one of DRF's parsers parse it.

    It does not inherit from DRF's parsers: DRF reads the body itself before it calls one of those.
    """

    inner: type[BaseParser]

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        encoding = parser_context["request"].META.get("HTTP_CONTENT_ENCODING", "").strip()
        if encoding.lower() not in ("", "identity"):
            raise exceptions.UnsupportedMediaType(
                media_type, f'Content-Encoding "{encoding}" is not supported. Send the request body uncompressed.'
            )
        return self.decode(read_body(stream), media_type, parser_context)

    def decode(self, body: bytes, media_type: Any, parser_context: Any) -> Any:
        """Parse the whole body."""
        return self.inner().parse(BytesIO(body), media_type, parser_context)


class BoundedJSONParser(BoundedParser):
    """JSON, with or without a byte order mark, whose nesting cannot exhaust the stack."""

    inner, media_type, renderer_class = JSONParser, JSONParser.media_type, JSONRenderer

    def decode(self, body: bytes, media_type: Any, parser_context: Any) -> Any:
        """Parse the whole body."""
        utf16 = body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        try:
            return super().decode(
                body, media_type, {**parser_context, "encoding": "utf-16" if utf16 else "utf-8-sig"}
            )
        except RecursionError as err:
            raise exceptions.ParseError("The JSON in the request body is nested too deeply.") from err


class BoundedFormParser(BoundedParser):
    """URL-encoded forms of the browsable API."""

    inner, media_type = FormParser, FormParser.media_type


class BoundedMultiPartParser(BoundedParser):
    """Multipart forms of the browsable API."""

    inner, media_type = MultiPartParser, MultiPartParser.media_type


def read_body(stream: Any) -> bytes:
    """Read a request's body in large pieces.

    Args:
        stream: Django's request, or a file.

    Raises:
        PayloadTooLarge: The body is longer than `MAX_BODY_BYTES`.
        RequestTimeout: It took longer than `BODY_TIMEOUT`, or more of our CPU than `BODY_CPU`, or the server gave up
            waiting for it.
        ParseError: It ended early.
    """
    environ = getattr(stream, "environ", {})
    if is_chunked(environ):  # Django considers a body without a length to be empty
        stream = environ["wsgi.input"]
    end, cpu_end = time.monotonic() + BODY_TIMEOUT, time.thread_time() + BODY_CPU
    limit, body = conf.max_body_bytes, bytearray()
    try:
        while piece := stream.read(min(PIECE, limit + 1 - len(body))):
            body += piece
            if len(body) > limit:
                raise PayloadTooLarge(f"The request body must not be larger than {limit} bytes.")
            if time.monotonic() > end or time.thread_time() > cpu_end:
                raise RequestTimeout
    except OSError as err:
        if isinstance(err.__cause__ or err, TimeoutError):  # Django wraps what the server raises
            raise RequestTimeout from err
        raise exceptions.ParseError("The connection was closed before the whole request body had arrived.") from err
    return bytes(body)


def is_chunked(meta: Mapping[str, Any]) -> bool:
    """Whether a request's body is sent in chunks, without a length."""
    return "chunked" in meta.get("HTTP_TRANSFER_ENCODING", "").lower()


class ImagesAPIView(APIView):
    """Sets every policy itself, so that a host's DRF defaults change nothing; `IMAGES` says who may call.

    A body is only read once its caller has been authenticated and authorised.
    """

    parser_classes = [BoundedJSONParser]
    renderer_classes = [JSONRenderer, ImagesBrowsableRenderer]
    throttle_classes: list[Any] = []
    content_negotiation_class = TolerantNegotiation
    metadata_class = SimpleMetadata
    versioning_class = None

    def get_authenticators(self) -> list[BaseAuthentication]:
        return [import_string(path)() for path in conf.authentication_classes]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        with translation.override(translation.get_language()):  # restores the language afterwards
            return super().dispatch(request, *args, **kwargs)

    def perform_content_negotiation(self, request: Request, force: bool = False) -> tuple[BaseRenderer, str]:
        renderer, media_type = super().perform_content_negotiation(request, force)
        if not isinstance(renderer, BrowsableAPIRenderer):
            translation.activate("en")  # JSON is for programs: its sentences are part of the contract
        return renderer, media_type

    def get_exception_handler(self) -> Callable[..., Any]:
        return exception_handler

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        check_length(request)
        if is_chunked(request.META):
            request.META["CONTENT_LENGTH"] = str(conf.max_body_bytes)  # without one, DRF does not call a parser


#: For the form on the browsable API's page of the collection. Services send JSON.
FORM_PARSERS: list[type[BaseParser]] = [BoundedFormParser, BoundedMultiPartParser]


class _Pages(Paginator):  # type: ignore[type-arg]  # only its stubs take a parameter
    """Pages without the images that are being deleted."""

    def __init__(self, images: GeneratedImageQuerySet, *args: Any, **kwargs: Any) -> None:
        self._every = images
        super().__init__(images.exclude(status=Status.DELETING), *args, **kwargs)

    @cached_property
    def count(self) -> int:
        """How many there are: all but those few. To look at the status of each would take three times as long."""
        every = self._every.order_by()
        return max(every.count() - every.filter(status=Status.DELETING).count(), 0)


class ImagePagination(PageNumberPagination):
    django_paginator_class = _Pages
    page_size = 20
    page_size_query_param = "pageSize"
    max_page_size = 100

    def get_next_link(self) -> str | None:
        return self._public(super().get_next_link())

    def get_previous_link(self) -> str | None:
        return self._public(super().get_previous_link())

    def _public(self, link: str | None) -> str | None:
        """The link under `PUBLIC_URL`, as every other URL."""
        if link is None or self.request is None:
            return None
        _, _, path, query, _ = urlsplit(link)
        return absolute_url(f"{path}?{query}".rstrip("?"), self.request._request)


class ImageViewSet(ImagesAPIView, viewsets.GenericViewSet[GeneratedImage]):
    """List, generate, retrieve and delete images, and describe them."""

    queryset = GeneratedImage.objects.all()
    serializer_class = ImageSerializer
    pagination_class = ImagePagination
    filter_backends: list[Any] = []

    def get_permissions(self) -> list[Any]:
        return [import_string(path)() for path in conf.permission_classes]

    def get_queryset(self) -> GeneratedImageQuerySet:
        """The images that the caller may see: their own, or all for staff and trusted networks."""
        images = GeneratedImage.objects.all()
        user = self.request.user
        # A host's own user model may lack `is_staff`.
        if getattr(user, "is_trusted", False) or getattr(user, "is_staff", False):
            return images
        owner = getattr(user, "pk", None)  # a host may let in callers without an account
        return images.none() if owner is None else images.filter(owner_id=owner)

    def get_view_name(self) -> str:
        """The title of this page of the browsable API, which `images.urls` gives; a host's function is not asked."""
        return str(self.name or gettext("Images"))

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        by_action = {
            "create": GenerateSerializer,
            "generate": GenerateSerializer,
            "partial_update": AltTextSerializer,
        }
        return by_action.get(self.action, ImageSerializer)

    @documented("list")
    def list(self, request: Request) -> Response:
        images = self.get_queryset().defer("description", "context", "scene", "prompt")
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
        self.check_object_permissions(request, image)
        return self._answer(image, status.HTTP_200_OK)

    @documented("partial_update")
    def partial_update(self, request: Request, image_id: str) -> Response:
        image = self._find(image_id, self.get_queryset().exclude(status=Status.DELETING))
        self.check_object_permissions(request, image)
        serializer = AltTextSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        set_alt_text(image=image, **serializer.validated_data)
        return self._answer(image, status.HTTP_200_OK)

    @documented("destroy")
    def destroy(self, request: Request, image_id: str) -> Response:
        image = self._find(image_id, self.get_queryset())
        self.check_object_permissions(request, image)
        delete_image(image=image)
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
        try:
            outcome = generate_in_time(parse_preferences(request.headers.get("Prefer", "")), arguments)
        except (OperationalError, InterfaceError) as err:
            # Not `database_unavailable`, which says that nothing was paid for. The services raise that themselves.
            raise ImagesError().with_billing(getattr(err, "may_have_billed", True)) from err
        headers = {"Preference-Applied": outcome.applied} if outcome.applied else {}
        location = image_location(outcome.image, request._request)
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

    def _context(self) -> dict[str, Any]:
        return {"request": self.request._request}

    def _filtered(self, images: GeneratedImageQuerySet) -> GeneratedImageQuerySet:
        serializer = FilterSerializer(data=self.request.query_params)
        serializer.is_valid(raise_exception=True)
        wanted = {name: value for name, value in serializer.validated_data.items() if value}
        if "contentItemId" in wanted:
            images = images.filter(content_item_id=wanted["contentItemId"])
        if "variant" in wanted:
            images = self._of_variant(images, wanted["variant"])
        return images.in_status(wanted["status"]) if "status" in wanted else images

    @staticmethod
    def _of_variant(images: GeneratedImageQuerySet, variant: str) -> GeneratedImageQuerySet:
        """Those of a variant, also of one that has been taken away, as long as this caller has an image of it."""
        found = images.filter(variant=variant)
        names = variant_names()
        if variant not in names and not found.exists():
            sentence = f"Choose one of: {', '.join(names)}."
            raise InvalidRequest(f"variant: {sentence}", details={"variant": [sentence]})
        return found

    @staticmethod
    def _find(image_id: str, images: GeneratedImageQuerySet) -> GeneratedImage:
        """By UUID, or by the old form `contentItemId/filename`."""
        image_id = image_id.rstrip("/")
        item, slash, filename = image_id.rpartition("/")
        if "\x00" in image_id:
            raise ImageNotFound
        if slash:
            # The caller may have kept the id that it sent, or have taken the directory from the picture's URL.
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
    """The header as text. WSGI decodes headers as Latin-1; callers encode them as UTF-8."""
    value = request.headers.get("Idempotency-Key")
    if value is None:
        return None
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a request.

    Attributes:
        image: Ready, or pending if the caller did not want to wait any longer.
        applied: The response's `Preference-Applied`, or "".
    """

    image: GeneratedImage
    applied: str


def generate_in_time(preferences: Preferences, arguments: dict[str, Any]) -> Outcome:
    """Generate an image, or queue it if the caller prefers not to wait for it.

    Without a queue it is generated at once, and `applied` names only the preferences that were met.

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
    image = _queue_or_find(GenerationRequest(**arguments), caller_waits=bool(patience))
    if image.status == Status.PENDING and patience:
        image = _wait(image, patience)
    in_time = image.current_status != Status.PENDING
    return Outcome(image=finished(image) if in_time else image, applied=preferences.applied(in_time=in_time))


def _queue_or_find(request: GenerationRequest, *, caller_waits: bool) -> GeneratedImage:
    """The row of a request; if its idempotency key is being worked on, the row of the first one."""
    try:
        return queue_generation(request, release=True, caller_waits=caller_waits)
    except RequestInProgress as err:
        if not isinstance(err.image, GeneratedImage):
            raise
        image: GeneratedImage = err.image
        if caller_waits:
            set_caller_waits(image, True)
        return image


def _wait(image: GeneratedImage, seconds: float) -> GeneratedImage:
    """Wait, but not longer than a generation takes, and only if this process has room for another generation."""
    try:
        with limit_concurrency():
            image = wait_for(image, min(seconds, conf.deadline))
    except TooManyGenerations:
        pass
    if image.status == Status.PENDING:
        set_caller_waits(image, False)
    return image
