"""`make demo`: the production server with a first picture, on a machine that has not been configured.

The database, the files, the secret key and the demo's login are kept in a separate folder, `.demo/`, away from those
of a real installation. For the same reason a real installation's environment variables are ignored.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

import requests
from django.core.exceptions import ImproperlyConfigured

from .environment import Environment
from .preflight import CannotServe, reserve_port

BASE_DIR = Path(__file__).resolve().parent.parent
FOLDER = BASE_DIR / ".demo"
HOST = "127.0.0.1"
USER = "demo"
#: Seconds for the server to start, and for the first image.
START_TIMEOUT, GENERATION_TIMEOUT = 120.0, 150.0

#: A real installation's settings, which the demo ignores. Providers' settings are kept.
FOREIGN = {
    "ACCESS_LOG",
    "ALLOWED_HOSTS",
    "CELERY_BROKER_URL",
    "DATABASE_POOL_SIZE",
    "DEBUG",
    "DEVELOPMENT_FRONTEND_URL",
    "FORCE_SCRIPT_NAME",
    "FRONTEND_URL",
    "GUNICORN_CMD_ARGS",
    "IMAGE_TRUSTED_NETWORKS",
    "MIGRATE_ON_START",
    "PORT",
    "PRODUCTION_FRONTEND_URL",
    "SECURE_HSTS_SECONDS",
    "SECURE_SSL_REDIRECT",
    "TRUST_PROXY_HEADERS",
    "WEB_CONCURRENCY",
}


class DemoFailed(Exception):
    """The demo cannot continue; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo until Ctrl-C, or with `--exit` until the first picture has been fetched back.

    Args:
        arguments: The command line; by default `sys.argv[1:]`.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m trygo_backend.demo", description=__doc__)
    parser.add_argument("--exit", action="store_true", help="stop after fetching the first picture")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where the database, the files and the login are kept"
    )
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        run(options.folder.absolute(), stay=not options.exit)
    except KeyboardInterrupt:
        print("\nStopped.")  # noqa: T201
    except (DemoFailed, ImproperlyConfigured) as err:
        print(f"The demo failed. {err}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(folder: Path, *, stay: bool) -> None:
    """Start the server, generate and fetch a picture, and print where everything is.

    Args:
        folder: The demo's folder; it is created if it is missing.
        stay: Whether to keep running until interrupted.

    Raises:
        DemoFailed: Anything went wrong.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    port = _free_port(Environment(os.environ).integer("PORT", 8000, minimum=0, maximum=65535))
    base = f"http://{HOST}:{port}"
    environment = demo_environment(os.environ, folder=folder, base=base)
    _say(f"Starting the server with IMAGE_PROVIDER={environment['IMAGE_PROVIDER']} ...")
    command = [sys.executable, "-m", "trygo_backend.server"]
    environment |= {"BIND_ADDRESS": HOST, "PORT": str(port)}
    server = subprocess.Popen(command, cwd=BASE_DIR, env=environment)  # noqa: S603
    try:
        with requests.Session() as http:
            http.trust_env = False  # no proxy for requests to this machine itself
            _wait_until_healthy(http, base, server)
            account = prepare_account(environment, folder)
            image_url = _first_picture(http, base, account.token)
        _say(summary(base, image_url, account, folder))
        if stay and server.wait():
            raise DemoFailed(f"The server stopped by itself, with status {server.returncode}.")
    finally:
        _stop(server)


@dataclass(frozen=True, kw_only=True)
class Account:
    """The demo's login."""

    password: str
    token: str


def demo_environment(outer: Mapping[str, str], *, folder: Path, base: str) -> dict[str, str]:
    """The environment of the demo's server: that of the caller, with the demo's own database, files and key.

    Args:
        outer: The caller's environment. Its provider settings apply: a provider whose key it holds generates the
            images (`IMAGE_PROVIDER` chooses among several), or the offline placeholder if it holds none.
        folder: The demo's folder.
        base: The server's address.
    """
    keys = {"gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"), "openai": ("OPENAI_API_KEY",)}
    usable = [alias for alias, names in keys.items() if any(outer.get(name, "").strip() for name in names)]
    wanted = [alias.strip() for alias in outer.get("IMAGE_PROVIDER", "").split(",")]
    chosen = [alias for alias in wanted if alias in usable]
    return {
        **{name: value for name, value in outer.items() if not _is_foreign(name)},
        "DJANGO_SETTINGS_MODULE": "trygo_backend.settings",
        "SECRET_KEY": _kept_secret(folder / "secret_key"),
        "DATABASE_URL": "sqlite:///" + quote(str(folder / "db.sqlite3")),
        "PUBLIC_URL": base,
        "STORAGE_ROOT": str(folder / "media"),
        "IMAGE_PROVIDER": ",".join(chosen or usable) or "placeholder",
        "PYTHONUNBUFFERED": "1",
    }


def _is_foreign(name: str) -> bool:
    """Whether a variable belongs to a real installation: its storage, queue and metrics are not the demo's."""
    return name in FOREIGN or name.startswith(("S3_", "CELERY_", "METRICS_", "PROMETHEUS_", "IMAGE_"))


def _kept_secret(path: Path) -> str:
    """A random text that stays the same from one demo to the next."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(40))
    return path.read_text()


def prepare_account(environment: Mapping[str, str], folder: Path) -> Account:
    """Create the demo's superuser and its token, or reset them.

    Args:
        environment: The server's, which this process adopts. The server has already migrated the database.
        folder: The demo's folder.
    """
    os.environ.clear()
    os.environ.update(environment)
    import django

    django.setup()
    from django.contrib.auth.models import User
    from rest_framework.authtoken.models import Token

    password = _kept_secret(folder / "password")[:12]
    user, _created = User.objects.get_or_create(username=USER)
    user.is_staff = user.is_superuser = user.is_active = True
    user.set_password(password)
    user.save()
    return Account(password=password, token=Token.objects.get_or_create(user=user)[0].key)


def _free_port(port: int) -> int:
    """`port`, or another one if a server listens there already."""
    try:
        return reserve_port(HOST, port)
    except CannotServe:
        _say(f"Port {port} is in use, so another one is used.")
        return reserve_port(HOST, 0)


def _wait_until_healthy(http: requests.Session, base: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise DemoFailed("The server did not start. Its output above says why.")
        try:
            if http.get(f"{base}/health", timeout=1).ok:
                return
        except requests.RequestException:
            time.sleep(0.05)
    raise DemoFailed(f"The server did not answer within {START_TIMEOUT:g} seconds.")


def _first_picture(http: requests.Session, base: str, token: str) -> str:
    """Ask for a picture over HTTP, fetch it back, and return its address."""
    content = {"contentItemId": "demo", "title": "A first picture", "description": "Morning light over a quiet city."}
    headers = {"Authorization": f"Token {token}"}
    _say("Asking for a first picture ...")
    try:
        answer = http.post(f"{base}/api/images/generate", json=content, headers=headers, timeout=GENERATION_TIMEOUT)
        body = _json(answer)
        if not answer.ok:
            raise DemoFailed(f"The server answered {answer.status_code}: {body.get('error', answer.reason)}")
        image_url = str(body.get("imageUrl"))
        picture = http.get(image_url, timeout=30)
    except requests.RequestException as err:
        raise DemoFailed(f"The server broke the connection ({type(err).__name__}).") from err
    if not picture.ok or not picture.content or not picture.headers.get("Content-Type", "").startswith("image/"):
        raise DemoFailed(f"The picture could not be fetched back from {image_url}: status {picture.status_code}.")
    return image_url


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except requests.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def summary(base: str, image_url: str, account: Account, folder: Path) -> str:
    """What to look at, and what to try next.

    Args:
        base: The server's address.
        image_url: The first picture's address.
        account: The demo's login.
        folder: The demo's folder.
    """
    body = '{"contentItemId": "demo", "title": "The next picture", "variant": "inline"}'
    return f"""
The first picture:  {image_url}

The next one:
  curl -H 'Authorization: Token {account.token}' -H 'Content-Type: application/json' \\
    -d '{body}' {base}/api/images/generate

Admin:          {base}/admin/  (login {USER}, password {account.password})
Browsable API:  {base}/api/images/  (log in first: {base}/api/auth/login/)
API docs:       {base}/api/docs/

Ctrl-C stops the server. Everything is kept in {folder}, which can be deleted.
"""


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Stop the server: ask first, then kill it."""
    server.terminate()
    try:
        server.wait(timeout=10)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        server.kill()
        server.wait()


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
