"""Existing Node services go on as they are: their own `fetch`, against the production server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.project.test_server import running_server

HERE = Path(__file__).resolve().parent


@pytest.fixture
def node() -> str:
    """Node's path."""
    found = shutil.which("node")
    if found is None:
        reason = "Node is not installed, so the old callers' own fetch cannot be tried (apt-get install nodejs)."
        if os.environ.get("CI_REQUIRE_ALL"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture
def results(node: str, tmp_path: Path) -> Any:
    """What the caller tells. It reaches the server under an internal name, over plain http, without credentials."""
    with running_server(tmp_path, ALLOWED_HOSTS="images.internal", IMAGE_TRUSTED_NETWORKS="127.0.0.0/8") as (base, _):
        command = [node, "--require", str(HERE / "internal_names.cjs"), str(HERE / "caller.mjs")]
        env = {"PATH": os.environ["PATH"], "IMAGE_SERVICE_URL": base.replace("127.0.0.1", "images.internal")}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
    return json.loads(done.stdout)


def test_node_services_make_download_and_delete_images_unchanged(results: Any) -> None:
    for name in ("withoutDescription", "nullDescription", "outline", "unknown"):
        made = results[name]
        assert (made["status"], made["contentType"], made["isPng"]) == (200, "image/png", True), made
        assert made["imageUrl"].startswith("http://images.internal:")
    assert "/media/draft-images/665f1c2e9b1e8a0012345678/hero-" in results["nullDescription"]["imageUrl"]
    assert "/media/draft-images/unknown/hero-" in results["unknown"]["imageUrl"]

    refused = results["withoutTitle"]
    assert (refused["failed"], refused["error"]) == (400, "contentItemId and title are required")
    assert refused["timestamp"].endswith("Z")

    old_id = "/".join(results["nullDescription"]["imageUrl"].split("/")[-2:])
    assert results["deleted"] == {"ok": True, "success": True, "id": old_id}
    assert (results["deletedAgain"]["ok"], results["deletedAgain"]["code"]) == (False, "not_found")
    assert results["afterwards"]["status"] == 404
    assert results["deletedEncoded"]["success"]
