"""What a vendor says about a model when asked by a call that costs nothing. Both SDK providers use it.

OpenAI tells the day of the shutdown (`GET /v1/models/{model}`, `shutdown_date`); Google only whether the model is
there and what it can do (`models.get`, `supportedGenerationMethods`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from .exchange import safe_id

if TYPE_CHECKING:
    from google.genai import Client
    from openai import OpenAI

#: The most names to tell somebody who has to choose one.
_MOST_NAMES = 12
#: What image models have in their names. It only shortens a list for people.
_WORDS = ("image", "banana", "dall-e")


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """A vendor's answer: the key was accepted, and the model exists for it.

    Attributes:
        shutdown: The first day on which the model does not answer; `None` where the vendor says nothing of it.
        doubt: A sentence where the vendor did not quite say so; "" otherwise.
    """

    shutdown: date | None = None
    doubt: str = ""


def openai_status(client: OpenAI, model: str, timeout: float, *, is_own: bool) -> ModelStatus:
    """Ask OpenAI, or a server that speaks its API.

    Args:
        client: The SDK's client.
        model: The model's name.
        timeout: Seconds.
        is_own: It is OpenAI itself: other servers may not know this call.

    Raises:
        openai.OpenAIError: As for any other call, but not for a key that may paint and not look at models.
    """
    import openai

    try:
        found = client.models.retrieve(model, timeout=timeout)
    except openai.APIStatusError as err:
        if err.status_code == 403 or "Missing scopes" in str(err):
            return ModelStatus(doubt="The key was accepted, but may not look at models.")
        if not is_own and err.status_code in (404, 405, 501) and err.code != "model_not_found":
            return ModelStatus(doubt="The server under OPENAI_BASE_URL does not tell which models it has.")
        raise
    _ = found.id  # An answer that is none (HTML, say) has no such thing.
    return ModelStatus(shutdown=_day(found.shutdown_date))


def openai_names(client: OpenAI, timeout: float) -> tuple[str, ...]:
    """The image models that the key has, but for those whose end has been announced."""
    models = client.models.list(timeout=timeout).data
    return _chosen(model.id for model in models if _day(model.shutdown_date) is None)


def gemini_status(client: Client, model: str, timeout: float) -> ModelStatus | None:
    """Ask Google; `None` where the model is there, but not for `generateContent` (Imagen, embeddings)."""
    found = client.models.get(model=model, config={"http_options": {"timeout": max(1, int(timeout * 1000))}})
    actions = found.supported_actions
    return ModelStatus() if not actions or "generateContent" in actions else None


def gemini_names(client: Client, timeout: float) -> tuple[str, ...]:
    """The image models that the key has."""
    options: Any = {"page_size": 1000, "http_options": {"timeout": max(1, int(timeout * 1000))}}
    models = client.models.list(config=options).page
    return _chosen(
        (model.name or "").rpartition("/")[2]
        for model in models
        if "generateContent" in (model.supported_actions or ["generateContent"])
    )


def _chosen(names: Iterable[str]) -> tuple[str, ...]:
    """The names of image models, or whatever there is where none looks like one; the newest families last."""
    every = sorted({clean for name in names if (clean := safe_id(name))})
    return tuple([name for name in every if any(word in name for word in _WORDS)] or every)[-_MOST_NAMES:]


def _day(text: object) -> date | None:
    """A day written as YYYY-MM-DD; `None` for anything else."""
    try:
        return date.fromisoformat(str(text)[:10])
    except ValueError:
        return None
