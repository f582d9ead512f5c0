"""How the list, the gallery and the page of one image show what they show.

Titles, prompts and what providers report are untrusted text: everything goes through `format_html`, which escapes it,
or through a template.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.core.exceptions import SuspiciousFileOperation
from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.text import Truncator, slugify
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from ..failures import ADVICE, REASONS, sentence_for_reader
from ..local_files import local_path
from ..models import CostBasis, GeneratedImage, Status, image_storage
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

#: The outlines of the statuses' icons, 16 by 16.
ICONS = {
    "ready": "M3 8.5l3.5 3.5L13 4.5",
    "failed": "M4 4l8 8M12 4l-8 8",
    "missing": "M8 3v6M8 12v.5",
    "queued": "M8 2a6 6 0 1 0 0 12 6 6 0 0 0 0-12M8 5v3.5l2 1.5",
    "generating": "M8 2a6 6 0 1 1-6 6",
    "deleting": "M3 4.5h10M6 4.5V3h4v1.5M5 4.5l.5 8.5h5l.5-8.5",
}


def url_name(model_admin: AdminBase, view: str) -> str:
    """The name of a page's URL within the admin: a host may give the app another label."""
    return f"{model_admin.opts.app_label}_{model_admin.opts.model_name}_{view}"


def admin_url(model_admin: AdminBase, view: str, *args: Any, filters: str = "") -> str:
    """The address of a page within the admin site that the class is registered with; a host may have several.

    Args:
        model_admin: The admin class.
        view: The page.
        args: The page's arguments.
        filters: What `ModelAdmin.get_preserved_filters` returned: where the reader came from and goes back to.
    """
    url = reverse(f"admin:{url_name(model_admin, view)}", args=args, current_app=model_admin.admin_site.name)
    return str(add_preserved_filters({"preserved_filters": filters, "opts": model_admin.opts}, url))


# --- what became of an image --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class State:
    """What became of an image, in a word, as a pill with an icon.

    Attributes:
        kind: A key of `ICONS`.
        label: The word.
        why: Why there is no picture, in a few words, or "".
        seconds: How long it has been in this state, if it is still going to change.
    """

    kind: str
    label: str
    why: str = ""
    seconds: int | None = None

    @property
    def icon(self) -> str:
        """The outline of its icon."""
        return ICONS[self.kind]

    @property
    def is_pending(self) -> bool:
        """Whether it is going to change by itself."""
        return self.seconds is not None


def state_of(image: GeneratedImage) -> State:
    """What became of an image, as a reader should see it."""
    if image.current_status == Status.PENDING:
        return _pending_state(image)
    if image.current_status == Status.FAILED:
        return State(kind="failed", label=gettext("failed"), why=short_reason(image))
    if image.status == Status.DELETING:
        return State(kind="deleting", label=gettext("being deleted"))
    if not image.is_ready or is_file_missing(image):
        return State(kind="missing", label=gettext("file missing"))
    return State(kind="ready", label=gettext("ready"))


def _pending_state(image: GeneratedImage) -> State:
    now = timezone.now()
    if image.started_at is not None:
        passed = max(0, int((now - image.started_at).total_seconds()))
        return State(kind="generating", label=gettext("generating"), seconds=passed)
    # A request that waits for more than its turn says so on its row.
    why = short_reason(image) if image.error_code else ""
    return State(
        kind="queued",
        label=gettext("queued"),
        why=why,
        seconds=max(0, int((now - image.created_at).total_seconds())),
    )


def is_file_missing(image: GeneratedImage) -> bool:
    """Whether the file of a ready image is surely gone.

    It is looked for in a folder of this machine only, which costs microseconds. With any other storage the preview
    finds out, and a script says so.
    """
    try:
        path = local_path(image_storage(), image.file_name)
    except SuspiciousFileOperation:
        return True
    return path is not None and not os.path.exists(path)


def pill(state: State) -> str:
    """A state as HTML."""
    return render_to_string("admin/images/pill.html", {"state": state})


def short_reason(image: GeneratedImage) -> str:
    """Why an image failed or what it waits for, in a few words; the code, if the words are not known."""
    if image.is_stale:
        return gettext("process stopped") if image.started_at else gettext("never started")
    return str(REASONS.get(image.error_code, image.error_code))


def advice(image: GeneratedImage) -> str:
    """What to do about a failure; the sentence that the caller got, if the code is not known."""
    code, message = image.current_error
    return str(ADVICE[code]) if code in ADVICE else content(message, "en")


def attempts_made(image: GeneratedImage) -> str:
    """`3 attempts` to make the picture, or "" if there was one or none."""
    made = [attempt for attempt in image.attempts if isinstance(attempt, dict) and not is_of_scene(attempt)]
    number = len(made)
    return ngettext("%(number)d attempt", "%(number)d attempts", number) % {"number": number} if number > 1 else ""


def content(text: str, language: str = "") -> str:
    """A text of callers, people or models, in its own direction and, if that is known, marked with its language."""
    if not text:
        return ""
    lines = format_html_join(mark_safe("<br>"), "{}", ((line,) for line in text.splitlines()))
    return format_html('<span dir="auto"{}>{}</span>', format_html(' lang="{}"', language) if language else "", lines)


def _text(name: str, label: Any) -> Any:
    """A field of the page that shows a text of the row's."""

    @admin.display(description=label)
    def shown(self: AdminBase, image: GeneratedImage) -> str:
        return content(getattr(image, name)) or NOTHING

    return shown


# --- the list, and fields of the page -----------------------------------------------------------------------


class ImageColumns(AdminBase):
    """Columns of the list and fields of the page; a base of the admin class.

    None is named like a field of the model, since the admin would show that field instead.
    """

    title_text = _text("title", _("title"))
    item_text = _text("content_item_id", _("content item"))
    description_text = _text("description", _("description"))
    context_text = _text("context", _("context"))
    scene_text = _text("scene", _("scene"))
    prompt_text = _text("prompt", _("prompt"))
    negative_prompt_text = _text("negative_prompt", _("negative prompt"))

    @admin.display(description=_("picture"))
    def preview(self, image: GeneratedImage) -> str:
        """A small picture, which the browser loads when it scrolls into view; or why there is none."""
        listed, state = listed_of(image), state_of(image)
        context = {
            "image": image,
            "state": state,
            "preview": admin_url(self, "preview", image.pk) if state.kind == "ready" else "",
            "address": "" if listed.is_popup else admin_url(self, "change", image.pk, filters=listed.filters),
            "width": LISTED_WIDTH,
            "height": max(1, round(LISTED_WIDTH * (image.height or 3) / (image.width or 4))),
        }
        return render_to_string("admin/images/preview.html", context)

    @admin.display(description=_("title and content item"), ordering="title")
    def content_item(self, image: GeneratedImage) -> str:
        """The title, which links to the image; the content item, which links to all of its images; what to do."""
        context = {
            "image": image,
            "title": Truncator(image.title).chars(LISTED_TEXT) or image.pk,
            "address": admin_url(self, "change", image.pk, filters=listed_of(image).filters),
            "item": Truncator(image.content_item_id).chars(LISTED_TEXT),
            "item_query": urlencode({"content_item_id": image.content_item_id}),
            "file": file_links(image),
        }
        return render_to_string("admin/images/listed.html", context)

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
        return _lines(gettext("generative AI") if image.ai_generated else gettext("not generative AI"), term)

    @admin.display(description=_("status"), ordering="status")
    def status_and_reason(self, image: GeneratedImage) -> str:
        """The status, and for a failed image a short reason and the number of attempts."""
        state = state_of(image)
        took = " · ".join(filter(None, [attempts_made(image), cost(image)])) if state.kind == "failed" else ""
        if image.is_waiting:
            took = waiting(image)
        context = {"state": state, "image": image, "attempts": took}
        return render_to_string("admin/images/status.html", context)

    @admin.display(description=_("status"))
    def status_now(self, image: GeneratedImage) -> str:
        """The status on the image's page."""
        return self.status_and_reason(image)

    @admin.display(description=_("provider"), ordering="provider")
    def provider_and_model(self, image: GeneratedImage) -> str:
        """Who made the picture, and what it took; nothing if there is none."""
        if not image.is_ready:
            return NOTHING
        return _lines(image.provider or NOTHING, image.model, took(image), self.size(image))

    @admin.display(description=_("created"), ordering="created_at")
    def created_by(self, image: GeneratedImage) -> str:
        """When, and under it the owner."""
        return _lines(date_format(local(image.created_at), "SHORT_DATETIME_FORMAT"), str(image.owner or ""))

    @admin.display(description=_("size"), ordering="size_bytes")
    def size(self, image: GeneratedImage) -> str:
        """Bytes, and width by height in pixels."""
        return " · ".join(filter(None, [size_in_bytes(image), size_in_pixels(image)])) or NOTHING

    @admin.display(description=_("duration"), ordering="duration_ms")
    def duration(self, image: GeneratedImage) -> str:
        """How long it took, in seconds."""
        return seconds(image.duration_ms)

    @admin.display(description=_("cost"))
    def exact_cost(self, image: GeneratedImage) -> str:
        """What it cost, how that was found, and by the prices of which day."""
        if image.cost is None:
            return gettext("unknown")
        day = image.prices_dated
        dated = gettext("prices of %(date)s") % {"date": date_format(day, "SHORT_DATE_FORMAT")} if day else ""
        basis = ", ".join(filter(None, (str(image.get_cost_basis_display()), dated)))
        return _lines(dollars(image.cost, image.cost_basis, places=10), basis)

    @admin.display(description=_("error"))
    def error(self, image: GeneratedImage) -> str:
        """The reason and its code, the sentence that the caller got in the reader's language, and its original."""
        code, message = image.current_error
        if image.is_waiting:
            code, message = image.error_code, image.error_message
        told = sentence_for_reader(code, message)
        context = {"reason": REASONS.get(code, ""), "code": code, "told": told, "original": message}
        return render_to_string("admin/images/error.html", context)

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


@dataclass(frozen=True, kw_only=True)
class Listed:
    """How an image is listed.

    Attributes:
        filters: The list's filters, for links that lead back to it.
        is_popup: Whether the list is a popup in which one image is chosen.
    """

    filters: str = ""
    is_popup: bool = False


def listed_of(image: GeneratedImage) -> Listed:
    """How an image is listed; a row that the list did not prepare has no filters."""
    found = vars(image).get("listed")
    return found if isinstance(found, Listed) else Listed()


def file_links(image: GeneratedImage) -> dict[str, str]:
    """What can be done with a picture: its public address, the path of its file, and a name to save it by."""
    path = image.get_absolute_url() if state_of(image).kind == "ready" else ""
    if not path:
        return {}
    name = slugify(image.title, allow_unicode=True)[:80] or image.variant
    return {"address": image.public_url(), "path": path, "name": f"{name}.{image.file_name.rpartition('.')[2]}"}


# --- words and figures --------------------------------------------------------------------------------------


def took(image: GeneratedImage) -> str:
    """Time and cost of a picture in one line: `8.2 s · about $0.04`."""
    time = seconds(image.duration_ms) if image.duration_ms is not None else ""
    return " · ".join(filter(None, [time, cost(image)]))


def size_in_bytes(image: GeneratedImage) -> str:
    """`1.2 MB`, or ""."""
    return "" if image.size_bytes is None else str(filesizeformat(image.size_bytes))


def size_in_pixels(image: GeneratedImage) -> str:
    """`1536 × 1024`, or ""."""
    return f"{image.width} × {image.height}" if image.width and image.height else ""


def cost(image: GeneratedImage) -> str:
    """What an image cost, to a hundredth of a cent; "" if that is not known."""
    return "" if image.cost is None else dollars(image.cost, image.cost_basis)


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
    return (gettext("at least $%(usd)s") if basis == CostBasis.AT_LEAST else gettext("$%(usd)s")) % {"usd": text}


def local(moment: datetime) -> datetime:
    """A moment in the current time zone; unchanged if the host sets `USE_TZ = False`."""
    return timezone.localtime(moment) if timezone.is_aware(moment) else moment


def moment_with_zone(moment: datetime) -> str:
    """A moment, and the time zone in which it is told."""
    here = local(moment)
    zone = timezone.get_current_timezone_name() if timezone.is_aware(moment) else ""
    told = date_format(here, "DATETIME_FORMAT")
    return f"{told} ({zone})" if zone else told


def _lines(first: object, *others: str) -> str:
    """One line, and quieter ones under it."""
    quiet = [(Truncator(line).chars(LISTED_TEXT),) for line in others if line]
    lines = format_html_join("", '<span class="images-second-line">{}</span>', quiet)
    return format_html("{}{}", first, lines)


def waiting(image: GeneratedImage) -> str:
    """When a request that waits for a provider is tried again, and how often it was: `2 attempts · next 12:20`."""
    when = date_format(local(image.retry_at), "TIME_FORMAT") if image.retry_at else NOTHING
    return " · ".join(filter(None, [attempts_made(image), gettext("next attempt: %(time)s") % {"time": when}]))
