"""S3-compatible servers, spoken to over HTTP: moto's as a process of its own, and one that counts calls and bytes."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import reduce
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.queue.services import PATIENCE, until

BUCKET = "pictures"
KEY, SECRET = "test", "test-secret"


class S3Server:
    """moto's server on a free port; every request must be signed or carry a signature.

    Args:
        folder: For its log.
    """

    def __init__(self, folder: Path) -> None:
        self._log = folder / "s3.log"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
            )
        found = until(lambda: re.search(r"Running on (http://127\.0\.0\.1:\d+)", self._log.read_text()), "moto")
        assert found
        self.url = found[1]

    def close(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def client(self) -> Any:
        """A client of the vendor's own SDK, to look past Django."""
        import boto3

        keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)


# --- a bucket that counts ------------------------------------------------------------------------------------------


@dataclass
class Stored:
    """An object of the bucket."""

    data: bytes
    modified: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    @property
    def etag(self) -> str:
        """As S3 makes it of an object that came in one part."""
        return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'


class CountingBucket:
    """A bucket in this process. It checks signatures, knows permissions, and counts calls and bytes.

    Attributes:
        objects: What is in it, by key.
        calls: Each call as `METHOD key`, or `LIST prefix`.
        sent: The bytes of objects that were sent.
        denied: Permissions that nobody has. Without `s3:ListBucket` an object that is not there is a 403, as in S3.
        drops: How many of the next calls end without an answer.
        slowness: Seconds that it takes to store an object.
    """

    page = 1000

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.calls: list[str] = []
        self.sent, self.drops = 0, 0
        self.slowness = 0.0
        self.denied: set[str] = set()
        self._handler = type("Handler", (_Handler,), {"bucket": self})
        self._port = 0
        self._listen()
        self.url = f"http://127.0.0.1:{self._port}"

    def _listen(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), self._handler)
        self._port = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Refuse connections and answer none that is open, while the block runs."""
        self.close()
        self.drops = sys.maxsize
        try:
            yield
        finally:
            self.drops = 0
            self._listen()

    def forget(self) -> None:
        """Start counting anew."""
        self.calls, self.sent = [], 0

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that leave."""


class _Refused(Exception):
    def __init__(self, status: int, code: str, more: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.more = status, code, more


class _Handler(BaseHTTPRequestHandler):
    bucket: CountingBucket
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or a client would wait for each body's first bytes

    def do_GET(self) -> None:
        self._answer(self._list if self._key is None else self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    @property
    def _query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))

    @property
    def _key(self) -> str | None:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").lstrip("/") or None

    def _answer(self, act: Any) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name = f"LIST {self._query.get('prefix', '')}" if self._key is None else f"{self.command} {self._key}"
        self.bucket.calls.append(name)
        if self.bucket.drops > 0:
            self.bucket.drops -= 1
            self.close_connection = True
            return
        try:
            self._check_signature(body)
            act(body)
        except _Refused as err:
            content = f"<Error><Code>{err.code}</Code><Message>No.</Message>{err.more}</Error>".encode()
            self._send(err.status, {"Content-Type": "application/xml"}, content)

    def _allow(self, permission: str) -> None:
        if permission in self.bucket.denied:
            raise _Refused(403, "AccessDenied")

    def _send(self, status: int, headers: dict[str, str], content: bytes | memoryview = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or status == 304:
            return
        for start in range(0, len(content), 65536):
            self.bucket.sent += len(content[start : start + 65536]) if status < 300 and self._key else 0
            self.wfile.write(content[start : start + 65536])

    def _get(self, _body: bytes) -> None:
        if len((self._key or "").encode()) > 1024:
            raise _Refused(400, "KeyTooLongError")
        self._allow("s3:GetObject")
        stored = self.bucket.objects.get(self._key or "")
        if stored is None:
            self._allow("s3:ListBucket")
            raise _Refused(404, "NoSuchKey")
        headers = {"ETag": stored.etag, "Last-Modified": format_datetime(stored.modified, usegmt=True)}
        if self.headers.get("If-None-Match") == stored.etag:
            self._send(304, headers)
            return
        size, content = len(stored.data), memoryview(stored.data)
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not found:
            self._send(200, {**headers, "Content-Length": str(size), "Accept-Ranges": "bytes"}, content)
            return
        first, last = found.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        if start >= size:
            raise _Refused(416, "InvalidRange", f"<ActualObjectSize>{size}</ActualObjectSize>")
        self._send(206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}, content[start:end])

    def _put(self, body: bytes) -> None:
        self._allow("s3:PutObject")
        time.sleep(self.bucket.slowness)
        stored = self.bucket.objects[self._key or ""] = Stored(body)
        self._send(200, {"ETag": stored.etag})

    def _delete(self, _body: bytes) -> None:
        self._allow("s3:DeleteObject")
        self.bucket.objects.pop(self._key or "", None)
        self._send(204, {})

    def _list(self, _body: bytes) -> None:
        self._allow("s3:ListBucket")
        query = self._query
        prefix, after = query.get("prefix", ""), query.get("continuation-token") or query.get("start-after", "")
        keys = sorted(key for key in self.bucket.objects if key.startswith(prefix) and key > after)
        page, more = keys[: self.bucket.page], len(keys) > self.bucket.page
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(stored.data)}</Size><ETag>{escape(stored.etag)}</ETag>"
            f"<LastModified>{stored.modified:%Y-%m-%dT%H:%M:%S.000Z}</LastModified></Contents>"
            for key, stored in ((key, self.bucket.objects[key]) for key in page)
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        content = f"<ListBucketResult>{truncated}{token}{entries}</ListBucketResult>".encode()
        self._send(200, {"Content-Type": "application/xml"}, content)

    def _check_signature(self, body: bytes) -> None:
        """Signature version 4, in the header or in the address, computed anew from what arrived."""
        query, header = self._query, self.headers.get("Authorization", "")
        found = dict(re.findall(r"(Credential|SignedHeaders|Signature)=([^, ]+)", header))
        if not found:
            found = {name: query.get(f"X-Amz-{name}", "") for name in ("Credential", "SignedHeaders", "Signature")}
        moment = self.headers.get("X-Amz-Date") or query.get("X-Amz-Date", "")
        hashed = self.headers.get("X-Amz-Content-SHA256") or "UNSIGNED-PAYLOAD"
        if hashed != "UNSIGNED-PAYLOAD" and hashed != hashlib.sha256(body).hexdigest():
            raise _Refused(400, "XAmzContentSHA256Mismatch")
        parts, names = urlsplit(self.path), found["SignedHeaders"].split(";")
        pairs = sorted(pair for pair in parts.query.split("&") if not pair.startswith("X-Amz-Signature="))
        headers = "".join(f"{name}:{' '.join(self.headers.get(name, '').split())}\n" for name in names)
        request = [self.command, parts.path, "&".join(pairs), headers, found["SignedHeaders"], hashed]
        user, _, scope = found["Credential"].partition("/")
        if user != KEY:
            raise _Refused(403, "InvalidAccessKeyId")
        digest = hashlib.sha256("\n".join(request).encode()).hexdigest()
        text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, digest])
        key = reduce(_mac, scope.split("/"), f"AWS4{SECRET}".encode())
        if not hmac.compare_digest(_mac(key, text).hex(), found["Signature"]):
            raise _Refused(403, "SignatureDoesNotMatch")


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
