"""What the live view shows of a run, as JSON.

Invariant: words are made here, so that the front end only lays them out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .progress import GLYPHS, MOVING, ROWS
from .words import BRANCHES, capped, clipped, duration, heading, remark, tally, title, took

if TYPE_CHECKING:
    from .progress import RunView, StepView


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
        "said": tally(view),
        "spared": duration(view.seconds_saved) if view.seconds_saved else "",
        "now": now,
        "started": view.started,
        "elapsed": view.elapsed(now),
        "notes": capped([clipped(note) for note in view.notes], "notes"),
        "total": len(view.steps),
        "hidden": len(view.steps) - len(rows),
        "rows": [_row(view, row) for row in rows],
    }


def _row(view: RunView, row: StepView) -> dict[str, Any]:
    said: dict[str, Any] = {
        "place": row.place,
        "kind": row.kind,
        "label": heading(row),
        "state": str(row.state),
        "glyph": GLYPHS[row.state],
        "depth": row.depth,
        "attempts": row.attempts,
        "remark": remark(row),
        "won": row.won is not None,
        "lost": row.won is None and row.lost is not None,
    }
    if row.state in MOVING and view.live:
        said["since"] = row.started
        said["again"] = row.again
    else:
        said["time"] = took(row)
    if row.branches:
        shown, more = chips(view, row)
        said["branches"] = [
            {
                "label": title(branch),
                "state": str(branch.state),
                "glyph": GLYPHS[branch.state],
                "won": branch.won == row.place,
            }
            for branch in shown
        ]
        said["more"] = more
    return {key: value for key, value in said.items() if value not in (None, "", 0, False)} | {
        "place": row.place
    }


def chips(view: RunView, row: StepView) -> tuple[list[StepView], int]:
    """Choose the branches to name, the winners first, and count the others."""
    named = list(dict.fromkeys((*row.winners, *row.branches[: BRANCHES + len(row.winners)])))
    chips = [view.steps[place] for place in named[:BRANCHES] if place in view.steps]
    return chips, max(0, len(row.branches) - len(chips))
