"""The list's rows: without the long columns, with their owners, as tiles, and by period."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlencode

from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest

from ..models import GeneratedImage, Status
from .dates import Periods, periods
from .owners import attach_owners
from .reasons import reason

#: What the list does not show and may be long: a description has up to 100,000 characters.
NOT_LISTED = ("description", "prompt", "negative_prompt", "usage")


@dataclass(frozen=True, kw_only=True)
class Tile:
    """An image of the gallery."""

    image: GeneratedImage
    status: str
    reason: str
    item_query: str


class ImageChangeList(ChangeList):
    """The list's page. Actions get whole rows, since signals hand those to others."""

    def get_results(self, request: HttpRequest) -> None:
        self.queryset = self.queryset.defer(*NOT_LISTED)
        super().get_results(request)
        attach_owners(self.result_list)

    @cached_property
    def periods(self) -> Periods:
        """Days, months or years to choose from."""
        return periods(self)

    @cached_property
    def tiles(self) -> list[Tile]:
        """The page's images for the gallery."""
        return [
            Tile(
                image=image,
                status=str(dict(Status.choices).get(image.current_status, image.current_status)),
                reason=reason(image),
                item_query=urlencode({"content_item_id": image.content_item_id}),
            )
            for image in self.result_list
        ]
