"""Why an image failed, in the operator's language."""

from __future__ import annotations

from django.utils.formats import number_format
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..models import GeneratedImage

#: The error codes that a row can carry, in words. An administrator may meet others: providers can be anybody's code.
REASONS: dict[str, Promise] = {
    "content_rejected": _("text refused"),
    "provider_auth": _("API key refused"),
    "provider_bad_image": _("broken image received"),
    "provider_bad_response": _("broken answer received"),
    "provider_error": _("provider failed"),
    "provider_model_unavailable": _("model not available"),
    "provider_no_image": _("answer without an image"),
    "provider_not_configured": _("provider not configured"),
    "provider_overloaded": _("provider overloaded"),
    "provider_quota_exhausted": _("quota or budget used up"),
    "provider_rate_limited": _("rate limit reached"),
    "provider_timeout": _("no answer in time"),
    "provider_unreachable": _("provider not reached"),
    "storage_error": _("could not be stored"),
    "not_found": _("deleted meanwhile"),
    "internal_error": _("fault of this server"),
}


def reason(image: GeneratedImage) -> str:
    """Why there is no picture: the reason in words, the code, the sentence that the caller got; "" where it is fine.

    The sentence is the API's and stays in English, as the caller read it.
    """
    if image.is_stale:
        return gettext("The process was stopped before the image was ready.")
    if not image.error_code:
        return ""
    words = REASONS.get(image.error_code)
    code = f"{words} ({image.error_code})" if words else image.error_code
    return f"{code}: {image.error_message}" if image.error_message else code


def tried(image: GeneratedImage) -> str:
    """Every call of a provider in a line: `gemini provider_timeout 31.0 s · openai provider_error 0.4 s`."""
    return " · ".join(_call(attempt) for attempt in image.attempts if isinstance(attempt, dict))


def _call(attempt: dict[str, object]) -> str:
    words = [str(attempt.get("provider", "")), str(attempt.get("code", ""))]
    ms = attempt.get("ms")
    if isinstance(ms, int):
        seconds = number_format(ms / 1000, decimal_pos=1)
        words.append(gettext("%(seconds)s s") % {"seconds": seconds})
    return " ".join(words)
