"""The script that counts the files on a request's way still runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_it_prints_the_files_of_a_generation_and_of_a_deletion() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.trace_request"],
        cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert re.findall(r"^(POST|DELETE) /api/images/\S+: \d+ files", done.stdout, re.MULTILINE) == [
        "POST",
        "DELETE",
    ], done.stderr
