"""How log records are written."""

from __future__ import annotations

import logging

#: Control characters and Unicode's own line separators, each mapped to its escape.
_ESCAPES = {code: chr(code).encode("unicode_escape").decode("ascii") for code in (*range(32), *range(127, 160))}
_ESCAPES |= {0x2028: "\\u2028", 0x2029: "\\u2029"}


class OneLineFormatter(logging.Formatter):
    """Writes each record on one line, so that line breaks in a path or a title cannot forge a second record.

    Only a traceback adds further lines.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record's line without its traceback."""
        return super().formatMessage(record).translate(_ESCAPES)


class WithoutTraceback(logging.Filter):
    """Drops the traceback of records that any caller can cause and that need no more than their line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without its traceback."""
        record.exc_info = record.exc_text = None
        return True
