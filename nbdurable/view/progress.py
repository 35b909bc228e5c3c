"""What a run looks like, folded from its events.

Invariant: pure. The view knows events and nothing else: no clock, no store, no
widget. Whoever shows running times passes ``now`` (seconds since the epoch, by
the clock that stamped the events).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from nbdurable.events import (
    AttemptFailed,
    AttemptStarted,
    Decided,
    Event,
    Noticed,
    RunFinished,
    RunStarted,
    StepCreated,
    StepDeferred,
    StepFinished,
    StepLetGo,
    StepProgressed,
    StepReplayed,
)
from nbdurable.labels import share
from nbdurable.records import Kind, RunStatus

from .tree import Family, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SPANS: Final = 50
"""Of so many attempts a row keeps the times; the oldest go first."""

CHOOSERS: Final = frozenset({"select", "race"})


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
    LET_GO = "not finished"


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

SETTLED: Final = frozenset(
    {State.DONE, State.REPLAYED, State.FAILED, State.CANCELLED, State.NOT_SAVED}
)
MOVING: Final = frozenset({State.RUNNING, State.RETRYING})


@dataclass(slots=True, eq=False)
class StepView:
    """One row: a step, a timer or a combinator.

    ``started`` is the first attempt's begin in this execution and ``again`` the
    time at which a retry is due, both seconds since the epoch. ``won`` and
    ``lost`` hold the place of the select that decided so. ``winners`` are the
    places a combinator chose: one for a select, in order for `as_completed`.
    ``began`` and ``closed`` are the last attempt's begin and end (0.0 while it lasts),
    ``earlier`` those of the attempts before it in this execution, ``ended`` is when the
    row's outcome was told, ``inputs`` are the places of the handles that a step was given,
    ``deaths`` counts the kernel's deaths that it was in flight at. ``first`` is the tree's.
    ``seconds`` are those of all its attempts, ``spent`` of those that failed before the last.
    ``progress`` is how far its last attempt said that it is, as ``37 of 90``, and ``part``
    the same as a share of 1, where that is known. ``where`` is the line of an error.
    """

    place: int
    kind: str
    name: str
    label: str
    created: float
    parent: int | None
    branches: tuple[int, ...]
    first: int
    inputs: tuple[int, ...] = ()
    deaths: int = 0
    state: State = State.WAITING
    attempts: int = 0
    started: float | None = None
    again: float | None = None
    seconds: float | None = None
    spent: float = 0.0
    why: str = ""
    error: str = ""
    number: int | None = None
    outcome: Kind | None = None
    replayed: bool = False
    winners: Sequence[int] = ()
    won: int | None = None
    lost: int | None = None
    settled: int = 0
    feeds: tuple[StepView, ...] = ()
    began: float | None = None
    closed: float = 0.0
    earlier: tuple[tuple[float, float], ...] = ()
    ended: float | None = None
    family: Family[StepView] | None = None
    progress: str = ""
    part: float = 0.0
    where: str = ""

    @property
    def spans(self) -> tuple[tuple[float, float], ...]:
        """The attempts' begins and ends in this execution, in order; the last `SPANS` of them."""
        return self.earlier if self.began is None else (*self.earlier, (self.began, self.closed))

    @property
    def combinator(self) -> bool:
        """Whether the row stands for other rows' outcomes."""
        return bool(self.branches) or self.kind not in {"step", "timer"}


class RunView:
    """One execution of a run, as far as its events have been folded.

    ``ran`` tells whether any attempt began, ``longest_saved`` what the longest of the
    replayed steps took when it ran.

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
        self.longest_saved = 0.0
        self.ran = False
        self.revision = 0
        self.tree: Tree[StepView] = Tree()
        self._combinators: list[StepView] = []

    @property
    def live(self) -> bool:
        """Whether the execution is under way."""
        return self.status is RunStatus.RUNNING

    def apply(self, event: Event) -> None:
        """Fold one event. One about a row that was never created is left out."""
        self.apply_all((event,))

    def apply_all(self, events: Sequence[Event]) -> None:
        """Fold events, in their order."""
        folds = _FOLDS
        for event in events:
            folds[type(event)](self, event)
            self.at = event.at
        self.revision += len(events)

    def elapsed(self, now: float | None = None) -> float:
        """Return the execution's length in seconds, up to ``now`` or the last event."""
        if self.started is None:
            return 0.0
        end = self.ended if self.ended is not None else now if now is not None else self.at
        return max(0.0, (end if end is not None else self.started) - self.started)

    def combinators(self) -> Iterator[StepView]:
        """Return the combinators' rows in `go` order."""
        return iter(self._combinators)

    # What the folds below share.

    def _begin(self, event: RunStarted) -> None:
        revision = self.revision
        vars(self).update(vars(RunView(event.name)))  # a new execution is a new view
        self.revision = revision
        self.run, self.execution, self.saved = event.run, event.execution, event.saved
        self.started, self.status = event.at, RunStatus.RUNNING

    def _add(self, row: StepView) -> None:
        self.steps[row.place] = row
        self.tree.add(row)
        if row.kind == "step":
            self.counts[row.state] += 1
        elif row.combinator:
            self._combinators.append(row)

    def _move(self, row: StepView, state: State) -> None:
        before = row.state
        if before is state:
            return
        row.state = state
        if row.family is not None:
            row.family.moved(row, before)
        if row.kind == "step":
            self.counts[before] -= 1
            self.counts[state] += 1
        if row.feeds and (settled := (state in SETTLED) - (before in SETTLED)):
            for above in row.feeds:
                above.settled += settled


# --- One fold per event ---------------------------------------------------------


def _created(view: RunView, event: StepCreated) -> None:
    if (before := view.steps.get(event.step)) is not None:
        # What was taken out with the body that let its error escape is asked for anew.
        before.outcome, before.number, before.ended, before.error = None, None, None, ""
        before.where = ""
        before.replayed = False
        view._move(before, State.WAITING)  # noqa: SLF001 - the folds are the view's own
        return
    row = StepView(
        event.step,
        event.kind,
        event.name,
        event.label,
        event.at,
        event.parent,
        event.branches,
        event.step,
        event.inputs,
    )
    view._add(row)  # noqa: SLF001
    if event.branches:
        branches = [view.steps[place] for place in event.branches if place in view.steps]
        for branch in branches:
            branch.feeds += (row,)
            row.settled += branch.state in SETTLED
        view.tree.gather(row, branches)


def _replayed(view: RunView, event: StepReplayed) -> None:
    if (row := view.steps.get(event.step)) is None:
        return
    row.outcome, row.number, row.seconds = event.kind, event.number, event.seconds
    row.attempts, row.replayed, row.why = event.attempts, True, "replayed"
    row.ended, row.error, row.where = event.at, event.error, event.where
    if row.kind == "step":
        view.seconds_saved += event.seconds
        view.longest_saved = max(view.longest_saved, event.seconds)
    view._move(row, _ended_as(event.kind, State.REPLAYED))  # noqa: SLF001


def _deferred(view: RunView, event: StepDeferred) -> None:
    if (row := view.steps.get(event.step)) is None:
        return
    row.why = "lost, and nobody asked for it"
    view._move(row, State.NOT_STARTED)  # noqa: SLF001


def _attempt_started(view: RunView, event: AttemptStarted) -> None:
    if (row := view.steps.get(event.step)) is None:
        return
    row.attempts, row.again, row.deaths = event.attempt, None, event.deaths
    view.ran = True
    row.progress, row.part = "", 0.0
    if row.started is None:
        row.started = event.at
        if row.family is not None and row.family.began is None:
            row.family.began = event.at
    if row.began is not None:
        row.earlier = (*row.earlier[2 - SPANS :], (row.began, row.closed))
    row.began, row.closed = event.at, 0.0
    row.why = f"{event.why}: {event.reason}" if event.reason else event.why
    view._move(row, State.RUNNING)  # noqa: SLF001


def _progressed(view: RunView, event: StepProgressed) -> None:
    if (row := view.steps.get(event.step)) is not None:
        row.progress = share(event.done, event.total)
        row.part = min(max(event.done / event.total, 0.0), 1.0) if event.total else 0.0


def _attempt_failed(view: RunView, event: AttemptFailed) -> None:
    if (row := view.steps.get(event.step)) is None:
        return
    row.attempts, row.error, row.again = event.attempt, event.error, event.at + event.wait
    if row.began is not None and not row.closed:
        row.spent += event.at - row.began
    _close(row, event.at)
    view._move(row, State.RETRYING)  # noqa: SLF001


def _finished(view: RunView, event: StepFinished) -> None:
    if (row := view.steps.get(event.step)) is None:
        return
    row.outcome, row.number, row.seconds = event.kind, event.number, row.spent + event.seconds
    row.error, row.again, row.ended = event.error, None, event.at
    row.where = event.where
    _close(row, event.at)
    if row.started is not None and row.family is not None:
        row.family.ran += 1
        row.family.ended = event.at
    plain = State.DONE if event.saved else State.NOT_SAVED
    view._move(row, _ended_as(event.kind, plain))  # noqa: SLF001


def _decided(view: RunView, event: Decided) -> None:
    if (row := view.steps.get(event.step)) is None:
        return
    row.outcome, row.number, row.replayed = event.kind, event.number, event.replayed
    row.ended = event.at
    row.why = "replayed" if event.replayed else ""
    if event.winner is not None:
        if isinstance(row.winners, list):
            row.winners.append(event.winner)
        else:
            row.winners = [event.winner]  # most rows have none, and no list for them
        if row.kind in CHOOSERS:
            _mark_branches(view, row, event.winner)
    view._move(  # noqa: SLF001
        row, _ended_as(event.kind, State.REPLAYED if event.replayed else State.DONE)
    )


def _close(row: StepView, at: float) -> None:
    """End the row's attempt, if one is under way."""
    if row.began is not None and not row.closed:
        row.closed = at


def _mark_branches(view: RunView, chooser: StepView, winner: int) -> None:
    """Mark the winner, and as losers all rows below the other branches."""
    if (won := view.steps.get(winner)) is not None:
        won.won = chooser.place
    below = deque(place for place in chooser.branches if place != winner)
    while below:
        row = view.steps.get(below.popleft())
        if row is not None and row.lost is None:
            row.lost = chooser.place
            below.extend(row.branches)


def _let_go(view: RunView, event: StepLetGo) -> None:
    if (row := view.steps.get(event.step)) is None:
        return
    row.why, row.again, row.ended = event.reason, None, event.at
    if row.began is not None:
        row.seconds = row.spent + (0.0 if row.closed else event.at - row.began)
    _close(row, event.at)
    view._move(row, State.LET_GO)  # noqa: SLF001


def _noticed(view: RunView, event: Noticed) -> None:
    view.notes = (*view.notes, event.text)


def _run_finished(view: RunView, event: RunFinished) -> None:
    view.status, view.ended = event.status, event.at
    for row in view.steps.values():
        # Nothing goes on after the end: what nobody waits for any more is told so.
        if row.state in MOVING:
            row.again, row.why = None, row.why if row.error else "the cell ended before it did"
            _close(row, event.at)
            view._move(row, State.LET_GO)  # noqa: SLF001
        elif row.state is State.WAITING and not row.combinator:
            view._move(row, State.NOT_STARTED)  # noqa: SLF001
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
    StepProgressed: _progressed,
    AttemptFailed: _attempt_failed,
    StepFinished: _finished,
    Decided: _decided,
    StepLetGo: _let_go,
    Noticed: _noticed,
    RunFinished: _run_finished,
}
