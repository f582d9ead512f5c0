"""The alternative text of an image: shown on its page, and changed on a page of its own."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods

from ..models import MAX_ALT_TEXT, GeneratedImage
from ..services import set_alt_text
from .columns import admin_url

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[GeneratedImage]
else:
    AdminBase = object


class DescriptionForm(forms.Form):
    """The text, or that there is nothing to say."""

    alt_text = forms.CharField(
        label=_("alternative text"),
        max_length=MAX_ALT_TEXT,
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "cols": 80}),
        help_text=_("What is seen, in the language of the article, for readers who cannot see it."),
    )
    decorative = forms.BooleanField(
        label=_("decorative"), required=False, help_text=_("It says nothing: screen readers pass over it.")
    )

    def clean(self) -> dict[str, Any]:
        """The text as the row keeps it: "" for a decorative picture, `None` for no text."""
        cleaned = {**(super().clean() or {})}
        text = str(cleaned.get("alt_text", ""))
        if text and cleaned.get("decorative"):
            raise forms.ValidationError(gettext("A decorative picture has no text. Choose one of the two."))
        cleaned["alt_text"] = "" if cleaned.get("decorative") else text or None
        return cleaned


class Describing(AdminBase):
    """The field on an image's page, and the page that changes it; a part of the admin class."""

    def has_describe_permission(self, request: HttpRequest) -> bool:
        """Whether this user may change alternative texts: Django's permission to change images."""
        codename = get_permission_codename("change", self.opts)
        return self.has_view_permission(request) and request.user.has_perm(f"{self.opts.app_label}.{codename}")

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: GeneratedImage | None = None,
    ) -> HttpResponse:
        """The page; who may change the text finds a link to that."""
        if obj is not None and self.has_describe_permission(request):
            vars(obj)["describe_address"] = admin_url(self, "describe", obj.pk)
        return super().render_change_form(request, context, add, change, form_url, obj)

    @admin.display(description=_("alternative text"))
    def described(self, image: GeneratedImage) -> str:
        """The text, or what its absence means."""
        address = vars(image).get("describe_address", "")
        return render_to_string("admin/images/described.html", {"image": image, "address": address})

    @method_decorator(require_http_methods(["GET", "HEAD", "POST"]))
    def describe_view(self, request: HttpRequest, image_id: uuid.UUID) -> HttpResponse:
        """Ask for the text, and keep it.

        Raises:
            PermissionDenied: This user may not change images.
            django.http.Http404: There is no such image.
        """
        if not self.has_describe_permission(request):
            raise PermissionDenied
        image = self.get_queryset(request).filter(pk=image_id).first()
        if image is None:
            raise Http404
        known = {"alt_text": image.alt_text or "", "decorative": image.alt_text == ""}
        form = DescriptionForm(request.POST) if request.method == "POST" else DescriptionForm(initial=known)
        if form.is_valid():
            set_alt_text(image=image, alt_text=form.cleaned_data["alt_text"])
            self.log_change(request, image, [{"changed": {"fields": [gettext("alternative text")]}}])
            self.message_user(request, gettext("The alternative text was changed."), messages.SUCCESS)
            return HttpResponseRedirect(admin_url(self, "change", image.pk))
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": gettext("Change the alternative text"),
            "image": image,
            "form": form,
            "back": admin_url(self, "change", image.pk),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/images/describe.html", context)
