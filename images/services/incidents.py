"""What goes wrong between the queue, its workers and the rows, for the log and the metrics."""

from __future__ import annotations

import logging
import uuid
from enum import StrEnum

from ..logs import log_event
from ..models import GeneratedImage
from ..signals import queue_incident

logger = logging.getLogger("images")


class Incident(StrEnum):
    """The kinds. The values are stable: they are labels of a metric."""

    LOST = "lost"
    """A process was stopped while it generated the image; a provider may have billed."""
    ORPHANED = "orphaned"
    """A picture was in the storage, but its row did not know of it; now it does."""
    EXPIRED = "expired"
    """No worker started the request in time; it has failed, and nothing was paid for."""
    REPUBLISHED = "republished"
    """A request that still waited was put into the queue once more."""
    UNKNOWN = "unknown"
    """The queue delivered an id for which there is no row."""


def report(incident: Incident, image_id: uuid.UUID, level: int = logging.WARNING) -> None:
    """Log an incident, and send its signal.

    Args:
        incident: What happened.
        image_id: The row that it is about.
        level: How bad it is for the operator.
    """
    log_event(logger, level, f"queue_{incident}", image=image_id)
    queue_incident.send_robust(GeneratedImage, kind=incident, image_id=image_id)
