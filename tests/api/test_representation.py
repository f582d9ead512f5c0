"""The hand-made representation of an image says what DRF's fields would."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest
from rest_framework import serializers

from images.api.serializers import ImageSerializer
from images.models import GeneratedImage
from images.services import generate_image
from tests.fakes.providers import FakeProvider

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("status", ["ready", "pending", "failed"])
def test_it_is_what_the_declared_fields_say(fake_provider: FakeProvider, status: str) -> None:
    made = generate_image(content_item_id="item-1", title="A quiet harbour")
    GeneratedImage.objects.filter(pk=made.pk).update(status=status, error_code="provider_timeout", width=None)
    image = GeneratedImage.objects.get()
    request = HttpRequest()
    request.user = User(is_staff=True)
    serializer = ImageSerializer(image, context={"request": request})
    by_hand = serializer.data
    assert list(by_hand) == list(serializer.fields)
    assert dict(by_hand) == serializers.ModelSerializer.to_representation(serializer, image)
