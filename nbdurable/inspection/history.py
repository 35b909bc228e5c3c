"""A run that this process has not executed, or not shown, as its store tells it.

The rows become the events that its last execution would have told, so that whoever shows
a run shows this one too.

Invariant: nothing is executed, no value but an error restored; what was saved by an earlier
execution counts as replayed.
"""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

from nbdurable import store as stores
from nbdurable.api.open_stores import executed_at, reading
from nbdurable.codec.outcomes import decode_error, traceback_text
from nbdurable.engine.control import end_of
from nbdurable.errors import DurableError
from nbdurable.events import (
    AttemptFailed,
    AttemptStarted,
    Decided,
    Fact,
    RunFinished,
    RunStarted,
    StepCreated,
    StepDeferred,
    StepFinished,
    StepLetGo,
    StepReplayed,
)
from nbdurable.labels import ago, share
from nbdurable.output.capture import loads
from nbdurable.records import NOBODY, TIMER_VERSION, Kind, RunStatus, Why
from nbdurable.steps.arguments import told_arguments
from nbdurable.steps.attempts import explain
from nbdurable.store.history import NOT_STARTED, Choice, Ended, Past, Try
from nbdurable.view.progress import CHOOSERS, RunView, StepView

from .at_hand import store_holding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nbdurable.events import Event
    from nbdurable.store import Store

MOST: Final = 100_000
"""A run of more outcomes is told in a line only."""

_LOOK_SECONDS: Final = 0.3
"""A person who asks for a step's details waits no longer for another process."""

_ERRORS: Final = 20
"""Of so many failures the errors are read before anybody asks."""


class Recalled:
    """A run as its store tells it: ``view`` to be shown, and the facts of each row."""

    def __init__(self, place: str, past: Past, name: str, status: RunStatus) -> None:
        self._place = place
        self._rows = _rows(past)
        self.view = RunView(name)
        for event in _events(past, name, status, self._rows):
            self.view.apply(event)
        for at, row in enumerate(self._rows):
            last = row[-1]
            if isinstance(last, Ended) and last.execution != past.execution:
                asked = "" if last.call not in past.unasked else "; the last one did not ask for it"
                self.view.steps[at].why = f"saved by execution {last.execution}{asked}"
            elif isinstance(last, Try) and status is RunStatus.DIED:
                self.view.steps[at].seconds = None  # nobody knows when that was

    def read_errors(self, opened: Store) -> None:
        """Say how the first failures failed; of one that can't be read, `facts` tells why."""
        failed = (at for at, row in enumerate(self._rows) if _has_failed(row[-1]))
        for at in islice(failed, _ERRORS):
            last = self._rows[at][-1]
            with suppress(DurableError):
                found = stores.outcome_of(opened, (last.call, last.version))
                if found is not None:
                    self.view.steps[at].error = explain(decode_error(found.payload))

    def facts(self, place: int) -> list[Fact]:
        """Tell what more the store has of one row: terms, what there is to say, whether in a block.

        The store is asked for it now.
        """
        row = self.view.steps[place]
        facts = self._facts(row) if place < len(self._rows) else _of_choice(row)
        return [fact for fact in facts if fact[1]]

    def _facts(self, row: StepView) -> Iterator[Fact]:
        tries = [one for one in self._rows[row.place] if isinstance(one, Try)]
        last = self._rows[row.place][-1]
        if isinstance(last, Ended):
            yield "Saved", f"{last.kind}, number {last.number} in the order of commits", False
            yield from self._saved(last)
        else:
            yield "Arguments", told_arguments(last.label, ""), True
        said = [f"attempt {one.attempt}: {one.error}" for one in tries if one.error]
        yield "Attempts", "\n".join(said), True
        yield "In", " > ".join(reversed([one.label for one in self._above(row)])), False

    def _saved(self, outcome: Ended) -> Iterator[Fact]:
        """Tell an outcome's error and output; that this can't be done is told, too."""
        try:
            with reading(self._place, _LOOK_SECONDS) as opened:
                if opened is None:
                    return
                found = stores.outcome_of(opened, (outcome.call, outcome.version))
            if found is None:
                return
            if not outcome.timer:
                yield "Arguments", told_arguments(found.label, found.arguments), True
            if found.kind is Kind.ERROR:
                yield "Error", traceback_text(found.payload), True
            yield "Output", end_of(loads(found.output)), True
        except DurableError as error:
            yield "Not told", str(error), False

    def _above(self, row: StepView) -> Iterator[StepView]:
        while row.parent is not None and (above := self.view.steps.get(row.parent)) is not None:
            yield above
            row = above


def recall(name: str, store: str | Path | None = None) -> Recalled | None:
    """Return the newest run called `name` as its last execution left it.

    None if there is no such run in the store, or it holds more than `MOST` outcomes.

    Args:
        name: The run's name.
        store: The DuckDB file; by default the one that a durable cell would use.
    """
    place = store_holding(name, store)
    with reading(place) as opened:
        past = None if opened is None else stores.past_of(opened, name, limit=MOST)
        if opened is None or past is None:
            return None
        going_on = past.ended is None and name in executed_at(place)
        status = RunStatus.RUNNING if going_on else past.status
        recalled = Recalled(place, past, name, status)
        recalled.read_errors(opened)
        return recalled


# --- rows -> events ---------------------------------------------------------------------


def _rows(past: Past) -> list[list[Ended | Try]]:
    """Return what there is of each call, its outcome last, in the order of their starts."""
    calls: dict[bytes, list[Ended | Try]] = {}
    for attempt in past.tries:
        calls.setdefault(attempt.call, []).append(attempt)
    for outcome in past.outcomes:
        calls.setdefault(outcome.call, []).append(outcome)
    return sorted(calls.values(), key=lambda row: row[0].started)


def _events(
    past: Past, name: str, status: RunStatus, rows: list[list[Ended | Try]]
) -> Iterator[Event]:
    yield RunStarted(name, past.run, past.execution, past.saved, past.began)
    places = {row[0].call: at for at, row in enumerate(rows)}
    parents = _parents(rows, places, past.choices)
    for at, row in enumerate(rows):
        kind = "timer" if _is_timer(row) else "step"
        yield StepCreated(at, kind, row[0].name, row[0].label, row[0].started, parents.get(at))
    ends = [_end(past, row) for row in rows]
    over = max([past.began, *ends]) if past.ended is None else past.ended
    for at, row in enumerate(rows):
        yield from _of_row(at, row, past, over, status)
    yield from _of_choices(past, len(rows), places, parents)
    if status is not RunStatus.RUNNING:
        said = f"as its store tells it: execution {past.execution}, {ago(time.time() - over)}"
        yield RunFinished(status, over, (said,))


def _end(past: Past, row: list[Ended | Try]) -> float:
    """Return when the last execution did something for a row for the last time."""
    last = row[-1]
    if isinstance(last, Ended) and last.execution != past.execution:
        return past.began
    return last.started + (last.seconds or 0.0)


def _has_failed(last: Ended | Try) -> bool:
    return isinstance(last, Ended) and last.kind is Kind.ERROR


def _is_timer(row: list[Ended | Try]) -> bool:
    """Tell a timer: by its code, which is none, or by the version that all timers have."""
    last = row[-1]
    return last.timer if isinstance(last, Ended) else last.version == TIMER_VERSION.id


def _parents(
    rows: list[list[Ended | Try]], places: dict[bytes, int], choices: tuple[Choice, ...]
) -> dict[int, int]:
    """Return the place of the step that started each; a ring, which no run makes, is left out.

    Only an outcome tells it: of what has none, those that were chosen from beside it do.
    """
    ended = {row[-1].call: row[-1].namespace for row in rows if isinstance(row[-1], Ended)}
    for choice in choices:
        spaces = {ended[call] for call in choice.branches if call in ended}
        if len(spaces) == 1:
            ended |= dict.fromkeys(set(choice.branches) - set(ended), *spaces)
    found = {
        places[call]: places[namespace]
        for call, namespace in ended.items()
        if call in places and namespace in places
    }
    for at in tuple(found):
        above: set[int] = {at}
        step = at
        while (parent := found.get(step)) is not None:
            if parent in above:
                del found[at]
                break
            above.add(parent)
            step = parent
    return found


def _of_row(
    at: int, row: list[Ended | Try], past: Past, over: float, status: RunStatus
) -> Iterator[Event]:
    last = row[-1]
    if isinstance(last, Ended) and last.call in past.unasked:
        yield StepDeferred(at, past.began)
        return
    if isinstance(last, Ended) and last.execution != past.execution:
        yield StepReplayed(at, last.kind, last.number, last.seconds, last.attempt, past.began)
        return
    if isinstance(last, Try) and last.ending == NOT_STARTED:
        yield StepDeferred(at, past.began)
        return
    why, reason = _reason(last.why if isinstance(last, Ended) else "")
    for one in row:
        if isinstance(one, Ended) and one.kind is Kind.CANCELLED and not one.attempt:
            continue  # cancelled before it began
        yield AttemptStarted(at, one.attempt, why, reason, one.started)
        if isinstance(one, Try) and one.ending == Kind.ERROR:
            ended = one.started + (one.seconds or 0.0)
            yield AttemptFailed(at, one.attempt, one.error, 0.0, ended)
    seconds = last.seconds or 0.0
    ended = last.started + seconds
    if isinstance(last, Ended):
        yield StepFinished(at, last.kind, last.number, seconds, saved=True, error="", at=ended)
    elif last.ending == stores.NOT_SAVED:
        yield StepFinished(at, Kind.VALUE, 0, seconds, saved=False, error=last.error, at=ended)
    elif status is not RunStatus.RUNNING:
        reason = "in flight when the kernel died" if status is RunStatus.DIED else "unfinished"
        if (reached := past.reached.get(last.call)) is not None:
            reason = f"{status} at {share(*reached)}"
        yield StepLetGo(at, reason, over)


def _reason(why: str) -> tuple[Why, str]:
    word, _, reason = why.partition(": ")
    with suppress(ValueError):
        return Why(word), reason
    return Why.UNFINISHED, why


def _of_choices(
    past: Past, place: int, places: dict[bytes, int], parents: dict[int, int]
) -> Iterator[Event]:
    kinds = {outcome.call: outcome.kind for outcome in past.outcomes}
    for choice in past.choices:
        if choice.winner == NOBODY:
            continue
        replayed = choice.execution != past.execution
        known = [places[call] for call in choice.branches if call in places]
        won = places.get(choice.winner)
        above = {parents.get(at) for at in known}
        parent = above.pop() if len(above) == 1 else None
        at = past.began if replayed else choice.decided
        if won is None:
            # The winner is a combinator: what its branches are is all that is known of it.
            inside = [places[c] for c in choice.branches if c in places and c not in choice.losers]
            if not inside:
                continue
            won, place = place, place + 1
            kind = choice.winner_label.partition("(")[0]
            yield StepCreated(
                won, kind, kind, choice.winner_label, at, parent, branches=tuple(inside)
            )
            known = [one for one in known if one not in inside] + [won]
            yield Decided(won, None, Kind.VALUE, choice.number, replayed, at)
        kind = choice.label.partition("(")[0]
        kind = kind if kind in {*CHOOSERS, "gather"} else "select"
        yield StepCreated(place, kind, kind, choice.label, at, parent, branches=tuple(known))
        ended_as = Kind.ERROR if kind == "gather" else kinds.get(choice.winner, Kind.VALUE)
        chosen = won if kind in CHOOSERS else None
        yield Decided(place, chosen, ended_as, choice.number, replayed, at)
        place += 1


def _of_choice(row: StepView) -> Iterator[Fact]:
    yield "Decided", f"number {row.number} in the order of commits" * bool(row.number), False
