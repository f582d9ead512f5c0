"""nginx as the floor for files, and nginx as `docs/nginx.conf` configures it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.processes import ROOT, running
from benchmarks.servers import WORKERS, Server

_HTTP = """
daemon off; worker_processes {workers}; pid {folder}/nginx.pid; error_log stderr warn; {user}
events {{ worker_connections 1024; }}
http {{
    access_log off; include /etc/nginx/mime.types;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {site}
}}
"""
_PLAIN = """
    server {{ listen {listen}; sendfile on; tcp_nopush on; location / {{ root {root}; }} }}
"""


def is_installed() -> bool:
    """Whether there is an nginx. On Debian: apt-get install nginx."""
    return shutil.which("nginx") is not None


@contextmanager
def plain(folder: Path, root: Path) -> Iterator[Server]:
    """nginx as everybody would set it up for files: the floor. `root` is its document root."""
    with _nginx(folder / "nginx-plain", lambda listen: _PLAIN.format(listen=listen, root=root)) as server:
        yield server


@contextmanager
def as_documented(folder: Path, media_root: Path, upstream: str, *, origin: str = "") -> Iterator[Server]:
    """nginx with `docs/nginx.conf`, its places for changes filled in.

    Args:
        folder: For its temporary files.
        media_root: Where the server behind it stores images (`STORAGE_ROOT`).
        upstream: That server's address.
        origin: An origin whose pages may read pictures.
    """

    def site(listen: str) -> str:
        text = (ROOT / "docs" / "nginx.conf").read_text()
        changes = {
            "listen 80;": f"listen {listen};",
            "127.0.0.1:8000": urlsplit(upstream).netloc,
            "/srv/trygo/media/": f"{media_root}/",
            "https://www.example.com": origin or "https://www.example.com",
            "images.example.com;": "localhost;",
        }
        for old, new in changes.items():
            assert old in text, f"docs/nginx.conf does not hold {old!r} any more"
            text = text.replace(old, new)
        return text

    with _nginx(folder / "nginx-documented", site) as server:
        yield server


@contextmanager
def _nginx(folder: Path, site: Callable[[str], str]) -> Iterator[Server]:
    """Run nginx on a free port, which it inherits as it does from an older nginx when it is upgraded."""
    folder.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        listen = f"127.0.0.1:{listener.getsockname()[1]}"
        user = "user root;" if os.getuid() == 0 else ""  # temporary folders are nobody else's to read
        text = _HTTP.format(workers=WORKERS, folder=folder, user=user, site=site(listen))
        (folder / "nginx.conf").write_text(text)
        descriptor = listener.fileno()
        env = {"PATH": os.environ["PATH"], "NGINX": f"{descriptor};"}
        command = ["sh", "-c", 'echo starting; exec "$@"', "sh", "nginx", "-p", str(folder), "-c", "nginx.conf"]
        with running(command, env, folder / "log", pass_fds=(descriptor,)) as (process, _):
            yield Server(base=f"http://{listen}", pid=process.pid)
