"""What the commands share: help texts that keep their lines, and a line of progress on a terminal."""

from __future__ import annotations

import threading
import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter, OutputWrapper

#: Seconds between two changes of the line: more often, and a terminal far away slows the work down.
INTERVAL = 0.2


class _HelpFormatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the lines of a help text as they are written."""


class ImagesCommand(BaseCommand):
    """A command whose help text is printed as it is written, with its examples on lines of their own."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.formatter_class = _HelpFormatter
        return parser


class ProgressLine:
    """A line that is written over and over on a terminal; silent in a pipe or a log.

    Args:
        stream: A command's `stderr`.
    """

    def __init__(self, stream: OutputWrapper) -> None:
        self._stream = stream
        self._shows = stream.isatty()
        self._width = 0
        self._next = 0.0

    def show(self, text: str) -> None:
        """Replace the line, unless that was done a moment ago."""
        if self._shows and time.monotonic() >= self._next:
            self._next = time.monotonic() + INTERVAL
            self._write(f"\r{text:<{self._width}}")
            self._width = len(text)

    def clear(self) -> None:
        """Leave an empty line for what comes next."""
        if self._width:
            self._write(f"\r{' ' * self._width}\r")
            self._width, self._next = 0, 0.0

    def _write(self, text: str) -> None:
        self._stream.write(text, style_func=str, ending="")  # Django's own style for this stream is that of errors
        self._stream.flush()

    @contextmanager
    def seconds(self, text: str) -> Iterator[None]:
        """Count the seconds that the block takes after `text`."""
        if not self._shows:
            yield
            return
        done = threading.Event()
        started = time.monotonic()

        def tick() -> None:
            while not done.wait(0.5):
                self.show(f"{text} {time.monotonic() - started:.0f} s")

        ticker = threading.Thread(target=tick, daemon=True)
        ticker.start()
        try:
            yield
        finally:
            done.set()
            ticker.join()
            self.clear()
