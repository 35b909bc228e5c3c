"""The static summary that a run leaves in its notebook: HTML without script.

Invariant: without times it says what `words.text` says, and is as stable.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from .progress import CHOOSERS
from .records import Kind
from .timeline import Timeline
from .words import capped, choices, clipped, line, losers, several, text, title

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .progress import RunView, StepView

_OPEN: Final = 12
_COLUMNS: Final = (
    ("Step", "text-align:left;white-space:nowrap"),
    ("State", "text-align:left;white-space:nowrap"),
    ("Timeline", "text-align:left"),
    ("Time", "text-align:right;white-space:nowrap"),
    ("Why", "text-align:left"),
)
# Mid tones, so that they read on white and on JupyterLab's dark ground alike.
_COLOURS: Final = {
    "running": "#3b82d6",
    "family": "#3b82d6",
    "retrying": "#b8720a",
    "done": "#2e8b4e",
    "replayed": "#2e8b4e",
    "failed": "#d64545",
    "not saved": "#b8720a",
    "let go": "#b8720a",
}
_PALE: Final = "#8a8a8a"
_WIDTH: Final = 240


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
    timeline = Timeline(view)
    items = timeline.items(view.ended or view.at or 0.0)
    span = max(view.elapsed(), 0.001)
    head = "".join(f'<th scope="col" style="{style}">{word}</th>' for word, style in _COLUMNS)
    body = "".join(_html_row(item, span) for item in items.values())
    more = f'<tr><td colspan="5">… {timeline.cut:,} more rows</td></tr>' if timeline.cut else ""
    opened = " open" if len(items) <= _OPEN else ""
    return (
        f"<details{opened}><summary>Step by step</summary>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}{more}</tbody></table></details>"
    )


def _html_row(item: Mapping[str, Any], span: float) -> str:
    mark = " (lost)" if item.get("lost") else ""
    if item.get("won"):
        mark = " <strong>★ won</strong>"
    if chosen := item.get("chosen"):
        mark += f" <strong>★ <code>{escape(chosen)}</code></strong>"
    if deaths := item.get("deaths"):
        mark += f" (in flight at {deaths} deaths of the kernel)"
    # No <th> for the label: where styles are stripped it would be bold, as winners are.
    label = f"{'&#8195;' * item['depth']}<code>{escape(clipped(item['label']))}</code>{mark}"
    state = item.get("state", "")
    shown = f'<span style="color:{_colour(state)}">{item.get("glyph", "")}</span> {state}'
    attempts = f"{item['attempts']} attempts: " if "attempts" in item else ""
    said = (
        label,
        shown if state else "",
        _svg(item, span),
        escape(item.get("time", "")),
        escape(attempts + item.get("remark", "")),
    )
    cells = "".join(
        f'<td style="{style};vertical-align:top">{cell}</td>'
        for (_, style), cell in zip(_COLUMNS, said, strict=True)
    )
    return f"<tr>{cells}</tr>"


def _svg(item: Mapping[str, Any], span: float) -> str:
    """Draw the attempts of a row on the time axis of the whole execution."""
    parts = []
    top = 3 if item["kind"] in {"step", "family"} else 6  # what waits for others is thin
    for begin, end, how in item.get("bars", ()):
        left = begin / span * _WIDTH
        width = max(((end if end is not None else span) - begin) / span * _WIDTH, 2)
        parts.append(
            f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{14 - 2 * top}" rx="1" '
            f'fill="{_colour(how)}"/>'
        )
    if not parts:
        return ""
    return (
        f'<svg width="{_WIDTH}" height="14" viewBox="0 0 {_WIDTH} 14" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )


def _colour(state: str) -> str:
    return _COLOURS.get(state, _PALE)
