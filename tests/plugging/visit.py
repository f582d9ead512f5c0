"""Run inside a host's project, by its own Python: makes, looks at and deletes images, and tells what happened.

    python visit.py OUTSIDE INSIDE

It stands for everybody around the host: OUTSIDE is what a proxy takes off the addresses (`FORCE_SCRIPT_NAME`), INSIDE
what the host's `urls.py` puts before the app's. It prints one JSON object and needs nothing but Django.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import urllib.error
import urllib.request
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "host.settings")


class Server:
    """Django's development server in a thread, on a free port."""

    def __init__(self, outside: str) -> None:
        from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
        from django.core.wsgi import get_wsgi_application

        class QuietHandler(WSGIRequestHandler):
            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadedWSGIServer(("127.0.0.1", 0), QuietHandler)
        self._server.set_app(get_wsgi_application())
        self._base = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._outside = outside
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def ask(self, method: str, url: str, body: Any = None, **headers: str) -> dict[str, Any]:
        """Send a request, as it arrives behind the proxy, and say what came back."""
        path = url.removeprefix(self._base).removeprefix(self._outside)
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(self._base + path, data, headers, method=method)
        try:
            answer = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as err:
            answer = err
        with answer:
            content = answer.read()
            is_json = answer.headers.get("Content-Type", "").startswith("application/json")
            return {
                "status": answer.status,
                "type": answer.headers.get("Content-Type"),
                "length": len(content),
                "body": json.loads(content) if is_json else None,
            }


def visit(outside: str, inside: str) -> dict[str, Any]:
    """Everything that a host does with the app."""
    settings_before, logging_before = _settings(), _logging()
    from django.core.management import call_command
    from django.db import connections

    if os.path.exists("newsroom/models.py"):
        call_command("makemigrations", "newsroom", verbosity=0)
    for alias in connections:
        call_command("migrate", database=alias, verbosity=0)
    user, token = _user_and_token()
    server, api = Server(outside), f"{inside}/api/images"
    allowed = {"Authorization": f"Token {token}"}
    body = {"contentItemId": "42", "title": "A quiet harbour at dawn"}
    made = server.ask("POST", f"{api}/generate", body, **allowed)
    url = made["body"].get("imageUrl", "")
    return {
        "made": made,
        "with_slash": server.ask("POST", f"{api}/generate/", body, **allowed),
        "created": server.ask("POST", f"{api}/", {"contentItemId": "42"}, **allowed),
        "stranger": server.ask("GET", f"{api}/"),
        "listed": server.ask("GET", f"{api}/", **allowed),
        "unknown": server.ask("GET", f"{api}/42/nothing.png/", **allowed),
        "served": server.ask("GET", url),
        "own_view": server.ask("GET", "/newsroom/own"),
        "within": server.ask("GET", "/newsroom/illustrate-within")["body"],
        "illustrated": _follow(server, "/newsroom/illustrate"),
        "aillustrated": _follow(server, "/newsroom/aillustrate"),
        "command": _command_output(),
        "admin": _admin_pages(user, made["body"].get("id")),
        "deleted": server.ask("DELETE", f"{api}/{made['body'].get('id')}", **allowed),
        "gone": server.ask("GET", url)["status"],
        "owners_left": _delete_user(user),
        "settings_changed": [name for name, value in _settings().items() if settings_before.get(name) != value],
        "logging_changed": _logging() != logging_before,
    }


def _settings() -> dict[str, str]:
    from django.conf import settings
    from django.db import connections

    assert connections.settings  # Django itself fills in what DATABASES leaves out
    return {name: repr(getattr(settings, name)) for name in dir(settings) if name.isupper()}


def _logging() -> Any:
    """Handlers and levels of the root's logger and the app's."""
    import django

    django.setup()  # what Django itself configures is the host's own
    loggers = [logging.getLogger(name) for name in ("", "images", "images.api", "rest_framework")]
    return [(logger.level, [repr(handler) for handler in logger.handlers], logger.propagate) for logger in loggers]


def _user_and_token() -> tuple[Any, str]:
    from django.contrib.auth import get_user_model
    from rest_framework.authtoken.models import Token

    model = get_user_model()
    names = {field.name for field in model._meta.fields}
    values: dict[str, Any] = {name: True for name in ("is_staff", "is_superuser") if name in names}
    values[model.USERNAME_FIELD] = "ann@example.com"
    user = model(**values)
    user.set_unusable_password()
    user.save()
    return user, Token.objects.create(user=user).key


def _follow(server: Server, path: str) -> dict[str, Any]:
    """What is served at the address that a view of the host answers with."""
    answer = server.ask("GET", path)
    return server.ask("GET", answer["body"]["url"]) if answer["body"] else answer


def _command_output() -> str:
    from django.core.management import call_command

    out = io.StringIO()
    call_command("illustrate", stdout=out)
    return out.getvalue()


def _admin_pages(user: Any, image_id: Any) -> dict[str, int]:
    """The status of each of the admin's pages, where this kind of user may see them."""
    from django.test import Client
    from django.urls import reverse

    from images.models import GeneratedImage

    if not getattr(user, "is_superuser", False):
        return {}
    client = Client(SERVER_NAME="127.0.0.1")
    client.force_login(user)
    views: dict[str, list[Any]] = {view: [] for view in ("changelist", "gallery", "usage", "export", "add", "again")}
    if image_id:
        views |= {view: [image_id] for view in ("change", "preview", "delete", "history")}
    script_name = reverse("admin:index").removesuffix("/admin/")
    found = {}
    for view, arguments in views.items():
        name = f"admin:{GeneratedImage._meta.app_label}_generatedimage_{view}"
        page = reverse(name, args=arguments).removeprefix(script_name)
        found[view] = client.get(page, {"ids": image_id} if view == "again" else {}).status_code
    return found


def _delete_user(user: Any) -> list[Any]:
    """Delete the user; whom the images belong to then."""
    from images.models import GeneratedImage

    user.delete()
    return list(GeneratedImage.objects.order_by().values_list("owner", flat=True).distinct())


if __name__ == "__main__":
    print(json.dumps(visit(*sys.argv[1:])))
