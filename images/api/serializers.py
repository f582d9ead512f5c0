"""The shapes of requests and responses. Names on the wire are camelCase, as the old service's were."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from ..models import MAX_ALT_TEXT, GeneratedImage, Status, Variant, variant_choices
from ..services.request import MAX_CONTENT_ITEM_ID, MAX_CONTEXT, MAX_DESCRIPTION, MAX_TITLE
from ..services.scenes import is_of_scene
from ..variants import is_variant_name
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


class WordField(serializers.ChoiceField):
    """One of a few words; the OpenAPI schema lists them in place (`schema.py`)."""


class VariantField(WordField):
    """One of the variants that callers may use now: `IMAGES["VARIANTS"]` is read for each request."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=variant_choices(), **kwargs)


class GenerateSerializer(serializers.Serializer[Any]):
    """A request for an image."""

    contentItemId = ContentItemIdField(
        label=_("Content item"), help_text=_("What the image belongs to, in the caller's own terms.")
    )
    title = serializers.CharField(label=_("Title"), max_length=MAX_TITLE)
    description = serializers.CharField(
        label=_("Description"),
        required=False,
        allow_null=True,
        allow_blank=True,
        max_length=MAX_DESCRIPTION,
        style={"base_template": "textarea.html"},
        help_text=_("As long as a whole article's outline; a summary of it goes into the prompt."),
    )
    context = serializers.CharField(  # type: ignore[assignment]  # DRF's metaclass takes fields out of the class
        label=_("Context"),
        required=False,
        allow_null=True,
        allow_blank=True,
        max_length=MAX_CONTEXT,
        style={"base_template": "textarea.html"},
        help_text=_("Audience, brand and mood: what the picture should suit."),
    )
    variant = VariantField(label=_("Variant"), default=Variant.HERO, initial=Variant.HERO, allow_null=True)

    def arguments(self) -> dict[str, Any]:
        """The validated data under the names that `generate_image` uses."""
        data = dict(self.validated_data)
        return {"content_item_id": data.pop("contentItemId"), **data}


class AltTextSerializer(serializers.Serializer[Any]):
    """The one thing about an image that can be changed."""

    altText = serializers.CharField(
        label=_("Alternative text"),
        allow_null=True,
        allow_blank=True,
        max_length=MAX_ALT_TEXT,
        source="alt_text",
        help_text=_('What is seen, for those who cannot see it; "" if the picture is decorative, null for none.'),
    )

    def to_internal_value(self, data: Any) -> Any:
        """The text; any other field is an error, since a caller that sends one expects it to change."""
        others = [name for name in data if name not in self.fields] if isinstance(data, Mapping) else []
        if others:
            raise serializers.ValidationError(
                {str(name): [gettext("Only altText can be changed.")] for name in others}
            )
        return super().to_internal_value(data)


class VariantFilterField(serializers.ChoiceField):
    """Also takes what may be a variant that has been taken away; the view refuses it if there are no such images."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=variant_choices(), **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if data and not is_variant_name(data):
            self.fail("invalid_choice", input=data)
        return str(data)


class FilterSerializer(serializers.Serializer[Any]):
    """The list's filters; an empty value does not filter."""

    contentItemId = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    variant = VariantFilterField(required=False, allow_blank=True)
    status = serializers.ChoiceField(
        choices=[choice for choice in Status.choices if choice[0] != Status.DELETING],
        required=False,
        allow_blank=True,
    )


class MomentField(serializers.DateTimeField):
    """Always UTC with milliseconds and a `Z`, whatever the host's settings for dates and times are."""

    def to_representation(self, value: Any) -> str:
        return format_time(value)


class ErrorField(serializers.Field[Any, Any, dict[str, Any], GeneratedImage]):
    """Why there is no picture; `None` if the generation has not failed."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(source="*", read_only=True, **kwargs)

    def to_representation(self, value: GeneratedImage) -> Any:
        return _error(value)


class WaitingField(serializers.Field[Any, Any, dict[str, Any], GeneratedImage]):
    """Why a pending image waits for a provider; `None` if it does not."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(source="*", read_only=True, **kwargs)

    def to_representation(self, value: GeneratedImage) -> Any:
        return _waiting(value)


def _waiting(image: GeneratedImage) -> dict[str, Any] | None:
    if not image.is_waiting:
        return None
    retry_at = format_time(image.retry_at) if image.retry_at else None
    reason = {"code": image.error_code, "message": image.error_message}
    attempts = sum(not is_of_scene(attempt) for attempt in image.attempts)
    return {**reason, "attempts": attempts, "retryAt": retry_at}


def _error(image: GeneratedImage) -> dict[str, Any] | None:
    failure = image.failure
    if failure is None:
        return None
    billed = {"mayHaveBilled": True} if failure.may_have_billed else {}
    code, message = image.current_error  # a row of an earlier release may have a code that is no more
    return {"code": code, "message": message, "retryable": failure.retryable, **billed}


class CostField(serializers.Field[Any, Any, dict[str, Any], GeneratedImage]):
    """What the image cost; `None` if that is unknown. It is not there for callers who may not see it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(source="*", required=False, **kwargs)

    def to_representation(self, value: GeneratedImage) -> Any:
        return _cost(value)


def _cost(image: GeneratedImage) -> dict[str, Any] | None:
    if image.cost is None:
        return None
    # As text, since JSON's numbers are binary; without the zeros at its end.
    return {"usd": f"{image.cost.normalize():f}", "basis": str(image.cost_basis)}


class ImageSerializer(serializers.ModelSerializer[GeneratedImage]):
    """One image, as every endpoint shows it."""

    imageUrl = serializers.SerializerMethodField(
        help_text="The absolute URL of the picture; null as long as there is none."
    )
    contentItemId = serializers.CharField(source="content_item_id")
    variant = serializers.CharField(help_text="An image keeps the name of a variant that has been taken away.")
    status = WordField(choices=Status.choices, source="current_status")
    altText = serializers.CharField(
        source="alt_text",
        allow_null=True,
        help_text='What is seen, for those who cannot see it; null for no text, "" for a decorative picture.',
    )
    mimeType = serializers.CharField(source="mime_type")
    createdAt = MomentField(source="created_at")
    aiGenerated = serializers.BooleanField(
        source="ai_generated",
        allow_null=True,
        help_text="Whether generative AI made the picture; null as long as there is none, and if nobody knows.",
    )
    digitalSourceType = serializers.SerializerMethodField(
        help_text="The IPTC's address for where the picture comes from; null as `aiGenerated`."
    )
    contentCredentials = serializers.SerializerMethodField(
        help_text="Whether the file holds a C2PA manifest (its signature is not verified); null if nobody has looked."
    )
    error = ErrorField(help_text="Why there is no picture, if the generation failed.")
    waiting = WaitingField(help_text="Why a pending image waits: no provider can be asked for now.")
    cost = CostField(
        help_text="What it cost, all attempts together; null if that is unknown. Only for staff and the owner."
    )

    class Meta:
        model = GeneratedImage
        fields = [
            "id",
            "imageUrl",
            "contentItemId",
            "title",
            "altText",
            "variant",
            "status",
            "provider",
            "model",
            "mimeType",
            "width",
            "height",
            "createdAt",
            "aiGenerated",
            "digitalSourceType",
            "contentCredentials",
            "error",
            "waiting",
            "cost",
        ]
        read_only_fields = fields

    def to_representation(self, instance: GeneratedImage) -> dict[str, Any]:
        """The fields above, put together by hand. A test keeps the two in step.

        DRF builds its fields anew for each response, which takes more CPU than a generation's two writes together.
        """
        return {
            "id": str(instance.pk),
            "imageUrl": self.get_imageUrl(instance),
            "contentItemId": instance.content_item_id,
            "title": instance.title,
            "altText": instance.alt_text,
            "variant": str(instance.variant),
            "status": str(instance.current_status),
            "provider": instance.provider,
            "model": instance.model,
            "mimeType": instance.mime_type,
            "width": instance.width,
            "height": instance.height,
            "createdAt": format_time(instance.created_at),
            "aiGenerated": instance.ai_generated,
            "digitalSourceType": self.get_digitalSourceType(instance),
            "contentCredentials": self.get_contentCredentials(instance),
            "error": _error(instance),
            "waiting": _waiting(instance),
            **({"cost": _cost(instance)} if self._may_see_cost(instance) else {}),
        }

    def get_imageUrl(self, image: GeneratedImage) -> str | None:
        return image.public_url(self.context.get("request")) or None

    def get_digitalSourceType(self, image: GeneratedImage) -> str | None:
        return image.digital_source_type or None

    def get_contentCredentials(self, image: GeneratedImage) -> bool | None:
        return image.content_credentials if image.is_ready else None

    def _may_see_cost(self, image: GeneratedImage) -> bool:
        """Whether the caller is staff or the owner. Callers from trusted networks have no account, so are neither."""
        user = getattr(self.context.get("request"), "user", None)
        owner = getattr(user, "pk", None)
        return bool(getattr(user, "is_staff", False)) or (owner is not None and owner == image.owner_id)


class PendingImageSerializer(ImageSerializer):
    """An image that is still being generated, for a caller that did not want to wait."""

    statusUrl = serializers.SerializerMethodField(help_text="The URL to poll for the result; also in `Location`.")

    class Meta(ImageSerializer.Meta):
        fields = [*ImageSerializer.Meta.fields, "statusUrl"]
        read_only_fields = fields

    def to_representation(self, instance: GeneratedImage) -> dict[str, Any]:
        """The image, and the URL to poll."""
        return {**super().to_representation(instance), "statusUrl": self.get_statusUrl(instance)}

    def get_statusUrl(self, image: GeneratedImage) -> str:
        return str(self.context["statusUrl"])


# --- `Prefer` (RFC 7240): how long a caller wants to wait, and whether at all ---------------------------------------

#: The rest of a longer header is ignored.
MAX_LENGTH = 2000
#: `wait=` with more digits stands for "as long as it takes".
MAX_DIGITS = 6

_QUOTED = r'"(?:\\.|[^"\\])*"'
#: What stands between two commas, and between two semicolons; those in quotes do not count.
_ELEMENT = re.compile(rf'(?:[^,"]|{_QUOTED})+')
_PARAMETER = re.compile(rf'(?:[^;"]|{_QUOTED})+')


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """What the caller prefers. Unknown preferences are ignored, as the RFC asks.

    Attributes:
        respond_async: The caller accepts a response before the image is there.
        wait: How many seconds the caller will wait, if it said so.
    """

    respond_async: bool = False
    wait: int | None = None

    @property
    def patience(self) -> int | None:
        """Seconds after which the response may come without the image; `None` for as long as it takes."""
        if self.wait is not None:
            return self.wait
        return 0 if self.respond_async else None

    def applied(self, *, in_time: bool) -> str:
        """The response's `Preference-Applied`.

        Args:
            in_time: The image is there within the time that the caller waits.
        """
        names = ["respond-async"] if self.respond_async and not in_time else []
        return ", ".join([*names, *([f"wait={self.wait}"] if self.wait is not None else [])])


def parse_preferences(header: str) -> Preferences:
    """Parse the header; several of them come joined with commas. The first value of a repeated preference counts."""
    found: dict[str, str] = {}
    for name, value in _preferences(header[:MAX_LENGTH]):
        found.setdefault(name, value)
    wait = found.get("wait", "")
    seconds = int(wait) if re.fullmatch(rf"[0-9]{{1,{MAX_DIGITS}}}", wait) else None
    return Preferences(respond_async="respond-async" in found, wait=seconds)


def _preferences(header: str) -> Iterator[tuple[str, str]]:
    for element in _ELEMENT.findall(header):
        preference = _PARAMETER.match(element)  # what follows a semicolon are parameters, and we know none
        if preference:
            name, _, value = preference[0].partition("=")
            yield name.strip().lower(), _unquoted(value.strip())


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value
