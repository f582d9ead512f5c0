"""Making an image in the admin: a form whose image is made in the background, since that may take a minute."""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.auth import get_permission_codename
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext

from ..conf import conf
from ..exceptions import InvalidRequest
from ..models import GeneratedImage
from ..pricing import estimate_for
from ..providers import get_provider
from ..services.background import start_generations
from ..services.request import GenerationRequest
from .columns import admin_url, dollars

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[GeneratedImage]
    Form = forms.ModelForm[GeneratedImage]
else:
    AdminBase = object
    Form = forms.ModelForm

#: The form's own fields.
INPUT = ("title", "description", "context", "variant", "content_item_id")


class ImageForm(Form):
    """What an image is made from.

    The page's token makes sending it twice harmless: the same content with the same token is one image.
    """

    token = forms.UUIDField(widget=forms.HiddenInput, required=False)

    class Meta:
        model = GeneratedImage
        fields = INPUT
        widgets = {
            "title": forms.TextInput(attrs={"class": "vTextField", "dir": "auto"}),
            "content_item_id": forms.TextInput(attrs={"class": "vTextField"}),
            "description": forms.Textarea(attrs={"class": "vLargeTextField", "dir": "auto"}),
            "context": forms.Textarea(attrs={"class": "vLargeTextField", "dir": "auto", "rows": 3}),
        }

    def clean(self) -> dict[str, Any]:
        """Let the app itself judge the input, as it does for every other caller."""
        super().clean()
        if self.errors:
            return self.cleaned_data
        try:
            self.generation_request(user=None).cleaned()
        except InvalidRequest as err:
            for name, sentences in err.details.items():
                self.add_error(name if name in self.fields else None, sentences)
        return self.cleaned_data

    def generation_request(self, *, user: Any) -> GenerationRequest:
        """The request that the form stands for."""
        content = {name: self.cleaned_data.get(name, "") for name in INPUT}
        token = self.cleaned_data.get("token") or uuid.uuid4()
        digest = hashlib.sha256(repr(sorted(content.items())).encode(errors="replace")).hexdigest()
        return GenerationRequest(
            **content,
            user=user,
            idempotency_key=f"{token.hex}:{digest[:32]}",
            idempotency_scope=f"admin:{user.pk}" if user else None,
        )


class Making(AdminBase):
    """The form and what it does; a part of the admin class."""

    add_fieldsets = ((None, {"fields": (*INPUT, "token")}),)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whether this user may spend money here: the permission to add images, and to see what comes of it."""
        codename = get_permission_codename("add", self.opts)
        return self.has_view_permission(request) and request.user.has_perm(f"{self.opts.app_label}.{codename}")

    def get_form(
        self, request: HttpRequest, obj: GeneratedImage | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """The form for a new image; an image that exists is only shown."""
        return super().get_form(request, obj, change, **(kwargs if change else {**kwargs, "form": ImageForm}))

    def get_fieldsets(self, request: HttpRequest, obj: GeneratedImage | None = None) -> Any:
        """The form's own fields for a new image."""
        return self.add_fieldsets if obj is None else super().get_fieldsets(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: GeneratedImage | None = None) -> Any:
        """None for a new image."""
        return () if obj is None else super().get_readonly_fields(request, obj)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """A token of the page's own, and the input of the image that the new one is to be like."""
        initial: dict[str, Any] = {"token": uuid.uuid4(), **super().get_changeform_initial_data(request)}
        try:
            like = self.get_queryset(request).filter(pk=uuid.UUID(request.GET.get("like", ""))).first()
        except ValueError:
            like = None
        return initial if like is None else {**initial, **{name: getattr(like, name) for name in INPUT}}

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The form, with what it will ask and about what that costs."""
        context = {
            "title": gettext("Make an image"),
            "providers": ", ".join(conf.providers),
            "estimated_cost": estimated_cost(1),
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
        }
        return super().add_view(request, form_url, {**context, **(extra_context or {})})

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:
        """Start the generation; the row that it has written is what the form has made.

        It is made once the transaction of this page has been committed.
        """
        if change:
            return super().save_form(request, form, change)
        [image] = start_generations(requests=[form.generation_request(user=request.user)])
        return image

    def save_model(self, request: HttpRequest, obj: GeneratedImage, form: Any, change: bool) -> None:
        """Nothing is left to do: the row is written."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Nothing belongs to a new image yet."""

    def log_addition(self, request: HttpRequest, obj: GeneratedImage, message: Any) -> Any:
        """Log what was made, but not the same page sent again."""
        return None if obj.replayed else super().log_addition(request, obj, message)

    def response_add(
        self, request: HttpRequest, obj: GeneratedImage, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Go to the image's page, which shows how far it is."""
        if IS_POPUP_VAR in request.POST:
            return super().response_add(request, obj, post_url_continue)
        self.message_user(request, gettext("“%(title)s” is being made.") % {"title": obj}, messages.SUCCESS)
        return HttpResponseRedirect(admin_url(self, "change", obj.pk, filters=self.get_preserved_filters(request)))


def estimated_cost(number: int) -> str:
    """About what this many images cost at the first provider, such as `about $0.42`; "" if no price is known."""
    alias = conf.providers[0]
    try:
        provider = get_provider(alias)
        if not provider.bills:
            return gettext("nothing")
        each = estimate_for(alias, provider.model)
    except Exception:  # noqa: BLE001  (a provider may be third-party code; the checks say what is wrong with it)
        return ""
    return "" if each is None else gettext("about %(amount)s") % {"amount": dollars(each * number)}
