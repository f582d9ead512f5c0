"""One run of a generation, from the pending row to `ready` or `failed`, wherever it runs: web process or worker."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any

from django.db import Error, router, transaction
from django.utils import timezone

from .. import storage
from ..conf import conf
from ..exceptions import ImageNotFound, ImagesError
from ..logs import log_event
from ..models import GeneratedImage, Status
from ..providers import Deadline, ImageProvider, ImageRequest
from ..providers.throttle import working_set
from ..signals import image_generated, image_generation_failed
from .chain import Painting, paint
from .prompts import ASPECT_RATIOS
from .stopping import under_way
from .transactions import release_connections

logger = logging.getLogger("images")

#: How often the result of a paid generation is offered to the database before only the log keeps it.
WRITE_TRIES = 3


class Generation:
    """One run of a row that this process has taken up: `started_at` is its mark.

    Args:
        image: The row, pending.
    """

    def __init__(self, image: GeneratedImage) -> None:
        self.image = image
        self.deadline = Deadline.after(conf.deadline)
        self.started = time.monotonic()
        self.attempts: list[dict[str, Any]] = []

    def run(self) -> GeneratedImage:
        """Make the image.

        Returns:
            The row in status `ready`.

        Raises:
            ImagesError: It was not made; the row says why.
        """
        with under_way(self.image):
            self._make()
            self._finish()
        return self.image

    def _make(self) -> None:
        log_event(logger, logging.INFO, "generation_started", **self._names())
        try:
            storage.check_space(self.image.file_stem)
            release_connections()
            with working_set():  # bounds how many images are read, verified and written at one moment
                painting = paint(self._request, self.deadline, self.attempts)
                name = storage.save(self.image.file_stem, painting.info.extension, painting.image.data)
                self._describe(painting, name)
                del painting
        except BaseException as err:
            self._fail(err)
            raise

    def _request(self, provider: ImageProvider, deadline: Deadline) -> ImageRequest:
        image = self.image
        return ImageRequest(
            prompt=image.prompt,
            negative_prompt=image.negative_prompt if provider.supports_negative_prompt else "",
            title=image.title,
            variant=image.variant,
            aspect_ratio=ASPECT_RATIOS[image.variant],
            seed=image.seed,
            deadline=deadline,
        )

    def _describe(self, painting: Painting, name: str) -> None:
        image, data = self.image, painting.image.data
        image.file.name = name
        image.mime_type, image.size_bytes = painting.info.mime_type, len(data)
        image.width, image.height = painting.info.width, painting.info.height
        image.sha256 = hashlib.sha256(data).hexdigest()
        self._name_painter(painting.provider, painting.image.model)
        image.usage = dict(painting.image.usage) if painting.image.usage is not None else None

    def _name_painter(self, provider: str, model: str) -> None:
        """What the provider calls its model may be of any length, and the picture is paid for."""
        for name, value in (("provider", provider), ("model", model)):
            setattr(self.image, name, value[: getattr(GeneratedImage._meta.get_field(name), "max_length", None)])

    def _finish(self) -> None:
        image = self.image
        image.status = Status.READY
        try:
            written = self._write()
        except Error as err:
            log_event(
                logger, logging.ERROR, "generation_unrecorded", exc_info=err, file=image.file_name, **self._names()
            )
            raise
        if not written:  # deleted, or taken up by somebody else
            storage.remove(image.file_name)
            raise ImageNotFound("The image was deleted while it was being made.")
        log_event(
            logger,
            logging.INFO,
            "generation_finished",
            **self._names(),
            provider=image.provider,
            model=image.model,
            bytes=image.size_bytes,
            ms=image.duration_ms,
        )
        self._after_commit(lambda: image_generated.send_robust(GeneratedImage, image=image))

    def _fail(self, err: BaseException) -> None:
        """Say on the row what went wrong, as far as the database still listens."""
        image = self.image
        known = err if isinstance(err, ImagesError) else ImagesError()
        image.status, image.error_code, image.error_message = Status.FAILED, known.code, known.message
        last = self.attempts[-1] if self.attempts else {}
        self._name_painter(last.get("provider", ""), last.get("model", ""))
        try:
            self._write()
        except Error as database_err:
            log_event(logger, logging.ERROR, "generation_unrecorded", exc_info=database_err, **self._names())
        unforeseen = None if isinstance(err, ImagesError) else err
        log_event(
            logger,
            logging.ERROR if unforeseen else logging.WARNING,
            "generation_failed",
            exc_info=unforeseen,
            **self._names(),
            provider=image.provider,
            model=image.model,
            code=known.code,
            ms=image.duration_ms,
            request_id=last.get("request_id", ""),
        )
        self._after_commit(lambda: image_generation_failed.send_robust(GeneratedImage, image=image, error=known))

    @staticmethod
    def _after_commit(send: Callable[[], Any]) -> None:
        transaction.on_commit(send, using=router.db_for_write(GeneratedImage), robust=True)

    def _write(self) -> bool:
        """Write the outcome; whether the row was still there.

        A row that a clean-up declared failed meanwhile becomes ready all the same: the picture is paid for. One that
        another worker has taken up since then is that worker's.
        """
        image = self.image
        image.attempts = self.attempts
        image.finished_at = timezone.now()
        image.duration_ms = round((time.monotonic() - self.started) * 1000)
        names = [field.attname for field in GeneratedImage._meta.concrete_fields if field.attname in _OUTCOME]
        values = {name: getattr(image, name) for name in names}
        rows = GeneratedImage.objects.filter(pk=image.pk, started_at=image.started_at)
        rows = rows.exclude(status=Status.DELETING)
        for tries_left in range(WRITE_TRIES - 1, -1, -1):
            try:
                return bool(rows.update(**values))
            except Error:
                if not tries_left or transaction.get_connection(rows.db).in_atomic_block:
                    raise
                release_connections()  # the connection may be the one that broke
                time.sleep(0.2)
        return False

    def _names(self) -> dict[str, Any]:
        return {"image": self.image.pk, "content_item": self.image.content_item_id, "variant": self.image.variant}


_OUTCOME = {
    "status", "file", "mime_type", "width", "height", "size_bytes", "sha256", "provider", "model", "usage",
    "attempts", "duration_ms", "error_code", "error_message", "finished_at",
}  # fmt: skip
