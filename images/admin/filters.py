"""The list's filters."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..models import GeneratedImage, GeneratedImageQuerySet, Status
from .reasons import REASONS


class StatusFilter(admin.SimpleListFilter):
    """By status as the API tells it: a generation whose process was stopped counts as failed."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Every status."""
        return [(str(value), label) for value, label in Status.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[GeneratedImage]) -> QuerySet[GeneratedImage] | None:
        """The rows in the chosen status; a status that does not exist filters nothing."""
        value = self.value()
        if value not in Status.values or not isinstance(queryset, GeneratedImageQuerySet):
            return None
        return queryset.in_status(value)


class ReasonFilter(admin.SimpleListFilter):
    """By why an image failed. The codes are known, so that no query has to collect them."""

    title = _("reason of the failure")
    parameter_name = "error_code"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Every reason, in the alphabet of the reader."""
        return sorted(REASONS.items(), key=lambda item: str(item[1]))

    def queryset(self, request: HttpRequest, queryset: QuerySet[GeneratedImage]) -> QuerySet[GeneratedImage] | None:
        """The failed rows with the chosen code; the status is named for the sake of its index."""
        value = self.value()
        return queryset.filter(status=Status.FAILED, error_code=value) if value else None


class NameFilter(admin.AllValuesFieldListFilter):
    """By one of the names that occur, leaving out the blank one of rows that never got so far."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lookup_choices = self.lookup_choices.exclude(**{self.field_path: ""})
