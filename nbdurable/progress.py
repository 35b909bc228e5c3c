"""What a run looks like, folded from its events, and how that reads as text or HTML.

Invariant: pure. The view knows events and nothing else: no clock, no store, no
widget. Whoever shows running times passes ``now`` (seconds since the epoch, by
the clock that stamped the events).

Two kinds of rendering: `text` (and `html` without times) holds only what is
durable, so a replay gives the same characters as the first run and notebooks
with saved output stay golden; `line`, `snapshot` and `html` with times tell a
person what happened in this execution.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from nbdurable.records import (
    AttemptFailed,
    AttemptStarted,
    Decided,
    Event,
    Kind,
    Noticed,
    RunFinished,
    RunStarted,
    RunStatus,
    StepCreated,
    StepDeferred,
    StepFinished,
    StepLetGo,
    StepReplayed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROWS: Final = 200
"""How many rows a rendering shows; the others are counted."""

LINES: Final = 10
"""How many decisions, and how many failures, `text` names."""

_BRANCHES: Final = 6
_CLIP: Final = 300
_OPEN: Final = 12
_COLUMNS: Final = (
    ("Step", "left"),
    ("State", "left"),
    ("Attempts", "right"),
    ("Time", "right"),
    ("Why", "left"),
)
_CHOOSERS: Final = frozenset({"select", "race"})


class State(StrEnum):
    """Where a row stands, in the word that is shown."""

    WAITING = "waiting"
    RUNNING = "running"
    RETRYING = "retrying"
    DONE = "done"
    REPLAYED = "replayed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NOT_SAVED = "not saved"
    NOT_STARTED = "not started"
    LET_GO = "let go"


GLYPHS: Final = {
    State.WAITING: "○",
    State.RUNNING: "▶",
    State.RETRYING: "↻",
    State.DONE: "✓",
    State.REPLAYED: "↩",
    State.FAILED: "✗",
    State.CANCELLED: "⊘",
    State.NOT_SAVED: "△",
    State.NOT_STARTED: "□",
    State.LET_GO: "⇢",
}
"""A shape for each state, so that none is told by colour alone."""

_SETTLED: Final = frozenset(
    {State.DONE, State.REPLAYED, State.FAILED, State.CANCELLED, State.NOT_SAVED}
)
_MOVING: Final = frozenset({State.RUNNING, State.RETRYING})

# The order in which `line` counts the states, and its word where that differs.
_COUNTED: Final = {
    State.REPLAYED: "replayed",
    State.DONE: "ran",
    State.FAILED: "failed",
    State.RUNNING: "running",
    State.RETRYING: "retrying",
    State.WAITING: "waiting",
    State.NOT_SAVED: "not saved",
    State.CANCELLED: "cancelled",
    State.NOT_STARTED: "not started",
    State.LET_GO: "let go",
}

# Mid tones, so that they read on white and on JupyterLab's dark ground alike.
_COLOURS: Final = {
    State.RUNNING: "#3b82d6",
    State.RETRYING: "#b8720a",
    State.DONE: "#2e8b4e",
    State.REPLAYED: "#2e8b4e",
    State.FAILED: "#d64545",
    State.NOT_SAVED: "#b8720a",
}


@dataclass(slots=True, eq=False)
class StepView:
    """One row: a step, a timer or a combinator.

    ``started`` is the first attempt's begin in this execution and ``again`` the
    time at which a retry is due, both seconds since the epoch. ``won`` and
    ``lost`` hold the place of the select that decided so. ``winners`` are the
    places a combinator chose: one for a select, in order for `as_completed`.
    """

    place: int
    kind: str
    name: str
    label: str
    created: float
    parent: int | None
    branches: tuple[int, ...]
    depth: int = 0
    state: State = State.WAITING
    attempts: int = 0
    started: float | None = None
    again: float | None = None
    seconds: float | None = None
    why: str = ""
    error: str = ""
    number: int | None = None
    outcome: Kind | None = None
    replayed: bool = False
    winners: list[int] = field(default_factory=list)
    won: int | None = None
    lost: int | None = None
    settled: int = 0
    feeds: list[StepView] = field(default_factory=list)

    @property
    def combinator(self) -> bool:
        """Whether the row stands for other rows' outcomes."""
        return bool(self.branches) or self.kind not in {"step", "timer"}


class RunView:
    """One execution of a run, as far as its events have been folded.

    ``counts`` are steps by state (no timers, no combinators: people count what
    they wrote). ``revision`` grows with each event: compare it to know whether
    there is something new to show.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.run = ""
        self.execution = 0
        self.saved = 0
        self.status: RunStatus | None = None
        self.started: float | None = None
        self.ended: float | None = None
        self.at: float | None = None
        self.notes: tuple[str, ...] = ()
        self.steps: dict[int, StepView] = {}
        self.counts: dict[State, int] = dict.fromkeys(State, 0)
        self.seconds_saved = 0.0
        self.revision = 0
        self._by_state: dict[State, dict[int, StepView]] = {state: {} for state in State}
        self._combinators: list[StepView] = []
        self._changed: dict[int, StepView] = {}

    @property
    def live(self) -> bool:
        """Whether the execution is under way."""
        return self.status is RunStatus.RUNNING

    def apply(self, event: Event) -> None:
        """Fold one event. One about a row that was never created is left out."""
        self.revision += 1
        self.at = event.at
        _FOLDS[type(event)](self, event)

    def take_changes(self) -> list[StepView]:
        """Give the rows that changed since this was last asked, each once."""
        changed, self._changed = self._changed, {}
        return list(changed.values())

    def elapsed(self, now: float | None = None) -> float:
        """Give the execution's length in seconds, up to ``now`` or the last event."""
        if self.started is None:
            return 0.0
        end = self.ended if self.ended is not None else now if now is not None else self.at
        return max(0.0, (end if end is not None else self.started) - self.started)

    def combinators(self) -> Iterator[StepView]:
        """Give the combinators' rows in `go` order."""
        return iter(self._combinators)

    def shown(self, limit: int = ROWS) -> list[StepView]:
        """Choose at most ``limit`` rows, in `go` order, each below the step that started it.

        What moves comes first, then what failed, what was chosen, what is left
        over, the newest of what ended, and the next in line.
        """
        if len(self.steps) <= limit:
            return self._in_order(self.steps.values())
        chosen: dict[int, StepView] = {}
        for row in self._by_interest():
            chosen.update((above.place, above) for above in self._path(row))
            if len(chosen) >= limit:
                break
        return self._in_order(chosen.values())[:limit]

    def _in_order(self, rows: Iterable[StepView]) -> list[StepView]:
        return sorted(rows, key=lambda row: [above.place for above in self._path(row)])

    def _path(self, row: StepView) -> list[StepView]:
        """Give the steps above ``row``, outermost first, and the row itself."""
        path = [row]
        while (parent := path[-1].parent) is not None and parent in self.steps:
            path.append(self.steps[parent])
        return path[::-1]

    def _by_interest(self) -> Iterator[StepView]:
        rows = self._by_state
        yield from rows[State.RUNNING].values()
        yield from rows[State.RETRYING].values()
        yield from reversed(rows[State.FAILED].values())
        yield from islice((row for row in reversed(self._combinators) if row.branches), ROWS // 2)
        for state in (State.NOT_SAVED, State.LET_GO, State.CANCELLED, State.DONE, State.REPLAYED):
            yield from reversed(rows[state].values())
        yield from rows[State.WAITING].values()
        yield from rows[State.NOT_STARTED].values()

    # What the folds below share.

    def _begin(self, event: RunStarted) -> None:
        revision = self.revision
        vars(self).update(vars(RunView(event.name)))  # a new execution is a new view
        self.revision, self.at = revision, event.at
        self.run, self.execution, self.saved = event.run, event.execution, event.saved
        self.started, self.status = event.at, RunStatus.RUNNING

    def _add(self, row: StepView) -> None:
        self.steps[row.place] = row
        self._by_state[row.state][row.place] = row
        self._changed[row.place] = row
        if row.kind == "step":
            self.counts[row.state] += 1
        if row.combinator:
            self._combinators.append(row)

    def _move(self, row: StepView, state: State) -> None:
        before = row.state
        self._changed[row.place] = row
        if before is state:
            return
        row.state = state
        del self._by_state[before][row.place]
        self._by_state[state][row.place] = row
        if row.kind == "step":
            self.counts[before] -= 1
            self.counts[state] += 1
        if row.feeds and (settled := (state in _SETTLED) - (before in _SETTLED)):
            for above in row.feeds:
                above.settled += settled
                self._changed[above.place] = above


def fold(view: RunView, event: Event) -> RunView:
    """Fold ``event`` into ``view``, in place, and give the view."""
    view.apply(event)
    return view


# --- One fold per event ---------------------------------------------------------


def _created(view: RunView, event: StepCreated) -> None:
    above = view.steps.get(event.parent) if event.parent is not None else None
    row = StepView(
        place=event.step,
        kind=event.kind,
        name=event.name,
        label=event.label,
        created=event.at,
        parent=event.parent,
        branches=event.branches,
        depth=above.depth + 1 if above is not None else 0,
    )
    for place in event.branches:
        if (branch := view.steps.get(place)) is not None:
            branch.feeds.append(row)
            row.settled += branch.state in _SETTLED
    view._add(row)  # noqa: SLF001 - the folds are the view's own, kept one to an event


def _replayed(view: RunView, event: StepReplayed) -> None:
    if (row := view.steps.get(event.step)) is None:
        return
    row.outcome, row.number, row.seconds = event.kind, event.number, event.seconds
    row.attempts, row.replayed, row.why = event.attempts, True, "replayed"
    if row.kind == "step":
        view.seconds_saved += event.seconds
    view._move(row, _ended_as(event.kind, State.REPLAYED))  # noqa: SLF001


def _deferred(view: RunView, event: StepDeferred) -> None:
    if (row := view.steps.get(event.step)) is None:
        return
    row.why = "lost, and nobody asked for it"
    view._move(row, State.NOT_STARTED)  # noqa: SLF001


def _attempt_started(view: RunView, event: AttemptStarted) -> None:
    if (row := view.steps.get(event.step)) is None:
        return
    row.attempts, row.again = event.attempt, None
    if row.started is None:
        row.started = event.at
    row.why = f"{event.why}: {event.reason}" if event.reason else str(event.why)
    view._move(row, State.RUNNING)  # noqa: SLF001


def _attempt_failed(view: RunView, event: AttemptFailed) -> None:
    if (row := view.steps.get(event.step)) is None:
        return
    row.attempts, row.error, row.again = event.attempt, event.error, event.at + event.wait
    view._move(row, State.RETRYING)  # noqa: SLF001


def _finished(view: RunView, event: StepFinished) -> None:
    if (row := view.steps.get(event.step)) is None:
        return
    row.outcome, row.number, row.seconds = event.kind, event.number, event.seconds
    row.error, row.again = event.error, None
    plain = State.DONE if event.saved else State.NOT_SAVED
    view._move(row, _ended_as(event.kind, plain))  # noqa: SLF001


def _decided(view: RunView, event: Decided) -> None:
    if (row := view.steps.get(event.step)) is None:
        return
    row.outcome, row.number, row.replayed = event.kind, event.number, event.replayed
    row.why = "replayed" if event.replayed else ""
    if event.winner is not None:
        row.winners.append(event.winner)
        if row.kind in _CHOOSERS:
            _mark_branches(view, row, event.winner)
    view._move(  # noqa: SLF001
        row, _ended_as(event.kind, State.REPLAYED if event.replayed else State.DONE)
    )


def _mark_branches(view: RunView, chooser: StepView, winner: int) -> None:
    """Mark the winner, and as losers all rows below the other branches."""
    if (won := view.steps.get(winner)) is not None:
        won.won = chooser.place
        view._changed[winner] = won  # noqa: SLF001
    below = deque(place for place in chooser.branches if place != winner)
    while below:
        row = view.steps.get(below.popleft())
        if row is not None and row.lost is None:
            row.lost = chooser.place
            view._changed[row.place] = row  # noqa: SLF001
            below.extend(row.branches)


def _let_go(view: RunView, event: StepLetGo) -> None:
    if (row := view.steps.get(event.step)) is None:
        return
    row.why, row.again = event.reason, None
    if row.started is not None:
        row.seconds = event.at - row.started
    view._move(row, State.LET_GO)  # noqa: SLF001


def _noticed(view: RunView, event: Noticed) -> None:
    view.notes = (*view.notes, event.text)


def _run_finished(view: RunView, event: RunFinished) -> None:
    view.status, view.ended = event.status, event.at
    view.notes = tuple(dict.fromkeys((*view.notes, *event.notes)))


def _ended_as(kind: Kind, plain: State) -> State:
    if kind is Kind.VALUE:
        return plain
    return State.FAILED if kind is Kind.ERROR else State.CANCELLED


_FOLDS: Final[dict[type, Callable[[RunView, Any], None]]] = {
    RunStarted: RunView._begin,  # noqa: SLF001
    StepCreated: _created,
    StepReplayed: _replayed,
    StepDeferred: _deferred,
    AttemptStarted: _attempt_started,
    AttemptFailed: _attempt_failed,
    StepFinished: _finished,
    Decided: _decided,
    StepLetGo: _let_go,
    Noticed: _noticed,
    RunFinished: _run_finished,
}


# --- Words ----------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Say a duration in at most two units: ``40 ms``, ``4.2 s``, ``3 min 05 s``."""
    if seconds < 0.0995:  # noqa: PLR2004 - from here on the tenth of a second shows
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, word, small, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            return f"{whole // size} {word} {whole % size // small:02d} {below}"
    return f"{whole // 60} min {whole % 60:02d} s"


_UNITS: Final = ((86_400 * 2, 86_400, "days"), (3_600 * 2, 3_600, "h"), (120, 60, "min"))


def ago(seconds: float) -> str:
    """Say how long ago something was, in one unit: ``26 h ago``."""
    for least, unit, word in _UNITS:
        if seconds >= least:
            return f"{seconds / unit:.0f} {word} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def line(view: RunView, now: float | None = None) -> str:
    """Say in one line, for people, what this execution did and what it spared."""
    said = f"{view.name}: {_said(view)}, {duration(view.elapsed(now))}"
    if view.seconds_saved:
        said += f"; saved {duration(view.seconds_saved)}"
    return said


def text(view: RunView, *, times: bool = False) -> str:
    """Say what is durable about the run: how it ended, who won, what failed.

    Without ``times`` a replay gives the same characters as the first run. So
    it tells neither durations nor what was replayed, nor what became of losers,
    nor anything below a step (a replayed step's body starts nothing).
    """
    lines = [line(view) if times else _headline(view)]
    lines += _capped([_sentence(view, row) for row in _choices(view)], "decisions")
    lines += _capped([f"{_title(row)} failed" for row in _failures(view)], "failures")
    if times:
        lines += view.notes
    return "\n".join(lines)


def _said(view: RunView) -> str:
    """Count the steps by state; name the status where it is not the plain one."""
    said = [
        f"{view.counts[state]} {word}" for state, word in _COUNTED.items() if view.counts[state]
    ]
    if view.status not in {RunStatus.RUNNING, RunStatus.FINISHED, None}:
        said.insert(0, str(view.status))
    return ", ".join(said) or "no steps"


def _headline(view: RunView) -> str:
    steps = sum(1 for row in view.steps.values() if row.kind == "step" and row.parent is None)
    counted = "no steps" if not steps else "1 step" if steps == 1 else f"{steps:,} steps"
    return f"{view.name}: {counted}, {view.status or 'not started'}"


def _choices(view: RunView) -> list[StepView]:
    return [row for row in view.combinators() if row.winners and row.parent is None]


def _failures(view: RunView) -> list[StepView]:
    """Choose the failures that every execution shows: the cell's own, no losers'."""
    return [
        row
        for row in view.steps.values()
        if row.outcome is Kind.ERROR
        and row.parent is None
        and row.lost is None
        and not row.combinator
    ]


def _sentence(view: RunView, row: StepView) -> str:
    won = [_title(view.steps[place]) for place in row.winners if place in view.steps]
    if row.kind not in _CHOOSERS:
        return f"{row.name or row.kind}: {_several(won, ', then ')}"
    over = [_title(loser) for loser in _losers(view, row)]
    said = f"{row.name or row.kind}: {_several(won)} won"
    return f"{said} over {_several(over)}" if over else said


def _losers(view: RunView, row: StepView) -> list[StepView]:
    return [
        view.steps[place]
        for place in row.branches
        if place not in row.winners and place in view.steps
    ]


def _several(words: list[str], joint: str = ", ") -> str:
    if len(words) <= _BRANCHES:
        return joint.join(words)
    return f"{joint.join(words[:_BRANCHES])} and {len(words) - _BRANCHES:,} more"


def _capped(lines: list[str], what: str) -> list[str]:
    if len(lines) <= LINES:
        return lines
    return [*lines[:LINES], f"… {len(lines) - LINES:,} more {what}"]


def _title(row: StepView) -> str:
    return row.label or row.name or row.kind


def _heading(row: StepView) -> str:
    """Name a row of the table: the branches of a combinator are listed below it."""
    return row.name or row.kind if row.branches else _title(row)


def _took(row: StepView) -> str:
    """Say how long the row took; a step without an attempt took no time to speak of."""
    if row.seconds is None or (row.kind == "step" and not row.attempts):
        return ""
    return duration(row.seconds)


def _clipped(said: str) -> str:
    return said if len(said) <= _CLIP else said[: _CLIP - 1] + "…"


def _remark(row: StepView) -> str:
    """Say why the row ran, or what is wrong with it."""
    if row.state is State.RETRYING and row.again is not None:
        said = f"attempt {row.attempts} failed: {row.error}"
    elif row.combinator and row.state is State.WAITING:
        said = f"{row.settled:,} of {len(row.branches):,} done" if row.branches else ""
    elif row.error and row.state in {State.FAILED, State.NOT_SAVED}:
        said = f"{row.error} ({row.why})" if row.why else row.error
    else:
        said = row.why
    return _clipped(said)


# --- The live view's state ------------------------------------------------------


def snapshot(view: RunView, *, now: float, limit: int = ROWS) -> dict[str, Any]:
    """Give all that the live view shows, as JSON; ``now`` lets it tick on.

    A field that would be empty is left out of its row. Words are made here, so
    that the front end only lays them out.
    """
    rows = view.shown(limit)
    return {
        "name": view.name,
        "execution": view.execution,
        "status": str(view.status or "not started"),
        "live": view.live,
        "said": _said(view),
        "spared": duration(view.seconds_saved) if view.seconds_saved else "",
        "now": now,
        "started": view.started,
        "elapsed": view.elapsed(now),
        "notes": _capped([_clipped(note) for note in view.notes], "notes"),
        "total": len(view.steps),
        "hidden": len(view.steps) - len(rows),
        "rows": [_row(view, row) for row in rows],
    }


def _row(view: RunView, row: StepView) -> dict[str, Any]:
    said: dict[str, Any] = {
        "place": row.place,
        "kind": row.kind,
        "label": _heading(row),
        "state": str(row.state),
        "glyph": GLYPHS[row.state],
        "depth": row.depth,
        "attempts": row.attempts,
        "remark": _remark(row),
        "won": row.won is not None,
        "lost": row.won is None and row.lost is not None,
    }
    if row.state in _MOVING and view.live:
        said["since"] = row.started
        said["again"] = row.again
    else:
        said["time"] = _took(row)
    if row.branches:
        chips, more = _chips(view, row)
        said["branches"] = [
            {
                "label": _title(branch),
                "state": str(branch.state),
                "glyph": GLYPHS[branch.state],
                "won": branch.won == row.place,
            }
            for branch in chips
        ]
        said["more"] = more
    return {key: value for key, value in said.items() if value not in (None, "", 0, False)} | {
        "place": row.place
    }


def _chips(view: RunView, row: StepView) -> tuple[list[StepView], int]:
    """Choose the branches to name, the winners first, and count the others."""
    named = list(dict.fromkeys((*row.winners, *row.branches[: _BRANCHES + len(row.winners)])))
    chips = [view.steps[place] for place in named[:_BRANCHES] if place in view.steps]
    return chips, max(0, len(row.branches) - len(chips))


# --- The static summary ---------------------------------------------------------


def html(view: RunView, *, times: bool = True) -> str:
    """Render the run as HTML that needs neither script nor style to be read.

    Without ``times`` it says what `text` says, and is as stable.
    """
    if not times:
        return _stable_html(view)
    parts = [f"<p><strong>{escape(view.name)}</strong>{escape(line(view)[len(view.name) :])}</p>"]
    parts += _items(_capped([_verdict(view, row) for row in _choices(view)], "decisions"))
    if view.steps:
        parts.append(_table(view))
    parts += _items(escape(note) for note in _capped(list(view.notes), "notes"))
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
    if row.kind not in _CHOOSERS:
        return f"{name}: {_several(won, ', then ')}"
    over = [f"<code>{_code(loser)}</code> ({loser.state})" for loser in _losers(view, row)]
    ending = " with an error" if row.outcome is Kind.ERROR else ""
    said = f"{name}: ★ {_several(won)} won{ending}"
    return f"{said} over {_several(over)}" if over else said


def _strong(row: StepView) -> str:
    return f"<strong><code>{_code(row)}</code></strong>"


def _code(row: StepView) -> str:
    return escape(_clipped(_title(row)))


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
    heading = escape(_clipped(_heading(row)))
    # No <th> for the label: where styles are stripped it would be bold, as winners are.
    label = f"{'&#8195;' * row.depth}<code>{heading}</code>{mark}{_html_branches(view, row)}"
    state = f"<span{style}>{GLYPHS[row.state]}</span> {row.state}"
    said = (label, state, row.attempts or "", _took(row), escape(_remark(row)))
    cells = "".join(
        f'<td style="text-align:{side};vertical-align:top">{cell}</td>'
        for (_, side), cell in zip(_COLUMNS, said, strict=True)
    )
    return f"<tr>{cells}</tr>"


def _html_branches(view: RunView, row: StepView) -> str:
    if not row.branches:
        return ""
    chips, more = _chips(view, row)
    named = [
        f"<br>★ {_strong(branch)} won"
        if branch.won == row.place
        else f"<br>{GLYPHS[branch.state]} <code>{_code(branch)}</code> {branch.state}"
        for branch in chips
    ]
    return "".join(named) + (f"<br>… {more:,} more" if more else "")
