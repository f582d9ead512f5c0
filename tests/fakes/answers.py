"""What OpenAI and Gemini answer, mode by mode, as recorded from the real services."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from images.conformance.deliveries import Answer
from tests.fakes.pictures import HTML, SVG, picture, signed


@dataclass(frozen=True)
class Wish:
    """What a request asked for."""

    api: str
    width: int
    height: int
    kind: str = "png"
    image_bytes: int = 0
    files_url: str = ""

    def image(self) -> bytes:
        """The picture that fits."""
        return picture(self.kind, self.width, self.height, self.image_bytes)


def _json(value: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    return Answer(json.dumps(value).encode(), status, headers)


def with_images(wish: Wish, *images: bytes | str, **changes: Any) -> dict[str, Any]:
    """A proper answer that holds `images` (bytes, or text that stands in base64's place)."""
    texts = [image if isinstance(image, str) else base64.b64encode(image).decode() for image in images]
    if wish.api == "openai":
        usage = {"input_tokens": 50, "output_tokens": 1056, "total_tokens": 1106}
        usage |= {"input_tokens_details": {"text_tokens": 50, "image_tokens": 0}}  # type: ignore[dict-item]
        data = [{"b64_json": text} for text in texts]
        return {"created": 1795418515, "data": data, "output_format": wish.kind, "usage": usage} | changes
    parts = [{"inlineData": {"mimeType": f"image/{wish.kind}", "data": text}} for text in texts]
    return gemini(parts) | changes


def gemini(parts: list[dict[str, Any]] | None, finish: str = "STOP", **more: Any) -> dict[str, Any]:
    """A `generateContent` answer with these parts, or with no content at all; `more` is added to the candidate."""
    candidate: dict[str, Any] = {"finishReason": finish, "index": 0, **more}
    if parts is not None:
        candidate["content"] = {"role": "model", "parts": parts}
    usage = {"promptTokenCount": 40, "candidatesTokenCount": 1290, "totalTokenCount": 1330}
    usage["candidatesTokensDetails"] = [{"modality": "IMAGE", "tokenCount": 1290}]  # type: ignore[assignment]
    return {"candidates": [candidate], "usageMetadata": usage, "responseId": "resp_fake", "modelVersion": "fake"}


_OPENAI_ERRORS: dict[str, tuple[int, str, str | None, str | None]] = {
    "http_400": (400, "Invalid value: '12x12'.", "invalid_value", "image_generation_user_error"),
    "http_401": (401, "Incorrect API key provided: sk-fake***. ", "invalid_api_key", "invalid_request_error"),
    "http_403": (403, "Your organization must be verified.", None, "invalid_request_error"),
    "http_404": (404, "The model does not exist.", "model_not_found", "invalid_request_error"),
    "http_429": (429, "Rate limit reached.", "rate_limit_exceeded", "input-images"),
    "http_503": (503, "The engine is overloaded.", "server_overloaded", "server_error"),
    "quota": (429, "You exceeded your current quota.", "insufficient_quota", "insufficient_quota"),
    "billing": (400, "Billing hard limit.", "billing_hard_limit_reached", "billing_limit_user_error"),
    "content_policy": (400, "Rejected by the safety system.", "moderation_blocked", "image_generation_user_error"),
    "content_policy_legacy": (400, "Rejected.", "content_policy_violation", "invalid_request_error"),
    "safety_block": (400, "Rejected by the safety system.", "moderation_blocked", "image_generation_user_error"),
    "no_such_model": (400, "Invalid model.", "invalid_value", "invalid_request_error"),
}

_GEMINI_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
_GEMINI_STATUS |= {408: "DEADLINE_EXCEEDED", 409: "ABORTED", 413: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED"}
_GEMINI_STATUS |= {500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED", 529: "INTERNAL"}


def _openai_error(mode: str) -> Answer:
    status = int(mode[5:]) if mode.startswith("http_") else 400
    default = (status, "Request failed.", "server_error" if status >= 500 else None, None)
    status, message, code, kind = _OPENAI_ERRORS.get(mode, default)
    param = "model" if mode == "no_such_model" else None
    headers = (("Retry-After", "2"),) if mode == "http_429" else ()
    return _json({"error": {"message": message, "code": code, "type": kind, "param": param}}, status, headers)


def rate_limited(seconds: float) -> Answer:
    """OpenAI's refusal of a request above the rate limit, with the exact time."""
    body = {"error": {"message": "Rate limit reached.", "code": "rate_limit_exceeded", "type": "requests"}}
    return _json(body, 429, (("Retry-After-Ms", str(int(seconds * 1000) + 1)),))


def _quota_details(period: str) -> list[dict[str, Any]]:
    kind = "type.googleapis.com/google.rpc."
    violation = {"quotaId": f"GenerateRequestsPer{period}PerProjectPerModel", "quotaValue": "10"}
    return [
        {"@type": f"{kind}QuotaFailure", "violations": [violation]},
        {"@type": f"{kind}RetryInfo", "retryDelay": "2s"},
    ]


def _gemini_error(mode: str) -> Answer:
    details: list[dict[str, Any]] = []
    if mode in ("quota", "http_429"):
        details = _quota_details("Day" if mode == "quota" else "Minute")
    status = {"quota": 429, "bad_key": 400, "location": 400}.get(mode) or int(mode[5:])
    word = "FAILED_PRECONDITION" if mode == "location" else _GEMINI_STATUS.get(status, "UNKNOWN")
    message = "Request failed."
    if mode == "bad_key":
        message, details = "API key not valid.", [{"reason": "API_KEY_INVALID", "domain": "googleapis.com"}]
    return _json({"error": {"code": status, "message": message, "status": word, "details": details}}, status)


def echo(headers: Mapping[str, str]) -> Answer:
    """An error that repeats every header of the request, the key among them."""
    said = " ".join(headers.values())
    return _json({"error": {"message": said, "code": said, "status": said}}, 400)


def error(wish: Wish, mode: str) -> Answer | None:
    """The error answer of a mode, or `None` where it is none."""
    if worded := _worded(mode):
        return worded
    known = mode.startswith("http_") or (mode in _OPENAI_ERRORS if wish.api == "openai" else mode in _GEMINI_ERRORS)
    if not known:
        return None
    if mode == "http_502":
        return Answer(HTML, 502, content_type="text/html")
    return _openai_error(mode) if wish.api == "openai" else _gemini_error(mode)


_GEMINI_ERRORS = {"quota", "bad_key", "location"}


def _draft_first(wish: Wish) -> dict[str, Any]:
    answer = with_images(wish, picture("png", 64, 64), wish.image())
    answer["candidates"][0]["content"]["parts"][0]["thought"] = True
    return answer


def _broken_json(wish: Wish) -> bytes:
    return json.dumps(with_images(wish, wish.image())).encode()[:-20] + b"..."


def _padded(wish: Wish, value: Any) -> Answer:
    """A large answer, so that it takes the transport's way for large ones."""
    return _json({**value, "padding": "x" * 100_000})


def _reported(wish: Wish, code: str, status: int, word: str) -> Answer:
    """An error inside an answer whose status is 200, as gateways send it."""
    if wish.api == "openai":
        return _json({"error": {"message": "Upstream failed.", "code": code}, "data": None})
    return _json({"error": {"code": status, "message": f"Upstream failed: {code}", "status": word}})


#: What a gateway reports besides tokens: money, with decimals.
COST = {"total_tokens": 7, "cost": 0.0421735, "cost_details": {"upstream_inference_cost": 0.04}}


def _costing(wish: Wish, value: dict[str, Any]) -> Answer:
    """An answer that reports `COST` as used."""
    return _json({**value, "usage" if wish.api == "openai" else "usageMetadata": COST})


_WRAPPED = "litellm.BadRequestError: OpenAIException - Error code: 400 - {'error': {'code': '%s', 'param': None}}"

#: Errors in other people's words: the status, and the body of either API.
_WORDED: dict[str, tuple[int, Any]] = {
    "azure_filter": (
        400,
        {
            "error": {
                "code": "content_filter",
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
                "message": "",
            }
        },
    ),
    "wrapped_refusal": (400, {"error": {"message": _WRAPPED % "moderation_blocked", "code": "400"}}),
    "wrapped_refusal_500": (500, {"error": {"message": _WRAPPED % "content_policy_violation", "type": None}}),
    "wrapped_quota": (429, {"error": {"message": _WRAPPED % "insufficient_quota", "code": "429"}}),
    "azure_task": (400, {"error": {"code": "contentFilter", "message": "Your task failed."}}),
    "azure_policy": (400, {"error": {"code": None, "message": "Filtered by the content management policy."}}),
    "router_flagged": (
        403,
        {"error": {"code": 403, "message": "No.", "metadata": {"reasons": ["hate"], "flagged_input": "x"}}},
    ),
    "router_words": (403, {"error": {"code": 403, "message": "It requires moderation and your input was flagged."}}),
    "router_raw": (
        400,
        {"error": {"message": "Provider returned error", "metadata": {"raw": _WRAPPED % "moderation_blocked"}}},
    ),
    "bare_rate": (200, {"code": 429, "message": "Slow down."}),
    "bare_moderation": (200, {"code": "moderation_blocked", "message": "No."}),
    "bare_detail": (200, {"detail": "Something is wrong."}),
    "detail": (400, {"detail": "size 1536x864 is not supported"}),
    "error_text": (400, {"error": "size 1536x864 is not supported"}),
    "error_list": (400, [{"msg": "size 1536x864 is not supported"}]),
}
_NO_PLAN = "You exceeded your current quota, please check your plan and billing details."


def _worded(mode: str) -> Answer | None:
    if mode == "error_plain":
        return Answer(b"size 1536x864 is not supported", 400, content_type="text/plain")
    if mode == "no_plan":
        return _json({"error": {"code": 429, "message": _NO_PLAN, "status": "RESOURCE_EXHAUSTED"}}, 429)
    return _json(_WORDED[mode][1], _WORDED[mode][0]) if mode in _WORDED else None


#: Proper answers (status 200) whose content is special. Each takes the wish.
SPECIAL: dict[str, Callable[[Wish], Answer]] = {
    "ok": lambda wish: _json(with_images(wish, wish.image())),
    # A byte longer than the picture of "ok", so that two callers' pictures can be told apart.
    "signed": lambda wish: _json(with_images(wish, signed(wish.image()))),
    "other_picture": lambda wish: _json(with_images(wish, replace(wish, image_bytes=wish.image_bytes + 1).image())),
    "empty": lambda wish: _json({"created": 1, "data": []} if wish.api == "openai" else gemini([])),
    "empty_body": lambda wish: _json({}),
    "null_data": lambda wish: _json({"created": 1, "data": None, "candidates": None}),
    "text_only": lambda wish: _json(gemini([{"text": "I would rather not."}])),
    "no_image": lambda wish: _json(gemini(None, "NO_IMAGE")),
    "image_other": lambda wish: _json(gemini(None, "IMAGE_OTHER")),
    "content_policy": lambda wish: _json({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}),
    "safety_block": lambda wish: _json(gemini(None, "IMAGE_SAFETY")),
    "continuation": lambda wish: _json(gemini(None, "CONTINUATION", continuationToken="QUJD")),
    "garbage": lambda wish: Answer(b'{"created": 1, "data": [{"b64_json": "iVBORw0KGgo...'),
    "garbage_large": lambda wish: Answer(_broken_json(wish)),
    "garbage_bytes": lambda wish: Answer(b'{"created": 1, "data": [{"b64_json": "\xff\xfe\x00"}]}'),
    "garbage_html": lambda wish: Answer(HTML, content_type="text/html"),
    "deep_json": lambda wish: Answer(b"[" * 200_000),
    "odd_shape": lambda wish: _json({"data": "none", "candidates": "none"}),
    "odd_items": lambda wish: _json({"data": [1, {"b64_json": 7}], "candidates": [3]}),
    "a_list": lambda wish: _json([1, 2, 3]),
    "odd_usage": lambda wish: _json(
        with_images(
            wish, wish.image(), usage={"input_tokens": "many\0", "output_tokens": float("nan"), "total_tokens": 7}
        )
    ),
    "cost": lambda wish: _costing(wish, with_images(wish, wish.image())),
    "cost_header": lambda wish: _json(
        with_images(wish, wish.image()), 200, (("X-LiteLLM-Response-Cost", "4.2e-02"),)
    ),
    "cost_no_image": lambda wish: _costing(wish, {"data": []} if wish.api == "openai" else gemini(None, "NO_IMAGE")),
    "cost_flagged": lambda wish: _costing(
        wish, {"data": [{"flagged": True}]} if wish.api == "openai" else gemini(None, "IMAGE_SAFETY")
    ),
    "cost_reported": lambda wish: _costing(wish, {"error": {"code": 500, "message": "Upstream failed."}}),
    "cost_base64": lambda wish: _costing(wish, with_images(wish, "this is !!! no base64")),
    "cost_svg": lambda wish: _costing(wish, with_images(wish, SVG)),
    "cost_url": lambda wish: _costing(wish, {"data": [{"url": f"{wish.files_url}/1.png"}]}),
    "not_an_image": lambda wish: _json(with_images(wish, HTML)),
    "svg": lambda wish: _json(with_images(wish, SVG)),
    "json": lambda wish: _json(with_images(wish, b'{"error": "no"}')),
    "gif": lambda wish: _json(with_images(wish, b"GIF89a" + bytes(100))),
    "wrong_mime": lambda wish: _json(with_images(wish, picture("jpeg", wish.width, wish.height))),
    "truncated_image": lambda wish: _json(with_images(wish, wish.image()[: len(wish.image()) // 2])),
    "bad_base64": lambda wish: _json(with_images(wish, "this is !!! no base64")),
    "bad_base64_large": lambda wish: _padded(wish, with_images(wish, "!" * 10_000)),
    "reported_moderation": lambda wish: _reported(wish, "moderation_blocked", 400, "INVALID_ARGUMENT"),
    "reported_rate": lambda wish: _reported(wish, "rate_limit_exceeded", 429, "RESOURCE_EXHAUSTED"),
    "reported_number": lambda wish: _reported(wish, "429", 429, ""),
    "reported_quota": lambda wish: _reported(wish, "insufficient_quota", 429, "RESOURCE_EXHAUSTED"),
    "reported_key": lambda wish: _reported(wish, "invalid_api_key", 401, "UNAUTHENTICATED"),
    "reported_model": lambda wish: _reported(wish, "model_not_found", 404, "NOT_FOUND"),
    "reported_unknown": lambda wish: _reported(wish, "who_knows", 0, ""),
    "azure_flags": lambda wish: _json({"data": [{"content_filter_results": {"hate": {"filtered": True}}}]}),
    "flagged": lambda wish: _json({"data": [{"b64_json": None, "flagged": True}]}),
    "data_prefix": lambda wish: _json(
        with_images(wish, "data:image/png;base64," + base64.b64encode(wish.image()).decode())
    ),
    "base64_urlsafe": lambda wish: _json(
        with_images(wish, base64.urlsafe_b64encode(wish.image()).decode().rstrip("="))
    ),
    "base64_lines": lambda wish: _json(with_images(wish, base64.encodebytes(wish.image()).decode())),
    "blocked_rating": lambda wish: _json(
        gemini(None, "OTHER", safetyRatings=[{"category": "HARM_CATEGORY_HARASSMENT", "blocked": True}])
    ),
    "multi": lambda wish: _json(with_images(wish, wish.image(), *[picture("png", 32, 32)] * 2)),
    "thought_first": lambda wish: _json(_draft_first(wish)),
    "url": lambda wish: _json({"created": 1, "data": [{"url": f"{wish.files_url}/{wish.width}x{wish.height}.png"}]}),
    "data_url": lambda wish: _json(
        {"data": [{"url": "data:image/png;base64," + base64.b64encode(wish.image()).decode()}]}
    ),
}

_ONLY_GEMINI = {"content_policy", "safety_block"}


def special(wish: Wish, mode: str) -> Answer | None:
    """The answer of a mode with status 200, or `None` where it is none."""
    if mode not in SPECIAL or (wish.api == "openai" and mode in _ONLY_GEMINI):
        return None
    return SPECIAL[mode](wish)


#: The modes beside `SPECIAL`.
OTHER_MODES = {"http_502", *_OPENAI_ERRORS, *_GEMINI_ERRORS, *_WORDED, "error_plain", "no_plan", "redirect", "echo"}
