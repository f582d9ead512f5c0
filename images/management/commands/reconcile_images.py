"""`manage.py reconcile_images`: rows and files after a crash, a restored backup or a move."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser

from ...services.reconciliation import Discrepancy, reconcile
from ..base import ImagesCommand, ProgressLine


class Command(ImagesCommand):
    help = """Find and repair differences between the database and the stored files; without --apply, report only.

Kinds of discrepancies, and what --apply does about each:
  stale         pending long after its deadline: ready if its whole file is there, otherwise failed
  unrecorded    failed, but its whole file is there: ready, since it was paid for
  missing       ready, but without a file: failed
  half_deleted  a deletion that was interrupted: finished
  leftover      a half-written file older than an hour: removed
  orphan        an image without a row: gets a row without an owner; removed with --delete-orphans
  not_an_image  another file without a row: left alone; removed with --delete-orphans
  changed       --verify: a whole image that does not match its row: the row is corrected
  damaged       a row's file that is not a whole image: removed, and the row is failed
  budget        sums of a budget that are not those of the rows: counted anew
  unreadable    a file or folder that the storage could not read: left alone

It can run while the server works. The exit status is 0 if nothing remains to be done, otherwise 1.

Examples:
  manage.py reconcile_images                    what would be done
  manage.py reconcile_images --apply            after a crash
  manage.py reconcile_images --apply --verify   after a power cut or a restored backup; reads every file
  manage.py reconcile_images --json | jq        for programs: one object for each discrepancy, then a summary
"""
    interrupted = "Interrupted. Run it again to continue."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--apply", action="store_true", help="Repair the discrepancies.")
        parser.add_argument("--verify", action="store_true", help="Read every image and compare size and SHA-256.")
        parser.add_argument(
            "--delete-orphans", action="store_true", help="Remove files without a row instead of adopting them."
        )
        parser.add_argument(
            "--accept-loss",
            action="store_true",
            help="Continue even if the database has images and the storage has no file at all, which usually "
            "means that a disk is not mounted.",
        )
        parser.add_argument(
            "--json", action="store_true", help="Print a JSON object for each discrepancy and a summary."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self._line = ProgressLine(self.stderr)
        self._json: bool = options["json"]
        counts: Counter[str] = Counter()
        mended = 0
        try:
            for discrepancy in reconcile(
                apply=options["apply"],
                verify=options["verify"],
                delete_orphans=options["delete_orphans"],
                accept_loss=options["accept_loss"],
                progress=lambda stage, count: self._line.show(f"Looking at {stage}... {count}"),
            ):
                counts[discrepancy.kind.value] += 1
                mended += discrepancy.mended
                self._report(discrepancy, apply=options["apply"])
        finally:
            self._line.clear()
        self._sum_up(counts, mended, apply=options["apply"])

    def _report(self, discrepancy: Discrepancy, *, apply: bool) -> None:
        self._line.clear()
        if self._json:
            self.stdout.write(json.dumps(asdict(discrepancy), default=str))
            return
        done = "mended" if discrepancy.mended else "left" if apply else "found"
        what = " ".join(filter(None, [str(discrepancy.image_id or ""), _printable(discrepancy.name)]))
        self.stdout.write(f"{done:<7} {discrepancy.kind.value:<13} {what}: {discrepancy.sentence}")

    def _sum_up(self, counts: Counter[str], mended: int, *, apply: bool) -> None:
        total = counts.total()
        if self._json:
            by_kind = dict(sorted(counts.items()))
            summary = {"findings": total, "mended": mended, "remaining": total - mended, "by_kind": by_kind}
            self.stdout.write(json.dumps({"summary": summary}))
        elif not total:
            self.stdout.write("Rows and files agree.")
        else:
            advice = "" if apply else " Nothing was changed; --apply repairs it."
            self.stdout.write(f"{total} found, {mended} mended, {total - mended} left.{advice}")
        if total > mended:
            sys.exit(1)


def _printable(name: str) -> str:
    """The name without characters that could confuse a terminal."""
    return name if name.isprintable() else ascii(name)
