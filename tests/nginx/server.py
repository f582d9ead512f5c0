"""A real nginx in front of the real server, on a socket file: no port to be taken."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from requests.structures import CaseInsensitiveDict

from tests.queue.services import PATIENCE, until

ROOT = Path(__file__).resolve().parents[2]

_CONFIGURATION = """
user root;
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen unix:{folder}/s;
        location / {{
            proxy_pass {upstream};
        }}
        {included}
    }}
}}
"""


class Answer(NamedTuple):
    """What nginx answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Nginx:
    """nginx with the snippet that the documentation gives.

    Args:
        upstream: The address of the server behind it.
        media: The folder that holds the pictures.
    """

    def __init__(self, upstream: str, media: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="trygo-nginx-"))  # pytest's own paths are too long for a socket
        included = (ROOT / "docs" / "nginx-accel.conf").read_text().replace("/srv/trygo/media/", f"{media}/")
        configuration = self._folder / "nginx.conf"
        configuration.write_text(_CONFIGURATION.format(folder=self._folder, upstream=upstream, included=included))
        command = ["nginx", "-p", str(self._folder), "-c", str(configuration), "-e", f"{self._folder}/error.log"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until((self._folder / "s").exists, "nginx")

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(PATIENCE)
        shutil.rmtree(self._folder)

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask for a path; header names are written with underscores."""
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self._folder / "s"))
        try:
            connection.request(method, path, headers={n.replace("_", "-"): v for n, v in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, CaseInsensitiveDict(response.headers.items()), response.read())
        finally:
            connection.close()
