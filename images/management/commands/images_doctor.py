"""`manage.py images_doctor`: will this installation work?"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from django.core.management.base import CommandParser

from ...services.diagnostics import WARN_DAYS, Finding, Level, examine, exit_status
from ..base import ImagesCommand, ProgressLine


class Command(ImagesCommand):
    help = """Say whether this installation will work, and if not, what to do.

It looks at configuration, security, CORS, callers, database, storage and public address, and asks each provider, at
no cost, whether it accepts the key and until when it has the configured model. No key is printed.

The exit status is 1 if something is broken, 2 if something needs attention (a model that will be shut down within
--warn-days, for example), otherwise 0.

Examples:
  manage.py images_doctor                           before the first start, and every week from then on
  manage.py images_doctor --public-url --generate   after a deployment; makes one real image and deletes it again
  manage.py images_doctor --json | jq               for programs: one object
"""
    #: The checks' errors are findings; if Django ran the checks, an error would end the command before it begins.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--warn-days",
            type=_days,
            default=WARN_DAYS,
            metavar="DAYS",
            help="How many days ahead the shutdown of a model needs attention (default: %(default)s).",
        )
        parser.add_argument("--public-url", action="store_true", help="Fetch a probe file through PUBLIC_URL.")
        parser.add_argument(
            "--generate", action="store_true", help="Make one real image, at its price, and delete it again."
        )
        parser.add_argument("--json", action="store_true", help="Print one JSON object instead of the screen.")

    def handle(self, *args: Any, **options: Any) -> None:
        line = ProgressLine(self.stderr)
        try:
            findings = list(
                examine(
                    warn_days=options["warn_days"],
                    public_url=options["public_url"],
                    generate=options["generate"],
                    progress=lambda section: line.show(f"Looking at: {section} ..."),
                )
            )
        finally:
            line.clear()
        status = exit_status(findings)
        if options["json"]:
            self._print_json(findings, status)
        else:
            self._print_screen(findings)
        if status:
            sys.exit(status)

    def _print_json(self, findings: list[Finding], status: int) -> None:
        level = {0: Level.FINE, 1: Level.BROKEN, 2: Level.ATTENTION}[status]
        body = {"status": level, "exit_status": status, "findings": [_as_json(finding) for finding in findings]}
        self.stdout.write(json.dumps(body, indent=2))

    def _print_screen(self, findings: Iterable[Finding]) -> None:
        style = {Level.FINE: self.style.SUCCESS, Level.ATTENTION: self.style.WARNING, Level.BROKEN: self.style.ERROR}
        counts: Counter[Level] = Counter()
        for section, group in groupby(findings, lambda finding: finding.section):
            self.stdout.write(self.style.MIGRATE_HEADING(section))
            for finding in group:
                counts[finding.level] += 1
                self.stdout.write(f"  {style[finding.level](f'{finding.level:<9}')}  {finding.sentence}")
                if finding.level != Level.FINE:
                    self.stdout.write(f"{'':13}-> {finding.next_step}")
        worst = next((level for level in (Level.BROKEN, Level.ATTENTION) if counts[level]), Level.FINE)
        self.stdout.write(style[worst](_summary(counts)))


def _as_json(finding: Finding) -> dict[str, str]:
    return {name: getattr(finding, name) for name in ("section", "level", "sentence", "next_step")}


def _summary(counts: Counter[Level]) -> str:
    broken, attention = counts[Level.BROKEN], counts[Level.ATTENTION]
    if not broken and not attention:
        return "Everything that was looked at works."
    begins = f"{broken} broken, " if broken else "It works. "
    return f"{begins}{attention} need{'s' if attention == 1 else ''} attention, {counts[Level.FINE]} ok."


def _days(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("must be a whole number of days, 0 or more")
    return int(text)
