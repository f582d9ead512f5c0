"""Making images again: new pictures from the same input, in the background, after a confirmation with the cost."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods

from ..conf import conf
from ..exceptions import ImagesError
from ..models import STALE_AFTER, GeneratedImage, Status
from ..services.background import start_generations
from ..services.request import GenerationRequest, arguments_of
from ..services.retry import requested_again_later
from ..services.scenes import scenes_are_on
from .columns import admin_url
from .gallery import tiles
from .image_page import ImagePage
from .making import Making, estimated_cost

#: The most images that one confirmation starts. The rest of a filter can be started after them.
MAX_AT_ONCE = 500
#: The most images that an address names; more are named by the list's filters.
MAX_NAMED = 100
#: The most pictures that the page shows.
MAX_SHOWN = 24


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is to be made again.

    Attributes:
        images: The images that will be made again.
        more: How many others are left for the next time.
        pending: How many are left out because they are still being made.
        superseded: How many failed ones are left out because their input was requested again later.
        warned: Those of `images` whose input was requested again later.
    """

    images: list[GeneratedImage] = field(default_factory=list)
    more: int = 0
    pending: int = 0
    superseded: int = 0
    warned: int = 0


class GenerateAgain(ImagePage, Making):
    """The actions, the page that asks for confirmation, and what it does; a part of the admin class."""

    def has_generate_permission(self, request: HttpRequest) -> bool:
        """Whether this user may spend money here. The action refers to it by name."""
        return self.has_add_permission(request)

    @admin.action(permissions=["generate"], description=_("Make selected images again …"))
    def generate_again(self, request: HttpRequest, queryset: QuerySet[GeneratedImage]) -> HttpResponse:
        """Redirect to the confirmation, for the images that were chosen or for all that the filters find."""
        filters = self.get_preserved_filters(request)
        address = admin_url(self, "again", filters=filters)
        chosen = list(queryset.order_by("-created_at").values_list("pk", flat=True)[: MAX_NAMED + 1])
        if request.POST.get("select_across") == "1" or len(chosen) > MAX_NAMED:
            query = {"all": "1"}
        else:
            query = {"ids": ",".join(str(pk) for pk in chosen)}
        return HttpResponseRedirect(f"{address}{'&' if '?' in address else '?'}{urlencode(query)}")

    @method_decorator(require_http_methods(["GET", "HEAD", "POST"]))
    def generate_again_view(self, request: HttpRequest) -> HttpResponse:
        """Ask, and after a POST start the generations and return at once.

        Raises:
            PermissionDenied: This user may not generate images.
            django.http.Http404: There are no such images.
        """
        if not self.has_generate_permission(request):
            raise PermissionDenied
        token = _token(request)
        if request.method == "POST" and token:
            return self._start(request, token)
        choice = self._chosen(request)
        filters = self.get_preserved_filters(request)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": gettext("Make again"),
            "choice": choice,
            "shown": tiles(self, choice.images[:MAX_SHOWN]),
            "unshown": max(0, len(choice.images) - MAX_SHOWN),
            "token": uuid.uuid4().hex,
            "keys": ",".join(image.pk.hex for image in choice.images),
            "providers": ", ".join(conf.providers),
            "estimated_cost": estimated_cost(len(choice.images)) if choice.images else "",
            "has_scenes": scenes_are_on() and any(image.scene for image in choice.images),
            "back": admin_url(self, "changelist", filters=filters),
            "media": self.media,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/images/generate_again.html", context)

    # --- what is to be made again -----------------------------------------------------------------------------

    def _chosen(self, request: HttpRequest) -> Choice:
        """What the address names: some images, or (`all`) those that the filters of the list find."""
        if request.GET.get("all") == "1":
            return _of_filter(self.came_from(request))
        found = _newest_first(self.get_queryset(request).filter(pk__in=_ids(request.GET.get("ids", ""))[:MAX_NAMED]))
        named = list(found)
        if not named:
            raise Http404
        images = [image for image in named if _may_be_made(image)]
        return Choice(
            images=images,
            pending=len(named) - len(images),
            warned=found.filter(requested_again_later(), pk__in=[image.pk for image in images]).count(),
        )

    def _start(self, request: HttpRequest, token: str) -> HttpResponse:
        """Start what the page has shown, whatever the filters find by now."""
        found = _newest_first(self.get_queryset(request).filter(pk__in=_keys(request)))
        images = [image for image in found if _may_be_made(image)]
        if not images:
            raise Http404
        scope, same_scene = f"admin:{request.user.pk}", request.POST.get("scene") == "same"
        try:
            requests = [_request_like(image, token, scope, same_scene=same_scene) for image in images]
            rows = start_generations(requests=requests)
        except ImagesError as err:
            self.message_user(request, f"{err.message} ({err.code})", messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        for row in rows:
            if not row.replayed:
                self.log_addition(request, row, [{"added": {}}])
        return self._started(request, rows)

    def _started(self, request: HttpRequest, rows: Sequence[GeneratedImage]) -> HttpResponse:
        """Go to the new image's page, or back to where the reader came from."""
        filters = self.get_preserved_filters(request)
        if len(rows) == 1:
            sentence = gettext("“%(title)s” is being made again.") % {"title": rows[0]}
            self.message_user(request, sentence, messages.SUCCESS)
            return HttpResponseRedirect(admin_url(self, "change", rows[0].pk, filters=filters))
        told = ngettext(
            "%(number)d image is being made again.", "%(number)d images are being made again.", len(rows)
        ) % {"number": len(rows)}
        pending = f"{admin_url(self, 'changelist')}?{urlencode({'status': Status.PENDING})}"
        link = format_html('{} <a href="{}">{}</a>', told, pending, gettext("See how far they are"))
        self.message_user(request, link, messages.SUCCESS)
        return HttpResponseRedirect(admin_url(self, "changelist", filters=filters))


def _newest_first(images: QuerySet[GeneratedImage]) -> QuerySet[GeneratedImage]:
    return images.order_by("-created_at", "-id")


def _may_be_made(image: GeneratedImage) -> bool:
    return image.current_status in {Status.READY, Status.FAILED}


def _of_filter(images: QuerySet[GeneratedImage]) -> Choice:
    """Of a whole filter, what is still being made is left out, and so is a failure that was followed by a new try."""
    stale = Q(status=Status.PENDING, deadline_at__lt=timezone.now() - STALE_AFTER)
    failed = Q(status=Status.FAILED) | stale
    wanted = images.filter(Q(status=Status.READY) | failed).exclude(failed & requested_again_later())
    return Choice(
        images=list(_newest_first(wanted)[:MAX_AT_ONCE]),
        more=max(0, wanted.count() - MAX_AT_ONCE),
        pending=images.filter(status=Status.PENDING).exclude(stale).count(),
        superseded=images.filter(failed).filter(requested_again_later()).count(),
    )


def _request_like(image: GeneratedImage, token: str, scope: str, *, same_scene: bool) -> GenerationRequest:
    """The same input again, for the owner of the old image."""
    return GenerationRequest(
        **arguments_of(image, same_scene=same_scene),
        idempotency_key=f"{token}:{image.pk}",
        idempotency_scope=scope,
    )


def _token(request: HttpRequest) -> str:
    """The page's own token, so that sending the page twice pays once; "" if it is missing or invalid."""
    try:
        return uuid.UUID(request.POST.get("token", "")).hex
    except ValueError:
        return ""


def _keys(request: HttpRequest) -> list[uuid.UUID]:
    """The images that the page has shown."""
    return _ids(request.POST.get("images") or request.GET.get("ids", ""))[:MAX_AT_ONCE]


def _ids(text: str) -> list[uuid.UUID]:
    """The ids in a text with commas.

    Raises:
        django.http.Http404: One of them is no id.
    """
    try:
        return [uuid.UUID(part) for part in text.split(",")]
    except ValueError:
        raise Http404 from None
