"""The REST API: ten-line adapters over `images.services`."""

from __future__ import annotations

import uuid
from typing import Any

from django.urls import reverse
from rest_framework import status, viewsets
from rest_framework.pagination import PageNumberPagination
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from ..addresses import absolute_url
from ..exceptions import ImageNotFound
from ..models import GeneratedImage, GeneratedImageQuerySet, Status
from ..services import delete_image
from ..storage import ROOT, safe_directory
from .base import CarefulJSONParser, ImagesAPIView
from .generation import generate_in_time
from .preferences import parse_preferences
from .schema import documented
from .serializers import FilterSerializer, GenerateSerializer, ImageSerializer, PendingImageSerializer

#: Seconds after which a caller may look whether its image is there.
RETRY_AFTER = 5


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
