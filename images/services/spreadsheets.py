"""Tables as CSV. What callers have written, in titles for example, never becomes a formula of a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

#: Excel takes a file for UTF-8 only if it begins with this.
BYTE_ORDER_MARK = "\ufeff"
#: Cells that begin with one of these are formulas, or become one when the spreadsheet drops the white space.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def csv_lines(columns: Sequence[str], records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The header and a line for each record, each with its line end.

    Args:
        columns: The keys of the records, in the order of the columns.
        records: Values may be text, numbers, truth values, moments or `None`, which is an empty cell.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for cells in _all_cells(columns, records):
        writer.writerow(cells)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _all_cells(columns: Sequence[str], records: Iterable[Mapping[str, Any]]) -> Iterator[list[Any]]:
    yield list(columns)
    for record in records:
        yield [_cell(record[column]) for column in columns]


def _cell(value: Any) -> Any:
    """The value as a spreadsheet may read it: an apostrophe tells it that text is text."""
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return f"'{value}"
    return str(value).lower() if isinstance(value, bool) else value
