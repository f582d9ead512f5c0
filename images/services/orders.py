"""What was asked for, and the row that stands for it from before anything is paid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import IntegrityError, router, transaction
from django.utils import timezone

from .. import storage
from ..conf import conf
from ..exceptions import InvalidRequest
from ..models import GeneratedImage, new_seed
from .idempotency import clean_key, find_earlier
from .inputs import GenerationInput, clean_input
from .prompts import get_prompt_builder
from .transactions import committed_at_once


@dataclass(frozen=True, kw_only=True)
class Order:
    """A checked request for one image, and who asked."""

    wanted: GenerationInput
    owner_id: Any
    seed: int | None
    scope: str
    key: str | None

    def earlier(self) -> GeneratedImage | None:
        """The image that the order's key has made already.

        Raises:
            RequestInProgress: It is being made at this moment.
            IdempotencyKeyReused: The key stands for other content.
        """
        return None if self.key is None else find_earlier(self.scope, self.key, self.wanted)

    def begin(self, *, queued: bool = False, own: bool = True) -> GeneratedImage | None:
        """Write the row before anything is paid for.

        Args:
            queued: A worker is going to take it up; otherwise the caller does so at once.
            own: Committed at once; otherwise as a part of the caller's transaction.

        Returns:
            The row, or `None` where somebody was faster with the same key.

        Raises:
            OpenTransactionError: Somebody's transaction is open, and `own` was asked for.
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


def take_order(
    *,
    content_item_id: str,
    title: str,
    description: str | None,
    variant: str,
    user: AbstractBaseUser | AnonymousUser | None,
    idempotency_key: str | None,
    idempotency_scope: str | None,
    seed: int | None,
) -> Order:
    """Check the arguments of `generate_image`, which documents them.

    Raises:
        InvalidRequest: They are not valid.
    """
    wanted = clean_input(content_item_id=content_item_id, title=title, description=description, variant=variant)
    key = clean_key(idempotency_key)
    if seed is not None and not 0 <= seed < 2**63:
        raise InvalidRequest("seed: This must be a whole number from 0 to 2^63 - 1.")
    owner_id = user.pk if user is not None else None  # an anonymous user has none
    scope = idempotency_scope or ("process" if owner_id is None else f"user:{owner_id}")
    return Order(wanted=wanted, owner_id=owner_id, seed=seed, scope=scope, key=key)
