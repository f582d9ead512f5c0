"""The host's own test case: Django wraps it in a transaction, and images are made in it."""

from __future__ import annotations

from django.test import TestCase

from images.models import GeneratedImage
from images.services import agenerate_image, generate_image


class IllustrationTests(TestCase):
    databases = "__all__"

    def test_an_image_is_made_in_a_test_case(self) -> None:
        image = generate_image(content_item_id="45", title="A quiet harbour at night")
        assert GeneratedImage.objects.get() == image

    async def test_an_image_is_made_in_an_async_test_case(self) -> None:
        image = await agenerate_image(content_item_id="45", title="A quiet harbour at night")
        assert await GeneratedImage.objects.aget() == image
