"""Deleting images in the admin: the pictures are shown first, since their public addresses go for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected as delete_after_confirmation
from django.contrib.admin.options import IS_POPUP_VAR
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from ..models import GeneratedImage
from .columns import admin_url
from .gallery import tiles

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[GeneratedImage]
else:
    AdminBase = object

#: The most images that one bulk action deletes. Django refuses forms with more than 1,000 fields, and the files are
#: removed one by one within the request.
MAX_DELETED_AT_ONCE = 500
#: The most pictures that the page shows.
MAX_SHOWN = 24


class Deleting(AdminBase):
    """The action, its page, and the page for one image; a part of the admin class."""

    # Named, since Django looks for them under the app's label, which a host may change.
    delete_confirmation_template = "admin/images/generatedimage/delete_confirmation.html"
    delete_selected_confirmation_template = "admin/images/generatedimage/delete_selected_confirmation.html"

    @admin.action(permissions=["delete"], description=_("Delete selected images with their files"))
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[GeneratedImage]) -> HttpResponseBase | None:
        """Delete after a confirmation; the files are removed when the transaction commits.

        Of more than can be deleted at once the newest are; the rest stays in the list, to be chosen again.
        """
        total = queryset.count()
        if total > MAX_DELETED_AT_ONCE:
            newest = queryset.order_by("-created_at", "-id").values_list("pk", flat=True)[:MAX_DELETED_AT_ONCE]
            queryset = self.get_queryset(request).filter(pk__in=list(newest))
        response = delete_after_confirmation(self, request, queryset)
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            response.context_data |= self._pictures(queryset) | {
                "left": max(0, total - MAX_DELETED_AT_ONCE),
                "back": request.get_full_path(),
            }
        return response

    def render_delete_form(self, request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
        """The page for one image, with its picture and the way back to its page."""
        image = context["object"]
        filters = self.get_preserved_filters(request)
        context |= self._pictures([image]) | {
            "back": admin_url(self, "change", image.pk, filters=filters),
            "title": gettext("Delete “%(title)s”?") % {"title": image},
        }
        return super().render_delete_form(request, context)

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: Any) -> HttpResponse:
        """Go back to the list or gallery, with its filters."""
        if IS_POPUP_VAR in request.POST:
            return super().response_delete(request, obj_display, obj_id)
        sentence = gettext("“%(title)s” was deleted, with its file.") % {"title": obj_display}
        self.message_user(request, sentence, messages.SUCCESS)
        filters = self.get_preserved_filters(request)
        return HttpResponseRedirect(admin_url(self, "changelist", filters=filters))

    def _pictures(self, images: Any) -> dict[str, Any]:
        shown = list(images[:MAX_SHOWN])
        number = images.count() if isinstance(images, QuerySet) else len(images)
        question = ngettext("Delete %(number)d image?", "Delete %(number)d images?", number)
        return {
            "shown": tiles(self, shown),
            "unshown": number - len(shown),
            "number": number,
            "question": question % {"number": number},
            "media": self.media,
        }
