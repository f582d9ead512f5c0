"""`manage.py generate_image`: one image from the command line."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, CommandParser

from ...models import GeneratedImage, Variant, variant_choices
from ...services import generate_image
from ..base import ImagesCommand, ProgressLine


class Command(ImagesCommand):
    help = """Make one image. Its address goes to standard output, progress to the terminal.

Example:
  manage.py generate_image --content-item 42 --title 'A quiet harbour at dawn' --variant inline
"""
    interrupted = "Interrupted. The provider may still bill for this image."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--content-item", required=True, help="What the image belongs to, for example an article's id."
        )
        parser.add_argument("--title", required=True, help="Up to 500 characters.")
        parser.add_argument(
            "--description", default="", help="Up to 100,000 characters; a summary goes into the prompt."
        )
        parser.add_argument(
            "--context", default="", help="Up to 4,000 characters: the audience, the brand, the mood."
        )
        parser.add_argument(
            "--variant", choices=[name for name, _label in variant_choices()], default=Variant.HERO.value
        )
        parser.add_argument("--user", help="The name of the user who owns the image.")
        parser.add_argument(
            "--seed", type=int, help="The seed of an earlier image repeats its style, hints and scene."
        )
        parser.add_argument("--new-scene", action="store_true", help="Have a new scene thought up.")
        parser.add_argument(
            "--idempotency-key", help="The same key and content return the same image, which is paid for once."
        )
        parser.add_argument("--json", action="store_true", help="Print everything about the image as JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        user = self._user(options["user"])
        with ProgressLine(self.stderr).seconds("Generating..."):
            image = generate_image(
                content_item_id=options["content_item"],
                title=options["title"],
                description=options["description"],
                context=options["context"],
                variant=options["variant"],
                user=user,
                seed=options["seed"],
                new_scene=options["new_scene"],
                idempotency_key=options["idempotency_key"],
            )
        self.stdout.write(json.dumps(self._facts(image)) if options["json"] else image.public_url())

    @staticmethod
    def _user(name: str | None) -> Any:
        if name is None:
            return None
        model = get_user_model()
        try:
            return model._default_manager.get_by_natural_key(name)
        except model.DoesNotExist as err:
            raise CommandError(f"There is no user named {name!r}.") from err

    @staticmethod
    def _facts(image: GeneratedImage) -> dict[str, Any]:
        names = ("provider", "model", "variant", "width", "height", "size_bytes", "duration_ms", "seed", "style")
        facts = {name: getattr(image, name) for name in names}
        facts |= {"context": image.context, "scene": image.scene, "altText": image.alt_text}
        return {"id": str(image.pk), "imageUrl": image.public_url(), "file": image.file.name, **facts}
