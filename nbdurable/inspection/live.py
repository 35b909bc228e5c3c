"""What is known of a store's runs while another process executes them: its status file.

Invariant: nothing is waited for and nothing is changed; what is read is believed only as far
as it has the form, and is about a process that lives.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbdurable import store as stores
from nbdurable.api.open_stores import is_open
from nbdurable.codec.told import text, unpacked, whole
from nbdurable.events import RunStarted, StepCreated
from nbdurable.view.progress import RunView, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nbdurable.events import Event

_MOST_RUNS = 100
_MOST_NOTES = 20
_LAST = 2.5e11
"""Seconds since the epoch: a time of the year 9892, which every platform can show."""


@dataclass(frozen=True)
class LiveRun:
    """A run that another process executes: who, how many steps by state, and what tells it.

    ``events`` tell of a part of the steps if there are many; ``counts`` are of all.
    """

    holder: str
    pid: int
    begun: RunStarted
    counts: dict[str, int]
    events: tuple[Event, ...]
    notes: tuple[str, ...]

    @property
    def saved(self) -> int:
        """How many outcomes are saved, of those that this execution found at least."""
        ended = sum(self.counts.get(word, 0) for word in ("done", "failed", "cancelled"))
        return self.begun.saved + ended

    @property
    def in_flight(self) -> int:
        """How many steps run, or wait for another attempt."""
        return self.counts.get("running", 0) + self.counts.get("retrying", 0)


def live_note(place: str, runs: Sequence[LiveRun]) -> str:
    """Say whose live runs are told of, and that the store's others can't be asked now."""
    return (
        f"{place} is held by {runs[0].holder}: this is what it executes now, as of a second ago; "
        f"what else the store holds can be asked when its cell has ended"
    )


def live_runs(place: str) -> list[LiveRun]:
    """Return the runs of a store that another process executes now; none if it can't be told."""
    if is_open(place):
        return []  # it is this process's own, which can ask the store
    found = stores.read_status(place)
    if found is None:
        return []
    owner, data = found
    try:
        told = json.loads(data)
        if told["owner"] != [owner["pid"], owner["generation"]]:
            return []  # of an owner that has died
        holder = stores.describe(owner)
        return [_live_run(one, holder, owner["pid"]) for one in told["runs"][:_MOST_RUNS]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def _live_run(told: Any, holder: str, pid: int) -> LiveRun:
    begun, *rest = [unpacked(one) for one in told["events"]]
    if not isinstance(begun, RunStarted) or any(isinstance(one, RunStarted) for one in rest):
        raise ValueError("no run's beginning")
    for one in (begun, *rest):
        if not 0 <= one.at <= _LAST:
            raise ValueError("a time that no clock gives")
        if isinstance(one, StepCreated) and one.parent is not None and one.parent >= one.step:
            raise ValueError("a step that was made before what started it")
        if isinstance(one, StepCreated) and not (one.kind and one.label):
            raise ValueError("a step without a name")
    if not isinstance(told["counts"], dict):
        raise TypeError("counts of another form")
    counts = {text(word): whole(count) for word, count in told["counts"].items()}
    notes = tuple(text(note) for note in told["notes"][:_MOST_NOTES])
    return LiveRun(holder, pid, begun, counts, tuple(rest), notes)


def view_of(run: LiveRun) -> RunView:
    """Return what a run looks like now; its counts are of all its steps."""
    view = RunView(run.begun.name)
    view.apply_all([run.begun, *run.events])
    known = {str(state): state for state in State}
    view.counts.update({known[word]: n for word, n in run.counts.items() if word in known})
    view.notes = run.notes
    return view
