"""A command of the host that makes an image."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from images.services import generate_image


class Command(BaseCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(generate_image(content_item_id="44", title="A quiet harbour at dusk").public_url())
