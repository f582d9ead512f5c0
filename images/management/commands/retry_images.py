"""`manage.py retry_images`: queue again what failed and cost nothing."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections import Counter
from datetime import datetime, time, timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from ...conf import conf
from ...services import background
from ...services.retry import MAY_HAVE_BILLED, PERIOD_OVER, REJECTED, SUPERSEDED, Found, find_failed, retry_images
from ..base import ImagesCommand

_LEFT_OUT = {
    MAY_HAVE_BILLED: "a provider may have charged for them",
    SUPERSEDED: "the same was requested again later",
    PERIOD_OVER: "the period of the budget that counted them is over; Make again in the admin counts today",
    REJECTED: f"the content was rejected; --code {REJECTED} includes them",
}


class Command(ImagesCommand):
    help = """Queue again the requests that failed without cost, for example after an outage or a used-up quota.

Each keeps its id, its idempotency key and its attempts, so its caller finds the image where it was promised. Left out
are requests for which a provider may have charged, and those whose input was requested again later. The exit status
is 0, also if there was nothing to do. Without a queue the images are made by this command, which takes a while.

Examples:
  manage.py retry_images --dry-run                            what would be queued, by code
  manage.py retry_images --code provider_quota_exhausted      after the quota was raised
  manage.py retry_images --since 2026-11-27 --until 2026-11-27     one day's
"""
    interrupted = "Interrupted. Images that are being made are finished; the others wait."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--code", action="append", default=[], help="Only this error code; may be repeated.")
        parser.add_argument(
            "--since", type=_beginning, help="Only requests made from then on: a date, or a date and a time."
        )
        parser.add_argument("--until", type=_end, help="Only requests made before then; a date includes its day.")
        parser.add_argument("--dry-run", action="store_true", help="Say what would be queued, and change nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        found = find_failed(codes=options["code"], since=options["since"], until=options["until"])
        self._describe(found)
        if options["dry_run"] or not found.images:
            self.stdout.write(f"Would be queued again: {len(found.images)}" if found.images else "Nothing to retry.")
            return
        try:
            self.stdout.write(f"Queued again: {retry_images(images=found.images)}")
            self.stdout.flush()
        finally:  # also if a budget did not cover all of them
            background.wait()
        if not conf.queue:
            self.stdout.write("Done.")

    def _describe(self, found: Found) -> None:
        for code, count in Counter(image.current_error[0] for image in found.images).most_common():
            self.stdout.write(f"  {count:>5} {code}")
        for reason, count in found.left_out.most_common():
            self.stdout.write(f"  {count:>5} left out: {_LEFT_OUT[reason]}")


def _beginning(text: str) -> datetime:
    return _moment(text, days=0)


def _end(text: str) -> datetime:
    return _moment(text, days=1)


def _moment(text: str, *, days: int) -> datetime:
    """A time in `TIME_ZONE`; for a date, its beginning and some days."""
    try:
        day = parse_date(text)
        found = datetime.combine(day, time.min) + timedelta(days=days) if day else parse_datetime(text)
    except ValueError as err:
        raise ArgumentTypeError(f"there is no such time: {text!r}") from err
    if found is None:
        raise ArgumentTypeError(f"not a date (2026-11-27) or a time (2026-11-27T14:00): {text!r}")
    if settings.USE_TZ and timezone.is_naive(found):
        return timezone.make_aware(found)
    return found
