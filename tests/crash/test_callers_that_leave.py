"""A caller that goes away while its image is made does not cost the image."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest
import requests

from tests.crash.fragile import PICTURE
from tests.crash.server import Server

pytestmark = pytest.mark.slow


def ask_and_leave(server: Server, title: str, key: str) -> None:
    """Send a whole request, and hang up as soon as the provider has been asked."""
    address = urlsplit(server.url)
    body = json.dumps({"contentItemId": "item-1", "title": title}).encode()
    head = (
        f"POST /api/images/generate HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), timeout=60) as caller:
        caller.sendall(head.encode() + body)
        server.wait_for("generating")


def test_the_image_is_stored_and_found_in_the_list_and_by_repeating_the_key(server: Server) -> None:
    with server.running():
        ask_and_leave(server, "A title that waits", "key-1")
        assert server.generate("A title that waits").status_code == 409
        server.let_provider_finish()
        server.wait_for("ready")
        [listed] = server.listed()
        again = server.generate("A title that waits")
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.json()["id"] == listed["id"]
        assert requests.get(listed["imageUrl"], timeout=60).content == PICTURE
        assert server.paid == 1
