"""A stop waits for what was paid for, and says so where it could not."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from images.models import STOPPED
from tests.fakes.provider_server import ProviderServer
from tests.load.callers import PATIENCE, Callers, Server, server_for, until


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
