"""What was asked for: the arguments, their check, the idempotency key, and the row that is written before paying.

The key lives on the image's row under a unique constraint on (scope, key), so the database decides every race, also
between processes and machines. The row itself holds the content, so nothing else is needed to tell a repetition from
a reuse with other content.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import IntegrityError, transaction
from django.utils import timezone

from ..conf import conf
from ..exceptions import RETRY_AFTER, BudgetExhausted, IdempotencyKeyReused, InvalidRequest, RequestInProgress
from ..file_names import file_stem, new_token
from ..models import GeneratedImage, Status, Variant, new_seed
from ..variants import variant_names
from . import budgets
from .database import MAX_SCOPE, before_paying, committed_at_once, rows, user_scope
from .deletion import delete_row_that_never_was
from .prompts import build_prompt
from .repair import rescue
from .scenes import scenes_are_on

MAX_CONTENT_ITEM_ID = 255
MAX_TITLE = 500
MAX_DESCRIPTION = 100_000
MAX_CONTEXT = 4_000
MAX_KEY = 255

#: How many images of a content item are looked at for a scene to use again.
MAX_EARLIER = 20
#: How often a row with an idempotency key is written before the caller is told to ask again.
WRITE_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """The arguments of `generate_image`, which documents them."""

    content_item_id: str
    title: str
    description: str | None = None
    variant: str = "hero"
    user: AbstractBaseUser | AnonymousUser | None = None
    idempotency_key: str | None = None
    idempotency_scope: str | None = None
    seed: int | None = None
    context: str | None = None
    new_scene: bool = False

    def cleaned(self) -> GenerationRequest:
        """Check the arguments and normalise them.

        The content item's id is kept to the letter; title, description and context lose white space around them.

        Raises:
            InvalidRequest: With `details` for every argument that is wrong.
        """
        problems: dict[str, list[str]] = {}
        cleaned = replace(
            self,
            content_item_id=check_text(problems, "content_item_id", self.content_item_id, MAX_CONTENT_ITEM_ID),
            title=check_text(problems, "title", self.title, MAX_TITLE).strip(),
            description=check_text(
                problems, "description", self.description or "", MAX_DESCRIPTION, required=False
            ).strip(),
            context=check_text(problems, "context", self.context or "", MAX_CONTEXT, required=False).strip(),
            variant=str(self.variant or Variant.HERO),
            idempotency_scope=self.idempotency_scope
            or ("process" if self._owner_id is None else user_scope(self._owner_id)),
        )
        if cleaned.variant not in (names := variant_names()):
            problems["variant"] = [
                f"There is no variant {cleaned.variant[:40]!r}. Choose one of: {', '.join(names)}."
            ]
        if problems:
            sentences = [f"{name}: {' '.join(texts)}" for name, texts in problems.items()]
            raise InvalidRequest(" ".join(sentences), details=problems)
        _check_printable("idempotency_key", "An Idempotency-Key", self.idempotency_key, MAX_KEY)
        _check_printable("idempotency_scope", "An idempotency scope", cleaned.idempotency_scope, MAX_SCOPE)
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise InvalidRequest("seed: This must be a whole number from 0 to 2^63 - 1.")
        return cleaned

    @before_paying()
    def find_earlier(self) -> GeneratedImage | None:
        """The image that the request's key has made already, or `None` if the key is free.

        A key is free if it was never used, if the attempt failed (or its process was killed), if the image was
        deleted, or after `IMAGES["IDEMPOTENCY_TTL"]`; an earlier row is then parted from the key. A killed process
        that had stored its picture counts as one that finished: it is paid for.

        Raises:
            DatabaseUnavailable: The database does not answer.
            IdempotencyKeyReused: The key stands for other content.
            RequestInProgress: The image is being made at this moment; its row is the exception's `image`.
            StorageError: Whether a killed process had stored its picture cannot be told.
        """
        if self.idempotency_key is None:
            return None
        scope, key = self.idempotency_scope, self.idempotency_key
        earlier = rows().filter(idempotency_scope=scope, idempotency_key=key).first()
        if earlier is None:
            return None
        if earlier.is_stale and rescue(earlier):  # its process was killed after the picture had reached the storage
            earlier.refresh_from_db(using=rows().db)
        if _is_spent(earlier):
            rows().filter(pk=earlier.pk, status=earlier.status).update(idempotency_key=None)
            return None
        if not self._has_content_of(earlier):
            raise IdempotencyKeyReused
        if earlier.status == Status.PENDING:
            raise RequestInProgress(retry_after=RETRY_AFTER, image=earlier)
        earlier.replayed = True
        return earlier

    @before_paying()
    def write_row(
        self, *, queued: bool, durable: bool = True, caller_waits: bool = False, timeout: float | None = None
    ) -> GeneratedImage:
        """Write the row before anything is paid for.

        Args:
            queued: A worker is going to take it up; otherwise the caller does so at once.
            durable: Commit it at once; otherwise it is a part of the caller's transaction.
            caller_waits: The caller waits for a worker's image, so it comes before those that nobody waits for.
            timeout: Seconds within which a worker has to begin; `IMAGE_QUEUE_TIMEOUT` by default.

        Returns:
            The new row; or the earlier image, `replayed`, if another request has used the key in the meantime.

        Raises:
            BudgetExhausted: A budget does not cover it.
            DatabaseUnavailable: The database does not answer.
            IdempotencyKeyReused: Another request has used the key for other content.
            OpenTransactionError: A transaction is open, and `durable` was asked for.
            RequestInProgress: Another request has the key, or keeps taking it, or its row cannot be seen from inside
                the caller's transaction.
        """
        for _ in range(WRITE_TRIES):
            try:
                image = self._new_row(queued=queued)
                image.caller_waits = caller_waits
                if timeout is not None:
                    image.deadline_at = image.created_at + timedelta(seconds=timeout)
                budgets.prepare(image)
                return self._insert(image, durable=durable)
            except BudgetExhausted:
                if earlier := self.find_earlier():  # another request with the key has reserved the last of it
                    return earlier
                raise
            except IntegrityError as err:
                # Every database names the constraint or its columns. Anything else will not go away by trying again.
                if self.idempotency_key is None or "idempotency_key" not in str(err).partition("\n")[0].lower():
                    raise
                conflict = err
            if earlier := self.find_earlier():
                return earlier
        raise RequestInProgress(retry_after=RETRY_AFTER) from conflict

    def _insert(self, image: GeneratedImage, *, durable: bool) -> GeneratedImage:
        try:
            with ExitStack() as stack:
                if durable:
                    stack.enter_context(committed_at_once())
                if not durable or image.budget_reserved:
                    stack.enter_context(transaction.atomic(using=rows().db))
                budgets.reserve(image)
                image.save(using=rows().db, force_insert=True)
        except Exception:
            if durable and not image._state.adding:  # it was written, and a receiver of the host's `post_save` raised
                delete_row_that_never_was(image)
            raise
        return image

    def _new_row(self, *, queued: bool) -> GeneratedImage:
        now, description = timezone.now(), self.description or ""
        image = GeneratedImage(
            owner_id=self._owner_id,
            content_item_id=self.content_item_id,
            title=self.title,
            description=description,
            context=self.context or "",
            variant=self.variant,
            seed=new_seed() if self.seed is None else self.seed,
            idempotency_scope=(self.idempotency_scope or "") if self.idempotency_key else "",
            idempotency_key=self.idempotency_key,
            created_at=now,
            started_at=None if queued else now,
            deadline_at=now + timedelta(seconds=conf.queue_timeout if queued else conf.longest_run),
            file_stem=file_stem(
                content_item_id=self.content_item_id,
                variant=self.variant,
                created_at=now,
                token=new_token(),
            ),
        )
        if earlier := self._find_scene():
            image.scene, image.scene_model, image.alt_text = (
                earlier.scene,
                earlier.scene_model,
                earlier.alt_text or None,
            )
        prompt = build_prompt(
            title=self.title,
            description=description,
            variant=self.variant,
            seed=image.seed,
            context=image.context,
            scene=image.scene,
        )
        image.prompt, image.negative_prompt, image.style = prompt.text, prompt.negative, prompt.style
        return image

    def _find_scene(self) -> GeneratedImage | None:
        """The owner's latest image with a scene for the same seed and content, if it may be used again."""
        if self.seed is None or self.new_scene or not scenes_are_on():
            return None
        found = rows().filter(content_item_id=self.content_item_id, seed=self.seed, owner_id=self._owner_id)
        found = found.exclude(scene="").exclude(status=Status.DELETING)[:MAX_EARLIER]
        # Not every database compares texts to the letter.
        return next(filter(self._has_content_of, found), None)

    @property
    def _owner_id(self) -> Any:
        return None if self.user is None else self.user.pk  # an anonymous user has none

    def _has_content_of(self, image: GeneratedImage) -> bool:
        # The row of a key from before there was a context has "", as a request without one has.
        wanted = (self.content_item_id, self.title, self.description, self.context, self.variant)
        return wanted == (image.content_item_id, image.title, image.description, image.context, image.variant)


def arguments_of(image: GeneratedImage, *, same_scene: bool = False) -> dict[str, Any]:
    """The arguments of `generate_image` for another image from the same input.

    Args:
        image: The image to make again, for the same owner.
        same_scene: With its scene, style and hints (its seed); otherwise all of them are chosen anew.
    """
    return {
        "content_item_id": image.content_item_id,
        "title": image.title,
        "description": image.description,
        "context": image.context,
        "variant": image.variant,
        "user": image.owner,
        "seed": image.seed if same_scene else None,
    }


def _is_spent(earlier: GeneratedImage) -> bool:
    if earlier.current_status == Status.PENDING:
        return False
    expired = timezone.now() > earlier.created_at + timedelta(seconds=conf.idempotency_ttl)
    return expired or earlier.current_status != Status.READY


def _check_printable(name: str, subject: str, value: str | None, maximum: int) -> None:
    if value is not None and (not value.strip() or len(value) > maximum or not value.isprintable()):
        sentence = f"{subject} must have 1 to {maximum} printable characters."
        raise InvalidRequest(sentence, details={name: [sentence]})


def check_text(
    problems: dict[str, list[str]], name: str, value: Any, maximum: int | None, *, required: bool = True
) -> str:
    """A caller's text; what is wrong with it is added to `problems` under its name."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        problems[name] = ["This must be a string."]
        return ""
    if required and not value.strip():
        problems[name] = ["This must not be blank."]
    elif maximum is not None and len(value) > maximum:
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
