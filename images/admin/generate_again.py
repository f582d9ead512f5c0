"""Generating images again: a new picture from the same input, after a confirmation, since it costs money."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db import connections
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods

from ..conf import conf
from ..exceptions import ImagesError
from ..models import GeneratedImage
from ..services import generate_image
from ..services.database import release_connections
from ..services.request import arguments_of
from ..services.scenes import scenes_are_on
from .columns import admin_url

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[GeneratedImage]
else:
    AdminBase = object

#: The most images that are generated again at once. They are generated in parallel, which takes no longer than one.
MAX_AT_ONCE = 5


class GenerateAgain(AdminBase):
    """The action, the page that asks for confirmation, and what it does; a part of the admin class."""

    def has_generate_permission(self, request: HttpRequest) -> bool:
        """Whether this user may spend money here: the permission to add images. The action refers to it by name."""
        codename = get_permission_codename("add", self.opts)
        return self.has_view_permission(request) and request.user.has_perm(f"{self.opts.app_label}.{codename}")

    @admin.action(permissions=["generate"], description=_("Make selected images again …"))
    def generate_again(self, request: HttpRequest, queryset: QuerySet[GeneratedImage]) -> HttpResponse | None:
        """Redirect to the confirmation."""
        chosen = [str(pk) for pk in queryset.values_list("pk", flat=True)[: MAX_AT_ONCE + 1]]
        if len(chosen) > MAX_AT_ONCE:
            sentence = ngettext(
                "At most %(count)d image can be made again at once. Choose fewer.",
                "At most %(count)d images can be made again at once. Choose fewer.",
                MAX_AT_ONCE,
            )
            self.message_user(request, sentence % {"count": MAX_AT_ONCE}, messages.ERROR)
            return None
        return HttpResponseRedirect(self.again_address(chosen))

    @method_decorator(require_http_methods(["GET", "HEAD", "POST"]))
    def generate_again_view(self, request: HttpRequest) -> HttpResponse:
        """Ask, and after a POST generate the images. It blocks until they are there, up to the deadline.

        Raises:
            PermissionDenied: This user may not generate images.
            django.http.Http404: There are no such images, or too many.
        """
        if not self.has_generate_permission(request):
            raise PermissionDenied
        images = self._asked_for(request)
        token = _token(request)
        if request.method == "POST" and token:
            return self._generate(request, images, token)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": gettext("Make again"),
            "images": images,
            "token": uuid.uuid4().hex,
            "deadline": round(conf.deadline),
            "providers": ", ".join(conf.providers),
            "has_scenes": scenes_are_on() and any(image.scene for image in images),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/images/generate_again.html", context)

    def again_address(self, ids: Sequence[Any]) -> str:
        """The address of the page that asks whether to generate these images again."""
        return f"{admin_url(self, 'again')}?{urlencode({'ids': ','.join(str(pk) for pk in ids)})}"

    def _asked_for(self, request: HttpRequest) -> list[GeneratedImage]:
        try:
            ids = {uuid.UUID(text) for text in request.GET.get("ids", "").split(",")}
        except ValueError:
            raise Http404 from None
        images = list(self.get_queryset(request).filter(pk__in=ids)) if len(ids) <= MAX_AT_ONCE else []
        if not images:
            raise Http404
        return images

    def _generate(self, request: HttpRequest, images: Sequence[GeneratedImage], token: str) -> HttpResponse:
        scope, same_scene = f"admin:{request.user.pk}", request.POST.get("scene") == "same"
        release_connections()
        with ThreadPoolExecutor(len(images)) as pool:
            outcomes = list(pool.map(partial(_outcome, token=token, scope=scope, same_scene=same_scene), images))
        made = [outcome for outcome in outcomes if isinstance(outcome, GeneratedImage)]
        for image, outcome in zip(images, outcomes, strict=True):
            self._report(request, image, outcome)
        if len(images) == 1 and made:
            return HttpResponseRedirect(admin_url(self, "change", made[0].pk))
        return HttpResponseRedirect(admin_url(self, "changelist"))

    def _report(self, request: HttpRequest, image: GeneratedImage, outcome: GeneratedImage | ImagesError) -> None:
        if isinstance(outcome, ImagesError):
            self.message_user(request, f"{image.title}: {outcome.message} ({outcome.code})", messages.ERROR)
            return
        if not outcome.replayed:
            self.log_addition(request, outcome, [{"added": {}}])
        link = format_html('<a href="{}">{}</a>', admin_url(self, "change", outcome.pk), outcome.title)
        self.message_user(request, format_html(gettext("Made again: {}"), link), messages.SUCCESS)


def _token(request: HttpRequest) -> str:
    """The page's own token, so that sending the page twice pays once; "" if it is missing or invalid."""
    try:
        return uuid.UUID(request.POST.get("token", "")).hex
    except ValueError:
        return ""


def _outcome(image: GeneratedImage, *, token: str, scope: str, same_scene: bool) -> GeneratedImage | ImagesError:
    """Generate one image, in a thread of the pool. It belongs to the owner of the old one."""
    try:
        return generate_image(
            **arguments_of(image, same_scene=same_scene),
            idempotency_key=f"{token}:{image.pk}",
            idempotency_scope=scope,
        )
    except ImagesError as err:
        return err
    finally:
        connections.close_all()
