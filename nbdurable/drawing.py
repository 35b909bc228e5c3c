"""How a run looks in a terminal: the lines of its live view, and those that it leaves.

Invariant: state is told by shape and word, colour only adds to it; what the terminal's
encoding can't show is written in ASCII.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import words
from .progress import CHOOSERS, GLYPHS, MOVING, SETTLED, State
from .records import Why

if TYPE_CHECKING:
    from typing import TextIO

    from .progress import RunView, StepView

ROWS: Final = 20
"""A live view has no more rows, however high the terminal."""

_LABEL: Final = 40
_STATE: Final = 15
_WIDE: Final = 60
"""A terminal with fewer columns shows labels and states alone."""

_MEASURED: Final = 3
_UNBOUND: Final = 10_000

_STYLES: Final = {
    State.RUNNING: "blue",
    State.RETRYING: "yellow",
    State.DONE: "green",
    State.REPLAYED: "green",
    State.FAILED: "red",
    State.NOT_SAVED: "yellow",
}

_CODES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_PADDING = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$")

_ASCII: Final = str.maketrans(
    dict(zip("○▶↻✓✗↩⊘△□⇢★…·", ("o", ">", "~", "+", "x", "<", "/", "!", "-", "=", "*", "...", "-")))  # noqa: B905 - as long
)


@dataclass(slots=True)
class _Pace:
    """When a combinator was first seen under way, and how much of it was settled then."""

    at: float
    settled: int


class Artist:
    """Draws one run for one terminal."""

    def __init__(self, stream: TextIO) -> None:
        asked = Console(file=stream)
        self.can_move = stream.isatty() and asked.is_interactive and not asked.legacy_windows
        """Whether the cursor can be moved there, so that lines can be drawn again."""
        # Not on the stream itself, which may be closed meanwhile: what is drawn is taken as text.
        self._console = Console(
            file=StringIO(),
            force_terminal=asked.is_terminal,
            color_system=asked.color_system,  # type: ignore[arg-type] # the name of one
            no_color=asked.no_color,
            legacy_windows=False,
            highlight=False,
            emoji=False,
        )
        self._encoding = stream.encoding or "utf-8"
        self._ascii = not _shows(self._encoding)
        self._paces: dict[int, _Pace] = {}

    def live(self, view: RunView, now: float, *, columns: int, room: int) -> list[str]:
        """Give the lines of a run that is under way, at most `room` of them."""
        rows = self._rows(view, min(ROWS, room - 2))
        wide = columns >= _WIDE
        table = Table.grid(padding=(0, 2, 0, 0), expand=wide)
        label = min(_LABEL, max(1, columns - 2 - _STATE))
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=label)
        table.add_column(no_wrap=True, overflow="ellipsis")
        if wide:
            table.add_column(no_wrap=True)
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for row in rows:
            table.add_row(*self._row(view, row, now)[: len(table.columns)])
        lines = [*self._lines(_header(view, now), columns)]
        if rows:
            lines += self._lines(table, columns)
        hidden = len(view.steps) - len(rows)
        if hidden and room > len(lines):
            lines += self._lines(Text(f"  … {hidden:,} more", style="dim"), columns)
        return lines[:room]

    def left(self, view: RunView) -> str:
        """Give what stays on the screen when the run has ended: a line, and what matters."""
        said = words.line(view)
        text = Text(said)
        text.stylize("bold", 0, len(view.name))
        for sentence in words.capped(
            [words.sentence(view, row) for row in words.choices(view)], "decisions"
        ):
            text.append(f"\n  {one_line(sentence)}")
        failed = [f"{words.title(row)} failed: {row.error}" for row in words.failures(view)]
        for sentence in words.capped([words.clipped(one) for one in failed], "failures"):
            text.append(f"\n  {GLYPHS[State.FAILED]} {one_line(sentence)}", style="red")
        for note in words.capped(list(view.notes), "notes"):
            text.append(f"\n  {one_line(note)}")
        return "\n".join(self._lines(text, None))

    def line(self, said: str) -> str:
        """Write one line for people as this terminal can show it."""
        return self._plain(one_line(said))

    def _rows(self, view: RunView, limit: int) -> list[StepView]:
        """Choose the rows: all that there are, or what moves, failed or was chosen."""
        if limit <= 0:
            return []
        if len(view.steps) <= limit:
            return view.shown(limit)
        return [row for row in view.shown(limit) if _matters(row)]

    def _row(self, view: RunView, row: StepView, now: float) -> tuple[Text, ...]:
        label = Text("  " * (row.depth + 1))
        label.append(GLYPHS[row.state], style=_STYLES.get(row.state, "dim"))
        label.append(
            f" {one_line(words.heading(row))}", style="bold" if row.won is not None else ""
        )
        state = str(row.state) if row.lost is None else f"{row.state}, lost"
        if row.won is not None:
            state = f"{row.state}, ★ won"
        return (
            label,
            Text(state, style=_STYLES.get(row.state, "dim")),
            Text(_time(row, now), style="dim"),
            Text(one_line(self._remark(view, row, now)), style=_remark_style(row)),
        )

    def _remark(self, view: RunView, row: StepView, now: float) -> str:
        if row.kind in CHOOSERS and row.winners:
            won = [words.title(view.steps[one]) for one in row.winners if one in view.steps]
            return f"★ {words.several(won)} won"
        said = words.remark(row).removesuffix(f" ({Why.NEW})")
        if said in {Why.NEW, Why.REPLAYED}:
            return ""  # the state says it, or it needs no saying
        if row.combinator and row.state is State.WAITING and row.branches:
            if left := self._remaining(row, now):
                return f"{said}, about {words.duration(left)} left"
        elif row.state is State.RUNNING and row.attempts > 1:
            before = f"attempt {row.attempts}, before it: {row.error}" if row.error else ""
            return before or f"attempt {row.attempts}"
        return said

    def _remaining(self, row: StepView, now: float) -> float:
        """Estimate the seconds until all branches have ended, by the pace of this execution.

        0 until enough of them have ended to tell; what was replayed at the start
        is no measure.
        """
        pace = self._paces.setdefault(row.place, _Pace(now, row.settled))
        done, seconds = row.settled - pace.settled, now - pace.at
        if row.kind in CHOOSERS or done < _MEASURED or seconds <= 1:
            return 0.0
        return (len(row.branches) - row.settled) * seconds / done

    def _lines(self, drawn: Text | Table, columns: int | None) -> list[str]:
        """Draw; without `columns` lines are as long as they are, and the terminal wraps them."""
        self._console.width = max(1, columns - 1) if columns else _UNBOUND
        with self._console.capture() as captured:
            self._console.print(
                drawn,
                soft_wrap=columns is None,
                no_wrap=columns is not None,
                overflow=None if columns is None else "ellipsis",
            )
        return [_PADDING.sub(r"\1", line) for line in self._plain(captured.get()).splitlines()]

    def _plain(self, text: str) -> str:
        text = text.translate(_ASCII) if self._ascii else text
        return text.encode(self._encoding, "backslashreplace").decode(self._encoding)


def _matters(row: StepView) -> bool:
    return (
        row.state in MOVING
        or row.state in {State.FAILED, State.NOT_SAVED, State.LET_GO}
        or bool(row.branches)
    )


def _header(view: RunView, now: float) -> Text:
    total = sum(view.counts.values())
    done = sum(view.counts[state] for state in SETTLED)
    text = Text(view.name, style="bold")
    counted = f": {done:,} of {total:,} steps ({words.tally(view)})" if total else ": no steps yet"
    text.append(f"{counted}, {words.duration(view.elapsed(now))}", style="not bold")
    return text


def _time(row: StepView, now: float) -> str:
    if row.state is State.RETRYING and row.again is not None:
        return f"again in {words.duration(max(0.0, row.again - now))}"
    if row.state is State.RUNNING and row.started is not None:
        return words.duration(max(0.0, now - row.started))
    return words.took(row)


def _remark_style(row: StepView) -> str:
    if row.state is State.FAILED:
        return "red"
    return "yellow" if row.state is State.RETRYING else "dim"


def one_line(said: str) -> str:
    """Write a text of whatever origin in one line that moves no cursor and rings no bell."""
    bare = _CODES.sub("", " ".join(said.split()))
    return "".join(letter for letter in bare if letter.isprintable())


def _shows(encoding: str) -> bool:
    """Tell whether an encoding has the shapes."""
    try:
        "".join((*GLYPHS.values(), "★…·")).encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
