"""When the vendors turn their image models off, as far as it was known on `READ_ON`.

This is the one file to edit when a vendor announces something; `docs/models.md` says how. It serves for warnings and
advice and decides nothing else: every model is tried, whether it is in here or not, and none is ever replaced by
another. What a vendor says when asked (`manage.py images_doctor`) outweighs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase

#: The day on which the sources below were last read.
READ_ON = date(2026, 11, 23)

_OPENAI = "https://developers.openai.com/api/docs/deprecations"
_OPENAI_SDK = "openai 3.54.0, openai/types/image_model.py"
_GEMINI = "https://ai.google.dev/gemini-api/docs/deprecations"
_GEMINI_LOG = "https://ai.google.dev/gemini-api/docs/changelog"
_IMAGEN = "https://firebase.google.com/docs/ai-logic/imagen-models-migration"


@dataclass(frozen=True, kw_only=True)
class Retirement:
    """What a vendor has said about the end of some models.

    Attributes:
        vendor: As in the provider's `Vendor.name`.
        models: Their names; `*` at the end stands for any rest.
        shutdown: The first day on which they do not answer (UTC); `None` where no day has been named yet.
        replacements: What the vendor says to use instead, the one that suits most first. Where the vendor named a
            model that is gone by now, what it names for that one.
        source: Where it says so.
    """

    vendor: str
    models: tuple[str, ...]
    shutdown: date | None
    replacements: tuple[str, ...]
    source: str

    def is_over(self, today: date) -> bool:
        """Whether the models are turned off."""
        return self.shutdown is not None and self.shutdown <= today

    def sentence(self, model: str, today: date) -> str:
        """What is the matter with `model`, one of these."""
        if self.shutdown is None:
            return f"{self.vendor} has announced the end of the model {model!r}, without a date so far."
        verb = "shut down" if self.is_over(today) else "will shut down"
        return f"{self.vendor} {verb} the model {model!r} on {self.shutdown}."

    def advice(self, setting: str) -> str:
        """What to type.

        Args:
            setting: The name of the setting that holds the model.
        """
        first, *others = self.replacements
        also = f" (or {', '.join(others)})" if others else ""
        return f"Set {setting}={first}{also}, the replacement that {self.vendor} names. Its price may differ."


def find_retirement(vendor: str, model: str) -> Retirement | None:
    """What is known about the end of a model, or `None`.

    Args:
        vendor: `OpenAI` or `Gemini`.
        model: Its name; a prefix that ends in a slash (`models/…`, a gateway's `openai/…`) is ignored.
    """
    name = model.rpartition("/")[2]
    return next(
        (
            entry
            for entry in RETIREMENTS
            if entry.vendor == vendor and any(fnmatchcase(name, m) for m in entry.models)
        ),
        None,
    )


def utc_today() -> date:
    """Today, as vendors count days."""
    return datetime.now(UTC).date()


def _openai(shutdown: date | None, models: str, replacements: str, source: str = _OPENAI) -> Retirement:
    return _entry("OpenAI", shutdown, models, replacements, source)


def _gemini(shutdown: date | None, models: str, replacements: str, source: str = _GEMINI) -> Retirement:
    return _entry("Gemini", shutdown, models, replacements, source)


def _entry(vendor: str, shutdown: date | None, models: str, replacements: str, source: str) -> Retirement:
    return Retirement(
        vendor=vendor,
        models=tuple(models.split()),
        shutdown=shutdown,
        replacements=tuple(replacements.split()),
        source=source,
    )


#: The first entry that fits counts. Names are separated by blanks.
RETIREMENTS: tuple[Retirement, ...] = (
    # --- OpenAI -------------------------------------------------------------------------------------------
    _openai(date(2026, 5, 12), "dall-e-2 dall-e-3", "gpt-image-2.6-flare gpt-image-2.6-sunburst"),
    # The SDK's own words: "Use gpt-image-2.5-sunburst or gpt-image-2.5-flare instead."
    _openai(date(2026, 10, 23), "gpt-image-1", "gpt-image-2.5-flare gpt-image-2.5-sunburst", _OPENAI_SDK),
    _openai(
        date(2026, 12, 1),
        "gpt-image-1-mini gpt-image-1.5 gpt-image-1.5-2025-12-16 chatgpt-image-latest",
        "gpt-image-2.6-flare gpt-image-2.6-sunburst",
    ),
    # --- Gemini -------------------------------------------------------------------------------------------
    _gemini(date(2025, 11, 10), "imagen-3.0-generate-002", "gemini-nano-banana-2.1"),
    _gemini(
        date(2026, 2, 17),
        "imagen-4.0-generate-preview-06-06 imagen-4.0-ultra-generate-preview-06-06",
        "gemini-nano-banana-2.1",
        _GEMINI_LOG,
    ),
    _gemini(date(2026, 8, 17), "imagen-4.0-ultra-generate-001", "gemini-3-pro-image", _IMAGEN),
    # "All Imagen models are deprecated and will shut down as early as August 17, 2026."
    _gemini(date(2026, 8, 17), "imagen-*", "gemini-nano-banana-2.1", _IMAGEN),
    _gemini(date(2026, 1, 15), "gemini-2.5-flash-image-preview", "gemini-nano-banana-2.1", _GEMINI_LOG),
    _gemini(date(2026, 6, 25), "gemini-3-pro-image-preview", "gemini-3-pro-image"),
    _gemini(date(2026, 6, 25), "gemini-3.1-flash-image-preview", "gemini-nano-banana-2.1"),
    _gemini(date(2026, 10, 2), "gemini-2.5-flash-image", "gemini-nano-banana-2.1"),
    # Deprecated on 2026-10-06 with "no shutdown date announced"; third parties report 2026-10-29.
    _gemini(None, "gemini-3.1-flash-image", "gemini-nano-banana-2.1", _GEMINI_LOG),
)
