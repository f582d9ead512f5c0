"""The app's public Python API.

    from images.services import delete_image, generate_image

Everything the HTTP API, the admin and the commands do goes through these functions.
"""

from .deletion import delete_image
from .generation import generate_image

__all__ = ["delete_image", "generate_image"]
