"""Rows for a person: HTML in a notebook, a table by rich in a terminal.

Invariant: what is shown is escaped, and the plain text depends on the rows alone.
"""

from __future__ import annotations

import sys
from datetime import datetime
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from nbdurable.labels import harmless, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PLAIN_WIDTH: Final = 120
"""Columns of the plain text, wherever it is made."""

_STATUS: Final = {
    "finished": "green",
    "value": "green",
    "running": "blue",
    "failed": "red",
    "error": "red",
    "wrong": "red",
    "died": "red",
    "interrupted": "yellow",
    "cancelled": "dim",
}


class Table:
    """Rows for a person, and for programs.

    Iterating gives the rows as dicts, so ``pandas.DataFrame(list(table))`` works.

    Args:
        rows: All with the keys of the first.
        empty: What is shown in place of no rows.
        title: A line above the table.
    """

    def __init__(
        self, rows: Iterable[Mapping[str, object]], empty: str = "nothing yet", title: str = ""
    ) -> None:
        self._rows = [dict(row) for row in rows]
        self._empty = empty
        self._title = title

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, object]]:
        return iter(self._rows)

    def __getitem__(self, at: int) -> dict[str, object]:
        return self._rows[at]

    def __repr__(self) -> str:
        return self._text(_console(width=PLAIN_WIDTH, color_system=None))

    def _repr_mimebundle_(self, **_kinds: Any) -> dict[str, str]:
        return {"text/plain": self._for_here(), "text/html": self._repr_html_()}

    def _repr_html_(self) -> str:
        title = f"<p>{escape(harmless(self._title))}</p>" if self._title else ""
        if not self._rows:
            return f"{title}<p>{escape(self._empty)}</p>"
        sides = ["right" if right else "left" for right in _numeric(self._rows)]
        head = "".join(
            f'<th scope="col" style="text-align:{side}">{escape(printable(str(column)))}</th>'
            for column, side in zip(self[0], sides, strict=True)
        )
        body = "".join(f"<tr>{_html_cells(row, sides)}</tr>" for row in self._rows)
        return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _for_here(self) -> str:
        """Return the text: coloured and as wide as the terminal, where stdout is one."""
        stream = sys.stdout
        if not stream.isatty():
            return repr(self)
        here = Console()
        return self._text(
            _console(
                force_terminal=here.is_terminal,
                width=here.width,
                color_system=here.color_system,
                no_color=here.no_color,
                legacy_windows=False,
            )
        )

    def _text(self, console: Console) -> str:
        if not self._rows:
            return harmless(f"{self._title}\n{self._empty}" if self._title else self._empty)
        with console.capture() as captured:
            if self._title:
                console.print(harmless(self._title), markup=False, highlight=False, soft_wrap=True)
            console.print(grid(self._rows))
        return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _console(**options: Any) -> Console:
    """Make what a text is drawn on. In a kernel rich would also display it, were it let."""
    return Console(file=StringIO(), force_jupyter=False, **options)


def grid(rows: Sequence[Mapping[str, object]]) -> RichTable:
    """Lay rows out for rich: numbers to the right, what is too long folded."""
    table = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column, right in zip(rows[0], _numeric(rows), strict=True):
        table.add_column(
            Text(printable(str(column))), overflow="fold", justify="right" if right else "left"
        )
    for row in rows:
        table.add_row(
            *(Text(said := cell(one), style=_STATUS.get(said, "")) for one in row.values())
        )
    return table


def cell(value: object) -> str:
    """Write one value for a person: local times, short digests."""
    match value:
        case None:
            return ""
        case bytes():
            return value.hex()[:16]
        case float():
            return f"{value:,.3f}"
        case datetime() if value.tzinfo is not None:
            return f"{value.astimezone():%Y-%m-%d %H:%M:%S}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case _:
            return harmless(str(value))


def _html_cells(row: Mapping[str, object], sides: Sequence[str]) -> str:
    return "".join(
        f'<td style="text-align:{side}">{escape(cell(value))}</td>'
        for value, side in zip(row.values(), sides, strict=True)
    )


def _numeric(rows: Sequence[Mapping[str, object]]) -> list[bool]:
    """Tell of each column whether it holds numbers."""
    columns = zip(*(row.values() for row in rows), strict=True)
    return [
        any(_is_number(value) for value in column)
        and all(value is None or _is_number(value) for value in column)
        for column in map(list, columns)
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
