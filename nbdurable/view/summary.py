"""The static summary that a run leaves in its notebook: HTML without script.

Invariant: without times it says what `words.text` says, and is as stable.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from nbdurable.records import Kind, RunStatus

from .progress import CHOOSERS
from .timeline import Timeline
from .words import (
    capped,
    choices,
    clipped,
    failures,
    losers,
    opening,
    resuming,
    several,
    text,
    title,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from nbdurable.events import Fact

    from .progress import RunView, StepView

_OPEN: Final = 12
_FOLDED: Final = 25
"""A family of so many rows is one row: nobody can open it later."""
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
    "replayed": "#8a63d2",
    "failed": "#d64545",
    "not saved": "#b8720a",
    "not finished": "#b8720a",
}
_PALE: Final = "#8a8a8a"
_WIDTH: Final = 240
_DETAILED: Final = 60
"""Of so many rows more is told."""
_LONGEST: Final = 2_000


class Summary:
    """A run that is not going on here, as a cell's value: HTML, and text where there is none.

    ``facts`` tells more of a row, by its place; it is asked when the summary is shown.
    """

    def __init__(self, view: RunView, facts: Callable[[int], Iterable[Fact]]) -> None:
        self._view = view
        self._facts = facts

    def __repr__(self) -> str:
        return text(self._view, times=True)

    def _repr_html_(self) -> str:
        return html(self._view, facts=self._facts)


def html(
    view: RunView, *, times: bool = True, facts: Callable[[int], Iterable[Fact]] | None = None
) -> str:
    """Render the run as HTML that needs neither script nor style to be read.

    Without ``times`` it says what `text` says, and is as stable. With ``facts`` some of
    the rows, those that failed before others, can be opened to be told more of.
    """
    if not times:
        return _stable_html(view)
    said = escape(opening(view)[len(view.name) :])
    parts = [f"<p><strong>{escape(view.name)}</strong>{said}</p>"]
    parts += _items(capped([_verdict(view, row) for row in choices(view)], "decisions"))
    notes = capped(list(view.notes), "notes")
    if view.status is RunStatus.FINISHED and (failed := failures(view)):
        # What ended a run with an error is tried again anyway; what the cell has caught is not.
        which = "what failed" if len(failed) > 1 else title(failed[0])
        notes.append(
            f"to try {clipped(which)} again, run %durable redo {view.name} --errors and this cell"
        )
    parts += _items(escape(note) for note in notes)
    if view.steps:
        parts.append(_table(view, facts))
    return f"<div>{''.join(parts)}</div>"


def so_far(view: RunView, now: float, mark: str) -> str:
    """Render a run that goes on, for a page on which the live view has died with its kernel.

    `mark` is a class that tells a live view on the same page what to hide. Beside this a
    dead widget would only say that it is dead: so it is hidden in turn.
    """
    said = escape(opening(view, now)[len(view.name) :])
    parts = [f"<p><strong>{escape(view.name)}</strong>{said}</p>"]
    timeline = Timeline(view)
    items = timeline.items(now)
    if 0 < len(items) <= _DETAILED:
        parts.append(_rows_html(timeline, items, max(view.elapsed(now), 0.001), {}, " open"))
    parts.append(f"<p><em>{escape(resuming(now))}</em></p>")
    style = (
        f".jp-OutputArea-child:has(+ .jp-OutputArea-child .{mark}) "
        f".jupyter-widgets:not(:has(.nbd-view)) {{ display: none }}"
    )
    return f'<div class="{mark}"><style>{style}</style>{"".join(parts)}</div>'


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


def _table(view: RunView, facts: Callable[[int], Iterable[Fact]] | None) -> str:
    timeline = Timeline(view, whole=_FOLDED)
    items = timeline.items(view.ended or view.at or 0.0)
    # Where nothing ran, what was saved is all that there is to see.
    span = max(view.elapsed(), 0.0 if view.ran else view.longest_saved, 0.001)
    more_of = _told(items.values(), facts) if facts is not None else {}
    return _rows_html(timeline, items, span, more_of, " open" if len(items) <= _OPEN else "")


def _rows_html(
    timeline: Timeline,
    items: Mapping[str, Mapping[str, Any]],
    span: float,
    more_of: Mapping[int, str],
    opened: str,
) -> str:
    head = "".join(f'<th scope="col" style="{style}">{word}</th>' for word, style in _COLUMNS)
    body = "".join(
        _html_row(item, span, more_of.get(item.get("place", -1), "")) for item in items.values()
    )
    more = f'<tr><td colspan="5">… {timeline.cut:,} more rows</td></tr>' if timeline.cut else ""
    return (
        f"<details{opened}><summary>Step by step</summary>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}{more}</tbody></table></details>"
    )


def _told(
    items: Iterable[Mapping[str, Any]], facts: Callable[[int], Iterable[Fact]]
) -> dict[int, str]:
    """Return, by their places, what more there is to say of some rows."""
    places = [(item["state"] != "failed", item["place"]) for item in items if "state" in item]
    return {
        place: "".join(_fact(*fact) for fact in facts(place))
        for _, place in sorted(places)[:_DETAILED]
    }


def _fact(term: str, said: str, block: bool) -> str:  # noqa: FBT001 - a fact's parts
    if not block:
        return f'<p style="margin:0">{escape(term)}: {escape(said)}</p>'
    if len(said) > _LONGEST:
        # Of an error, and of an output, its end tells most.
        said = f"…{said[-_LONGEST:]}"
    return (
        f'<p style="margin:0">{escape(term)}:</p>'
        f'<pre style="margin:0;white-space:pre-wrap">{escape(said)}</pre>'
    )


def _html_row(item: Mapping[str, Any], span: float, more: str) -> str:
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
    shown = (
        f'<span style="color:{_colour(state)}">{item.get("glyph", "")}</span> '
        f"{item.get('word', state)}"
    )
    attempts = f"{item['attempts']} attempts" if "attempts" in item else ""
    said = (attempts, item.get("reached"), item.get("remark"), item.get("error"))
    why = escape(", ".join(filter(None, said)))
    if more:
        why = f"<details><summary>{why or 'more'}</summary>{more}</details>"
    cells = (
        label,
        shown if state else "",
        _svg(item, span),
        escape(item.get("time", "")),
        why,
    )
    shown = "".join(
        f'<td style="{style};vertical-align:top">{cell}</td>'
        for (_, style), cell in zip(_COLUMNS, cells, strict=True)
    )
    return f"<tr>{shown}</tr>"


def _svg(item: Mapping[str, Any], span: float) -> str:
    """Draw the attempts of a row on the time axis of the whole execution."""
    parts = []
    # What waits for others is thin, and so is what was saved.
    thin = item["kind"] not in {"step", "family"} or item.get("state") == "replayed"
    top = 6 if thin else 3
    for begin, end, how in item.get("bars", ()):
        left = min(begin / span * _WIDTH, _WIDTH - 2)
        width = ((end if end is not None else span) - begin) / span * _WIDTH
        width = min(max(width, 2), _WIDTH - left)
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
