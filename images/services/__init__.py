"""The app's public Python API.

    from images.services import agenerate_image, delete_image, generate_image, generate_image_later

Everything the HTTP API, the admin and the commands do goes through these functions.
"""

from .asynchronous import agenerate_image
from .deletion import delete_image
from .generation import generate_image, generate_image_later

__all__ = ["agenerate_image", "delete_image", "generate_image", "generate_image_later"]
