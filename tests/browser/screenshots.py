"""README's screenshots: `python -m tests.browser.screenshots` makes them anew in `docs/screenshots/`.

The pictures are the placeholder provider's, in a database and a folder that are thrown away.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
TITLES = (
    "A quiet harbour at dawn", "How to choose a roof", "Bread, the slow way", "Night trains are back",
    "A garden for bees", "What the river remembers", "Small rooms, large windows", "The last lighthouse keeper",
)  # fmt: skip
#: What each picture shows: its name, its page, and the window's width and height.
SHOTS = (
    ("admin-gallery", "gallery/", 1280, 760),
    ("admin-usage", "usage/", 1280, 760),
    ("admin-list-phone", "", 390, 760),
)
FAILED = """
from datetime import timedelta
from django.utils import timezone
from images.models import GeneratedImage
rows = list(GeneratedImage.objects.all())
for number, row in enumerate(rows):
    row.created_at = timezone.now() - timedelta(hours=5 * number)
    row.save()
rows[2].status, rows[2].error_code, rows[2].file = "failed", "provider_timeout", ""
rows[2].save()
"""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    env = {
        "PATH": os.environ["PATH"], "SECRET_KEY": "only-for-screenshots", "DATABASE_URL": f"sqlite:///{folder}/db.sqlite3",
        "STORAGE_ROOT": str(folder / "stored"), "IMAGE_PROVIDER": "placeholder", "PORT": "0",
        "BIND_ADDRESS": "127.0.0.1", "DJANGO_SUPERUSER_PASSWORD": "demo-password",
    }  # fmt: skip

    def run(*command: str) -> None:
        subprocess.run([sys.executable, "manage.py", *command], cwd=ROOT, env=env, check=True, capture_output=True)

    run("migrate", "-v0")
    run("createsuperuser", "--noinput", "--username=anna", "--email=anna@example.com")
    for number, title in enumerate(TITLES):
        variant = ("hero", "inline")[number % 2]
        run("generate_image", f"--content-item=guide-{number}", "--title", title, "--variant", variant, "--user=anna")
    run("shell", "-c", FAILED)
    command = [sys.executable, "-m", "trygo_backend.server"]
    server = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout
        yield server.stdout.readline().split()[-1]
    finally:
        server.terminate()
        server.wait(timeout=60)


def main() -> None:
    """Make the screenshots."""
    with TemporaryDirectory() as folder, served(Path(folder)) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(locale="en-US")
        page.goto(f"{base}/admin/")
        page.locator("[name=username]").fill("anna")
        page.locator("[name=password]").fill("demo-password")
        page.locator("[name=password]").press("Enter")
        page.wait_for_url("**/admin/")
        for name, path, width, height in SHOTS:
            page.set_viewport_size({"width": width, "height": height})
            page.goto(f"{base}/admin/images/generatedimage/{path}", wait_until="networkidle")
            picture = Image.open(io.BytesIO(page.screenshot()))
            # 256 colours are enough, and a third of the bytes.
            picture.convert("RGB").quantize(256).save(ROOT / "docs" / "screenshots" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
