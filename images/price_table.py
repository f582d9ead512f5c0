"""What the vendors charge: `PRICES` is the one thing to edit when a price changes; `docs/models.md` says how.

It holds published list prices only. A model that is not listed has no price here, and its cost stays unknown unless
the operator names a price (`IMAGES["PRICES"]`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

#: The day on which the sources below were last read.
READ_ON = date(2026, 11, 28)
#: A price that nobody has looked up for longer than this is reported by `manage.py check` and the doctor.
MAX_AGE = timedelta(days=90)

#: The kinds of tokens that have a price of their own, as `Price` names them.
TOKEN_KINDS = ("text_in", "cached_text_in", "image_in", "cached_image_in", "text_out", "image_out")


@dataclass(frozen=True, kw_only=True)
class Price:
    """What some models cost, in US dollars.

    Attributes:
        models: Their names, exactly as requested; a date at the end (`-2026-09-08`) is ignored.
        text_in: For a million tokens of text that the model reads.
        cached_text_in: For those of them that the vendor had cached.
        image_in: For a million tokens of pictures that the model reads.
        cached_image_in: For those of them that the vendor had cached.
        text_out: For a million tokens of text that the model writes, and of its thinking.
        image_out: For a million tokens of the picture.
        image: For a whole picture, whatever its tokens. An operator's own price only.
        picture_tokens: About how many tokens a picture takes as this app asks for it by default. It only estimates
            what a picture is going to cost; what one did cost follows from what the vendor reports.
        dated: The day on which the source was read; `None` for an operator's own price.
        source: Where it was read.
    """

    models: tuple[str, ...] = ()
    text_in: Decimal | None = None
    cached_text_in: Decimal | None = None
    image_in: Decimal | None = None
    cached_image_in: Decimal | None = None
    text_out: Decimal | None = None
    image_out: Decimal | None = None
    image: Decimal | None = None
    picture_tokens: int | None = None
    dated: date | None = None
    source: str = ""

    def is_old(self, today: date) -> bool:
        """Whether nobody has compared it with its source for too long."""
        return self.dated is not None and today - self.dated > MAX_AGE


_OPENAI = "https://developers.openai.com/api/docs/models/"
_LITELLM = "LiteLLM 1.110.2, from https://developers.openai.com/api/docs/pricing"
_GOOGLE = "genai-prices 0.2.3 and LiteLLM 1.110.2, from https://ai.google.dev/gemini-api/docs/pricing"


def _openai(
    models: str,
    text_in: str,
    image_in: str,
    text_out: str,
    image_out: str,
    tokens: int | None,
    source: str,
    dated: date = READ_ON,
) -> Price:
    """An entry of OpenAI's; the price of cached tokens follows after a blank."""
    text, cached_text = map(Decimal, text_in.split())
    image, cached_image = map(Decimal, image_in.split())
    return Price(
        models=tuple(models.split()),
        text_in=text,
        cached_text_in=cached_text,
        image_in=image,
        cached_image_in=cached_image,
        text_out=Decimal(text_out) if text_out else None,
        image_out=Decimal(image_out),
        picture_tokens=tokens,
        dated=dated,
        source=source,
    )


def _gemini(
    models: str,
    tokens_in: str,
    text_out: str,
    image_out: str,
    tokens: int,
    source: str = _GOOGLE,
    dated: date = READ_ON,
) -> Price:
    """An entry of Google's, which asks the same for the text and the pictures that a model reads."""
    return Price(
        models=tuple(models.split()),
        text_in=Decimal(tokens_in),
        image_in=Decimal(tokens_in),
        text_out=Decimal(text_out),
        image_out=Decimal(image_out),
        picture_tokens=tokens,
        dated=dated,
        source=source,
    )


def _text(models: str, text_in: str, text_out: str, source: str) -> Price:
    """An entry of a text model, which thinks up scenes; the price of cached tokens follows after a blank."""
    text, *cached = map(Decimal, text_in.split())
    return Price(
        models=tuple(models.split()),
        text_in=text,
        cached_text_in=cached[0] if cached else None,
        text_out=Decimal(text_out),
        dated=READ_ON,
        source=source,
    )


#: Names are separated by blanks. Prices are those of a million tokens: read (cached), read as pictures (cached),
#: written as text ("" for models that write none), written as a picture. The tokens of a picture are the most that
#: docs/models.md has for the app's default size and quality. An entry that was read on another day than the others
#: says so (`dated=`).
PRICES: tuple[Price, ...] = (
    # --- OpenAI -------------------------------------------------------------------------------------------
    _openai("gpt-image-2.6-sunburst", "5 1.25", "8 2", "", "30", 1400, f"{_OPENAI}gpt-image-2.6-sunburst"),
    _openai("gpt-image-2.6-flare", "5 1.25", "8 2", "", "30", 1400, _LITELLM),
    _openai("gpt-image-2.5-flare gpt-image-2.5-sunburst", "5 1.25", "8 2", "", "30", 349, _LITELLM),
    _openai("gpt-image-2", "5 1.25", "8 2", "", "30", 1395, _LITELLM),
    _openai("gpt-image-1.5 chatgpt-image-latest", "5 1.25", "8 2", "10", "32", None, _LITELLM),
    _openai("gpt-image-1", "5 1.25", "10 2.50", "", "40", None, _LITELLM),
    _openai("gpt-image-1-mini", "2 0.20", "2.50 0.25", "", "8", None, f"{_OPENAI}gpt-image-1-mini"),
    _text("gpt-6-luna", "0.10 0.01", "0.50", f"{_OPENAI}gpt-6-luna"),
    _text("gpt-5.6-luna", "0.20 0.02", "1.20", f"{_OPENAI}gpt-5.6-luna"),
    # --- Gemini: no price for cached tokens is published for these ---------------------------------------
    _gemini("gemini-nano-banana-2.1", "1.50", "7.50", "30", 1120),
    _gemini("gemini-3-pro-image", "2", "12", "120", 1120),
    _gemini("gemini-3.1-flash-image", "0.50", "3", "60", 1120),
    _gemini("gemini-3.1-flash-lite-image", "0.25", "1.50", "30", 1120),
    _gemini("gemini-2.5-flash-image", "0.30", "2.50", "30", 1290),
    _text("gemini-3.5-flash-lite", "0.30", "2.50", "https://ai.google.dev/gemini-api/docs/whats-new-gemini-3.6"),
)
