"""Which models live until when: what is known here (`DEPRECATIONS`), and what a vendor says when asked.

`DEPRECATIONS` is the one thing to edit when a vendor announces something; `docs/models.md` says how. It serves for
warnings and advice and decides nothing else: every model is tried, whether it is listed or not, and none is ever
replaced by another. What a vendor says when asked (`manage.py images_doctor`) outweighs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase

from .http import safe_id

#: The day on which the sources below were last read.
READ_ON = date(2026, 11, 28)

_OPENAI = "https://developers.openai.com/api/docs/deprecations"
_OPENAI_SDK = "openai 3.57.0, openai/types/image_model.py"
_GEMINI = "https://ai.google.dev/gemini-api/docs/deprecations"
_GEMINI_LOG = "https://ai.google.dev/gemini-api/docs/changelog"
_IMAGEN = "https://firebase.google.com/docs/ai-logic/imagen-models-migration"


#: The most names to list for an operator who has to choose a model.
_MOST_NAMES = 12
#: What image models have in their names. It only shortens the list.
_WORDS = ("image", "banana", "dall-e")


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """A vendor's answer: the key was accepted, and the model exists for it.

    Attributes:
        shutdown: The first day on which the model does not answer; `None` if the vendor says nothing about it.
        doubt: A sentence if the vendor did not quite say so; "" otherwise.
    """

    shutdown: date | None = None
    doubt: str = ""


def image_model_names(names: Iterable[str]) -> tuple[str, ...]:
    """The image models among `names`, or all of them if none looks like one; the newest families last."""
    every = sorted({clean for name in names if (clean := safe_id(name))})
    return tuple([name for name in every if any(word in name for word in _WORDS)] or every)[-_MOST_NAMES:]


def parse_day(text: object) -> date | None:
    """A day written as YYYY-MM-DD; `None` for anything else."""
    try:
        return date.fromisoformat(str(text)[:10])
    except ValueError:
        return None


@dataclass(frozen=True, kw_only=True)
class Deprecation:
    """What a vendor has said about the end of some models.

    Attributes:
        vendor: As in the provider's `Vendor.name`.
        models: Their names; `*` at the end stands for any rest.
        shutdown: The first day on which they do not answer (UTC); `None` if no day has been named yet.
        replacements: What the vendor says to use instead, the one that suits most first. If the vendor named a
            model that is gone by now, what it names for that one.
        source: The address of the announcement.
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
        """What the vendor says about `model`, one of these."""
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


def find_deprecation(vendor: str, model: str) -> Deprecation | None:
    """What is known about the end of a model, or `None`.

    Args:
        vendor: `OpenAI` or `Gemini`.
        model: Its name; a prefix that ends in a slash (`models/…`, a gateway's `openai/…`) is ignored.
    """
    name = model.rpartition("/")[2]
    return next(
        (
            entry
            for entry in DEPRECATIONS
            if entry.vendor == vendor and any(fnmatchcase(name, m) for m in entry.models)
        ),
        None,
    )


def utc_today() -> date:
    """Today, as vendors count days."""
    return datetime.now(UTC).date()


def _openai(shutdown: date | None, models: str, replacements: str, source: str = _OPENAI) -> Deprecation:
    return _entry("OpenAI", shutdown, models, replacements, source)


def _gemini(shutdown: date | None, models: str, replacements: str, source: str = _GEMINI) -> Deprecation:
    return _entry("Gemini", shutdown, models, replacements, source)


def _entry(vendor: str, shutdown: date | None, models: str, replacements: str, source: str) -> Deprecation:
    return Deprecation(
        vendor=vendor,
        models=tuple(models.split()),
        shutdown=shutdown,
        replacements=tuple(replacements.split()),
        source=source,
    )


#: The first entry that fits counts. Names are separated by blanks.
DEPRECATIONS: tuple[Deprecation, ...] = (
    # --- OpenAI -------------------------------------------------------------------------------------------
    _openai(date(2026, 5, 12), "dall-e-2 dall-e-3", "gpt-image-2.6-flare gpt-image-2.6-sunburst"),
    # The SDK's own words: "Use gpt-image-2.5-sunburst or gpt-image-2.5-flare instead."
    _openai(date(2026, 10, 23), "gpt-image-1", "gpt-image-2.5-flare gpt-image-2.5-sunburst", _OPENAI_SDK),
    _openai(
        date(2026, 12, 1),
        "gpt-image-1-mini gpt-image-1.5 gpt-image-1.5-2025-12-16 chatgpt-image-latest",
        "gpt-image-2.6-flare gpt-image-2.6-sunburst",
    ),
    # Text models, for scenes.
    _openai(date(2026, 12, 11), "gpt-5 gpt-5-2025-08-07", "gpt-6.1-sol"),
    _openai(date(2026, 12, 11), "gpt-5-mini gpt-5-mini-2025-08-07", "gpt-6.1-terra"),
    _openai(date(2026, 12, 11), "gpt-5-nano gpt-5-nano-2025-08-07", "gpt-6-luna"),
    _openai(date(2027, 1, 14), "gpt-4o gpt-4o-2024-* gpt-4o-mini gpt-4o-mini-2024-*", "gpt-6-luna"),
    _openai(date(2027, 1, 14), "gpt-4.1 gpt-4.1-2025-* gpt-4.1-mini gpt-4.1-mini-2025-*", "gpt-6-luna"),
    _openai(date(2026, 10, 23), "gpt-4 gpt-4-* o1 o1-2024-* o3-mini o3-mini-*", "gpt-5.6-sol"),
    _openai(date(2026, 10, 23), "gpt-3.5-turbo gpt-3.5-turbo-* o4-mini o4-mini-*", "gpt-5.6-terra"),
    _openai(date(2026, 10, 23), "gpt-4.1-nano gpt-4.1-nano-*", "gpt-5.6-luna"),
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
    # Google's own day. Third parties also name 2027-03-15.
    _gemini(date(2026, 10, 2), "gemini-2.5-flash-image", "gemini-nano-banana-2.1"),
    # Deprecated on 2026-10-06 with "no shutdown date announced". Third parties reported 2026-10-29; one of them,
    # LiteLLM, has taken the day out of its list again.
    _gemini(None, "gemini-3.1-flash-image", "gemini-nano-banana-2.1", _GEMINI_LOG),
    # Text models, for scenes. From that day on Google answers with the replacement, at its price.
    _gemini(date(2026, 12, 1), "gemini-2.5-flash", "gemini-3.5-flash-lite"),
    _gemini(date(2026, 12, 1), "gemini-2.5-pro", "gemini-3.8-flash"),
    _gemini(date(2026, 6, 1), "gemini-2.0-flash gemini-2.0-flash-*", "gemini-3.1-flash-lite", _GEMINI_LOG),
)
