"""Rows for a person: HTML in a notebook, a text table in a terminal.

Invariant: what is shown is escaped, and its text depends on the rows alone.
"""

from __future__ import annotations

from datetime import datetime
from html import escape
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Table:
    """Rows for a person: HTML in a notebook, a text table in a terminal.

    Iterating gives the rows as dicts, so ``pandas.DataFrame(list(table))`` works.
    """

    def __init__(self, rows: Sequence[Mapping[str, object]], empty: str = "nothing yet") -> None:
        self._rows = [dict(row) for row in rows]
        self._empty = empty

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, object]]:
        return iter(self._rows)

    def __getitem__(self, at: int) -> dict[str, object]:
        return self._rows[at]

    def __repr__(self) -> str:
        if not self._rows:
            return self._empty
        from rich.box import SIMPLE  # noqa: PLC0415 - only who prints a table pays for it
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table as RichTable  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = RichTable(box=SIMPLE, show_edge=False, pad_edge=False)
        for column in self._rows[0]:
            table.add_column(column, overflow="fold")
        for row in self._rows:
            table.add_row(*(Text(_shown(value)) for value in row.values()))
        console = Console(
            file=StringIO(), width=120, color_system=None, force_terminal=False, force_jupyter=False
        )
        console.print(table)
        assert isinstance(console.file, StringIO)
        return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())

    def _repr_html_(self) -> str:
        if not self._rows:
            return f"<p>{escape(self._empty)}</p>"
        left = ' style="text-align:left"'
        head = "".join(f'<th scope="col"{left}>{escape(str(column))}</th>' for column in self[0])
        body = "".join(
            f"<tr>{''.join(f'<td{left}>{escape(_shown(v))}</td>' for v in row.values())}</tr>"
            for row in self._rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _shown(value: object) -> str:
    """Write one value of a row for a person."""
    match value:
        case None:
            return ""
        case bytes():
            return value.hex()[:16]
        case float():
            return f"{value:,.3f}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case _:
            return str(value)
