"""Making images again: a new picture from the same input, after a page that asks, since it costs money."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.auth import get_permission_codename, get_user_model
from django.core.exceptions import PermissionDenied
from django.db import connections
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods

from ..conf import conf
from ..exceptions import ImagesError
from ..models import GeneratedImage
from ..services import generate_image
from ..services.transactions import release_connections

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[GeneratedImage]
else:
    AdminBase = object

#: The view's name within the admin.
AGAIN_VIEW = "images_generatedimage_again"
#: The most images that are made again at once. They are made side by side, so that it takes no longer than one.
MAX_AT_ONCE = 5


class GenerateAgain(AdminBase):
    """The action, the page that asks, and what it does; a part of the admin class."""

    def has_make_permission(self, request: HttpRequest) -> bool:
        """Whether this user may spend money here: whoever may add images. It names the action's permission."""
        codename = get_permission_codename("add", self.opts)
        return self.has_view_permission(request) and request.user.has_perm(f"{self.opts.app_label}.{codename}")

    @admin.action(permissions=["make"], description=_("Make selected images again …"))
    def make_again(self, request: HttpRequest, queryset: QuerySet[GeneratedImage]) -> HttpResponse | None:
        """Lead to the page that asks."""
        chosen = [str(pk) for pk in queryset.values_list("pk", flat=True)[: MAX_AT_ONCE + 1]]
        if len(chosen) > MAX_AT_ONCE:
            sentence = ngettext(
                "At most %(count)d image can be made again at once. Choose fewer.",
                "At most %(count)d images can be made again at once. Choose fewer.",
                MAX_AT_ONCE,
            )
            self.message_user(request, sentence % {"count": MAX_AT_ONCE}, messages.ERROR)
            return None
        return HttpResponseRedirect(again_address(chosen))

    @method_decorator(require_http_methods(["GET", "HEAD", "POST"]))
    def make_again_view(self, request: HttpRequest) -> HttpResponse:
        """Ask, and after a POST make the images. It blocks until they are there, up to the deadline.

        Raises:
            PermissionDenied: This user may not make images.
            django.http.Http404: There are no such images, or too many.
        """
        if not self.has_make_permission(request):
            raise PermissionDenied
        images = self._asked_for(request)
        token = _token(request)
        if request.method == "POST" and token:
            return self._make(request, images, token)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": gettext("Make again"),
            "images": images,
            "token": uuid.uuid4().hex,
            "deadline": round(conf.deadline),
            "providers": ", ".join(conf.providers),
        }
        return TemplateResponse(request, "admin/images/make_again.html", context)

    def _asked_for(self, request: HttpRequest) -> list[GeneratedImage]:
        try:
            ids = {uuid.UUID(text) for text in request.GET.get("ids", "").split(",")}
        except ValueError:
            raise Http404 from None
        images = list(self.get_queryset(request).filter(pk__in=ids)) if len(ids) <= MAX_AT_ONCE else []
        if not images:
            raise Http404
        attach_owners(images)
        return images

    def _make(self, request: HttpRequest, images: Sequence[GeneratedImage], token: str) -> HttpResponse:
        scope = f"admin:{request.user.pk}"
        release_connections()
        with ThreadPoolExecutor(len(images)) as pool:
            outcomes = list(pool.map(partial(_outcome, token=token, scope=scope), images))
        made = [outcome for outcome in outcomes if isinstance(outcome, GeneratedImage)]
        for image, outcome in zip(images, outcomes, strict=True):
            self._report(request, image, outcome)
        if len(images) == 1 and made:
            return HttpResponseRedirect(reverse("admin:images_generatedimage_change", args=[made[0].pk]))
        return HttpResponseRedirect(reverse("admin:images_generatedimage_changelist"))

    def _report(self, request: HttpRequest, image: GeneratedImage, outcome: GeneratedImage | ImagesError) -> None:
        if isinstance(outcome, ImagesError):
            self.message_user(request, f"{image.title}: {outcome.message} ({outcome.code})", messages.ERROR)
            return
        if not outcome.replayed:
            self.log_addition(request, outcome, [{"added": {}}])
        address = reverse("admin:images_generatedimage_change", args=[outcome.pk])
        link = format_html('<a href="{}">{}</a>', address, outcome.title)
        self.message_user(request, format_html(gettext("Made again: {}"), link), messages.SUCCESS)


def again_address(ids: Sequence[Any]) -> str:
    """The address of the page that asks whether to make these images again."""
    return f"{reverse(f'admin:{AGAIN_VIEW}')}?{urlencode({'ids': ','.join(str(pk) for pk in ids)})}"


def _token(request: HttpRequest) -> str:
    """The page's own token: sending the same page twice pays once."""
    try:
        return uuid.UUID(request.POST.get("token", "")).hex
    except ValueError:
        return ""


def _outcome(image: GeneratedImage, *, token: str, scope: str) -> GeneratedImage | ImagesError:
    """Make one image, in a thread of the pool. The new one belongs to whom the old one belongs to."""
    try:
        return generate_image(
            content_item_id=image.content_item_id,
            title=image.title,
            description=image.description,
            variant=image.variant,
            user=image.owner,
            idempotency_key=f"{token}:{image.pk}",
            idempotency_scope=scope,
        )
    except ImagesError as err:
        return err
    finally:
        connections.close_all()


def attach_owners(images: Iterable[GeneratedImage]) -> None:
    """Fetch the owners with one query, from where the host's router says that users are.

    A join would look for users among the images, and so would Django's own lookup of a single owner. An owner who is
    gone counts as none.
    """
    users = get_user_model()._base_manager.in_bulk({image.owner_id for image in images if image.owner_id is not None})
    field = GeneratedImage._meta.get_field("owner")
    for image in images:
        field.set_cached_value(image, users.get(image.owner_id))
