"""How a run reads: durations, states, sentences.

Invariant: `text` holds only what is durable, so a replay gives the same characters
as the first run and notebooks with saved output stay golden; `line` tells a person
what happened in this execution.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from nbdurable.labels import duration
from nbdurable.records import Kind, RunStatus, Why

from .progress import CHOOSERS, MOVING, State

if TYPE_CHECKING:
    from .progress import RunView, StepView

LINES: Final = 10
"""How many decisions, and how many failures, `text` names."""

BRANCHES: Final = 6
"""How many branches of a combinator are named."""

CLIP: Final = 300
"""How many characters a remark has at most."""

# The order in which `line` counts the states, and its word where that differs.
COUNTED: Final = {
    State.REPLAYED: "replayed",
    State.DONE: "ran",
    State.FAILED: "failed",
    State.RUNNING: "running",
    State.RETRYING: "retrying",
    State.WAITING: "waiting",
    State.NOT_SAVED: "not saved",
    State.CANCELLED: "cancelled",
    State.NOT_STARTED: "not started",
    State.LET_GO: "not finished",
}

_UNSAID: Final = frozenset({Why.NEW, Why.REPLAYED, ""})
"""Reasons that a row's state tells already, or that need no telling."""

_PLAINLY: Final = {
    Why.NEW: "runs for the first time",
    Why.REPLAYED: "its outcome was saved",
    Why.CODE_CHANGED: "runs because its code has changed",
    Why.VALUE_CHANGED: "runs because a value that its code reads has changed",
    Why.ARGUMENT_CHANGED: "runs because an argument has changed",
    Why.UPSTREAM_CHANGED: "runs because what it is given has changed",
    Why.FILE_CHANGED: "runs because a file has changed",
    Why.ERROR_RETRIED: "runs because it failed before",
    Why.UNFINISHED: "runs because it had not finished",
    Why.NOT_SAVED: "runs because its outcome was not saved",
    Why.REDO: "runs because it was asked to run again",
    Why.LOST: "runs because its saved value is lost",
    Why.UNREADABLE: "runs because its saved value can't be read",
}
"""Why a row runs, or doesn't, for who points at it."""


def line(view: RunView, now: float | None = None) -> str:
    """Say in one line, for people, what this execution did and what it spared."""
    said = f"{view.name}: {tally(view)}, {duration(view.elapsed(now))}"
    if view.seconds_saved:
        said += f"; saved {duration(view.seconds_saved)}"
    return said


def text(view: RunView, *, times: bool = False) -> str:
    """Say what is durable about the run: how it ended, who won, what failed.

    Without ``times`` a replay gives the same characters as the first run. So
    it tells neither durations nor what was replayed, nor what became of losers,
    nor anything below a step (a replayed step's body starts nothing).
    """
    lines = [line(view) if times else headline(view)]
    lines += capped([sentence(view, row) for row in choices(view)], "decisions")
    lines += capped(
        [failed(row) if times else f"{title(row)} failed" for row in failures(view)], "failures"
    )
    if times:
        lines += view.notes
    return "\n".join(lines)


def counted(view: RunView) -> str:
    """Count the steps by state."""
    said = [
        f"{view.counts[state]:,} {word}" for state, word in COUNTED.items() if view.counts[state]
    ]
    return ", ".join(said)


def tally(view: RunView) -> str:
    """Count the steps by state; name the status where it is not the plain one."""
    said = [counted(view)] if any(view.counts.values()) else []
    if view.status not in {RunStatus.RUNNING, RunStatus.FINISHED, None}:
        said.insert(0, str(view.status))
    return ", ".join(said) or "no steps"


def headline(view: RunView) -> str:
    """Say how many steps the cell has, and how it stands."""
    return f"{view.name}: {_steps(_own(view))}, {view.status or 'not started'}"


def opening(view: RunView, now: float | None = None) -> str:
    """Say the same as `headline`, then what became of the steps, those inside others included."""
    own, every = _own(view), sum(view.counts.values())
    inside = f" and {every - own:,} inside them" if every > own else ""
    said = f"{view.name}: {_steps(own)}{inside}, {view.status or 'not started'}"
    said += f": {counted(view)}" if every else ""
    said += f", {duration(view.elapsed(now))}"
    return f"{said}; saved {duration(view.seconds_saved)}" if view.seconds_saved else said


def so_far(view: RunView, now: float) -> str:
    """Say how far a run is that may be stopped before it can say more, and how to go on."""
    return f"{opening(view, now)}\n{resuming(now)}"


def resuming(now: float) -> str:
    """Say how to go on from what was shown last, at the time `now`."""
    at = datetime.fromtimestamp(now).astimezone()
    return (
        f"as of {at:%Y-%m-%d %H:%M:%S}; if the kernel is gone, run this cell again to resume: "
        f"what is saved is not run again"
    )


def _own(view: RunView) -> int:
    """Count the steps that the cell itself has, which a replay has, too."""
    return sum(1 for row in view.steps.values() if row.kind == "step" and row.parent is None)


def _steps(number: int) -> str:
    return "no steps" if not number else "1 step" if number == 1 else f"{number:,} steps"


def choices(view: RunView) -> list[StepView]:
    """Return the cell's own combinators that have chosen."""
    return [row for row in view.combinators() if row.winners and row.parent is None]


def failures(view: RunView) -> list[StepView]:
    """Choose the failures that every execution shows: the cell's own, no losers'."""
    return [
        row
        for row in view.steps.values()
        if row.outcome is Kind.ERROR
        and row.parent is None
        and row.lost is None
        and not row.combinator
    ]


def sentence(view: RunView, row: StepView) -> str:
    """Say who won over whom; or the order in which they came."""
    won = [title(view.steps[place]) for place in row.winners if place in view.steps]
    if row.kind not in CHOOSERS:
        return f"{row.name or row.kind}: {several(won, ', then ')}"
    over = [title(loser) for loser in losers(view, row)]
    said = f"{row.name or row.kind}: {several(won)} won"
    return f"{said} over {several(over)}" if over else said


def losers(view: RunView, row: StepView) -> list[StepView]:
    """Return the branches that a combinator has not chosen."""
    return [
        view.steps[place]
        for place in row.branches
        if place not in row.winners and place in view.steps
    ]


def several(words: list[str], joint: str = ", ") -> str:
    """List a few words, and count the others."""
    if len(words) <= BRANCHES:
        return joint.join(words)
    return f"{joint.join(words[:BRANCHES])} and {len(words) - BRANCHES:,} more"


def capped(lines: list[str], what: str) -> list[str]:
    """Keep the first lines, and count the others."""
    if len(lines) <= LINES:
        return lines
    return [*lines[:LINES], f"… {len(lines) - LINES:,} more {what}"]


def title(row: StepView) -> str:
    """Name a row."""
    return row.label or row.name or row.kind


def heading(row: StepView) -> str:
    """Name a row of the table: the branches of a combinator are listed below it."""
    return row.name or row.kind if row.branches else title(row)


def took(row: StepView) -> str:
    """Say how long the row took; a step without an attempt took no time to speak of."""
    if row.seconds is None or (row.kind == "step" and not row.attempts):
        return ""
    return duration(row.seconds)


def clipped(said: str) -> str:
    """Cut what is too long for a line."""
    return said if len(said) <= CLIP else said[: CLIP - 1] + "…"


def standing(row: StepView) -> str:
    """Say in a word or two where a row stands: of what waits for many, how many are there."""
    if row.combinator and row.state is State.WAITING and row.branches:
        return f"{row.settled:,} of {len(row.branches):,}"
    return str(row.state)


def remark(row: StepView) -> str:
    """Say why the row ran where that is no matter of course; of an error, `failure` tells."""
    if row.state in _TROUBLED and row.error:
        return ""
    why, _, detail = row.why.partition(": ")
    if row.why in _UNSAID:
        return ""
    if why == Why.UNFINISHED:
        return clipped(f"had not finished: {detail}" if detail else "had not finished")
    return clipped(row.why)


def failure(row: StepView) -> str:
    """Say what went wrong with the row, and on which line; nothing of what goes well."""
    if not row.error or row.state not in _TROUBLED:
        return ""
    before = f"attempt {row.attempts} failed: " if row.state is State.RETRYING else ""
    where = f" ({row.where})" if row.where else ""
    return f"{before}{clipped(row.error)}{where}"


def failed(row: StepView) -> str:
    """Say that the row failed, how, and on which line, as far as that is known."""
    error = f": {clipped(row.error)}" if row.error else ""
    where = f" ({row.where})" if row.where else ""
    return f"{title(row)} failed{error}{where}"


def reason(row: StepView) -> str:
    """Say in a sentence why the row runs, or doesn't."""
    why, _, detail = row.why.partition(": ")
    plain = _PLAINLY.get(why)  # type: ignore[call-overload] # a Why is its text
    if plain is None:
        return clipped(row.why)
    return clipped(f"{plain}: {detail}" if detail else plain)


_TROUBLED: Final = frozenset({State.FAILED, State.NOT_SAVED, State.RETRYING, State.LET_GO})


def reached(row: StepView) -> str:
    """Say how far the row's last attempt was, while it matters: it runs, failed, or was let go."""
    matters = row.state in MOVING or row.state in {State.FAILED, State.LET_GO}
    return row.progress if matters else ""
