"""Fills a database with a million images and measures the pages that count and list them.

    python -m benchmarks.million                  # SQLite, in a file of its own
    python -m benchmarks.million --postgresql     # a database of its own where BENCH_POSTGRES_URL says
    python -m benchmarks.million --days 90        # all of them within 90 days instead of a year

The images are spread over a year; 300,000 are of one user, 50,000 were deleted, and one in twenty failed.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.databases import postgresql

#: The numbers from 0 on in a column `n`, and what else the databases write differently.
DIALECTS = {
    "postgresql": {
        "numbers": "SELECT n FROM generate_series(0::bigint, {count} - 1) AS s(n)",
        "uuid": "gen_random_uuid()",
        "created": "now() - n * interval '1 second' * {step}",
        "json": "::jsonb",
    },
    "sqlite": {
        "numbers": (
            "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {count} - 1) SELECT n FROM s"
        ),
        "uuid": "lower(hex(randomblob(16)))",
        "created": "strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || (n * {step}) || ' seconds') || '000'",
        "json": "",
    },
}
#: What both tables have.
SHARED = {
    "id": "{uuid}",
    "owner_id": "CASE WHEN n % 10 < 3 THEN 2 WHEN n % 10 < 9 THEN 3 + n * 7919 % 50 END",
    "content_item_id": "'item-' || (n * 7919 % 200000)",
    "variant": "CASE WHEN n % 4 = 0 THEN 'inline' ELSE 'hero' END",
    "status": "CASE WHEN n % 20 = 7 THEN 'failed' ELSE 'ready' END",
    "provider": "CASE WHEN n % 3 = 0 THEN 'openai' ELSE 'gemini' END",
    "model": "CASE WHEN n % 3 = 0 THEN 'gpt-image-' || (2 + n % 2) ELSE 'nano-banana-' || (1 + n % 2) END",
    "cost": "CASE WHEN n % 50 = 0 THEN NULL ELSE 0.0412 END",
    "cost_basis": "CASE WHEN n % 50 = 0 THEN '' ELSE 'estimated' END",
    "duration_ms": "4000 + n * 7919 % 25000",
    "error_code": "CASE WHEN n % 20 <> 7 THEN '' WHEN n % 3 = 0 THEN 'provider_timeout' ELSE 'storage_error' END",
    "created_at": "{created}",
}
IMAGE = SHARED | {
    "title": "'An article about harbour number ' || n",
    "description": "'Outline of the article. '",
    "file_stem": "'draft-images/item/hero-' || n",
    "file": "CASE WHEN n % 20 = 7 THEN '' ELSE 'draft-images/item/hero-' || n || '.png' END",
    "mime_type": "'image/png'",
    "width": "1536",
    "height": "864",
    "size_bytes": "1500000",
    "sha256": "'ab' || n",
    "prompt": "'A wide picture of a harbour in the morning, with boats and gulls, in soft light. ' || n",
    "negative_prompt": "''",
    "style": "'watercolour'",
    "seed": "n",
    "usage": "'{{\"total_tokens\": 1234}}'{json}",
    "attempts": '\'[{{"provider": "gemini", "code": "ok", "ms": 8000}}]\'{json}',
    "error_message": "''",
    "idempotency_scope": "''",
    "started_at": "{created}",
    "deadline_at": "{created}",
    "finished_at": "{created}",
}
DELETED = SHARED | {"deleted_at": "{created}"}

ADMIN = "/admin/images/generatedimage/"
#: What is measured: a name, whether the administrator or the user with 300,000 images asks, the address, and the most
#: milliseconds it may take.
PAGES: tuple[tuple[str, bool, str, int | None], ...] = (
    ("Usage, 90 days", True, f"{ADMIN}usage/?days=90", 500),
    ("Usage, 90 days, by model", True, f"{ADMIN}usage/?days=90&by=model", None),
    ("Usage, 90 days, by user", True, f"{ADMIN}usage/?days=90&by=user", None),
    ("Usage, 90 days, by content item", True, f"{ADMIN}usage/?days=90&by=item", None),
    ("Usage, 365 days", True, f"{ADMIN}usage/?days=365", None),
    ("API, first page, a user with 300,000", False, "/api/images/", 100),
    ("the same, one variant", False, "/api/images/?variant=hero", None),
    ("the same, failed", False, "/api/images/?status=failed", None),
    ("API, first page, staff", True, "/api/images/", None),
    ("admin's list", True, ADMIN, 200),
    ("admin's list, failed", True, f"{ADMIN}?status=failed", None),
    ("admin's gallery", True, f"{ADMIN}gallery/", 200),
)


def main() -> None:
    """Fill and measure as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million", description=__doc__)
    parser.add_argument("--postgresql", action="store_true", help="on PostgreSQL instead of SQLite")
    parser.add_argument("--count", type=int, default=1_000_000, help="how many images")
    parser.add_argument("--days", type=int, default=365, help="over how many days they are spread")
    options = parser.parse_args()
    with ExitStack() as stack:
        url = stack.enter_context(postgresql()) if options.postgresql else _sqlite(stack)
        if url is None:
            sys.exit("No PostgreSQL at BENCH_POSTGRES_URL.")
        _start_django(url)
        fill(options.count, options.days)
        _print(measure())
        _close()


def _sqlite(stack: ExitStack) -> str:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="trygo-bench-"))
    return f"sqlite:///{Path(folder) / 'million.sqlite3'}"


def _start_django(url: str) -> None:
    import django

    os.environ |= {"DATABASE_URL": url, "SECRET_KEY": secrets.token_hex(32), "IMAGE_PROVIDER": "placeholder"}
    os.environ["DJANGO_SETTINGS_MODULE"] = "trygo_backend.settings"
    os.environ["ALLOWED_HOSTS"] = "testserver"
    django.setup()


def fill(count: int, days: int) -> None:
    """Make the tables and users, and write the images with two statements."""
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    User.objects.bulk_create(
        User(pk=key, username=f"user{key}", is_superuser=key == 1, is_staff=key == 1) for key in range(1, 53)
    )
    started = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute(_insert("images_generatedimage", IMAGE, connection.vendor, count, days))
        cursor.execute(_insert("images_deletedimage", DELETED, connection.vendor, count // 20, days))
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")
    print(f"{connection.vendor}: {count:,} images over {days} days, written in {time.monotonic() - started:.0f} s\n")


def _insert(table: str, columns: dict[str, str], vendor: str, count: int, days: int) -> str:
    dialect = DIALECTS[vendor]
    created = dialect["created"].format(step=days * 86_400 / count)
    values = {
        name: text.format(uuid=dialect["uuid"], json=dialect["json"], created=created)
        for name, text in columns.items()
    }
    numbers = dialect["numbers"].format(count=count)
    return f"INSERT INTO {table} ({', '.join(values)}) SELECT {', '.join(values.values())} FROM ({numbers}) AS s"


def measure(tries: int = 7) -> list[tuple[str, float, float, int | None]]:
    """Median and best milliseconds of each page, the first view not counted, and the most that it may take."""
    from django.contrib.auth.models import User
    from django.test import Client

    clients = {}
    for is_admin, key in ((True, 1), (False, 2)):
        clients[is_admin] = Client(headers={"accept": "application/json, text/html"})
        clients[is_admin].force_login(User.objects.get(pk=key))
    found = []
    for name, is_admin, address, limit in PAGES:
        spent = [_milliseconds(clients[is_admin].get, address) for _ in range(tries + 1)][1:]
        found.append((name, statistics.median(spent), min(spent), limit))
    return [*found, _budget_check(tries * 20)]


def _budget_check(tries: int) -> tuple[str, float, float, int | None]:
    """What four budgets add to a request: the estimate, the look, and the reservation, which is rolled back."""
    from django.db import transaction
    from django.utils import timezone

    from images.models import GeneratedImage
    from images.services import budgets

    os.environ |= {"IMAGE_PROVIDER": "gemini", "GEMINI_API_KEY": "none"}
    os.environ |= {f"IMAGE_{key}": "1000000" for key in budgets.KEYS}
    spent = []
    for _ in range(tries + 1):
        image = GeneratedImage(owner_id=2, created_at=timezone.now())
        started = time.perf_counter()
        budgets.prepare(image)
        with transaction.atomic():
            budgets.reserve(image)
            spent.append((time.perf_counter() - started) * 1000)
            transaction.set_rollback(True)
    print(f"The first budget check, which adds up the rows, took {spent[0]:.0f} ms.\n")
    return "budget check", statistics.median(spent[1:]), min(spent[1:]), 2


def _milliseconds(get: Callable[[str], Any], address: str) -> float:
    started = time.perf_counter()
    response = get(address)
    spent = (time.perf_counter() - started) * 1000
    if response.status_code != 200:
        sys.exit(f"{address}: {response.status_code}")
    return spent


def _print(results: list[tuple[str, float, float, int | None]]) -> None:
    print("| page | median ms | best ms | limit |\n|---|---|---|---|")
    for name, median, best, limit in results:
        digits = 0 if median >= 10 else 1
        cell = f"{median:.{digits}f}" if limit is None or median <= limit else f"**{median:.{digits}f}**"
        print(f"| {name} | {cell} | {best:.{digits}f} | {'' if limit is None else limit} |")


def _close() -> None:
    """So that the database can be removed."""
    from django.db import connections

    connections.close_all()


if __name__ == "__main__":
    main()
