"""`Prefer` (RFC 7240): how long a caller wants to wait, and whether at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

#: More than this is not looked at: nobody has that many preferences.
MAX_LENGTH = 2000
#: `wait=` with more digits stands for "as long as it takes".
MAX_DIGITS = 6

_QUOTED = r'"(?:\\.|[^"\\])*"'
#: What stands between two commas, and between two semicolons, where those in quotes do not count.
_ELEMENT = re.compile(rf'(?:[^,"]|{_QUOTED})+')
_PARAMETER = re.compile(rf'(?:[^;"]|{_QUOTED})+')


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """What the caller prefers. Preferences that we do not know are ignored, as the RFC asks.

    Attributes:
        respond_async: An answer at once is fine, the image may follow.
        wait: Seconds the caller is going to wait, where it said so.
    """

    respond_async: bool = False
    wait: int | None = None

    @property
    def patience(self) -> int | None:
        """Seconds after which the answer may come without the image; `None` for as long as it takes."""
        if self.wait is not None:
            return self.wait
        return 0 if self.respond_async else None

    def applied(self, *, in_time: bool) -> str:
        """The answer's `Preference-Applied`.

        Args:
            in_time: The image is there within the time that the caller waits.
        """
        names = ["respond-async"] if self.respond_async and not in_time else []
        return ", ".join([*names, *([f"wait={self.wait}"] if self.wait is not None else [])])


def parse_preferences(header: str) -> Preferences:
    """Read the header; several of them come joined with commas. Of a preference that is repeated the first counts."""
    found: dict[str, str] = {}
    for name, value in _preferences(header[:MAX_LENGTH]):
        found.setdefault(name, value)
    wait = found.get("wait", "")
    seconds = int(wait) if re.fullmatch(rf"[0-9]{{1,{MAX_DIGITS}}}", wait) else None
    return Preferences(respond_async="respond-async" in found, wait=seconds)


def _preferences(header: str) -> Iterator[tuple[str, str]]:
    for element in _ELEMENT.findall(header):
        preference = _PARAMETER.match(element)  # what follows a semicolon are parameters, and we know none
        if preference:
            name, _, value = preference[0].partition("=")
            yield name.strip().lower(), _unquoted(value.strip())


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value
