"""One image for one idempotency key, whoever repeats the request and however often.

The key lives on the image's row under a unique constraint on (scope, key), so the database decides every
race, also between processes and machines. The row itself holds the content, so nothing else is needed to
tell a repetition from a reuse with other content.
"""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from ..conf import conf
from ..exceptions import IdempotencyKeyReused, InvalidRequest, RequestInProgress
from ..models import GeneratedImage, Status
from .inputs import GenerationInput
from .reconciliation import rescue

MAX_KEY = 255
#: Seconds after which a caller whose image is still being made may ask again.
RETRY_AFTER = 5


def clean_key(key: str | None) -> str | None:
    """Check an idempotency key.

    Raises:
        InvalidRequest: The key is blank, longer than 255 characters, or holds control characters.
    """
    if key is None:
        return None
    if not key.strip() or len(key) > MAX_KEY or not key.isprintable():
        sentence = f"An Idempotency-Key is 1 to {MAX_KEY} printable characters long."
        raise InvalidRequest(sentence, details={"idempotency_key": [sentence]})
    return key


def find_earlier(scope: str, key: str, wanted: GenerationInput) -> GeneratedImage | None:
    """The image that this key has made already, or `None` where the key is free.

    A key is free where nobody used it, the attempt failed (or its process was killed), the image was deleted,
    or `IMAGES["IDEMPOTENCY_TTL"]` has passed; an earlier row is then parted from the key. A killed process that had
    stored its picture counts as one that finished: it is paid for.

    Raises:
        StorageError: Whether a killed process had stored its picture cannot be told.
        RequestInProgress: The image is being made at this moment.
        IdempotencyKeyReused: The key stands for other content.
    """
    earlier = GeneratedImage.objects.filter(idempotency_scope=scope, idempotency_key=key).first()
    if earlier is None:
        return None
    if earlier.is_stale and rescue(earlier):  # its process was killed after the picture had reached the storage
        earlier.refresh_from_db()
    if _is_spent(earlier):
        GeneratedImage.objects.filter(pk=earlier.pk, status=earlier.status).update(idempotency_key=None)
        return None
    if not _same_content(earlier, wanted):
        raise IdempotencyKeyReused
    if earlier.status == Status.PENDING:
        raise RequestInProgress(retry_after=RETRY_AFTER)
    earlier.replayed = True
    return earlier


def _is_spent(earlier: GeneratedImage) -> bool:
    if earlier.current_status == Status.PENDING:
        return False
    expired = timezone.now() > earlier.created_at + timedelta(seconds=conf.idempotency_ttl)
    return expired or earlier.current_status != Status.READY


def _same_content(earlier: GeneratedImage, wanted: GenerationInput) -> bool:
    return (
        GenerationInput(
            content_item_id=earlier.content_item_id,
            title=earlier.title,
            description=earlier.description,
            variant=earlier.variant,
        )
        == wanted
    )
