"""What the commands share: how they end if something goes wrong, and a line of progress on a terminal."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    DjangoHelpFormatter,
    OutputWrapper,
)
from django.db import InterfaceError, OperationalError, ProgrammingError

from ..exceptions import ImagesError

#: Seconds between two changes of the line: more often, and a terminal far away slows the work down.
INTERVAL = 0.2


class _HelpFormatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the lines of a help text as they are written."""


class ImagesCommand(BaseCommand):
    """A command that ends with one sentence instead of a traceback, and keeps the lines of its help text.

    Attributes:
        interrupted: What Ctrl-C prints.
    """

    interrupted = "Interrupted."

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command.

        Raises:
            CommandError: An `ImagesError`, a database that cannot be used (both exit with 1), or Ctrl-C (130).
            SystemExit: Its output is not read any more, as in `… | head` (141, as a shell reports it).
        """
        try:
            try:
                output: str | None = super().execute(*args, **options)
            finally:  # also if the command ends with an exit status of its own
                self.stdout.flush()
        except ImagesError as err:
            raise CommandError(_database_sentence(err.__cause__) or f"{err.message} ({err.code})") from err
        except (InterfaceError, OperationalError, ProgrammingError) as err:
            raise CommandError(_database_sentence(err)) from err
        except KeyboardInterrupt as err:
            raise CommandError(self.interrupted, returncode=130) from err
        except BrokenPipeError:
            # At exit Python flushes what is left, which would print a traceback.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        return output

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.formatter_class = _HelpFormatter
        return parser


def _database_sentence(err: BaseException | None) -> str:
    if not isinstance(err, InterfaceError | OperationalError | ProgrammingError):
        return ""
    reason = (str(err).strip().splitlines() or [type(err).__name__])[0]
    return f"The database cannot be used: {reason}. If it has not been set up yet, run: manage.py migrate"


class ProgressLine:
    """A line that is written over and over on a terminal; silent in a pipe or a log.

    Log records that are written to the terminal meanwhile start on an empty line.

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
            for handler in _log_handlers():
                handler.addFilter(self._make_room)
            self._write(f"\r{text:<{self._width}}")
            self._width = len(text)

    def clear(self) -> None:
        """Leave an empty line for what comes next."""
        for handler in _log_handlers():
            handler.removeFilter(self._make_room)
        self._erase()

    def _make_room(self, _record: logging.LogRecord) -> bool:
        self._erase()
        return True

    def _erase(self) -> None:
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


def _log_handlers() -> list[logging.Handler]:
    """The handlers that records of this app reach."""
    handlers: list[logging.Handler] = []
    current: logging.Logger | None = logging.getLogger("images")
    while current:
        handlers += current.handlers
        current = current.parent if current.propagate else None
    return handlers
