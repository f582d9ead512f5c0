"""Signals for other apps. Each is sent after the database has committed; a receiver that fails is logged and
hurts nobody."""

from django.dispatch import Signal

#: A new image is ready. Arguments: `image` (`GeneratedImage`).
image_generated = Signal()

#: A generation failed. Arguments: `image` (the failed row), `error` (`ImagesError`).
image_generation_failed = Signal()

#: An image and its file are gone. Arguments: `image` (the instance as it was).
image_deleted = Signal()
