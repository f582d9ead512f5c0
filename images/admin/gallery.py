"""The same images in two more ways: as a gallery of previews, and as figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from ..models import GeneratedImage, Status
from .figures import PROMISED_MS, PROMISED_SUCCESS, as_percentage, as_row
from .ledger import MAX_DURATIONS, Ledger, ledger, local

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[GeneratedImage]
else:
    AdminBase = object

#: The ranges to choose from, in days; the first is shown unasked.
RANGES = (30, 7, 90)


class MoreViews(AdminBase):
    """The gallery and the ledger; a part of the admin class."""

    def gallery_view(self, request: HttpRequest) -> HttpResponse:
        """The list as a gallery, with the same search, filters and actions."""
        return self.changelist_view(request, {"gallery": True, "title": _("Gallery of images")})

    @method_decorator(require_safe)
    def ledger_view(self, request: HttpRequest) -> HttpResponse:
        """What was made, how well, how fast and for how many tokens.

        Raises:
            PermissionDenied: This user may not view images.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        asked = request.GET.get("days", "")
        days = int(asked) if asked in map(str, RANGES) else RANGES[0]
        images = self.get_queryset(request)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": gettext("Ledger of images"),
            "days": days,
            "ranges": sorted(RANGES),
            "deleting": images.filter(status=Status.DELETING).count(),
            "promised_success": as_percentage(PROMISED_SUCCESS),
            "promised_seconds": number_format(PROMISED_MS // 1000),
            **_tables(ledger(images, days)),
        }
        return TemplateResponse(request, "admin/images/ledger.html", context)


def _tables(found: Ledger) -> dict[str, Any]:
    since = found.durations_since
    return {
        "by_model": [as_row(figures, provider=key[0], model=key[1]) for key, figures in found.by_model.items()],
        "by_day": [
            as_row(figures, day=key[0], provider=key[1], model=key[2]) for key, figures in found.by_day.items()
        ],
        "total": as_row(found.total, provider=gettext("all together")),
        "max_durations": number_format(MAX_DURATIONS, force_grouping=True),
        "since": date_format(local(since), "SHORT_DATETIME_FORMAT") if since else "",
    }
