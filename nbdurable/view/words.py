"""How a run reads: durations, states, sentences.

Invariant: `text` holds only what is durable, so a replay gives the same characters
as the first run and notebooks with saved output stay golden; `line` tells a person
what happened in this execution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nbdurable.labels import duration
from nbdurable.records import Kind, RunStatus

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
    State.LET_GO: "let go",
}


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
    lines += capped([f"{title(row)} failed" for row in failures(view)], "failures")
    if times:
        lines += view.notes
    return "\n".join(lines)


def tally(view: RunView) -> str:
    """Count the steps by state; name the status where it is not the plain one."""
    said = [
        f"{view.counts[state]:,} {word}" for state, word in COUNTED.items() if view.counts[state]
    ]
    if view.status not in {RunStatus.RUNNING, RunStatus.FINISHED, None}:
        said.insert(0, str(view.status))
    return ", ".join(said) or "no steps"


def headline(view: RunView) -> str:
    """Say how many steps the cell has, and how it stands."""
    steps = sum(1 for row in view.steps.values() if row.kind == "step" and row.parent is None)
    counted = "no steps" if not steps else "1 step" if steps == 1 else f"{steps:,} steps"
    return f"{view.name}: {counted}, {view.status or 'not started'}"


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


def remark(row: StepView) -> str:
    """Say why the row ran, or what is wrong with it."""
    if row.state is State.RETRYING and row.again is not None:
        said = f"attempt {row.attempts} failed: {row.error}"
    elif row.combinator and row.state is State.WAITING:
        said = f"{row.settled:,} of {len(row.branches):,} done" if row.branches else ""
    elif row.error and row.state in {State.FAILED, State.NOT_SAVED}:
        said = f"{row.error} ({row.why})" if row.why else row.error
    else:
        said = row.why
    return clipped(said)


def reached(row: StepView) -> str:
    """Say how far the row's last attempt was, while it matters: it runs, failed, or was let go."""
    matters = row.state in MOVING or row.state in {State.FAILED, State.LET_GO}
    return row.progress if matters else ""
