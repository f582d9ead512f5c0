"""How the list and the page of one image show its fields.

Titles, prompts and what providers report are untrusted text: everything goes through `format_html`, which escapes it,
or through a template.
"""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
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

from ..models import CostBasis, GeneratedImage, Status
from ..services.scenes import is_of_scene

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[GeneratedImage]
else:
    AdminBase = object

#: The preview's width in the list, in CSS pixels; the file is twice as wide, for sharp screens.
LISTED_WIDTH = 120
#: Characters of a title or an error that the list shows.
LISTED_TEXT = 120
NOTHING = "–"

#: The error codes that a row can carry, in words. There may be others: a host can bring its own providers.
REASONS: dict[str, Promise] = {
    "content_rejected": _("text refused"),
    "provider_auth": _("API key refused"),
    "provider_bad_image": _("broken image received"),
    "provider_bad_response": _("invalid response received"),
    "provider_error": _("provider failed"),
    "provider_model_unavailable": _("model not available"),
    "provider_no_image": _("response without an image"),
    "provider_not_configured": _("provider not configured"),
    "provider_overloaded": _("provider overloaded"),
    "provider_quota_exhausted": _("quota or budget exhausted"),
    "provider_rate_limited": _("rate limit reached"),
    "provider_timeout": _("no answer in time"),
    "provider_unreachable": _("provider unreachable"),
    "queue_unavailable": _("queue unavailable"),
    "storage_error": _("could not be stored"),
    "not_found": _("deleted in the meantime"),
    "internal_error": _("error on this server"),
}


def url_name(model_admin: AdminBase, view: str) -> str:
    """The name of a page's URL within the admin: a host may give the app another label."""
    return f"{model_admin.opts.app_label}_{model_admin.opts.model_name}_{view}"


def admin_url(model_admin: AdminBase, view: str, *args: Any) -> str:
    """The address of a page within the admin site that the class is registered with; a host may have several."""
    return reverse(f"admin:{url_name(model_admin, view)}", args=args, current_app=model_admin.admin_site.name)


class ImageColumns(AdminBase):
    """Columns of the list and fields of the page; a base of the admin class.

    None is named like a field of the model, since the admin would show that field instead.
    """

    @admin.display(description=_("picture"))
    def preview(self, image: GeneratedImage) -> str:
        """A small picture, which the browser loads when it scrolls into view."""
        if not image.is_ready:
            return gettext("no picture")
        ratio = (image.height or 3) / (image.width or 4)
        return format_html(
            '<img class="images-preview" src="{}" alt="{}" width="{}" height="{}" loading="lazy" decoding="async">',
            admin_url(self, "preview", image.pk),
            image.title,
            LISTED_WIDTH,
            max(1, round(LISTED_WIDTH * ratio)),
        )

    @admin.display(description=_("title and content item"), ordering="content_item_id")
    def content_item(self, image: GeneratedImage) -> str:
        """The title, which links to the image, and the content item, which links to all of its images."""
        return format_html(
            '<a href="{}">{}</a><span class="images-second-line"><a href="?{}">{}</a></span>',
            admin_url(self, "change", image.pk),
            Truncator(image.title).chars(LISTED_TEXT) or image.pk,
            urlencode({"content_item_id": image.content_item_id}),
            Truncator(image.content_item_id).chars(LISTED_TEXT),
        )

    @admin.display(description=_("variant"), ordering="variant")
    def shape(self, image: GeneratedImage) -> str:
        """The variant with its ratio; one that has been taken away keeps its name."""
        return str(image.get_variant_display())

    @admin.display(description=_("source (IPTC)"))
    def origin(self, image: GeneratedImage) -> str:
        """Whether generative AI made the picture, and the IPTC's term."""
        term = image.digital_source_type.rpartition("/")[2]
        if not term:
            return gettext("unknown") if image.is_ready else NOTHING
        return _two_lines(gettext("generative AI") if image.ai_generated else gettext("not generative AI"), term)

    @admin.display(description=_("status"), ordering="status")
    def status_and_reason(self, image: GeneratedImage) -> str:
        """The status, and for a failed image the reason and the providers that were tried."""
        if image.current_status != Status.FAILED:
            return _two_lines(self.status_now(image), "")
        why = _two_lines(self.status_now(image), reason(image))
        return format_html('{}<span class="images-second-line">{}</span>', why, tried(image))

    @admin.display(description=_("status"))
    def status_now(self, image: GeneratedImage) -> str:
        """The status as the API reports it."""
        return status_label(image)

    @admin.display(description=_("provider"), ordering="provider")
    def provider_and_model(self, image: GeneratedImage) -> str:
        """The provider, and under it the model."""
        return _two_lines(image.provider or NOTHING, image.model)

    @admin.display(description=_("created"), ordering="created_at")
    def created_by(self, image: GeneratedImage) -> str:
        """When, and under it the owner."""
        return _two_lines(date_format(local(image.created_at), "SHORT_DATETIME_FORMAT"), str(image.owner or ""))

    @admin.display(description=_("size"), ordering="size_bytes")
    def size(self, image: GeneratedImage) -> str:
        """Bytes, and width by height in pixels."""
        if image.size_bytes is None:
            return NOTHING
        return _two_lines(filesizeformat(image.size_bytes), f"{image.width} × {image.height}" if image.width else "")

    @admin.display(description=_("duration"), ordering="duration_ms")
    def duration(self, image: GeneratedImage) -> str:
        """How long it took, in seconds."""
        return seconds(image.duration_ms)

    @admin.display(description=_("cost"), ordering="cost")
    def listed_cost(self, image: GeneratedImage) -> str:
        """What it cost, to a hundredth of a cent."""
        return dollars(image.cost, image.cost_basis)

    @admin.display(description=_("cost"))
    def exact_cost(self, image: GeneratedImage) -> str:
        """What it cost, how that was found, and by the prices of which day."""
        if image.cost is None:
            return gettext("unknown")
        day = image.prices_dated
        dated = gettext("prices of %(date)s") % {"date": date_format(day, "SHORT_DATE_FORMAT")} if day else ""
        basis = ", ".join(filter(None, (str(image.get_cost_basis_display()), dated)))
        return _two_lines(dollars(image.cost, image.cost_basis, places=10), basis)

    @admin.display(description=_("picture"))
    def picture(self, image: GeneratedImage) -> str:
        """The picture itself, which links to the file."""
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
        """The picture's address in a field to copy it from; a script adds a button for that."""
        if not image.is_ready:
            return NOTHING
        return render_to_string("admin/images/address.html", {"address": image.public_url()})

    @admin.display(description=_("error"))
    def error(self, image: GeneratedImage) -> str:
        """The reason, the code and the sentence that the caller got."""
        why = reason(image)
        return format_html('<span class="images-error">{}</span>', why) if why else NOTHING

    @admin.display(description=_("attempts"))
    def attempts_table(self, image: GeneratedImage) -> str:
        """Every call to a provider, as a table."""
        return render_to_string("admin/images/attempts.html", {"attempts": image.attempts})

    @admin.display(description=_("usage as reported"))
    def reported_usage(self, image: GeneratedImage) -> str:
        """What the provider reported. No report does not mean that the image was free."""
        if image.usage is None:
            return gettext("unknown")
        text = json.dumps(image.usage, indent=2, ensure_ascii=False, sort_keys=True)
        return format_html('<pre class="images-json">{}</pre>', text)

    @admin.display(description=_("file"))
    def file_name(self, image: GeneratedImage) -> str:
        """The file's name within the storage."""
        return image.file_name or NOTHING


def status_label(image: GeneratedImage) -> str:
    """The status in words; a generation whose process was stopped counts as failed."""
    return str(dict(Status.choices).get(image.current_status, image.current_status))


def seconds(ms: int | None) -> str:
    """A duration in seconds, such as `8.2 s`; a dash for `None`."""
    if ms is None:
        return NOTHING
    return gettext("%(seconds)s s") % {"seconds": number_format(ms / 1000, decimal_pos=1)}


def dollars(usd: Decimal | None, basis: str = "", *, places: int = 4) -> str:
    """An amount such as `$0.0412`; in words if it is unknown, or only known to be at least that."""
    if usd is None:
        return gettext("unknown")
    # At least two digits behind the point, as money is written, and no zeros beyond them.
    rounded = (round(usd, places) or usd).normalize()
    digits = max(2, -int(rounded.as_tuple().exponent))
    text = number_format(rounded, decimal_pos=digits, force_grouping=True)
    return gettext("at least $%(usd)s") % {"usd": text} if basis == CostBasis.AT_LEAST else f"${text}"


def local(moment: datetime) -> datetime:
    """A moment in the current time zone; unchanged if the host sets `USE_TZ = False`."""
    return timezone.localtime(moment) if timezone.is_aware(moment) else moment


def _two_lines(first: object, second: str) -> str:
    return format_html('{}<span class="images-second-line">{}</span>', first, Truncator(second).chars(LISTED_TEXT))


def reason(image: GeneratedImage) -> str:
    """Why there is no picture: the reason in words, the code, the sentence that the caller got; "" if all is well.

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
    """Every call to a provider in one line: `gemini provider_timeout 31.0 s · openai provider_error 0.4 s`."""
    return " · ".join(_call(attempt) for attempt in image.attempts if isinstance(attempt, dict))


def _call(attempt: dict[str, object]) -> str:
    words = [str(attempt.get("provider", "")), str(attempt.get("code", ""))]
    if is_of_scene(attempt):
        words.insert(1, f"({gettext('scene')})")
    ms = attempt.get("ms")
    if isinstance(ms, int):
        words.append(seconds(ms))
    return " ".join(words)
