"""The API's pages for people: REST framework's, with our titles, and a form that keeps what was typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.template.loader import render_to_string
from django.utils.translation import get_language, gettext, gettext_noop
from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.request import Request
from rest_framework.serializers import ListSerializer

from ..failures import sentence_for_reader

#: The first line of the views' description, marked for translation.
DESCRIPTION = gettext_noop("List, generate, retrieve and delete images, and describe them.")


class ImagesBrowsableRenderer(BrowsableAPIRenderer):
    """REST framework's pages, with the form for a new image above the list.

    The framework's form forgets what was typed if a request is refused, because it looks for the serializer in a body
    that is ours (the contract's error).
    """

    template = "images/api.html"

    def get_rendered_html_form(self, data: Any, view: Any, method: str, request: Request) -> Any:
        """The form for a method; after a refusal with what was sent, and each field's own error."""
        form = super().get_rendered_html_form(data, view, method, request)
        refused = method == "POST" and request.method == "POST" and view.response.status_code == 400
        if not form or not refused or not isinstance(request.data, Mapping):
            return form
        return self.render_form_for_serializer(view.get_serializer(data=request.data))

    def render_form_for_serializer(self, serializer: Any) -> Any:
        """The form; the framework's labels do not name their fields."""
        if isinstance(serializer, ListSerializer):
            return None
        if hasattr(serializer, "initial_data"):
            serializer.is_valid()
        return render_to_string("images/form.html", {"form": serializer.data.serializer})

    def get_context(self, data: Any, accepted_media_type: str | None, renderer_context: Any) -> dict[str, Any]:
        """What the template shows. A page about one image is called by the image's title."""
        context: dict[str, Any] = super().get_context(data, accepted_media_type, renderer_context)
        if isinstance(data, Mapping) and data.get("title"):
            context["name"] = data["title"]
        if isinstance(data, Mapping) and data.get("error") and data.get("code"):
            told = sentence_for_reader(str(data["code"]), str(data["error"]))
            context["error_sentence"] = told if told != data["error"] else ""
        context["description"] = gettext(str(context["description"]))
        # The list has two addresses, with and without the slash.
        context["breadcrumblist"] = list(dict(context["breadcrumblist"]).items())
        return {**context, "generate_form": context["post_form"], "post_form": None}

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> Any:
        """The page; the framework's template leaves out its language."""
        page = super().render(data, accepted_media_type, renderer_context)
        return page.replace("<html>", f'<html lang="{get_language() or "en"}">', 1)
