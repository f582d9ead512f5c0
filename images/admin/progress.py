"""How far pending images are, for pages that wait for them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, JsonResponse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from ..models import GeneratedImage
from ..services.background import resume
from .columns import pill, state_of

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[GeneratedImage]
else:
    AdminBase = object

#: The most images that one request asks about: as many as a list may show.
MAX_ASKED = 200


class Progress(AdminBase):
    """The address that a script asks every few seconds; a part of the admin class."""

    @method_decorator([require_safe, never_cache])
    def progress_view(self, request: HttpRequest) -> JsonResponse:
        """What became of some images: of each its state, and the pill that shows it. Those that are gone are missing.

        Raises:
            PermissionDenied: This user may not view images.
            django.http.Http404: An id is no id.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            ids = [uuid.UUID(text) for text in request.GET.get("ids", "").split(",")[:MAX_ASKED]]
        except ValueError:
            raise Http404 from None
        images = self.get_queryset(request).prefetch_related(None).filter(pk__in=ids)
        states = {str(image.pk): state_of(image) for image in images.defer("prompt", "description")}
        if any(state.kind == "queued" for state in states.values()):
            resume()  # whoever was going to make them may have been stopped meanwhile
        return JsonResponse(
            {
                key: {"kind": state.kind, "seconds": state.seconds, "pill": pill(state)}
                for key, state in states.items()
            }
        )
