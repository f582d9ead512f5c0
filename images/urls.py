"""The app's addresses: `path("", include("images.urls"))`."""

from django.http import HttpResponse
from django.urls import re_path

app_name = "images"
urlpatterns = [re_path(r"^media/draft-images/(?P<path>.+)$", lambda r, path: HttpResponse(), name="media")]
