"""Print which of our files a request passes through: `python -m tests.trace_request`.

It sends one `POST /api/images/generate` and one `DELETE /api/images/{id}` through the whole project, middleware
included, and follows every call. Its argument is the provider to generate with: `gemini` (the default) or
`openai`, over HTTP to the scripted server of the tests, or `placeholder`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HOUSE = (str(ROOT / "images") + os.sep, str(ROOT / "trygo_backend") + os.sep)


class Trace:
    """The files and functions of ours that were entered, in order, and the moves from one file to another."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self.functions: set[tuple[str, str]] = set()
        self.moves = 0
        self._last = ""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        """What `sys.setprofile` calls at each call and return."""
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(HOUSE) or frame.f_code.co_name == "<module>":
            return
        name = os.path.relpath(path, ROOT)
        self.files[name] = self.files.get(name, 0) + 1
        self.functions.add((name, frame.f_code.co_qualname))
        if self._last and name != self._last:
            self.moves += 1
        self._last = name


@contextmanager
def tracing() -> Iterator[Trace]:
    """Follow every call of this thread and of those that it starts."""
    trace = Trace()
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        yield trace
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def show(title: str, trace: Trace) -> None:
    """Print what was passed through."""
    print(f"{title}: {len(trace.files)} files, {len(trace.functions)} functions, {trace.moves} moves between files")
    for name, calls in trace.files.items():
        print(f"  {calls:5}  {name}")


def trace_once(title: str, send: Callable[[], Any], expected: int = 200) -> Any:
    """Send one request, print its way, and return the answer."""
    with tracing() as trace:
        answer = send()
        answer.content  # noqa: B018  (rendered lazily)
    if answer.status_code != expected:
        sys.exit(f"{title} was answered with {answer.status_code}: {answer.content.decode()[:300]}")
    show(title, trace)
    return answer


def main(provider: str = "gemini") -> None:
    """Trace a generation and a deletion in a database and a folder that are thrown away."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test.utils import setup_test_environment
    from rest_framework.authtoken.models import Token
    from rest_framework.test import APIClient

    from tests.fakes.provider_server import ProviderServer

    setup_test_environment()
    connection.creation.create_test_db(verbosity=0)
    with tempfile.TemporaryDirectory() as folder, ProviderServer() as server:
        settings.MEDIA_ROOT = folder
        settings.IMAGES = {
            **settings.IMAGES,
            "PROVIDER": provider,
            "PUBLIC_URL": "https://pics.example",
            "GEMINI_API_KEY": "key",
            "GEMINI_API_BASE_URL": server.url,
            "OPENAI_API_KEY": "key",
            "OPENAI_BASE_URL": f"{server.url}/v1",
        }
        client = APIClient()
        user = User.objects.create_user("ann")
        client.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.create(user=user).key}")
        body = {"contentItemId": "42", "title": "A quiet harbour at dawn", "description": "Fishing boats, mist."}
        # The first request imports modules and builds clients: the second shows the way itself.
        client.post("/api/images/generate", body, format="json")
        answer = trace_once(
            "POST /api/images/generate", lambda: client.post("/api/images/generate", body, format="json")
        )
        trace_once("DELETE /api/images/{id}", lambda: client.delete(f"/api/images/{answer.json()['id']}"))
    connection.creation.destroy_test_db(":memory:", verbosity=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
