"""Some sixty images of every kind that a list can hold, as an administrator meets them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from itertools import count
from typing import Any

from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.utils import timezone

from images.exceptions import find_kind
from images.failures import REASONS
from images.models import GeneratedImage
from tests.fakes.pictures import picture

TITLES = (
    "A quiet harbour at dawn",
    "Тихая гавань на рассвете, с очень длинным заголовком, который не помещается в строку и всё продолжается",
    "ميناء هادئ عند الفجر، قوارب الصيد في الضباب",
    "נמל שקט עם שחר (Hafen, 2026)",
    "日の出の静かな港",
    "Bread",
    "<b>Bold & brave</b> “quoted” {braces} %s",
    "Donaudampfschifffahrtsgesellschaftskapitänsmütze" * 10,
    "How to choose a roof: tiles, slate, metal or thatch, compared by price, weight, noise, care and looks " * 4,
)
ITEMS = ("guide-1", "665f1c2e9b1e8a0012345678", "путеводитель", "a/b c", "x" * 255)
#: A word that a provider of a host's own may report.
UNKNOWN_CODE = "newsroom_said_no"


def make_collection(owner: User) -> list[GeneratedImage]:
    """Write the rows and their files; the newest comes last."""
    kinds = [*_ready(), *_failed(), *_unfinished()]
    return [_save(number, kind, owner) for number, kind in enumerate(kinds)]


def _save(number: int, facts: dict[str, Any], owner: User) -> GeneratedImage:
    content = facts.pop("content", b"")
    made = timezone.now() - timedelta(minutes=7 * (70 - number)) if "created_at" not in facts else facts["created_at"]
    image = GeneratedImage(
        **{
            "title": TITLES[number % len(TITLES)][:500],
            "content_item_id": ITEMS[number % len(ITEMS)],
            "description": "Fishing boats, mist.\nThe first light on the water.",
            "variant": ("hero", "inline")[number % 2],
            "owner": owner if number % 3 else None,
            "file_stem": f"draft-images/collection/hero-{number}",
            **facts,
            "created_at": made,
        }
    )
    image.save()
    if content:
        image.file.save(f"{image.file_stem}.png", ContentFile(content), save=True)
    return image


def _ready() -> Iterator[dict[str, Any]]:
    """Twenty pictures, one made long ago, one without an owner's word on costs, and two whose files are gone."""
    shapes = [(64, 36), (40, 30), (20, 60)]
    for number in range(22):
        width, height = shapes[number % len(shapes)]
        facts: dict[str, Any] = {
            "status": "ready", "mime_type": "image/png", "width": width, "height": height, "size_bytes": 1_234_567,
            "sha256": "ab" * 32, "provider": ("openai", "gemini")[number % 2],
            "model": ("gpt-image-1.5", "gemini-3.1-flash-image-preview-with-a-long-name")[number % 2],
            "prompt": "A wide picture of a harbour. " * 20, "duration_ms": 8_200 + 1000 * number,
            "cost": None if number == 5 else Decimal("0.0412"), "cost_basis": "" if number == 5 else "estimated",
            "usage": {"input_tokens": 120, "output_tokens": 4160}, "alt_text": (None, "", "A harbour.")[number % 3],
            "started_at": timezone.now(), "finished_at": timezone.now(),
            "attempts": [_attempt("openai", "")] * (1 + number % 2),
        }  # fmt: skip
        lost = {"file": f"draft-images/collection/lost-{number}.png"}
        yield {**facts, **(lost if number >= 20 else {"content": picture("png", width, height)})}


def _attempt(provider: str, code: str) -> dict[str, Any]:
    return {
        "provider": provider,
        "model": "gpt-image-1.5",
        "code": code,
        "ms": 90_000,
        "request_id": "req_7" * 9,
    }


def _failed() -> Iterator[dict[str, Any]]:
    """One or two for each code."""
    for number, code in zip(count(), [*REASONS, UNKNOWN_CODE, *REASONS], strict=False):
        yield {
            "status": "failed", "error_code": code, "error_message": find_kind(code, "").default_message,
            "attempts": [_attempt("openai", code)] * (1 + number % 3), "duration_ms": 91_000,
            "started_at": timezone.now(), "finished_at": timezone.now(), "provider": "openai",
            "model": "gpt-image-1.5", "cost": Decimal("0.08") if number % 4 == 0 else None,
            "cost_basis": "at_least" if number % 4 == 0 else "",
        }  # fmt: skip


def _unfinished() -> Iterator[dict[str, Any]]:
    now = timezone.now()
    late = now - timedelta(hours=1)
    yield {"status": "pending", "started_at": late, "deadline_at": late}  # its process was stopped
    yield {"status": "pending", "started_at": None, "deadline_at": late}  # no worker came
    yield {"status": "deleting", "file": "draft-images/collection/going.png"}
    recently = {"created_at": now, "deadline_at": now + timedelta(minutes=30)}
    waits = {"retry_at": now + timedelta(minutes=5), "error_code": "provider_rate_limited", "error_message": "Later."}
    yield {"status": "pending", **recently}
    yield {"status": "pending", **recently, **waits, "attempts": [_attempt("openai", "provider_rate_limited")]}
    yield {"status": "pending", **recently, "started_at": now}
