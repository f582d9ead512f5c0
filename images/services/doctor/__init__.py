"""The doctor: will this installation work, and what is to be done where it will not?

    from images.services.doctor import examine, exit_status

`manage.py images_doctor` shows what it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date
from functools import partial

from ...providers.calendar import utc_today
from .chain import PROVIDERS, examine_providers
from .configuration import (
    CALLERS,
    CONFIGURATION,
    CORS,
    SECURITY,
    examine_callers,
    examine_configuration,
    examine_cors,
    examine_security,
)
from .findings import Finding, Level, exit_status, guarded
from .generation import GENERATION, examine_generation
from .public_address import PUBLIC_URL, examine_public_url
from .queues import QUEUE, examine_queue
from .secrets import known_secrets, without_secrets
from .stores import DATABASE, STORAGE, examine_database, examine_storage

__all__ = ["Finding", "Level", "examine", "exit_status"]

#: A shutdown within so many days needs attention.
WARN_DAYS = 30


def examine(
    *,
    warn_days: int = WARN_DAYS,
    public_url: bool = False,
    generate: bool = False,
    today: date | None = None,
    progress: Callable[[str], None] = lambda section: None,
) -> Iterator[Finding]:
    """Look at everything that a generation needs. Providers are asked by calls that cost nothing.

    Args:
        warn_days: How many days ahead a model's shutdown needs attention.
        public_url: Fetch a probe file through `PUBLIC_URL`.
        generate: Make one real image, which costs what an image costs, and delete it again.
        today: The day to count from; today (UTC) by default.
        progress: Called with the name of each part before it is looked at.

    Returns:
        The findings, as they come. No exception, and no secret in any of them.
    """
    secrets = known_secrets()
    ask = partial(examine_providers, warn_days=warn_days, today=today or utc_today())
    parts: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        (CONFIGURATION, examine_configuration),
        (SECURITY, examine_security),
        (CORS, examine_cors),
        (CALLERS, examine_callers),
        (DATABASE, examine_database),
        (STORAGE, examine_storage),
        (QUEUE, examine_queue),
        (PUBLIC_URL, partial(examine_public_url, fetch=public_url)),
        (PROVIDERS, ask),
    ]
    if generate:
        parts.append((GENERATION, examine_generation))
    for section, look in parts:
        progress(section)
        for finding in guarded(section, look):
            yield without_secrets(finding, secrets)
