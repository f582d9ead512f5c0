"""The list of images as CSV, with the list's own search and filters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect, StreamingHttpResponse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_safe

from ..models import GeneratedImage
from ..services.spreadsheets import BYTE_ORDER_MARK, csv_lines
from .columns import admin_url, local

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[GeneratedImage]
else:
    AdminBase = object

#: The most images of one file, the newest ones: the server must not work for one reader without end.
MAX_EXPORTED = 100_000
#: Images that are read from the database at a time.
BATCH = 1000
COLUMNS = (
    "id", "created_at", "content_item", "title", "variant", "status", "error_code", "provider", "model", "owner",
    "duration_seconds", "cost_usd", "cost_basis", "tokens", "width", "height", "size_bytes", "file",
)  # fmt: skip
#: Where providers report all tokens of a request: OpenAI's name, and Gemini's.
TOKEN_NAMES = ("total_tokens", "total_token_count")
UNNEEDED = ("description", "context", "scene", "prompt", "negative_prompt", "attempts")


class Export(AdminBase):
    """The file; a part of the admin class."""

    @method_decorator(require_safe)
    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        """The newest `MAX_EXPORTED` images of the list as CSV, sent while they are read.

        Raises:
            PermissionDenied: This user may not view images.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            images = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters:
            return HttpResponseRedirect(admin_url(self, "changelist") + "?e=1")
        name = f"images-{local(timezone.now()).date()}.csv"
        return StreamingHttpResponse(
            csv_file(images),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"},
        )


def csv_file(images: QuerySet[GeneratedImage]) -> Iterator[str]:
    """The lines of the file."""
    yield BYTE_ORDER_MARK
    yield from csv_lines(COLUMNS, map(_record, newest_first(images)))


def newest_first(images: QuerySet[GeneratedImage]) -> Iterator[GeneratedImage]:
    """The newest images in batches, so that neither memory nor a cursor of the database's is held."""
    # The list leaves out other fields than the file does.
    window = images = images.order_by("-created_at", "-pk").defer(None).defer(*UNNEEDED)
    for _batch in range(MAX_EXPORTED // BATCH):
        batch = list(window[:BATCH])
        yield from batch
        if len(batch) < BATCH:
            return
        last = batch[-1]
        older = Q(created_at__lt=last.created_at) | Q(pk__lt=last.pk)
        window = images.filter(older, created_at__lte=last.created_at)


def _record(image: GeneratedImage) -> dict[str, Any]:
    usage = image.usage if isinstance(image.usage, dict) else {}
    return {
        "id": image.pk,
        "created_at": local(image.created_at).isoformat(timespec="seconds"),
        "content_item": image.content_item_id,
        "title": image.title,
        "variant": image.variant,
        "status": image.current_status,
        "error_code": image.current_error[0],
        "provider": image.provider,
        "model": image.model,
        "owner": "" if image.owner is None else str(image.owner),
        "duration_seconds": None if image.duration_ms is None else image.duration_ms / 1000,
        "cost_usd": None if image.cost is None else f"{image.cost.normalize():f}",
        "cost_basis": image.cost_basis,
        "tokens": next((usage[name] for name in TOKEN_NAMES if isinstance(usage.get(name), int)), None),
        "width": image.width,
        "height": image.height,
        "size_bytes": image.size_bytes,
        "file": image.file_name,
    }
