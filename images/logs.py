"""Log lines of the form `event key=value`, safe to grep and to parse."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

_PLAIN = re.compile(r"[\w.:/@+~-]{1,200}")


def log_event(logger: logging.Logger, level: int, event: str, *, exc_info: Any = None, **fields: Any) -> None:
    """Write one line. Values a caller chose are quoted and cut, so none can forge a line or flood the log.

    Args:
        logger: Where to.
        level: One of `logging`'s levels.
        event: The event's stable name.
        exc_info: As in `logging`: an exception whose traceback belongs into the log.
        **fields: Our ids, names and numbers; never a key, a whole prompt or an upstream body.
    """
    if logger.isEnabledFor(level):
        line = " ".join([event, *(f"{key}={_value(value)}" for key, value in fields.items())])
        logger.log(level, "%s", line, exc_info=exc_info)


def _value(value: Any) -> str:
    text = "-" if value is None or value == "" else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text[:200])
