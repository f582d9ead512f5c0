"""The host's addresses."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("illustrate", views.illustrate),
    path("aillustrate", views.aillustrate),
    path("illustrate-within", views.illustrate_within),
    path("own", views.HostsOwn.as_view()),
]
