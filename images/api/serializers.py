"""The shapes of requests and answers. Names on the wire are camelCase, as the old service's were."""

from __future__ import annotations

import math
from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from ..models import GeneratedImage, Status, Variant
from ..services.inputs import MAX_CONTENT_ITEM_ID, MAX_DESCRIPTION, MAX_TITLE
from .errors import format_time


class ContentItemIdField(serializers.CharField):
    """Kept to the letter; a number is taken as its text."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, max_length=MAX_CONTENT_ITEM_ID, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, float) and not math.isfinite(data):
            self.fail("invalid")
        value: str = super().to_internal_value(data)
        if not value.strip():
            self.fail("blank")
        return value


class GenerateSerializer(serializers.Serializer[Any]):
    """What is asked for."""

    contentItemId = ContentItemIdField(help_text=_("What the image belongs to, in the caller's own terms."))
    title = serializers.CharField(max_length=MAX_TITLE)
    description = serializers.CharField(
        required=False,
        allow_null=True,
        allow_blank=True,
        max_length=MAX_DESCRIPTION,
        style={"base_template": "textarea.html"},
        help_text=_("As long as a whole article's outline; a summary of it goes into the prompt."),
    )
    variant = serializers.ChoiceField(choices=Variant.choices, default=Variant.HERO, allow_null=True)

    def arguments(self) -> dict[str, Any]:
        """The validated data under the names that `generate_image` uses."""
        data = dict(self.validated_data)
        return {"content_item_id": data.pop("contentItemId"), **data}


class FilterSerializer(serializers.Serializer[Any]):
    """The list's filters; an empty one is none."""

    contentItemId = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    variant = serializers.ChoiceField(choices=Variant.choices, required=False, allow_blank=True)
    status = serializers.ChoiceField(
        choices=[choice for choice in Status.choices if choice[0] != Status.DELETING],
        required=False,
        allow_blank=True,
    )


class MomentField(serializers.DateTimeField):
    """Always UTC with milliseconds and a `Z`, whatever the host's settings say about times."""

    def to_representation(self, value: Any) -> str:
        return format_time(value)


class ImageErrorSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()


class ImageSerializer(serializers.ModelSerializer[GeneratedImage]):
    """One image, as every endpoint shows it."""

    imageUrl = serializers.SerializerMethodField(
        help_text="The picture's absolute address; null while there is none."
    )
    contentItemId = serializers.CharField(source="content_item_id")
    status = serializers.ChoiceField(choices=Status.choices, source="current_status")
    mimeType = serializers.CharField(source="mime_type")
    createdAt = MomentField(source="created_at")
    error = serializers.SerializerMethodField(help_text="Why there is no picture, where the generation failed.")

    class Meta:
        model = GeneratedImage
        fields = [
            "id",
            "imageUrl",
            "contentItemId",
            "title",
            "variant",
            "status",
            "provider",
            "model",
            "mimeType",
            "width",
            "height",
            "createdAt",
            "error",
        ]
        read_only_fields = fields

    def to_representation(self, instance: GeneratedImage) -> dict[str, Any]:
        """The fields above, put together by hand: a test holds the two to each other.

        DRF builds its fields anew for each answer, which takes more CPU than both of a generation's writes together.
        """
        return {
            "id": str(instance.pk),
            "imageUrl": self.get_imageUrl(instance),
            "contentItemId": instance.content_item_id,
            "title": instance.title,
            "variant": str(instance.variant),
            "status": str(instance.current_status),
            "provider": instance.provider,
            "model": instance.model,
            "mimeType": instance.mime_type,
            "width": instance.width,
            "height": instance.height,
            "createdAt": format_time(instance.created_at),
            "error": self.get_error(instance),
        }

    def get_imageUrl(self, image: GeneratedImage) -> str | None:
        return image.public_url(self.context.get("request")) or None

    def get_error(self, image: GeneratedImage) -> dict[str, str] | None:
        code, message = image.current_error
        return {"code": code, "message": message} if code else None


class PendingImageSerializer(ImageSerializer):
    """An image that is still being made, for whoever did not want to wait."""

    statusUrl = serializers.SerializerMethodField(help_text="Where to look what became of it; also in `Location`.")

    class Meta(ImageSerializer.Meta):
        fields = [*ImageSerializer.Meta.fields, "statusUrl"]
        read_only_fields = fields

    def to_representation(self, instance: GeneratedImage) -> dict[str, Any]:
        """The image, and where to look for it."""
        return {**super().to_representation(instance), "statusUrl": self.get_statusUrl(instance)}

    def get_statusUrl(self, image: GeneratedImage) -> str:
        return str(self.context["statusUrl"])
