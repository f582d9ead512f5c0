"""The project's own settings, in a clean environment: whatever the machine sets for itself must not reach a test."""

import os

for _name in list(os.environ):
    if _name.startswith(("OPENAI_", "GEMINI_", "GOOGLE_", "IMAGE_")) or _name in {
        "PUBLIC_URL",
        "STORAGE_ROOT",
        "DEBUG",
        "ALLOWED_HOSTS",
        "FRONTEND_URL",
        "PRODUCTION_FRONTEND_URL",
        "DEVELOPMENT_FRONTEND_URL",
        "TRUST_PROXY_HEADERS",
        "SECURE_SSL_REDIRECT",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    }:
        del os.environ[_name]
os.environ["SECRET_KEY"] = "only-for-tests-" + "x" * 50

from trygo_backend.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
