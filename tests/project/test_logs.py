"""A line of the log cannot be forged."""

from __future__ import annotations

import io
import logging
import logging.config
import sys

import pytest
from django.conf import settings
from django.test import Client

from trygo_backend.logs import OneLineFormatter


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("images", logging.INFO, __file__, 1, message, None, None)


def test_line_breaks_and_control_characters_are_escaped() -> None:
    line = OneLineFormatter("%(message)s").format(record("a\nb\r\x1b[31m\u2028c — д"))
    assert line == r"a\nb\r\x1b[31m\u2028c — д"


def test_a_traceback_keeps_its_lines() -> None:
    failed = record("failed")
    try:
        raise ValueError("why")
    except ValueError:
        failed.exc_info = sys.exc_info()
    assert OneLineFormatter("%(message)s").format(failed).splitlines()[-1] == "ValueError: why"


def test_each_record_is_written_once_and_a_foreign_host_on_one_line(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logging.config.dictConfig(settings.LOGGING)
    try:
        logging.getLogger("images").info("generation_started image=1")
        client.get("/", headers={"host": "evil.example"})
        client.get("/unknown")
    finally:
        monkeypatch.undo()
        logging.config.dictConfig(settings.LOGGING)
    lines = stream.getvalue().splitlines()
    assert [line.split()[3] for line in lines] == ["images", "django.security.DisallowedHost"]
