"""The admin: every image that was asked for, what became of it, and what it took."""

from .generated_images import GeneratedImageAdmin

__all__ = ["GeneratedImageAdmin"]
