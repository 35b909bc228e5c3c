"""How a run looks in a terminal: the lines of its live view, and those that it leaves.

Invariant: state is told by shape and word, colour only adds to it; what the terminal's
encoding can't show is written in ASCII.
"""

from __future__ import annotations

import re
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nbdurable import labels
from nbdurable.view import words
from nbdurable.view.progress import GLYPHS, MOVING, SETTLED, State
from nbdurable.view.timeline import Timeline

if TYPE_CHECKING:
    from typing import TextIO

    from nbdurable.view.progress import RunView

    _Item = dict[str, Any]

ROWS: Final = 20
"""A live view has no more rows, however high the terminal."""

_FOLDED: Final = 25
"""A family of so many rows is one row: nobody can open it here."""

_LABEL: Final = 40
_STATE: Final = 15
_WIDE: Final = 60
"""A terminal with fewer columns shows labels and states alone."""

_UNBOUND: Final = 10_000

_STYLES: Final = {
    State.RUNNING: "blue",
    State.RETRYING: "yellow",
    State.DONE: "green",
    State.REPLAYED: "magenta",
    State.FAILED: "red",
    State.NOT_SAVED: "yellow",
}

_REMARKS: Final = {State.FAILED: "red", State.RETRYING: "yellow"}

_CODES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_PADDING = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$")

_ASCII: Final = str.maketrans(
    dict(zip("○▶↻✓✗↩⊘△□⇢★…·", ("o", ">", "~", "+", "x", "<", "/", "!", "-", "=", "*", "...", "-")))  # noqa: B905 - as long
)


class Artist:
    """Draws one run for one terminal."""

    def __init__(self, stream: TextIO) -> None:
        asked = Console(file=stream, force_jupyter=False)
        self.can_move = stream.isatty() and asked.is_interactive and not asked.legacy_windows
        """Whether the cursor can be moved there, so that lines can be drawn again."""
        # Not on the stream itself, which may be closed meanwhile: what is drawn is taken as text.
        self._console = Console(
            file=StringIO(),
            force_jupyter=False,
            force_terminal=asked.is_terminal,
            color_system=asked.color_system,  # type: ignore[arg-type] # the name of one
            no_color=asked.no_color,
            legacy_windows=False,
            highlight=False,
            emoji=False,
        )
        self._encoding = stream.encoding or "utf-8"
        self._ascii = not _shows(self._encoding)
        self._timeline: Timeline | None = None

    def live(self, view: RunView, now: float, *, columns: int, room: int) -> list[str]:
        """Return the lines of a run that is under way, at most `room` of them."""
        if self._timeline is None or self._timeline.view is not view:
            self._timeline = Timeline(view, whole=_FOLDED)
        items = list(self._timeline.items(now).values())
        rows = _chosen(items, min(ROWS, room - 2))
        wide = columns >= _WIDE
        table = Table.grid(padding=(0, 2, 0, 0), expand=wide)
        label = min(_LABEL, max(1, columns - 2 - _STATE))
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=label)
        table.add_column(no_wrap=True, overflow="ellipsis")
        if wide:
            table.add_column(no_wrap=True)
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for row in rows:
            table.add_row(*_cells(view, row, now)[: len(table.columns)])
        lines = [*self._lines(_header(view, now), columns)]
        if rows:
            lines += self._lines(table, columns)
        hidden = len(items) - len(rows) + self._timeline.cut
        if hidden and room > len(lines):
            lines += self._lines(Text(f"  … {hidden:,} more", style="dim"), columns)
        return lines[:room]

    def left(self, view: RunView) -> str:
        """Return what stays on the screen when the run has ended: a line, and what matters."""
        said = words.line(view)
        text = Text(said)
        text.stylize("bold", 0, len(view.name))
        for sentence in words.capped(
            [words.sentence(view, row) for row in words.choices(view)], "decisions"
        ):
            text.append(f"\n  {one_line(sentence)}")
        failed = [words.failed(row) for row in words.failures(view)]
        for sentence in words.capped(failed, "failures"):
            text.append(f"\n  {GLYPHS[State.FAILED]} {one_line(sentence)}", style="red")
        for note in words.capped(list(view.notes), "notes"):
            text.append(f"\n  {one_line(note)}")
        return "\n".join(self._lines(text, None))

    def line(self, said: str) -> str:
        """Write one line for people as this terminal can show it."""
        return self._plain(one_line(said))

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


def _chosen(items: list[_Item], limit: int) -> list[_Item]:
    """Choose rows: what moves, what went wrong, what stands for many; then the others."""
    if len(items) <= limit:
        return items
    ranked = sorted(range(len(items)), key=lambda at: (_rank(items[at]), at))
    return [items[at] for at in sorted(ranked[: max(0, limit)])]


def _rank(item: _Item) -> int:
    if item.get("state") in MOVING:
        return 0
    if item.get("state") in {State.FAILED, State.NOT_SAVED, State.LET_GO}:
        return 1
    return 2 if "counts" in item or "open" in item else 3


def _cells(view: RunView, item: _Item, now: float) -> tuple[Text, ...]:
    state = item.get("state", "")
    style = _STYLES.get(state, "dim")
    label = Text("  " * (item["depth"] + 1))
    label.append(item.get("glyph", " "), style=style)
    label.append(f" {one_line(item['label'])}", style="bold" if item.get("won") else "")
    fate = ", ★ won" if item.get("won") else ", lost" if item.get("lost") else ""
    return (
        label,
        Text(f"{item.get('word', state)}{fate}", style=style),
        Text(_time(item, now), style="dim"),
        Text(one_line(_remark(view, item)), style=_REMARKS.get(state, "dim")),
    )


def _remark(view: RunView, item: _Item) -> str:
    """Say what is to be known beside the state."""
    if item.get("chosen"):
        return f"★ {item['chosen']} won"
    said = [item.get("left", ""), item.get("remark", ""), item.get("error", "")]
    row = view.steps.get(item.get("place", -1))
    if row is not None and row.state is State.RUNNING and row.error:
        said.insert(0, f"attempt {row.attempts}, before it: {row.error}")
    if item.get("reached"):
        said.insert(0, item["reached"])
    if item.get("deaths"):
        said.insert(0, f"in flight at {item['deaths']} deaths of its process")
    return ", ".join(filter(None, said))


def _header(view: RunView, now: float) -> Text:
    total = sum(view.counts.values())
    done = sum(view.counts[state] for state in SETTLED)
    text = Text(view.name, style="bold")
    counted = f": {done:,} of {total:,} steps ({words.tally(view)})" if total else ": no steps yet"
    text.append(f"{counted}, {labels.duration(view.elapsed(now))}", style="not bold")
    return text


def _time(item: _Item, now: float) -> str:
    if item.get("again"):
        return f"again in {labels.duration(max(0.0, item['again'] - now))}"
    if item.get("since") and not item.get("time"):
        return labels.duration(max(0.0, now - item["since"]))
    return str(item.get("time", ""))


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
