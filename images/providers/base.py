"""What a provider is: bytes in, bytes out. No ORM, no DRF, no settings.

A provider is three short steps, `build`, `call` and `parse`, under `ImageProvider.paint`, which nobody overrides.
Only the frozen dataclasses of this module and the exceptions of `images.exceptions` cross the boundary.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

if TYPE_CHECKING:
    from .calendar import Retirement
    from .lookup import ModelStatus


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """A moment on the monotonic clock by which everything has to be over."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline `seconds` from now."""
        return cls(at=time.monotonic() + seconds)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    def share(self, parts: int) -> Deadline:
        """The deadline of the first of `parts` attempts that divide what is left equally."""
        return Deadline.after(self.remaining / parts)


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """What to paint.

    Attributes:
        prompt: The whole prompt, in words.
        negative_prompt: What must not be seen, for providers that take it separately
            (`ImageProvider.supports_negative_prompt`); the prompt itself says it as well.
        title: The title as the caller gave it, for providers that draw it themselves.
        variant: `hero` or `inline`.
        aspect_ratio: Width and height as small whole numbers, for example `(16, 9)`.
        seed: Repeats the same choices; providers that cannot be seeded ignore it.
        deadline: The answer is worthless after this moment.
    """

    prompt: str
    negative_prompt: str = ""
    title: str = ""
    variant: str = "hero"
    aspect_ratio: tuple[int, int] = (16, 9)
    seed: int = 0
    deadline: Deadline


@dataclass(frozen=True, kw_only=True)
class ProviderImage:
    """What a provider painted.

    Attributes:
        data: The image's bytes as received; the caller judges what they are.
        model: The model that painted.
        request_id: The provider's own name for the request, or "".
        usage: What the provider reported as used (tokens), as reported; `None` where it reported nothing.
    """

    data: bytes = field(repr=False)
    model: str = ""
    request_id: str = ""
    usage: Mapping[str, Any] | None = None


class ImageProvider(ABC):
    """The base of every provider.

    A subclass implements `call`; `build` and `parse` have defaults that suit a provider which takes an
    `ImageRequest` and returns bytes. One instance serves the whole process, from many threads at once.

    Args:
        options: The provider's `OPTIONS`. Keys are the provider's own business.
    """

    supports_negative_prompt: ClassVar[bool] = False

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options: Mapping[str, Any] = dict(options or {})

    @property
    def model(self) -> str:
        """The configured model's name, or "" where there is no such thing."""
        return str(self.options.get("model") or "")

    @final
    def paint(self, request: ImageRequest) -> ProviderImage:
        """Make one image.

        Raises:
            images.exceptions.ProviderFailure: Whatever went wrong, chained from the original error.
        """
        return self.parse(self.call(self.build(request), request.deadline))

    def build(self, request: ImageRequest) -> Any:
        """Turn the request into whatever `call` sends."""
        return request

    @abstractmethod
    def call(self, payload: Any, deadline: Deadline) -> Any:
        """Send `payload` once, without hidden retries, and return the answer."""

    def parse(self, answer: Any) -> ProviderImage:
        """Turn the answer into a `ProviderImage`."""
        return ProviderImage(data=answer, model=self.model)

    def check(self) -> list[str]:
        """Sentences about what is missing for this provider to work, without any network; empty when ready."""
        return []

    @property
    def model_setting(self) -> str:
        """What an operator sets to choose the model, for advice."""
        return 'OPTIONS["model"]'

    def retirement(self) -> Retirement | None:
        """What the app's own calendar knows about the end of the model, without any network."""
        return None

    def look_up_model(self, deadline: Deadline) -> ModelStatus | None:
        """Ask whether the key is accepted and the model exists, by a call that costs nothing.

        Returns:
            What the provider says, or `None` where it cannot be asked without painting.

        Raises:
            images.exceptions.ProviderFailure: As for `paint`.
        """
        return None

    def model_names(self, deadline: Deadline) -> tuple[str, ...]:
        """Image models that the key can use, a dozen at the most, by a call that costs nothing.

        Raises:
            images.exceptions.ProviderFailure: As for `paint`.
        """
        return ()

    def warm_up(self) -> None:
        """Do at server start what would make the first request slow (imports, clients)."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} model={self.model!r}>"
