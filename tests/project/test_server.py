"""The server starts where it can work, and says in a sentence why not where it cannot."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests
from pytest_django import Settings

from trygo_backend import preflight, server
from trygo_backend.environment import Environment
from trygo_backend.server import limit_waiting_for_callers, superseded

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "trygo_backend.server"]


def environment(tmp_path: Path, **variables: str) -> dict[str, str]:
    """The environment of a server that works, changed by `variables`."""
    return {
        "PATH": os.environ["PATH"],
        "SECRET_KEY": "only-for-tests",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "STORAGE_ROOT": str(tmp_path / "stored"),
        "IMAGE_PROVIDER": "placeholder",
        "BIND_ADDRESS": "127.0.0.1",
        "PORT": "0",
        **variables,
    }


def refusal(tmp_path: Path, module: str = "trygo_backend.server", **variables: str) -> str:
    """What a server that does not start says."""
    command = [sys.executable, "-m", module]
    env = environment(tmp_path, **variables)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@contextmanager
def running_server(tmp_path: Path, **variables: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server's address and process."""
    env = environment(tmp_path, **variables)
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            COMMAND, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
    try:
        assert server.stdout is not None
        found = re.match(r"Listening on (http://127\.0\.0\.1:\d+)$", server.stdout.readline())
        assert found, (tmp_path / "log").read_text()
        yield found[1], server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # its workers, too
        server.communicate()


def test_it_serves_and_believes_nobody_about_themselves(tmp_path: Path) -> None:
    forged = {
        "Host": "localhost",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Ssl": "off",
        "X-Forwarded-Host": "evil.example",
        "SCRIPT_NAME": "/evil",
        "Accept": "application/json",
    }
    with running_server(tmp_path, GUNICORN_CMD_ARGS="--threads 4") as (base, server):
        assert requests.get(f"{base}/health", headers={"Host": "any"}, timeout=30).json() == {"status": "ok"}
        assert requests.get(f"{base}/health/ready", timeout=30).json()["status"] == "ok"
        assert requests.get(f"{base}/", headers=forged, timeout=30).json()["admin"] == "http://localhost/admin/"
        # As docs/deploying.md says of heads that are too large: the app never sees them.
        refused = requests.get(f"{base}/health", headers={f"X-{at}": "1" for at in range(120)}, timeout=30)
        assert (refused.status_code, refused.content) == (431, b"")
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
    assert (tmp_path / "stored").is_dir()
    assert "Warning: GUNICORN_CMD_ARGS" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("size", [3_000_000, 8_000_000])
def test_a_body_above_the_limit_gets_its_413_also_if_the_caller_sends_before_it_reads(
    tmp_path: Path, size: int
) -> None:
    with running_server(tmp_path, IMAGE_TRUSTED_NETWORKS="127.0.0.1/32") as (base, _server):
        headers = {"Content-Type": "application/json"}
        answer = requests.post(f"{base}/api/images/generate", data=b" " * size, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


def test_a_variable_that_has_lost_its_meaning_is_reported() -> None:
    lost = ["GUNICORN_CMD_ARGS", "WORKER_CPU_AFFINITY"]
    assert [sentence.split()[0] for sentence in superseded(Environment(dict.fromkeys(lost, "1")))] == lost
    assert superseded(Environment({"GUNICORN_CMD_ARGS": " ", "PORT": "8000"})) == []


def test_a_caller_that_has_vanished_is_not_waited_for_without_end() -> None:
    """What the listening socket is told holds for each connection that comes by it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        limit_waiting_for_callers(address[1])
        with socket.create_connection(address), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 600
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 10_000


def test_ctrl_c_is_the_masters_affair(tmp_path: Path) -> None:
    """A worker that is interrupted by the terminal and then stopped by its master would wait for itself for ever."""
    with running_server(tmp_path) as (base, server):
        requests.get(f"{base}/health", timeout=30)
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        workers = children.read_text().split()
        os.kill(int(workers[0]), signal.SIGINT)
        assert requests.get(f"{base}/health", timeout=30).ok
        assert children.read_text().split() == workers
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0


def test_its_old_name_still_works_and_says_the_new_one(tmp_path: Path) -> None:
    said = refusal(tmp_path, "trygo_backend.serve", PORT="eighty")
    assert "DeprecationWarning: trygo_backend.serve is now trygo_backend.server." in said
    assert "The server cannot start. PORT" in said


def test_it_refuses_a_provider_that_does_not_exist(tmp_path: Path) -> None:
    assert "IMAGE_PROVIDER" in refusal(tmp_path, IMAGE_PROVIDER="midjourny")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("WEB_CONCURRENCY", "many"),
        ("SECRET_KEY", ""),
        ("IMAGE_DEADLINE", "soon"),
    ],
)
def test_it_refuses_a_value_that_cannot_work(tmp_path: Path, name: str, value: str) -> None:
    assert name in refusal(tmp_path, **{name: value})


def test_it_refuses_a_database_that_is_not_there_and_keeps_its_password(tmp_path: Path) -> None:
    with socket.socket() as deaf:  # bound and not listening: whoever connects is refused
        deaf.bind(("127.0.0.1", 0))
        said = refusal(tmp_path, DATABASE_URL=f"postgres://u:hunter2@127.0.0.1:{deaf.getsockname()[1]}/name")
    assert "The database cannot be used (DATABASE_URL)" in said
    assert "hunter2" not in said


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(preflight.CannotServe, match=f"cannot listen on port {port}"):
            preflight.reserve_port("127.0.0.1", port)


@pytest.mark.django_db  # whether the database can keep JSON is one of the checks
def test_a_missing_key_is_a_warning_and_no_obstacle(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    settings.IMAGES = {"PROVIDER": "openai", "PUBLIC_URL": "https://images.example.com"}
    preflight.check_configuration()
    assert "OPENAI_API_KEY" in capsys.readouterr().err


@pytest.mark.django_db  # whether the database can keep JSON is one of the checks
def test_every_error_of_the_checks_is_told(settings: Settings) -> None:
    settings.IMAGES = {"PROVIDR": "placeholder", "DEADLINES": 3}
    with pytest.raises(preflight.CannotServe) as caught:
        preflight.check_configuration()
    assert "PROVIDR" in str(caught.value)
    assert "DEADLINES" in str(caught.value)


def test_the_media_folder_is_made_but_not_the_one_above(settings: Settings, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = str(tmp_path / "pictures")
    preflight.make_media_root()
    preflight.make_media_root()
    assert (tmp_path / "pictures").is_dir()
    settings.MEDIA_ROOT = str(tmp_path / "volume" / "pictures")
    with pytest.raises(preflight.CannotServe, match="does not exist"):
        preflight.make_media_root()
    assert not (tmp_path / "volume").exists()


def test_a_media_folder_that_is_a_file_is_refused(settings: Settings, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = str(tmp_path / "file")
    (tmp_path / "file").touch()
    with pytest.raises(preflight.CannotServe, match="STORAGE_ROOT"):
        preflight.make_media_root()


def test_a_disk_without_space_is_a_warning_at_the_start(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.IMAGES = {"MIN_FREE_BYTES": 10**18}
    preflight.make_media_root()
    assert capsys.readouterr().err.startswith("Warning: The disk is ")


def test_a_worker_with_requests_under_way_is_woken_by_two_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """granian may leave a request waiting until the next one comes: here the next ones come by themselves."""
    monkeypatch.setattr(server, "WAKE_SECONDS", 0.01)
    release = threading.Event()
    guarded = server.Guarded(lambda environ, start: [str(release.wait(60)).encode()], port=0, concurrency=1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server.Waker(guarded, "0.0.0.0", listening.getsockname()[1]).start()
        listening.settimeout(0.1)
        with pytest.raises(TimeoutError):  # nothing is under way
            listening.accept()
        caller = threading.Thread(target=guarded, args=({"wsgi.input": None}, lambda *_: None), daemon=True)
        caller.start()
        listening.settimeout(60)
        for _ in range(2):
            connection, _address = listening.accept()
            with connection:
                connection.settimeout(60)
                assert connection.recv(4096).startswith(b"GET /health HTTP/1.1\r\n")
        release.set()
        caller.join(60)
    assert guarded.under_way == 0
