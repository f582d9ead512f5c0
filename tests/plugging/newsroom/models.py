"""A user model that shares nothing with Django's own but what REST framework needs."""

from __future__ import annotations

import uuid

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models


class Journalist(AbstractBaseUser):
    """No `username`, no `is_staff`, no permissions, and a key that is no number."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.EmailField(unique=True)

    USERNAME_FIELD = "email"

    objects = BaseUserManager["Journalist"]()

    class Meta:
        app_label = "newsroom"

    def __str__(self) -> str:
        return self.email
