"""`manage.py import_images`: moving in from the old images service."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.template.defaultfilters import filesizeformat

from ...services.importing import ImportedFile, Mode, Outcome, count_files, import_images
from ..base import ImagesCommand, ProgressLine

_BAR = 30


class Command(ImagesCommand):
    help = """Adopt the pictures of the old images service: draft-images/{contentItemId}/{variant}-{milliseconds}.png.

Every picture gets a row and keeps its public path, and can be deleted by its old id. It is safe to interrupt and to
run again. Files that are not images are reported and left alone. The exit status is 1 if a picture could not
be imported, otherwise 0.

Examples:
  manage.py import_images /srv/old/storage --dry-run    what would be done; reads every file
  manage.py import_images /srv/old/storage              copies the files into the media root (MEDIA_ROOT)
  manage.py import_images /srv/old/storage --mode move  the same, without needing twice the space
  manage.py import_images media                         the files are in the media root already
"""
    interrupted = "Interrupted. Run it again to continue."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("directory", type=Path, help="The old service's storage folder.")
        parser.add_argument(
            "--mode",
            choices=[mode.value for mode in Mode],
            help="What happens to the old files. The default is leave if they are in the media root already, and "
            "copy otherwise.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Read and judge every file, and change nothing.")
        parser.add_argument("--json", action="store_true", help="Print a JSON object for each file and a summary.")

    def handle(self, *args: Any, **options: Any) -> None:
        self._line = ProgressLine(self.stderr)
        self._json: bool = options["json"]
        self._outcomes: Counter[Outcome] = Counter()
        self._bytes = 0
        try:
            self._import(options["directory"], options["mode"], dry_run=options["dry_run"])
        except BrokenPipeError:
            raise
        except OSError as err:
            raise CommandError(f"{err.filename or options['directory']}: {err.strerror}") from err
        finally:
            self._line.clear()
        self._sum_up(dry_run=options["dry_run"])

    def _import(self, directory: Path, mode: str | None, *, dry_run: bool) -> None:
        total = count_files(directory)
        for file in import_images(directory=directory, mode=Mode(mode) if mode else None, dry_run=dry_run):
            self._outcomes[file.outcome] += 1
            if file.outcome is Outcome.IMPORTED:
                self._bytes += file.size
            self._report(file)
            self._line.show(_bar(self._outcomes.total(), total))

    def _report(self, file: ImportedFile) -> None:
        if self._json:
            self._line.clear()
            self.stdout.write(json.dumps(asdict(file)))
        elif file.sentence:
            self._line.clear()
            name = file.name if file.name.isprintable() else ascii(file.name)  # must not confuse a terminal
            self.stdout.write(f"{file.outcome.value:<12} {name}: {file.sentence}")

    def _sum_up(self, *, dry_run: bool) -> None:
        counts = {outcome.value: self._outcomes[outcome] for outcome in Outcome}
        if self._json:
            summary = {**counts, "bytes": self._bytes, "dry_run": dry_run}
            self.stdout.write(json.dumps({"summary": summary}))
        else:
            done = "would be imported" if dry_run else "imported"
            size = filesizeformat(self._bytes).replace("\xa0", " ")
            self.stdout.write(
                f"{counts['imported']} {done} ({size}), {counts['present']} were there already, "
                f"{counts['not_an_image']} no images, {counts['failed']} failed."
            )
        if counts["failed"]:
            sys.exit(1)


def _bar(done: int, total: int) -> str:
    share = done / max(total, done, 1)
    return f"[{'#' * int(share * _BAR):<{_BAR}}] {done} of {total}"
