"""The list of images and the page of one: read-only, apart from deleting and generating again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected as delete_after_confirmation
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_user_model
from django.db import router
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import URLPattern, path
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from ..api.views import non_atomic
from ..models import GeneratedImage
from .columns import ImageColumns, admin_url, url_name
from .describing import Describing
from .finding import ImageChangeList, NameFilter, ReasonFilter, StatusFilter, VariantFilter, exact_matches
from .gallery import Gallery
from .generate_again import GenerateAgain
from .usage import Usage

if TYPE_CHECKING:
    ImageAdminBase = admin.ModelAdmin[GeneratedImage]
else:
    ImageAdminBase = admin.ModelAdmin

#: The most images that one bulk action deletes. Django refuses forms with more than 1,000 fields, and the files are
#: removed one by one within the request.
MAX_DELETED_AT_ONCE = 500
#: Characters of a search that are looked at: each word becomes a condition, and databases limit those.
MAX_SEARCH = 200


@admin.register(GeneratedImage)
class GeneratedImageAdmin(ImageColumns, Describing, Gallery, Usage, GenerateAgain, ImageAdminBase):
    """Shows what was requested, what came of it, what it took, and why it failed."""

    list_display = (
        "preview",
        "content_item",
        "status_and_reason",
        "provider_and_model",
        "created_by",
        "shape",
        "size",
        "duration",
        "listed_cost",
    )
    list_display_links = ("preview",)
    list_filter = (
        StatusFilter, "created_at", VariantFilter, ("provider", NameFilter), ("model", NameFilter), ReasonFilter,
    )  # fmt: skip
    list_per_page = 50
    list_max_show_all = 200
    show_full_result_count = False
    date_hierarchy = "created_at"
    search_fields = ("title", "content_item_id__istartswith")
    search_help_text = _("A content item, an image's id or address, or words of the title.")
    actions = ("generate_again", "delete_selected")
    readonly_fields = (
        "picture",
        "described",
        "address",
        "shape",
        "status_now",
        "error",
        "duration",
        "exact_cost",
        "attempts_table",
        "reported_usage",
        "file_name",
        "size",
        "origin",
    )
    view_on_site = False  # the page itself shows the picture and its address
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "picture",
                    "described",
                    "address",
                    "content_item_id",
                    "title",
                    "shape",
                    "status_now",
                    "error",
                )
            },
        ),
        (
            _("Provider"),
            {"fields": ("provider", "model", "duration", "exact_cost", "attempts_table", "reported_usage")},
        ),
        (_("Prompt"), {"fields": ("prompt", "negative_prompt", "style", "seed", "scene", "scene_model")}),
        (_("File"), {"fields": ("file_name", "mime_type", "size", "sha256", "origin", "content_credentials")}),
        (_("Request"), {"fields": ("id", "owner", "created_at", "finished_at", "description", "context")}),
    )

    # Named, since Django looks for them under the app's label, which a host may change.
    change_list_template = "admin/images/generatedimage/change_list.html"
    change_form_template = "admin/images/generatedimage/change_form.html"

    class Media:
        css = {"all": ("images/admin.css",)}
        js = ("images/admin.js",)

    # --- permissions ----------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never: images come from the API, the command or `generate_image`."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: GeneratedImage | None = None) -> bool:
        """Never, since the row records what was paid for. This makes every field read-only."""
        return False

    # --- finding --------------------------------------------------------------------------------------------

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """The list that leaves the long columns in the database."""
        return ImageChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[GeneratedImage]:
        """The images with their owners, which one query fetches from the users' own database.

        With `select_related`, hosts whose router keeps images and users in two databases would get a join that no
        database can answer. An owner whose user is gone counts as no owner.
        """
        users = get_user_model()
        owners = users._base_manager.using(router.db_for_read(users))
        return super().get_queryset(request).prefetch_related(Prefetch("owner", queryset=owners))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[GeneratedImage], search_term: str
    ) -> tuple[QuerySet[GeneratedImage], bool]:
        """Look for a whole content item, id or address first, which indexes answer, and then for words."""
        search_term = search_term[:MAX_SEARCH]
        if search_term:
            exact = queryset.filter(exact_matches(search_term))
            if exact.exists():
                return exact, False
        return super().get_search_results(request, queryset, search_term)

    # --- deleting -------------------------------------------------------------------------------------------

    @admin.action(permissions=["delete"], description=_("Delete selected images with their files"))
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[GeneratedImage]) -> HttpResponseBase | None:
        """Delete after a confirmation; the files are removed when the transaction commits."""
        if queryset.count() > MAX_DELETED_AT_ONCE:
            sentence = ngettext(
                "At most %(count)d image can be deleted at once. Choose fewer.",
                "At most %(count)d images can be deleted at once. Choose fewer.",
                MAX_DELETED_AT_ONCE,
            )
            self.message_user(request, sentence % {"count": MAX_DELETED_AT_ONCE}, messages.ERROR)
            return None
        return delete_after_confirmation(self, request, queryset)

    # --- the page of one image ------------------------------------------------------------------------------

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: GeneratedImage | None = None,
    ) -> HttpResponse:
        """The page, with links to the images of its content item and to generating it again."""
        if obj is not None:
            everything = urlencode({"content_item_id": obj.content_item_id})
            context["item_address"] = f"{admin_url(self, 'changelist')}?{everything}"
            context["again_address"] = self.again_address([obj.pk]) if self.has_generate_permission(request) else ""
        return super().render_change_form(request, context, add, change, form_url, obj)

    # --- addresses ------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """The admin's own addresses, and those of the previews, the gallery, the usage and generating again."""
        wrap = self.admin_site.admin_view
        return [
            path("<uuid:image_id>/preview/", wrap(self.preview_view, cacheable=True), name=url_name(self, "preview")),
            path("<uuid:image_id>/describe/", wrap(self.describe_view), name=url_name(self, "describe")),
            path("gallery/", wrap(self.gallery_view), name=url_name(self, "gallery")),
            path("ledger/", wrap(self.usage_view), name=url_name(self, "ledger")),
            # A provider works for up to a minute and a half: no transaction may be open meanwhile.
            path("again/", non_atomic(wrap(self.generate_again_view)), name=url_name(self, "again")),
            *super().get_urls(),
        ]
