"""What the list and the page of one image show.

Titles, prompts and what providers report are other people's text: everything goes through `format_html`, which
escapes it, or through a template.
"""

from __future__ import annotations

import json
from urllib.parse import urlencode

from django.contrib import admin
from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..models import GeneratedImage, Status

#: The name of the previews' address within the admin.
PREVIEW_VIEW = "images_generatedimage_preview"
#: The preview's width in the list, in CSS pixels; the file is twice as wide, for sharp screens.
LISTED_WIDTH = 120
#: Characters of a title or an error that the list shows.
LISTED_TEXT = 120
NOTHING = "–"

#: The error codes that a row can carry, in words. An administrator may meet others: providers can be anybody's code.
REASONS: dict[str, Promise] = {
    "content_rejected": _("text refused"),
    "provider_auth": _("API key refused"),
    "provider_bad_image": _("broken image received"),
    "provider_bad_response": _("broken answer received"),
    "provider_error": _("provider failed"),
    "provider_model_unavailable": _("model not available"),
    "provider_no_image": _("answer without an image"),
    "provider_not_configured": _("provider not configured"),
    "provider_overloaded": _("provider overloaded"),
    "provider_quota_exhausted": _("quota or budget used up"),
    "provider_rate_limited": _("rate limit reached"),
    "provider_timeout": _("no answer in time"),
    "provider_unreachable": _("provider not reached"),
    "storage_error": _("could not be stored"),
    "not_found": _("deleted meanwhile"),
    "internal_error": _("fault of this server"),
}


class ImageColumns:
    """Columns of the list and fields of the page; a base of the admin class.

    None has the name of a field of the model: the admin would show the field instead.
    """

    @admin.display(description=_("picture"))
    def preview(self, image: GeneratedImage) -> str:
        """A small picture, which the browser asks for when it comes into sight."""
        if not image.is_ready:
            return gettext("no picture")
        ratio = (image.height or 3) / (image.width or 4)
        return format_html(
            '<img class="images-preview" src="{}" alt="{}" width="{}" height="{}" loading="lazy" decoding="async">',
            reverse(f"admin:{PREVIEW_VIEW}", kwargs={"image_id": image.pk}),
            image.title,
            LISTED_WIDTH,
            max(1, round(LISTED_WIDTH * ratio)),
        )

    @admin.display(description=_("title and content item"), ordering="content_item_id")
    def content_item(self, image: GeneratedImage) -> str:
        """The title's beginning, which leads to the image, and the content item, which leads to all of its images."""
        return format_html(
            '<a href="{}">{}</a><span class="images-second-line"><a href="?{}">{}</a></span>',
            reverse("admin:images_generatedimage_change", args=[image.pk]),
            Truncator(image.title).chars(LISTED_TEXT) or image.pk,
            urlencode({"content_item_id": image.content_item_id}),
            Truncator(image.content_item_id).chars(LISTED_TEXT),
        )

    @admin.display(description=_("status"), ordering="status")
    def status_and_reason(self, image: GeneratedImage) -> str:
        """The status, and for a failed image why and who was asked."""
        if image.current_status != Status.FAILED:
            return _two_lines(self.status_now(image), "")
        why = _two_lines(self.status_now(image), reason(image))
        return format_html('{}<span class="images-second-line">{}</span>', why, tried(image))

    @admin.display(description=_("status"))
    def status_now(self, image: GeneratedImage) -> str:
        """The status as the API tells it."""
        return str(dict(Status.choices).get(image.current_status, image.current_status))

    @admin.display(description=_("painted by"), ordering="provider")
    def painter(self, image: GeneratedImage) -> str:
        """The provider, and under it the model."""
        return _two_lines(image.provider or NOTHING, image.model)

    @admin.display(description=_("created"), ordering="created_at")
    def created_by(self, image: GeneratedImage) -> str:
        """When, and under it who for."""
        created = image.created_at
        if timezone.is_aware(created):  # it is not where the host sets USE_TZ = False
            created = timezone.localtime(created)
        return _two_lines(date_format(created, "SHORT_DATETIME_FORMAT"), str(image.owner or ""))

    @admin.display(description=_("size"), ordering="size_bytes")
    def size(self, image: GeneratedImage) -> str:
        """Bytes, and width by height in pixels."""
        if image.size_bytes is None:
            return NOTHING
        return _two_lines(filesizeformat(image.size_bytes), f"{image.width} × {image.height}" if image.width else "")

    @admin.display(description=_("took"), ordering="duration_ms")
    def duration(self, image: GeneratedImage) -> str:
        """How long it took, in seconds."""
        if image.duration_ms is None:
            return NOTHING
        return gettext("%(seconds)s s") % {"seconds": number_format(image.duration_ms / 1000, decimal_pos=1)}

    @admin.display(description=_("picture"))
    def picture(self, image: GeneratedImage) -> str:
        """The picture itself, which leads to the file."""
        if not image.is_ready:
            return gettext("no picture")
        return format_html(
            '<a class="images-picture" href="{}"><img src="{}" alt="{}"{}></a>',
            image.get_absolute_url(),
            image.get_absolute_url(),
            image.title,
            format_html(' width="{}" height="{}"', image.width, image.height) if image.width and image.height else "",
        )

    @admin.display(description=_("public address"))
    def address(self, image: GeneratedImage) -> str:
        """The picture's address in a field to copy it from; a script adds a button that does so."""
        if not image.is_ready:
            return NOTHING
        return render_to_string("admin/images/address.html", {"address": image.public_url()})

    @admin.display(description=_("error"))
    def error(self, image: GeneratedImage) -> str:
        """The code and the sentence that the caller got."""
        why = reason(image)
        return format_html('<span class="images-error">{}</span>', why) if why else NOTHING

    @admin.display(description=_("attempts"))
    def attempts_table(self, image: GeneratedImage) -> str:
        """Every call of a provider, as a table."""
        return render_to_string("admin/images/attempts.html", {"attempts": image.attempts})

    @admin.display(description=_("usage as reported"))
    def reported_usage(self, image: GeneratedImage) -> str:
        """What the provider said it used. Nothing means that it said nothing, not that it was free."""
        if image.usage is None:
            return gettext("unknown")
        text = json.dumps(image.usage, indent=2, ensure_ascii=False, sort_keys=True)
        return format_html('<pre class="images-json">{}</pre>', text)

    @admin.display(description=_("file"))
    def file_name(self, image: GeneratedImage) -> str:
        """The file's name within the storage."""
        return image.file_name or NOTHING


def _two_lines(first: object, second: str) -> str:
    return format_html('{}<span class="images-second-line">{}</span>', first, Truncator(second).chars(LISTED_TEXT))


def reason(image: GeneratedImage) -> str:
    """Why there is no picture: the reason in words, the code, the sentence that the caller got; "" where it is fine.

    The sentence is the API's and stays in English, as the caller read it.
    """
    if image.is_stale:
        return gettext("The process was stopped before the image was ready.")
    if not image.error_code:
        return ""
    words = REASONS.get(image.error_code)
    code = f"{words} ({image.error_code})" if words else image.error_code
    return f"{code}: {image.error_message}" if image.error_message else code


def tried(image: GeneratedImage) -> str:
    """Every call of a provider in a line: `gemini provider_timeout 31.0 s · openai provider_error 0.4 s`."""
    return " · ".join(_call(attempt) for attempt in image.attempts if isinstance(attempt, dict))


def _call(attempt: dict[str, object]) -> str:
    words = [str(attempt.get("provider", "")), str(attempt.get("code", ""))]
    ms = attempt.get("ms")
    if isinstance(ms, int):
        seconds = number_format(ms / 1000, decimal_pos=1)
        words.append(gettext("%(seconds)s s") % {"seconds": seconds})
    return " ".join(words)
