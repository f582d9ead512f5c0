"""What failures are called in the reader's language.

The API's sentences are English, whoever reads them. Pages translate them by their code, and keep the original.
"""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from .exceptions import BILLING_ADVICE, find_kind

#: The error codes that a row can carry, in words. There may be others: a host can bring its own providers.
REASONS: dict[str, Promise] = {
    "budget_exhausted": _("budget used up"),
    "cancelled": _("cancelled"),
    "content_rejected": _("text refused"),
    "database_unavailable": _("database unavailable"),
    "provider_auth": _("API key refused"),
    "provider_bad_image": _("broken image received"),
    "provider_bad_response": _("invalid response received"),
    "provider_error": _("provider failed"),
    "provider_model_unavailable": _("model not available"),
    "provider_no_image": _("response without an image"),
    "provider_not_configured": _("provider not configured"),
    "provider_overloaded": _("provider overloaded"),
    "provider_quota_exhausted": _("quota or budget exhausted"),
    "provider_rate_limited": _("rate limit reached"),
    "provider_timeout": _("no answer in time"),
    "provider_unreachable": _("provider unreachable"),
    "queue_unavailable": _("queue unavailable"),
    "storage_error": _("could not be stored"),
    "not_found": _("deleted in the meantime"),
    "internal_error": _("error on this server"),
}

#: What to do about a failure, by its code. Other codes are explained by the sentence of the failure itself.
ADVICE: dict[str, Promise] = {
    "budget_exhausted": _("An administrator has to raise the budget, or wait until the next period."),
    "cancelled": _("Make it again. A provider that had been asked may still charge for this attempt."),
    "content_rejected": _("Change the title or the description: the provider refuses what they say."),
    "database_unavailable": _("Make it again in a few minutes."),
    "provider_auth": _("An administrator has to set a valid API key."),
    "provider_bad_image": _("Make it again. If that fails too, choose another model or provider."),
    "provider_bad_response": _("Make it again later. If that fails too, an administrator has to look into it."),
    "provider_error": _("Make it again later. If that fails too, an administrator has to look into it."),
    "provider_model_unavailable": _("An administrator has to choose another model."),
    "provider_no_image": _("Make it again, perhaps with another title or description."),
    "provider_not_configured": _("An administrator has to configure the provider."),
    "provider_overloaded": _("Make it again in a few minutes."),
    "provider_quota_exhausted": _("An administrator has to raise the budget of the provider's account."),
    "provider_rate_limited": _("Make it again in a few minutes."),
    "provider_timeout": _("Make it again. A provider may have charged for this attempt."),
    "provider_unreachable": _("An administrator has to check the network and the provider's address."),
    "queue_unavailable": _("Make it again. If that fails too, an administrator has to start a worker."),
    "storage_error": _("An administrator has to check the disk or the storage."),
    "not_found": _("It was deleted while it was being made."),
    "internal_error": _("Make it again. If that fails too, the server's log says why."),
}

#: The sentences of `images.exceptions` and `images.models`, marked for translation.
SENTENCES = (
    gettext_noop("Something went wrong on our side. The server's log has the details."),
    gettext_noop("The request is not valid."),
    gettext_noop("There is no such image."),
    gettext_noop("This Idempotency-Key's image is still being generated. Repeat the request later to get it."),
    gettext_noop("This Idempotency-Key was already used with different content. Use a new key for a new image."),
    gettext_noop("The image could not be stored. The operator should check the disk (MEDIA_ROOT)."),
    gettext_noop("Too many images are being generated at the moment. Try again in a few seconds."),
    gettext_noop("The image could not be queued. Try again later."),
    gettext_noop("The database is not available at the moment. Try again in a few seconds."),
    gettext_noop("The budget for images is used up. Try again when its next period begins."),
    gettext_noop("The generation was cancelled."),
    gettext_noop("The image provider's safety system rejected this text. Change the title or the description."),
    gettext_noop("The image provider failed. Try again later."),
    gettext_noop("The image provider rejected the request. The server's log says what it objected to."),
    gettext_noop("The image provider could not be reached. Try again later."),
    gettext_noop("The image provider's response was incomplete or invalid. Try again later."),
    gettext_noop("The image provider responded without an image. Try again, or reword the title."),
    gettext_noop("The image provider sent something that is not a complete PNG, JPEG or WebP image. Try again."),
    gettext_noop(
        "The image provider is not configured. The operator should check IMAGE_PROVIDER and the provider's API key."
    ),
    gettext_noop("The image provider rejected the API key. The operator should check it."),
    gettext_noop("The configured model is not available. The operator should choose another one."),
    gettext_noop("The image provider's quota or budget is used up. The operator should raise it."),
    gettext_noop("The image provider is limiting the rate of requests. Try again a little later."),
    gettext_noop("The image provider is overloaded. Try again later."),
    gettext_noop("The image provider did not respond in time. Try again later."),
    gettext_noop(
        "The server was stopped while it was generating this image, and a provider may have charged for it. "
        "Request it again."
    ),
    gettext_noop("No worker started the request in time. Try again later."),
    gettext_noop("A provider may have charged for this request, and may charge for another one, too."),
)


def sentence_for_reader(code: str, message: str) -> str:
    """A failure's sentence in the reader's language; as it is, if there is no translation.

    Args:
        code: The failure's code. Of a sentence with details, which nobody has translated, it tells the general one.
        message: The sentence that the caller got.
    """
    plain = message.removesuffix(BILLING_ADVICE).rstrip()
    kind = find_kind(code, plain)
    general = kind.default_message if kind.code == code else ""
    for sentence in (plain, general):
        told = gettext(sentence) if sentence in SENTENCES else sentence
        if told != sentence:
            return f"{told} {gettext(BILLING_ADVICE)}" if BILLING_ADVICE in message else told
    return message
