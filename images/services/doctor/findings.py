"""What the doctor finds, and what keeps one examination from ending the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from django.core.exceptions import ImproperlyConfigured

from ...logs import log_event

logger = logging.getLogger("images.doctor")

#: The next step of a finding that is fine.
NOTHING_TO_DO = "Nothing to do."


class Level(StrEnum):
    """How bad a finding is. The values are stable: scripts read them."""

    FINE = "ok"
    ATTENTION = "attention"
    BROKEN = "broken"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: What it belongs to, for example `Storage`.
        level: How bad it is.
        sentence: What was found.
        next_step: What to do about it.
    """

    section: str
    level: Level
    sentence: str
    next_step: str


def fine(section: str, sentence: str) -> Finding:
    """Something works."""
    return Finding(section=section, level=Level.FINE, sentence=sentence, next_step=NOTHING_TO_DO)


def attention(section: str, sentence: str, next_step: str) -> Finding:
    """Something works and should be looked at soon."""
    return Finding(section=section, level=Level.ATTENTION, sentence=sentence, next_step=next_step)


def broken(section: str, sentence: str, next_step: str) -> Finding:
    """Something does not work."""
    return Finding(section=section, level=Level.BROKEN, sentence=sentence, next_step=next_step)


def exit_status(findings: Iterable[Finding]) -> int:
    """1 where something is broken, else 2 where something needs attention, else 0."""
    levels = {finding.level for finding in findings}
    return 1 if Level.BROKEN in levels else 2 if Level.ATTENTION in levels else 0


def guarded(section: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of `look`, and one more where it fails: the other examinations go on.

    Every exception counts, since storages, databases and providers of other people's making raise their own.
    """
    try:
        yield from look()
    except ImproperlyConfigured as err:
        yield broken(section, f"The configuration cannot be used: {err}", "Correct this setting, then look again.")
    except Exception as err:  # noqa: BLE001
        log_event(logger, logging.ERROR, "examination_failed", section=section, exc_info=err)
        sentence = f"It could not be examined ({type(err).__name__})."
        yield broken(section, sentence, "Look at the traceback in the log of this command (standard error).")
