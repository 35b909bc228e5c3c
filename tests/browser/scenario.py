"""A run that never ran: events in chapters, each begun when the test says so.

Imported by the notebooks under test. Between two chapters the player blocks on
a named pipe in the notebook's folder until the test writes to it.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from nbdurable.events import (
    AttemptFailed,
    AttemptStarted,
    Decided,
    RunFinished,
    RunStarted,
    StepCreated,
    StepDeferred,
    StepFinished,
    StepLetGo,
    StepReplayed,
)
from nbdurable.records import Kind, RunStatus, Why

PIPE = Path("gate")


def quotes(at):
    """Two quotes race, one is retried, one fails, one is replayed."""
    yield RunStarted("quotes", "run-1", 2, 1, at())
    yield StepCreated(0, "step", "prices", "prices('2024')", at())
    yield StepReplayed(0, Kind.VALUE, 1, 12.1, 1, at())
    yield StepCreated(1, "step", "quote", "quote('alpha')", at())
    yield StepCreated(2, "step", "quote", "quote('beta')", at())
    yield StepCreated(
        3, "select", "select", "select(quote('alpha'), quote('beta'))", at(), None, (1, 2)
    )
    yield AttemptStarted(1, 1, Why.NEW, "", at())
    yield AttemptStarted(2, 1, Why.CODE_CHANGED, "clean()", at())
    yield StepCreated(4, "step", "fetch", "fetch('<b>url</b>')", at())
    yield AttemptStarted(4, 1, Why.UNFINISHED, "", at(), 2)
    yield AttemptFailed(4, 1, "ConnectionError('refused')", 30.0, at())
    yield StepCreated(5, "timer", "after", "after(60)", at())
    yield StepCreated(6, "step", "report", "report(fetch('<b>url</b>'))", at(), inputs=(0, 4))
    yield StepCreated(7, "gather", "gather", "gather(fetch, report)", at(), None, (4, 6))
    yield StepCreated(8, "step", "parse", "parse(7)", at(), 1)
    yield AttemptStarted(8, 1, Why.NEW, "", at())
    yield None
    yield StepFinished(8, Kind.VALUE, 2, 0.04, True, "", at())
    yield StepFinished(1, Kind.VALUE, 3, 1.2, True, "", at())
    yield Decided(3, 1, Kind.VALUE, 3, False, at())
    yield AttemptStarted(4, 2, Why.UNFINISHED, "", at())
    yield StepFinished(4, Kind.ERROR, 4, 0.4, True, "ConnectionError('refused')", at())
    yield StepFinished(6, Kind.ERROR, 5, 0.0, True, "ConnectionError('refused')", at())
    yield Decided(7, None, Kind.ERROR, 4, False, at())
    yield None
    yield StepLetGo(2, "still running when the cell ended", at())
    yield StepFinished(5, Kind.CANCELLED, 6, 0.0, True, "", at())
    yield RunFinished(RunStatus.FINISHED, at(), ("1 saved outcome was not asked for",))


def replayed(at):
    """The same run, once more: nothing runs, and it takes no time."""
    yield RunStarted("quotes", "run-1", 3, 4, at())
    yield StepCreated(0, "step", "prices", "prices('2024')", at())
    yield StepReplayed(0, Kind.VALUE, 1, 12.1, 1, at())
    yield StepCreated(1, "step", "quote", "quote('alpha')", at())
    yield StepReplayed(1, Kind.VALUE, 3, 1.2, 1, at())
    yield StepCreated(2, "step", "quote", "quote('beta')", at())
    yield StepCreated(
        3, "select", "select", "select(quote('alpha'), quote('beta'))", at(), None, (1, 2)
    )
    yield Decided(3, 1, Kind.VALUE, 3, True, at())
    yield StepDeferred(2, at())
    yield StepCreated(4, "step", "fetch", "fetch('<b>url</b>')", at())
    yield StepReplayed(4, Kind.ERROR, 4, 0.4, 2, at())
    yield StepCreated(5, "timer", "after", "after(60)", at())
    yield StepCreated(6, "step", "report", "report(fetch('<b>url</b>'))", at(), inputs=(0, 4))
    yield StepReplayed(6, Kind.ERROR, 5, 0.0, 0, at())
    yield StepCreated(7, "gather", "gather", "gather(fetch, report)", at(), None, (4, 6))
    yield Decided(7, None, Kind.ERROR, 4, True, at())
    yield StepReplayed(5, Kind.CANCELLED, 6, 0.0, 0, at())
    yield RunFinished(RunStatus.FINISHED, at())


def many(at):
    """A large map that never stands still."""
    yield RunStarted("large", "run-2", 1, 0, at())
    for place in range(1000):
        yield StepCreated(place, "step", "f", f"f({place})", at())
        yield AttemptStarted(place, 1, Why.NEW, "", at())
        yield StepFinished(place, Kind.VALUE, place, 0.01, True, "", at())
    yield StepCreated(1000, "step", "f", "f(1000)", at())
    yield AttemptStarted(1000, 1, Why.NEW, "", at())
    yield None
    yield StepFinished(1000, Kind.VALUE, 1001, 0.5, True, "", at())
    yield RunFinished(RunStatus.FINISHED, at())


def play(view, story, clock=time.time):
    """Tell ``view`` a story from a thread; the event given back is set at its end."""
    ended = threading.Event()
    if not PIPE.exists():
        os.mkfifo(PIPE)

    def tell():
        for event in story(clock):
            if event is None:
                PIPE.read_text()  # until the test opens the gate
            else:
                view(event)
        ended.set()

    threading.Thread(target=tell, daemon=True).start()
    return ended


def open_gate(folder: Path) -> None:
    """Let the player, who waits in ``folder``, begin its next chapter."""
    (folder / PIPE).write_text("go")
