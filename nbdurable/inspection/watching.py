"""A store's live runs, shown in a terminal while another process executes them.

Invariant: looks at the status file alone while the runs last, so nothing of them waits for
it; how a run ended is asked of the store.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from nbdurable.errors import StoreError
from nbdurable.view.terminal.screen import screen_for

from .history import recall
from .live import live_runs, view_of

if TYPE_CHECKING:
    from typing import TextIO

    from nbdurable.view.live import Screen

    from .live import LiveRun

PERIOD_SECONDS = 0.5
LOOKS = 3
"""So many looks in a row that find no run end the watching."""


def watch(place: str, stream: TextIO) -> bool:
    """Show the runs of a store that another process executes, until all have ended.

    Returns:
        Whether there were any.
    """
    wait = threading.Event().wait
    shown: dict[tuple[str, int], tuple[LiveRun, Screen]] = {}
    seen, looks = False, 0
    try:
        while True:
            now = {(one.begun.run, one.begun.execution): one for one in live_runs(place)}
            for key, run in now.items():
                _show(key, run, shown, stream)
            for key in [key for key in shown if key not in now]:
                run, screen = shown.pop(key)
                _conclude(place, run, screen)
            seen = seen or bool(now)
            looks = 0 if now else looks + 1
            # Between two owners, and while a run begins, there is none for a moment.
            if looks == LOOKS:
                return seen
            wait(PERIOD_SECONDS)
    finally:
        for _, screen in shown.values():
            screen.clear()


def _show(
    key: tuple[str, int],
    run: LiveRun,
    shown: dict[tuple[str, int], tuple[LiveRun, Screen]],
    stream: TextIO,
) -> None:
    view, at = view_of(run), time.time()
    if (known := shown.get(key)) is not None:
        screen = known[1]
        screen.send(view, at)
    else:
        screen = screen_for(stream, always=True)
        screen.prepare()
        screen.open(view, at)
    shown[key] = run, screen


def _conclude(place: str, run: LiveRun, screen: Screen) -> None:
    """Leave how a run has ended in the place of its live view."""
    screen.clear()
    try:
        found = recall(run.begun.name, place)
    except StoreError:
        found = None  # another cell of its kernel has the store already
    screen.summarise(view_of(run) if found is None else found.view)
