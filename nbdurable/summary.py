"""The static summary that a run leaves in its notebook: HTML without script.

Invariant: without times it says what `words.text` says, and is as stable.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from .progress import CHOOSERS, GLYPHS, State
from .records import Kind
from .timeline import chips
from .words import (
    capped,
    choices,
    clipped,
    heading,
    line,
    losers,
    remark,
    several,
    text,
    title,
    took,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .progress import RunView, StepView

_OPEN: Final = 12
_COLUMNS: Final = (
    ("Step", "left"),
    ("State", "left"),
    ("Attempts", "right"),
    ("Time", "right"),
    ("Why", "left"),
)
# Mid tones, so that they read on white and on JupyterLab's dark ground alike.
_COLOURS: Final = {
    State.RUNNING: "#3b82d6",
    State.RETRYING: "#b8720a",
    State.DONE: "#2e8b4e",
    State.REPLAYED: "#2e8b4e",
    State.FAILED: "#d64545",
    State.NOT_SAVED: "#b8720a",
}


def html(view: RunView, *, times: bool = True) -> str:
    """Render the run as HTML that needs neither script nor style to be read.

    Without ``times`` it says what `text` says, and is as stable.
    """
    if not times:
        return _stable_html(view)
    parts = [f"<p><strong>{escape(view.name)}</strong>{escape(line(view)[len(view.name) :])}</p>"]
    parts += _items(capped([_verdict(view, row) for row in choices(view)], "decisions"))
    if view.steps:
        parts.append(_table(view))
    parts += _items(escape(note) for note in capped(list(view.notes), "notes"))
    return f"<div>{''.join(parts)}</div>"


def _stable_html(view: RunView) -> str:
    head, *rest = text(view).split("\n")
    said = escape(head[len(view.name) :])
    items = "".join(_items(escape(sentence) for sentence in rest))
    return f"<div><p><strong>{escape(view.name)}</strong>{said}</p>{items}</div>"


def _items(items: Iterable[str]) -> list[str]:
    listed = "".join(f"<li>{item}</li>" for item in items)
    return [f"<ul>{listed}</ul>"] if listed else []


def _verdict(view: RunView, row: StepView) -> str:
    """Say who won, marked unmistakably, and what became of the others."""
    won = [_strong(view.steps[place]) for place in row.winners if place in view.steps]
    name = escape(row.name or row.kind)
    if row.kind not in CHOOSERS:
        return f"{name}: {several(won, ', then ')}"
    over = [f"<code>{_code(loser)}</code> ({loser.state})" for loser in losers(view, row)]
    ending = " with an error" if row.outcome is Kind.ERROR else ""
    said = f"{name}: ★ {several(won)} won{ending}"
    return f"{said} over {several(over)}" if over else said


def _strong(row: StepView) -> str:
    return f"<strong><code>{_code(row)}</code></strong>"


def _code(row: StepView) -> str:
    return escape(clipped(title(row)))


def _table(view: RunView) -> str:
    rows = view.shown()
    head = "".join(
        f'<th scope="col" style="text-align:{side}">{word}</th>' for word, side in _COLUMNS
    )
    body = "".join(_html_row(view, row) for row in rows)
    hidden = len(view.steps) - len(rows)
    more = f'<tr><td colspan="5">… {hidden:,} more rows</td></tr>' if hidden else ""
    opened = " open" if len(rows) <= _OPEN else ""
    return (
        f"<details{opened}><summary>Step by step</summary>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}{more}</tbody></table></details>"
    )


def _html_row(view: RunView, row: StepView) -> str:
    mark = "" if row.lost is None else " (lost)"
    if row.won is not None:
        mark = " <strong>★ won</strong>"
    colour = _COLOURS.get(row.state, "")
    style = f' style="color:{colour}"' if colour else ""
    named = escape(clipped(heading(row)))
    # No <th> for the label: where styles are stripped it would be bold, as winners are.
    label = f"{'&#8195;' * row.depth}<code>{named}</code>{mark}{_html_branches(view, row)}"
    state = f"<span{style}>{GLYPHS[row.state]}</span> {row.state}"
    said = (label, state, row.attempts or "", took(row), escape(remark(row)))
    cells = "".join(
        f'<td style="text-align:{side};vertical-align:top">{cell}</td>'
        for (_, side), cell in zip(_COLUMNS, said, strict=True)
    )
    return f"<tr>{cells}</tr>"


def _html_branches(view: RunView, row: StepView) -> str:
    if not row.branches:
        return ""
    shown, more = chips(view, row)
    named = [
        f"<br>★ {_strong(branch)} won"
        if branch.won == row.place
        else f"<br>{GLYPHS[branch.state]} <code>{_code(branch)}</code> {branch.state}"
        for branch in shown
    ]
    return "".join(named) + (f"<br>… {more:,} more" if more else "")
