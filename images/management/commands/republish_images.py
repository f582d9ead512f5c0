"""`manage.py republish_images`: put every request that waits into the queue once more."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError

from ...conf import conf
from ...services.incidents import Incident
from ...services.outbox import cancel_waiting, tend
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
minutes (cron). They also queue again what you have purged on purpose: use --cancel to give such requests up.
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--cancel",
            action="store_true",
            help="Fail every request that waits, with the code `cancelled`, instead of queueing it again. "
            "Images that are being made are finished.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not conf.queue:
            raise CommandError('There is no queue: set IMAGES["QUEUE"] (CELERY_BROKER_URL).')
        if options["cancel"]:
            self.stdout.write(f"Cancelled: {cancel_waiting()}")
            return
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
