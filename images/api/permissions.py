"""What a caller may do: Django's model permissions, unless `IMAGES["PERMISSION_CLASSES"]` names other classes."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_permission_codename
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from ..models import GeneratedImage

#: Methods that need a permission: Django's word for it, and what the caller wanted.
_ACTIONS = {
    "POST": ("add", "generate images"),
    "PATCH": ("change", "change images"),
    "DELETE": ("delete", "delete images"),
}


class ImagePermissions(BasePermission):
    """Each writing method needs Django's permission: to add images, to change or to delete them. Reading needs none.

    Callers from trusted networks have no account: the operator's list of networks is their permission.
    """

    message: str | None = None

    def has_permission(self, request: Request, view: Any) -> bool:
        """Whether the caller is known and has the permission; if not, `message` names the one that is missing."""
        user = request.user
        if not getattr(user, "is_authenticated", False):
            return False
        needed, wish = _ACTIONS.get(request.method or "", ("", ""))
        if not needed or getattr(user, "is_trusted", False):
            return True
        options = GeneratedImage._meta
        permission = f"{options.app_label}.{get_permission_codename(needed, options)}"
        # A host's own user model may have no permissions at all.
        if hasattr(user, "has_perm") and user.has_perm(permission):
            return True
        self.message = (
            f"This account may not {wish}: it lacks the permission {permission}. An administrator can grant it."
        )
        return False
