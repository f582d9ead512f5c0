"""What both vendors answer when they are asked about their models: `GET …/models` and `GET …/models/{name}`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from images.conformance.deliveries import Answer
from tests.fakes import answers
from tests.fakes.answers import Wish
from tests.fakes.pictures import HTML

Models = Mapping[str, dict[str, Any]]


def model_answer(path: str, headers: Mapping[str, str], mode: str, models: Models) -> Answer:
    """The answer to one question.

    Args:
        path: The request's path. The last part is the model's name, or `models` for the whole list.
        headers: The request's, names in lower case.
        mode: `ok`, `html`, `missing_scopes`, `plain_404`, `echo` (an error that repeats the key), or an error mode of
            `answers.error`.
        models: Names with what is told about them beyond the ordinary: OpenAI's `shutdown_date`, Gemini's
            `supportedGenerationMethods`, or `{"gone": True}`. The list holds these alone; a single question about
            any other name is answered as if it existed.
    """
    is_gemini = "x-goog-api-key" in headers
    if not is_gemini and not headers.get("authorization", "").startswith("Bearer "):
        return Answer(b'{"error": {"message": "no key"}}', 401)
    name = path.partition("?")[0].rpartition("/")[2]
    wish = Wish("gemini" if is_gemini else "openai", 0, 0)
    if mode == "html":
        return Answer(HTML, content_type="text/html")
    if mode == "echo":
        key = headers.get("x-goog-api-key") or headers["authorization"]
        return Answer(json.dumps({"error": {"message": f"{key} is wrong", "code": key, "status": key}}).encode(), 401)
    if mode == "missing_scopes":
        return Answer(b'{"error": {"message": "Missing scopes: api.model.read", "code": null}}', 401)
    if mode == "plain_404":
        return Answer(b"404 page not found", 404, content_type="text/plain")
    if models.get(name, {}).get("gone"):
        mode = "http_404"
    if failed := answers.error(wish, mode):
        return failed
    entry = _gemini_entry if is_gemini else _openai_entry
    if name != "models":
        return _json(entry(name, models.get(name, {})))
    listed = [entry(known, facts) for known, facts in models.items() if not facts.get("gone")]
    return _json({"models": listed} if is_gemini else {"object": "list", "data": listed})


def _openai_entry(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    plain = {"id": name, "object": "model", "created": 1790000000, "owned_by": "openai", "shutdown_date": None}
    return plain | facts


def _gemini_entry(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    methods = ["generateContent", "countTokens"]
    return {"name": f"models/{name}", "version": "1", "supportedGenerationMethods": methods} | facts


def _json(value: Any) -> Answer:
    return Answer(json.dumps(value).encode())
