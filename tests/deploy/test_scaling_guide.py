"""`docs/scaling.md`, followed word for word in an empty directory, with services of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.ports import reserve_port
from tests.load.postgres import limited_database
from tests.queue.services import Redis, need
from tests.storage_s3.server import BUCKET, KEY, SECRET, CountingBucket

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "scaling.md").read_text()
#: Seconds that all of it may take.
PATIENCE = 300

pytestmark = pytest.mark.slow


def commands(heading: str) -> str:
    """The commands below a heading, as they stand there."""
    section = GUIDE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))


def environment_without_downloads(folder: Path) -> None:
    """A virtual environment that finds the packages of this one, so that nothing is left to download."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "shared.pth").write_text("\n".join(site.getsitepackages()))


def test_the_guide_leads_from_an_empty_directory_to_pictures(tmp_path: Path) -> None:
    for program in ("git", "make", "curl", "redis-server"):
        need(shutil.which(program), program)
    need((ROOT / ".git").exists(), "a checkout")
    empty = tmp_path / "empty"
    empty.mkdir()
    with (
        limited_database(60) as database,
        closing(Redis()) as redis,
        closing(CountingBucket()) as bucket,
        closing(reserve_port()) as port,
    ):
        redis.start()
        replaced = {  # addresses and keys, and nothing else
            "/path/to/checkout": str(ROOT),
            "postgres://trygo:password@127.0.0.1:5432/trygo": database.url,
            "redis://127.0.0.1:6379/0": redis.url,
            "S3_BUCKET=pictures": f"S3_BUCKET={BUCKET}",
            "http://127.0.0.1:9000": bucket.url,
            "AWS_ACCESS_KEY_ID=minio ": f"AWS_ACCESS_KEY_ID={KEY} ",
            "minio-secret": SECRET,
            "8000": str(port.getsockname()[1]),
        }
        script = commands("Try all of it on your own machine")
        for old, new in replaced.items():
            assert old in script, old
            script = script.replace(old, new)
        # A clone has no environment, and `make` would download one.
        script = script.replace("cd trygo\n", "cd trygo\nmv ../.venv .venv\n")
        environment_without_downloads(empty / ".venv")
        # What the other sections say about the commands of an operator.
        others = re.findall(r"^\.venv/bin/python manage\.py .*$", commands("The queue"), re.MULTILINE)
        assert len(others) >= 5
        script = script.replace("kill $(jobs -p)", "\n".join([*others, "kill $(jobs -p)"]))
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=empty,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        everything = f"{script}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, everything
        assert database.count("ready") == 2, everything
        assert len([name for name in bucket.objects if name.endswith(".png")]) == 2
    assert '"status":"pending"' in done.stdout.replace(" ", "")
    assert "its worker sees the same rows and files" in done.stdout
    assert "images_under_way" in done.stdout
    assert "Traceback" not in done.stderr, everything
