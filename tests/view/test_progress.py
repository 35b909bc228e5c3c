"""What a run looks like: the folds."""

from __future__ import annotations

import typing

import pytest
from support.stories import FIRST, START, began, done, made, viewed

from nbdurable.events import (
    AttemptFailed,
    AttemptStarted,
    Decided,
    Event,
    Noticed,
    RunFinished,
    RunStarted,
    StepDeferred,
    StepFinished,
    StepLetGo,
    StepReplayed,
)
from nbdurable.records import Kind, RunStatus, Why
from nbdurable.view import progress, words
from nbdurable.view.progress import GLYPHS, State


def test_run_started_begins_a_new_view():
    """A new execution forgets the rows of the one before, and counts on in revisions."""
    view = viewed(*FIRST)
    revision = view.revision
    view.apply(RunStarted("quotes", "run-1", 2, 3, 500.0))
    assert (view.name, view.run, view.execution, view.saved) == ("quotes", "run-1", 2, 3)
    assert view.steps == {}
    assert view.live
    assert view.revision == revision + 1


def test_step_created_waits():
    """A new row waits, below the step that started it."""
    view = viewed(START, made(0), made(1, parent=0), made(2, parent=1))
    assert [row.state for row in view.steps.values()] == [State.WAITING] * 3
    assert [row.parent for row in view.steps.values()] == [None, 0, 1]
    assert view.counts[State.WAITING] == 3


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (Kind.VALUE, State.REPLAYED),
        (Kind.ERROR, State.FAILED),
        (Kind.CANCELLED, State.CANCELLED),
    ],
)
def test_step_replayed(kind, state):
    """A replayed outcome shows what it is, and what it spared."""
    view = viewed(START, made(0), StepReplayed(0, kind, 7, 12.1, 3, 100.0))
    row = view.steps[0]
    assert (row.state, row.replayed, row.number, row.attempts) == (state, True, 7, 3)
    assert view.seconds_saved == 12.1


def test_a_replayed_timer_saves_no_work():
    """Seconds saved are those of steps: a timer's are nobody's work."""
    view = viewed(START, made(0, "after(30)", "timer"), StepReplayed(0, Kind.VALUE, 1, 30, 1, 1.0))
    assert view.seconds_saved == 0
    assert not any(view.counts.values())


def test_step_deferred_is_not_started():
    """A decided select's loser says that it did not run."""
    row = viewed(START, made(0), StepDeferred(0, 100.0)).steps[0]
    assert row.state is State.NOT_STARTED


def test_attempts():
    """Attempts run, fail, wait, and run again; the first begin counts, and the time of all."""
    view = viewed(START, made(0), began(0, why=Why.CODE_CHANGED, reason="clean()"))
    row = view.steps[0]
    assert (row.state, row.attempts, row.why) == (State.RUNNING, 1, "code changed: clean()")
    view.apply(AttemptFailed(0, 1, "OSError('x')", 2.0, 102.0))
    assert (row.state, row.again, row.error) == (State.RETRYING, 104.0, "OSError('x')")
    view.apply(AttemptStarted(0, 2, Why.NEW, "", 104.0))
    assert (row.state, row.attempts, row.started, row.again) == (State.RUNNING, 2, 101.0, None)
    view.apply(done(0))
    assert (row.state, row.error, row.seconds) == (State.DONE, "", 2.5)


@pytest.mark.parametrize(
    ("kind", "saved", "state"),
    [
        (Kind.VALUE, True, State.DONE),
        (Kind.VALUE, False, State.NOT_SAVED),
        (Kind.ERROR, True, State.FAILED),
        (Kind.ERROR, False, State.FAILED),
        (Kind.CANCELLED, True, State.CANCELLED),
    ],
)
def test_step_finished(kind, saved, state):
    """An outcome shows its kind, and a value whether it was saved."""
    view = viewed(START, made(0), began(0), done(0, kind, saved=saved))
    assert view.steps[0].state is state
    assert view.counts[state] == 1
    assert sum(view.counts.values()) == 1


def test_decided_marks_winner_and_losers():
    """The winner is marked, and all that is below the other branches has lost."""
    view = viewed(
        START,
        made(0),
        made(1),
        made(2),
        made(3, "gather(...)", "gather", branches=(1, 2)),
        made(4, "select(...)", "select", branches=(0, 3)),
        Decided(4, 0, Kind.VALUE, 1, False, 103.0),
    )
    assert view.steps[0].won == 4
    assert view.steps[0].lost is None
    assert [view.steps[place].lost for place in (1, 2, 3)] == [4, 4, 4]
    assert (view.steps[4].state, view.steps[4].winners) == (State.DONE, [0])


def test_decided_without_a_winner():
    """A gather is done or failed, and makes nobody a loser."""
    view = viewed(
        START, made(0), made(1, "gather(...)", "gather", branches=(0,)),
        Decided(1, None, Kind.ERROR, 1, True, 103.0),
    )  # fmt: skip
    assert view.steps[1].state is State.FAILED
    assert view.steps[0].lost is None


def test_as_completed_keeps_its_order():
    """Each of its decisions adds one winner, and nobody has lost."""
    view = viewed(
        START,
        made(0, "a()"),
        made(1, "b()"),
        made(2, "as_completed(...)", "as_completed", branches=(0, 1)),
        Decided(2, 1, Kind.VALUE, 1, False, 103.0),
        Decided(2, 0, Kind.VALUE, 2, False, 103.0),
    )
    assert view.steps[2].winners == [1, 0]
    assert view.steps[0].lost is None
    assert "as_completed: b(), then a()" in words.text(view)


def test_step_let_go():
    """A step that the execution left says why, and how long it had run."""
    row = viewed(START, made(0), began(0), StepLetGo(0, "still running", 104.0)).steps[0]
    assert (row.state, row.why, row.seconds) == (State.LET_GO, "still running", 3.0)


def test_run_finished():
    """The end stops the clock and keeps the notes."""
    view = viewed(START, RunFinished(RunStatus.DIED, 104.0, ("a note",)))
    assert (view.status, view.live, view.notes) == (RunStatus.DIED, False, ("a note",))
    assert view.elapsed(now=999.0) == 4.0


def test_every_event_has_a_fold():
    """An event that the view doesn't know would end it."""
    assert set(progress._FOLDS) == set(typing.get_args(Event))


def test_a_combinator_counts_its_branches():
    """Branches that end before and after the combinator was built both count, once."""
    view = viewed(START, made(0), made(1), made(2), began(0), done(0))
    view.apply(made(3, "gather(...)", "gather", branches=(0, 1, 2)))
    assert view.steps[3].settled == 1
    view.apply(began(1))
    view.apply(done(1))
    view.apply(StepLetGo(2, "", 104.0))
    assert view.steps[3].settled == 2
    assert words.standing(view.steps[3]) == "2 of 3"


def test_notes_are_shown_while_the_run_goes_on():
    """A line said in mid-run shows at once, and once: the end repeats it."""
    view = viewed(START, Noticed("clean() changed", 101.0))
    assert view.notes == ("clean() changed",)
    view.apply(RunFinished(RunStatus.FINISHED, 104.0, ("clean() changed", "one more")))
    assert view.notes == ("clean() changed", "one more")


def test_each_attempt_keeps_its_times():
    """A row knows when each attempt began and ended, and what ended without being finished."""
    view = viewed(START, made(0), began(0), AttemptFailed(0, 1, "OSError", 1.0, 101.5))
    assert view.steps[0].spans == ((101.0, 101.5),)
    view.apply(AttemptStarted(0, 2, Why.NEW, "", 102.5))
    assert view.steps[0].spans == ((101.0, 101.5), (102.5, 0.0))
    view.apply(StepFinished(0, Kind.VALUE, 1, 0.5, True, "", 103.0))
    assert view.steps[0].spans == ((101.0, 101.5), (102.5, 103.0))
    assert view.steps[0].ended == 103.0
    left = viewed(START, made(0), began(0), StepLetGo(0, "", 104.0))
    assert left.steps[0].spans == ((101.0, 104.0),)


def test_a_thousand_attempts_keep_the_last():
    """What is retried for ever doesn't grow for ever."""
    view = viewed(START, made(0))
    for at in range(1000):
        view.apply(AttemptStarted(0, at + 1, Why.NEW, "", 101.0 + at))
        view.apply(AttemptFailed(0, at + 1, "OSError", 0.5, 101.5 + at))
    assert len(view.steps[0].spans) == progress.SPANS
    assert view.steps[0].spans[-1] == (1100.0, 1100.5)
    assert view.steps[0].attempts == 1000


def test_deaths_and_inputs_are_kept():
    """The view knows what was in flight at deaths, and what was passed on."""
    view = viewed(START, made(0), made(1, inputs=(0,)), AttemptStarted(1, 1, Why.NEW, "", 1.0, 2))
    assert (view.steps[1].deaths, view.steps[1].inputs) == (2, (0,))


def test_every_state_has_a_shape_and_a_word():
    """No two states look the same, even without colour."""
    assert len(set(GLYPHS.values())) == len(State)
    assert set(words.COUNTED) == set(State)
