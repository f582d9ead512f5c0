"""What was asked for: the checked input, its idempotency key, and the row that stands for it before anything is paid.

The key lives on the image's row under a unique constraint on (scope, key), so the database decides every race, also
between processes and machines. The row itself holds the content, so nothing else is needed to tell a repetition from
a reuse with other content.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import IntegrityError, router, transaction
from django.utils import timezone

from .. import storage
from ..conf import conf
from ..exceptions import RETRY_AFTER, IdempotencyKeyReused, InvalidRequest, RequestInProgress
from ..models import GeneratedImage, Status, Variant, new_seed
from .database import before_paying, committed_at_once
from .prompts import get_prompt_builder
from .repair import rescue

MAX_CONTENT_ITEM_ID = 255
MAX_TITLE = 500
MAX_DESCRIPTION = 100_000
MAX_KEY = 255


@dataclass(frozen=True, kw_only=True)
class GenerationInput:
    """A checked request for one image."""

    content_item_id: str
    title: str
    description: str
    variant: str


def clean_input(*, content_item_id: Any, title: Any, description: Any, variant: Any) -> GenerationInput:
    """Check and normalise what a caller asks for.

    The content item's id is kept to the letter; title and description lose white space around them.

    Raises:
        InvalidRequest: With `details` for every field that is wrong.
    """
    problems: dict[str, list[str]] = {}
    values = {
        "content_item_id": _text(problems, "content_item_id", content_item_id, MAX_CONTENT_ITEM_ID),
        "title": _text(problems, "title", title, MAX_TITLE).strip(),
        "description": _text(problems, "description", description or "", MAX_DESCRIPTION, required=False).strip(),
        "variant": str(variant or Variant.HERO),
    }
    if values["variant"] not in Variant.values:
        problems["variant"] = [f"Choose one of: {', '.join(Variant.values)}."]
    if problems:
        sentences = [f"{name}: {' '.join(texts)}" for name, texts in problems.items()]
        raise InvalidRequest(" ".join(sentences), details=problems)
    return GenerationInput(**values)


def _text(problems: dict[str, list[str]], name: str, value: Any, maximum: int, *, required: bool = True) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        problems[name] = ["This must be a string."]
        return ""
    if required and not value.strip():
        problems[name] = ["This must not be blank."]
    elif len(value) > maximum:
        problems[name] = [f"This must be at most {maximum} characters long."]
    elif "\x00" in value or not _encodable(value):
        problems[name] = ["This must not contain null or surrogate characters."]
    return value


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def clean_key(key: str | None) -> str | None:
    """Check an idempotency key.

    Raises:
        InvalidRequest: The key is blank, longer than 255 characters, or holds control characters.
    """
    if key is None:
        return None
    if not key.strip() or len(key) > MAX_KEY or not key.isprintable():
        sentence = f"An Idempotency-Key must have 1 to {MAX_KEY} printable characters."
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


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """A checked request for one image, and who asked."""

    wanted: GenerationInput
    owner_id: Any
    seed: int | None
    scope: str
    key: str | None

    @before_paying()
    def earlier(self) -> GeneratedImage | None:
        """The image that the request's key has made already.

        Raises:
            RequestInProgress: It is being made at this moment.
            IdempotencyKeyReused: The key stands for other content.
            DatabaseUnavailable: The database is locked, full or gone.
        """
        return None if self.key is None else find_earlier(self.scope, self.key, self.wanted)

    @before_paying()
    def begin(self, *, queued: bool = False, own: bool = True) -> GeneratedImage | None:
        """Write the row before anything is paid for.

        Args:
            queued: A worker is going to take it up; otherwise the caller does so at once.
            own: Committed at once; otherwise as a part of the caller's transaction.

        Returns:
            The row, or `None` where somebody was faster with the same key.

        Raises:
            OpenTransactionError: Somebody's transaction is open, and `own` was asked for.
            DatabaseUnavailable: The database is locked, full or gone.
        """
        image = self._row(queued=queued)
        try:
            with committed_at_once() if own else transaction.atomic(using=router.db_for_write(GeneratedImage)):
                image.save(force_insert=True)
        except Exception as err:
            if not image._state.adding:  # it was written, and a host's receiver of `post_save` raised
                if own:
                    GeneratedImage.objects.filter(pk=image.pk).delete()
                raise
            if self.key is None or not isinstance(err, IntegrityError):
                raise
            return None
        return image

    def _row(self, *, queued: bool) -> GeneratedImage:
        now, wanted = timezone.now(), self.wanted
        image = GeneratedImage(
            owner_id=self.owner_id,
            content_item_id=wanted.content_item_id,
            title=wanted.title,
            description=wanted.description,
            variant=wanted.variant,
            seed=new_seed() if self.seed is None else self.seed,
            idempotency_scope=self.scope if self.key is not None else "",
            idempotency_key=self.key,
            created_at=now,
            started_at=None if queued else now,
            deadline_at=now + timedelta(seconds=conf.queue_timeout if queued else conf.deadline),
            file_stem=storage.file_stem(
                content_item_id=wanted.content_item_id,
                variant=wanted.variant,
                created_at=now,
                token=storage.new_token(),
            ),
        )
        prompt = get_prompt_builder().build(
            title=wanted.title, description=wanted.description, variant=wanted.variant, seed=image.seed
        )
        image.prompt, image.negative_prompt, image.style = prompt.text, prompt.negative, prompt.style
        return image


def take_request(
    *,
    content_item_id: str,
    title: str,
    description: str | None,
    variant: str,
    user: AbstractBaseUser | AnonymousUser | None,
    idempotency_key: str | None,
    idempotency_scope: str | None,
    seed: int | None,
) -> GenerationRequest:
    """Check the arguments of `generate_image`, which documents them.

    Raises:
        InvalidRequest: They are not valid.
    """
    wanted = clean_input(content_item_id=content_item_id, title=title, description=description, variant=variant)
    key = clean_key(idempotency_key)
    if seed is not None and not 0 <= seed < 2**63:
        raise InvalidRequest("seed: This must be an integer from 0 to 2^63 - 1.")
    owner_id = user.pk if user is not None else None  # an anonymous user has none
    scope = idempotency_scope or ("process" if owner_id is None else f"user:{owner_id}")
    return GenerationRequest(wanted=wanted, owner_id=owner_id, seed=seed, scope=scope, key=key)
