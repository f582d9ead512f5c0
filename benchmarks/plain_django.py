"""The baseline: twenty lines that a Django developer would write, under gunicorn with 2 workers x 256 threads."""

from __future__ import annotations

import base64
import json
import os
import uuid

import openai
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.static import serve

settings.configure(
    SECRET_KEY="only-for-benchmarks",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    MEDIA_ROOT=os.environ["STORAGE_ROOT"],
    MEDIA_URL="/media/",
)
client = openai.OpenAI()  # OPENAI_API_KEY and OPENAI_BASE_URL say where


def generate(request: HttpRequest) -> JsonResponse:
    """Ask the SDK, store the picture, answer with its address."""
    wanted = json.loads(request.body)
    answer = client.images.generate(model="gpt-image-2.6-flare", prompt=wanted["title"], size="1536x1024")
    assert answer.data
    image = base64.b64decode(answer.data[0].b64_json or "")
    name = default_storage.save(f"draft-images/{wanted['contentItemId']}/hero-{uuid.uuid4()}.png", ContentFile(image))
    return JsonResponse({"imageUrl": request.build_absolute_uri(default_storage.url(name))})


media = {"document_root": os.environ["STORAGE_ROOT"]}
urlpatterns = [path("api/images/generate", generate), path("media/<path:path>", serve, media)]
application = get_wsgi_application()
