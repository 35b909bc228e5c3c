"""Events of runs that never ran, and views folded from them."""

from nbdurable.events import (
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
from nbdurable.view.progress import RunView

START = RunStarted("quotes", "run-1", 1, 0, 100.0)
END = RunFinished(RunStatus.FINISHED, 104.2)


def viewed(*events):
    """Fold events into a fresh view."""
    view = RunView()
    for event in events:
        view.apply(event)
    return view


def made(place, label="quote('alpha')", kind="step", **more):
    """Make the event of a new row."""
    return StepCreated(place, kind, more.pop("name", label.split("(")[0]), label, 100.0, **more)


def began(place, attempt=1, why=Why.NEW, reason=""):
    """Make the event of an attempt's begin."""
    return AttemptStarted(place, attempt, why, reason, 101.0)


def done(place, kind=Kind.VALUE, *, saved=True, error="", number=1, seconds=1.5):
    """Make the event of a step's end."""
    return StepFinished(place, kind, number, seconds, saved, error, 103.0)


FIRST = (
    START,
    made(0),
    made(1, "quote('beta')"),
    made(2, "select(...)", "select", branches=(0, 1)),
    began(0),
    began(1),
    done(0),
    Decided(2, 0, Kind.VALUE, 1, False, 103.0),
    made(3, "parse(<b>)"),
    began(3),
    done(3, Kind.ERROR, error="ValueError('<b>')", number=2),
    StepLetGo(1, "still running", 104.0),
    END,
)
AGAIN = (
    RunStarted("quotes", "run-1", 2, 2, 500.0),
    made(0),
    StepReplayed(0, Kind.VALUE, 1, 1.5, 1, 500.0),
    made(1, "quote('beta')"),
    made(2, "select(...)", "select", branches=(0, 1)),
    Decided(2, 0, Kind.VALUE, 1, True, 500.0),
    StepDeferred(1, 500.0),
    made(3, "parse(<b>)"),
    StepReplayed(3, Kind.ERROR, 2, 1.5, 1, 500.0),
    RunFinished(RunStatus.FINISHED, 500.01, ("replayed: saved 2 h ago",)),
)
