"""An S3-compatible server as a process of its own, spoken to over HTTP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.queue.services import PATIENCE, until

BUCKET = "pictures"


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

        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test-secret"}
        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)
