"""`manage.py images_usage`: what was spent, made and failed, as on the admin's Usage page."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...models import DeletedImage
from ...services.database import rows
from ...services.spreadsheets import csv_lines
from ...services.usage import MAX_YEARS, By, Period, UsageReport, records, usage_report
from ..base import ImagesCommand

#: The columns of the table that is printed; `--json` and `--csv` have all.
SHOWN = {
    "requested": "requested", "made": "made", "success": "success", "p90_seconds": "p90 s",
    "own_failures": "ours", "provider_failures": "provider's", "refused": "refused", "in_progress": "running",
}  # fmt: skip


class Command(ImagesCommand):
    help = """What was spent, made and failed in a range of days, as on the admin's Usage page.

Deleted images count, too. An unknown cost is not zero: it is counted apart.

Examples:
  manage.py images_usage                                 the last 30 days
  manage.py images_usage --days 90 --by model
  manage.py images_usage --since 2026-11-01 --until 2026-11-30 --by user --csv > november.csv
  manage.py images_usage --json | jq '.[] | .cost_usd'   one object for each line
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--days", type=int, default=30, help="The last days, today included (default: 30).")
        parser.add_argument("--since", default="", metavar="DATE", help="The first day, such as 2026-11-01.")
        parser.add_argument("--until", default="", metavar="DATE", help="The last day (default: today).")
        parser.add_argument("--by", choices=[str(by) for by in By], default=By.DAY.value, help="What to list.")
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="Print a list of JSON objects.")
        form.add_argument("--csv", action="store_true", help="Print CSV.")

    def handle(self, *args: Any, **options: Any) -> None:
        images = rows()
        report = usage_report(
            images=images,
            deleted=DeletedImage.objects.using(images.db),
            period=_period(options),
            by=By(options["by"]),
        )
        lines = records(report)
        if options["json"]:
            self.stdout.write(json.dumps(lines, indent=2, ensure_ascii=False))
        elif options["csv"]:
            for line in csv_lines(list(lines[0]) if lines else [options["by"]], lines):
                self.stdout.write(line, ending="")
        else:
            self._print(report, lines)

    def _print(self, report: UsageReport, lines: list[dict[str, Any]]) -> None:
        self.stdout.write(f"{report.period.first} to {report.period.last}")
        cells = [[_name(line), _money(line), *(_text(name, line[name]) for name in SHOWN)] for line in lines]
        table = [[report.by.value, "spent", *SHOWN.values()], *cells]
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        for row in table:
            padded = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            self.stdout.write("  ".join(padded).rstrip())
        deletions = report.deletions
        self.stdout.write(
            f"Deletions: {deletions.at_first_try + deletions.later}, {deletions.at_first_try} of them at the first "
            f"try; {deletions.unfinished} unfinished."
        )
        if report.share < 1:
            self.stdout.write(f"Durations are those of {report.share:.1%} of the pictures, chosen at random.")


def _period(options: dict[str, Any]) -> Period:
    try:
        if options["since"] or options["until"]:
            return Period.parse(options["since"], options["until"])
    except ValueError as err:
        raise CommandError(f"--since and --until: {err}") from err
    if not 1 <= options["days"] <= 365 * MAX_YEARS:
        raise CommandError(f"--days must be between 1 and {365 * MAX_YEARS}.")
    return Period.of_days(options["days"])


def _name(line: dict[str, Any]) -> str:
    """What a line is called, without characters that could confuse a terminal."""
    names = [line[name] for name in ("day", "provider", "model", "user", "content_item") if line.get(name)]
    text = " ".join(names) or "(none)"
    return text if text.isprintable() else ascii(text)


def _money(line: dict[str, Any]) -> str:
    if line["cost_usd"] is None:
        return "unknown"
    at_least = "at least " if line["cost_at_least"] and not line["unknown_cost"] else ""
    unknown = f", and {line['unknown_cost']} of unknown cost" if line["unknown_cost"] else ""
    return f"{at_least}${line['cost_usd']}{unknown}"


def _text(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return f"{int(value * 1000) / 10:g} %" if name == "success" else str(value)
