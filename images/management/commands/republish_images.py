"""`manage.py republish_images`: put every request that waits into the queue once more."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from ...conf import conf
from ...services.incidents import Incident
from ...services.outbox import tend
from ..base import ImagesCommand

_LINES = {
    Incident.REPUBLISHED: "Queued again",
    Incident.EXPIRED: "Not started in time, failed",
    Incident.ORPHANED: "Picture found, ready",
    Incident.LOST: "Stopped while they were generated",
}


class Command(ImagesCommand):
    help = """Put every request that waits for a worker into the queue once more, for example after `celery purge`,
and settle those that nobody will finish. A request that is queued twice is done once.

Celery's workers do it by themselves, a while after a request was made. With another queue, run this command every few
minutes (cron).
"""

    def handle(self, *args: Any, **options: Any) -> None:
        if not conf.queue:
            raise CommandError('There is no queue: set IMAGES["QUEUE"] (CELERY_BROKER_URL).')
        try:
            done = tend(at_once=True)
        except DatabaseError:
            raise
        except Exception as err:
            raise CommandError(f"The queue did not accept a request ({type(err).__name__}).") from err
        for incident, line in _LINES.items():
            if done[incident]:
                self.stdout.write(f"{line}: {done[incident]}")
        if not done:
            self.stdout.write("Nothing waits.")
