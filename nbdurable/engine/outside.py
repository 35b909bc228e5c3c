"""Steps called where no run's code stands, while a run is active: plain calls, said once.

Invariant: nothing of such a call is saved, and the run's notes name the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_active: dict[object, Callable[[str], object]] = {}


def enter(run: object, say: Callable[[str], object]) -> None:
    """Let calls from outside be said to an active run, each line once."""
    _active[run] = say


def leave(run: object) -> None:
    """Say nothing more to a run."""
    _active.pop(run, None)


def told_outside(name: str) -> None:
    """Say to the runs that are active that a step's call from outside of them is a plain one."""
    for say in tuple(_active.values()):
        say(
            f"{name} was called by a thread or task that began before this run: a plain call, of "
            f"which nothing is saved; start the thread, or submit the work, in the cell"
        )
