"""Tags for the admin's own templates: `{% load images_admin %}{% images_overview %}` shows the last day's figures."""

from __future__ import annotations

from typing import Any

from django import template

from ..admin.overview import overview
from ..models import GeneratedImage

register = template.Library()


@register.inclusion_tag("admin/images/overview.html", takes_context=True)
def images_overview(context: dict[str, Any]) -> dict[str, Any]:
    """The last day's images at a glance, for those who may see them; nothing for others."""
    request = context.get("request")
    opts = GeneratedImage._meta
    if request is None or not request.user.has_perm(f"{opts.app_label}.view_{opts.model_name}"):
        return {}
    return {"overview": overview(), "opts": opts}
