"""The page of one image: its picture, what people ask about it, its neighbours and its other versions."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.template.loader import render_to_string
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..conf import CONTENT_ITEM, conf
from ..models import GeneratedImage, Status
from .columns import (
    NOTHING,
    State,
    admin_url,
    advice,
    file_links,
    moment_with_zone,
    seconds,
    state_of,
)

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[GeneratedImage]
else:
    AdminBase = object

#: The most other versions of a content item that the page shows.
MAX_VERSIONS = 12
#: Fields that say nothing in these states, or would contradict what the rest of the page says.
HIDDEN = {
    "ready": {"what_to_do", "error"},
    "missing": {"what_to_do", "error", "address"},
    "failed": {
        *("address", "made_by", "provider", "model", "described"),
        *("file_name", "mime_type", "size", "sha256", "origin", "content_credentials"),
    },
}
_UNFINISHED = HIDDEN["failed"] | {
    *("what_to_do", "error", "exact_cost", "duration", "attempts_table", "reported_usage", "finished_at"),
}


@dataclass(frozen=True, kw_only=True)
class Version:
    """Another image of the same content item."""

    image: GeneratedImage
    state: State
    address: str
    preview: str


@dataclass(frozen=True, kw_only=True)
class Links:
    """Where the page of an image leads; an address is "" if there is nothing, or if the reader may not go there.

    Attributes:
        back: The list or gallery that the reader came from.
        newer: The image before this one there.
        older: The image after this one there.
        again: Where it is made again.
        changed: The form, filled in with this image's input.
        delete: Where it is deleted.
        item: All images of its content item.
        versions: The newest others of them.
    """

    back: str = ""
    newer: str = ""
    older: str = ""
    again: str = ""
    changed: str = ""
    delete: str = ""
    item: str = ""
    versions: list[Version] = field(default_factory=list)


def links_of(image: GeneratedImage) -> Links:
    """The links that `ImagePage.get_object` has found."""
    found = vars(image).get("page_links")
    return found if isinstance(found, Links) else Links()


class ImagePage(AdminBase):
    """The page's fields, and the links that depend on the reader; a part of the admin class."""

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> GeneratedImage | None:
        """The image, with the links that its page shows."""
        image = super().get_object(request, object_id, from_field)
        if image is not None and self._is_page(request):
            vars(image)["page_links"] = self._links(request, image)
        return image

    def _is_page(self, request: HttpRequest) -> bool:
        match = request.resolver_match
        return match is not None and str(match.url_name).endswith("_change")

    def get_fieldsets(self, request: HttpRequest, obj: GeneratedImage | None = None) -> Any:
        """The fields without those that would contradict the image's state."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None:
            return fieldsets
        hidden = HIDDEN.get(state_of(obj).kind, _UNFINISHED)
        return [
            (name, {**options, "fields": [field for field in options["fields"] if field not in hidden]})
            for name, options in fieldsets
        ]

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: GeneratedImage | None = None,
    ) -> HttpResponse:
        """The page, headed by the image's title. Deleting is offered beside the picture."""
        if obj is not None:
            state = state_of(obj)
            context |= {"title": str(obj), "subtitle": None, "show_delete": False, "links": links_of(obj)}
            context |= {"pending": state.is_pending}
        return super().render_change_form(request, context, add, change, form_url, obj)

    # --- fields -----------------------------------------------------------------------------------------------

    @admin.display(description=_("picture"))
    def picture(self, image: GeneratedImage) -> str:
        """The picture, large, with what can be done with it."""
        context = {
            "image": image,
            "state": state_of(image),
            "links": links_of(image),
            "file": file_links(image),
            "progress": admin_url(self, "progress"),
        }
        return render_to_string("admin/images/picture.html", context)

    @admin.display(description=_("what to do"))
    def what_to_do(self, image: GeneratedImage) -> str:
        """What to do about a failure."""
        return advice(image) or NOTHING

    @admin.display(description=_("public address"))
    def address(self, image: GeneratedImage) -> str:
        """The picture's address in a field to copy it from; a script adds a button for that."""
        if not image.is_ready:
            return NOTHING
        return render_to_string("admin/images/address.html", {"address": image.public_url()})

    @admin.display(description=_("content item"))
    def used_in(self, image: GeneratedImage) -> str:
        """The content item, with a link to where it can be seen (`IMAGES["CONTENT_ITEM_URL"]`)."""
        context = {
            "item": image.content_item_id,
            "place": content_item_url(image.content_item_id),
            "all": links_of(image).item,
        }
        return render_to_string("admin/images/used_in.html", context)

    @admin.display(description=_("provider and model"))
    def made_by(self, image: GeneratedImage) -> str:
        """The provider and model that made the picture, and how long that took."""
        time = seconds(image.duration_ms) if image.duration_ms is not None else ""
        return " · ".join(filter(None, [image.provider, image.model, time])) or NOTHING

    @admin.display(description=_("requested"))
    def requested(self, image: GeneratedImage) -> str:
        """When, in which time zone, and by whom."""
        when = moment_with_zone(image.created_at)
        if image.owner is None:
            return when
        return gettext("%(when)s by %(who)s") % {"when": when, "who": image.owner}

    @admin.display(description=_("other versions"))
    def versions(self, image: GeneratedImage) -> str:
        """The newest other images of the same content item, side by side."""
        return render_to_string("admin/images/versions.html", {"links": links_of(image)})

    # --- links ------------------------------------------------------------------------------------------------

    def _links(self, request: HttpRequest, image: GeneratedImage) -> Links:
        filters = self.get_preserved_filters(request)
        neighbours = self.came_from(request)
        may_make = self.has_add_permission(request)
        pending = image.current_status == Status.PENDING
        return Links(
            back=admin_url(self, "changelist", filters=filters),
            newer=self._address(neighbours.filter(_newer_than(image)).order_by("created_at", "id"), filters),
            older=self._address(neighbours.filter(_older_than(image)).order_by("-created_at", "-id"), filters),
            again=self._again_link(image, filters) if may_make and not pending else "",
            changed=self._changed_link(image) if may_make else "",
            delete=admin_url(self, "delete", image.pk, filters=filters)
            if self.has_delete_permission(request, image)
            else "",
            item=f"{admin_url(self, 'changelist')}?{urlencode({'content_item_id': image.content_item_id})}",
            versions=self._versions(request, image, filters),
        )

    def came_from(self, request: HttpRequest) -> QuerySet[GeneratedImage]:
        """The images of the list that the reader came from, by its filters and its search.

        Filters that make no sense any more count as none.
        """
        filters = dict(parse_qsl(self.get_preserved_filters(request))).get("_changelist_filters", "")
        query = QueryDict(filters, mutable=True)
        for name in ("view", "o", "p", "all", "_popup"):
            query.pop(name, None)
        if not query:
            return self.get_queryset(request)
        listed = _request_for(request, query)
        try:
            found: QuerySet[GeneratedImage] = self.get_changelist_instance(listed).queryset.defer(None)
        except IncorrectLookupParameters:
            return self.get_queryset(request)
        return found

    def _address(self, images: QuerySet[GeneratedImage], filters: str) -> str:
        found = images.prefetch_related(None).values_list("pk", flat=True).first()
        return admin_url(self, "change", found, filters=filters) if found else ""

    def _again_link(self, image: GeneratedImage, filters: str) -> str:
        address = admin_url(self, "again", filters=filters)
        return f"{address}{'&' if '?' in address else '?'}{urlencode({'ids': image.pk})}"

    def _changed_link(self, image: GeneratedImage) -> str:
        return f"{admin_url(self, 'add')}?{urlencode({'like': image.pk})}"

    def _versions(self, request: HttpRequest, image: GeneratedImage, filters: str) -> list[Version]:
        others = self.get_queryset(request).filter(content_item_id=image.content_item_id).exclude(pk=image.pk)
        return [
            Version(
                image=other,
                state=(state := state_of(other)),
                address=admin_url(self, "change", other.pk, filters=filters),
                preview=admin_url(self, "preview", other.pk) if state.kind == "ready" else "",
            )
            for other in others.prefetch_related(None).defer("prompt", "description")[:MAX_VERSIONS]
        ]


def _newer_than(image: GeneratedImage) -> Q:
    return Q(created_at__gt=image.created_at) | Q(created_at=image.created_at, id__gt=image.pk)


def _older_than(image: GeneratedImage) -> Q:
    return Q(created_at__lt=image.created_at) | Q(created_at=image.created_at, id__lt=image.pk)


def _request_for(request: HttpRequest, query: QueryDict) -> HttpRequest:
    """The same reader's request for the list with this query."""
    listed = copy.copy(request)
    listed.GET = query  # type: ignore[assignment]
    return listed


def content_item_url(content_item_id: str) -> str:
    """Where a content item can be seen, or "" if the operator has not said it.

    The id comes from callers: it is escaped whole, so it stays one part of the path or of the query.
    """
    if not conf.content_item_url or content_item_id in {".", ".."}:
        return ""
    return conf.content_item_url.replace(CONTENT_ITEM, quote(content_item_id, safe=""))
