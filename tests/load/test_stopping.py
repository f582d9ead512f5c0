"""A stop waits for what was paid for, and says so where it could not."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from images.models import STOPPED
from tests.fakes.provider_server import ProviderServer
from tests.load.callers import PATIENCE, Callers, Server, server_for, until
from tests.project.test_server import ROOT, environment


def _told_to_stop(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    until(lambda: not _accepts(server.base), "the server takes no more connections")


def _accepts(base: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_waits_for_the_generations_under_way(
    workers: str, provider_server: ProviderServer, tmp_path: Path
) -> None:
    with server_for(provider_server, tmp_path, WEB_CONCURRENCY=workers) as server:
        provider_server.hold()
        with Callers(server.generate_url, 4) as callers:
            provider_server.wait_for(4, PATIENCE)
            _told_to_stop(server)
            provider_server.release()
        assert callers.statuses == {"200": 4}
        assert server.process.wait(PATIENCE) == 0
        assert server.rows() == [("ready",)] * 4
        assert [path.stat().st_size for path in server.files()] == [provider_server.image_bytes] * 4


@pytest.mark.slow
def test_what_cannot_finish_in_time_is_marked_as_failed(provider_server: ProviderServer, tmp_path: Path) -> None:
    with server_for(provider_server, tmp_path, STOP_TIMEOUT="3") as server:
        provider_server.hold()
        with Callers(server.generate_url, 2) as callers:
            provider_server.wait_for(2, PATIENCE)
            _told_to_stop(server)
            server.process.wait(PATIENCE)
        assert callers.statuses == {"0": 2}
        assert server.rows("status, error_code, error_message") == [("failed", "internal_error", STOPPED)] * 2
        assert server.files() == []


@pytest.mark.slow
def test_what_is_made_in_the_background_is_finished_or_goes_on_after_the_next_start(
    provider_server: ProviderServer, tmp_path: Path
) -> None:
    """Seven images wait, and five threads make them: those two that have not begun cost nothing before the stop."""
    with server_for(provider_server, tmp_path) as server:
        provider_server.hold()
        _ask_in_the_background(server, 7)
        provider_server.wait_for(5, PATIENCE)
        _told_to_stop(server)
        provider_server.release()
        assert server.process.wait(PATIENCE) == 0
        assert sorted(server.rows()) == [("pending",)] * 2 + [("ready",)] * 5
    with server_for(provider_server, tmp_path) as server:
        until(lambda: server.rows() == [("ready",)] * 7, "the others are made, too")
    assert len(provider_server.requests) == 7


def _ask_in_the_background(server: Server, count: int) -> None:
    """Fill in the admin's form as a person does, again and again."""
    password = {"DJANGO_SUPERUSER_PASSWORD": "a-long-password", **environment(server.folder)}
    command = [
        sys.executable,
        "manage.py",
        "createsuperuser",
        "--noinput",
        "--username=demo",
        "--email=a@example.com",
    ]
    subprocess.run(command, cwd=ROOT, env=password, capture_output=True, check=True)
    with requests.Session() as person:
        _send_form(person, f"{server.base}/admin/login/", username="demo", password="a-long-password")
        for number in range(count):
            address = f"{server.base}/admin/images/generatedimage/add/"
            _send_form(person, address, title=f"A quiet harbour {number}", content_item_id="guide")


def _send_form(person: requests.Session, address: str, **typed: str) -> None:
    page = person.get(address, timeout=60).text
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    answer = person.post(address, data={**hidden, "variant": "hero", **typed}, timeout=60, allow_redirects=False)
    assert answer.status_code == 302, answer.text[-3000:]
