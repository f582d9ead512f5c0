"""Taking the images out of a large JSON answer before an SDK sees it.

An answer of two megabytes is base64 but for a few hundred bytes. Both SDKs would decode it to text, parse it,
copy it and hold several copies at once. Here the base64 is cut out of the bytes as they came, without parsing or
copying it, and decoded with a fast library; what is left is small enough to be parsed for nothing (a parser alone,
even orjson, takes a millisecond or two for its copy). Short stand-ins take the images' places.
Whatever is malformed stays as it is, so that the SDK reports it in its own way.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Iterator
from typing import Any

from .exchange import Exchange

try:
    import orjson
except ImportError:  # The extra "fast" is not installed: the standard library does the same, slower.
    orjson = None  # type: ignore[assignment]
try:
    import pybase64
except ImportError:
    pybase64 = None  # type: ignore[assignment]

#: Answers up to this many bytes are left alone: there is nothing to gain.
SMALL_ANSWER = 64 * 1024

#: Shorter texts are left in the answer, for the same reason.
_SHORT_TEXT = 4096

# Where a text may begin that is an image. Inside of a text every quote has a backslash before it, so that no title
# or prompt in an answer looks like this.
_BEGINNING = re.compile(rb'(?<!\\)"(?:b64_json|data)"\s*:\s*"')

#: Begins what stands in the answer while it is parsed; random, so that no provider can send it.
_MARK = f"cut:{secrets.token_hex(8)}:"


def decode_base64(text: str | bytes | memoryview) -> bytes:
    """Decode standard base64 strictly.

    Raises:
        ValueError: There is a character that does not belong, or the padding is wrong.
    """
    if pybase64 is not None:
        return pybase64.b64decode(text, validate=True)
    return base64.b64decode(text, validate=True)


def lift_images(body: bytes, exchange: Exchange) -> bytes:
    """Move the images in `body` to `exchange.images`.

    Returns:
        The same JSON with a stand-in in each image's place (see `Exchange.restore`); `body` itself where it is small
        or no JSON.
    """
    if len(body) <= SMALL_ANSWER:
        return body
    rest, cuts = _cut(body)
    try:
        answer = orjson.loads(rest) if orjson is not None else json.loads(rest)
        for holder, key in _places(answer):
            holder[key] = exchange.lift(_decoded(cuts.pop(holder[key])))
    except (ValueError, RecursionError):  # The SDK meets the same and says so; see the module's docstring.
        return body
    if cuts:  # A long text somewhere else: whatever it means is for the SDK to say.
        return body
    return orjson.dumps(answer) if orjson is not None else json.dumps(answer).encode()


def _cut(body: bytes) -> tuple[bytes, dict[str, memoryview]]:
    """The answer with a mark for each text that may be an image, and those texts by their marks."""
    pieces: list[bytes | memoryview] = []
    cuts: dict[str, memoryview] = {}
    view, kept_to = memoryview(body), 0
    while beginning := _BEGINNING.search(body, kept_to):
        start = beginning.end()
        end = body.find(b'"', start)
        if end < 0:
            break
        pieces.append(view[kept_to:start])
        if end - start > _SHORT_TEXT:
            mark = f"{_MARK}{len(cuts)}"
            cuts[mark] = view[start:end]
            pieces.append(mark.encode())
        else:
            pieces.append(view[start:end])
        kept_to = end
    pieces.append(view[kept_to:])
    return b"".join(pieces), cuts


def _decoded(text: memoryview) -> bytes:
    """The bytes of an image as it stands in JSON, where some servers write `/` as `\\/`."""
    try:
        return decode_base64(text)
    except ValueError:
        return decode_base64(bytes(text).replace(b"\\/", b"/"))


def _places(answer: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Where an image's text stands: OpenAI's `data[].b64_json`, Gemini's `…parts[].inlineData.data`."""
    for item in _dicts(answer, "data"):
        if _is_cut(item.get("b64_json")):
            yield item, "b64_json"
    for candidate in _dicts(answer, "candidates"):
        for part in _dicts(candidate.get("content"), "parts"):
            inline = part.get("inlineData")
            if isinstance(inline, dict) and _is_cut(inline.get("data")):
                yield inline, "data"


def _dicts(holder: Any, key: str) -> Iterator[dict[str, Any]]:
    """The dicts in the list `holder[key]`, as far as they are there: an answer may hold anything."""
    items = holder.get(key) if isinstance(holder, dict) else None
    return (item for item in items if isinstance(item, dict)) if isinstance(items, list) else iter(())


def _is_cut(text: Any) -> bool:
    return isinstance(text, str) and text.startswith(_MARK)
