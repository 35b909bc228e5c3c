"""A past run, shown as its store tells it: what a view would have shown when it ended."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import duckdb  # noqa: TID251 - to damage stores
import pytest

from nbdurable import (
    StoreCorruptError,
    UntrustedCheckpointError,
    after,
    as_completed,
    gather,
    race,
    select,
    step,
    workflow,
)
from nbdurable.api import open_stores
from nbdurable.inspection import history as recall
from nbdurable.records import RunStatus
from nbdurable.view import summary, words
from nbdurable.view.progress import RunView, State

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path):
    """Yield a store's place; it is closed after the test."""
    yield tmp_path / "store.duckdb"
    open_stores.close_stores()


def executed(path, program, name="w"):
    """Execute a program; give what a view shows of it at the end."""
    view = RunView(name)
    try:
        with workflow(name, store=path, observers=(view.apply,)):
            program()
    except RuntimeError:
        pass
    open_stores.close_stores()
    return view


def said(view):
    """Return a view's rows by their labels, as far as a store can tell them."""
    rows = {}
    for row in view.steps.values():
        if row.kind == "gather":
            continue  # no decision, so nothing is saved of it
        titles = [words.title(view.steps[place]) for place in row.winners]
        above = None if row.parent is None else view.steps[row.parent].label
        deciders = [
            None if place is None else view.steps[place].label for place in (row.won, row.lost)
        ]
        error = row.error if row.state is State.FAILED else ""
        rows[above, row.label] = (row.kind, row.state, row.outcome, row.attempts, error,
                           titles, deciders, row.state is State.NOT_SAVED or row.number,
                           len(row.spans))  # fmt: skip
    return rows


# --- a program of everything ----------------------------------------------------------


@step
def square(number):
    """Square."""
    print("squaring", number)
    return number * number


@step
def outer(number):
    """Start steps of its own, and choose among them."""
    first = square.go(number)
    first.result()
    return select(first, after(3_600)).result()


@step(retries=2, backoff=0.0)
def refuse(number):
    """Fail each time."""
    raise ValueError(f"refused {number}\nfor a reason")


@step
def unsaveable():
    """Return what can't be saved."""
    return threading.Lock()


def everything():
    """Run a little of everything."""
    first = square.go(2)
    first.result()
    select(first, after(3_600)).result()
    outer(5)
    with pytest.raises(ValueError, match="refused 1"):
        refuse(1)
    race(after(3_600), square.go(3)).result()
    gather(square.go(7), square.go(8)).result()
    for handle in as_completed([square.go(10), square.go(11)]):
        handle.result()
    unsaveable()


def test_the_view_of_a_past_run_is_the_view_that_it_had(path):
    """Every row of a first pass: its state, attempts, error, parent, winners, number."""
    had = executed(path, everything)
    view = recall.recall("w", path).view
    assert said(view) == said(had)
    assert words.text(view) == words.text(had)
    assert view.counts == had.counts
    assert (view.execution, view.status) == (1, RunStatus.FINISHED)
    assert view.steps[0].error == ""
    (failed,) = [row for row in view.steps.values() if row.label == "refuse(1)"]
    assert (failed.error, failed.attempts) == ("ValueError: refused 1", 3)
    assert [row.state for row in view.steps.values() if row.name == "unsaveable"] == [
        State.NOT_SAVED
    ]
    assert view.notes[-1].startswith("as its store tells it: execution 1, ")


def test_what_earlier_executions_saved_is_replayed(path):
    """A second pass shows what it replayed, and which execution had saved that."""
    executed(path, everything)
    had = executed(path, lambda: (everything(), square.go(99).result()))
    view = recall.recall("w", path).view
    assert view.execution == 2
    assert words.text(view) == words.text(had)
    assert len(view.steps) > len(had.steps)  # what `outer` had started, too
    rows = {row.label: row for row in view.steps.values()}
    assert rows["square(2)"].why == "saved by execution 1"
    assert (rows["square(99)"].why, rows["square(99)"].state) == ("new", State.DONE)
    assert rows["refuse(1)"].error == "ValueError: refused 1"
    timers = [row.state for row in view.steps.values() if row.kind == "timer"]
    assert sorted(timers) == [State.CANCELLED, State.NOT_STARTED, State.NOT_STARTED]


def test_a_winner_that_is_a_combinator(path):
    """What is known of it are its branches; it has won, the other branch has lost."""
    both = lambda: gather(square.go(1), square.go(2))  # noqa: E731
    executed(path, lambda: select(both(), after(3_600)).result())
    view = recall.recall("w", path).view
    (line,) = [one for one in words.text(view).splitlines() if "won" in one]
    assert line == "select: gather(square(1), square(2)) won over after(3600)"


def test_a_winner_that_failed(path):
    """The select ended as its winner did."""

    def program():
        with pytest.raises(ValueError, match="refused 4"):
            select(refuse.go(4), after(3_600)).result()

    had = executed(path, program)
    view = recall.recall("w", path).view
    assert said(view) == said(had)
    assert words.text(view) == words.text(had)


def test_edited_code_shows_its_newest_outcome(path):
    """Of each call there is one row, with the outcome that the last execution had."""

    def run(number):
        def body():
            return number

        executed(path, lambda: step(body, name="body", version=str(number)).go().result())

    run(1)
    run(2)
    (row,) = recall.recall("w", path).view.steps.values()
    assert (row.state, row.why.partition(":")[0]) == (State.DONE, "code changed")
    run(1)  # back to what there was
    (row,) = recall.recall("w", path).view.steps.values()
    assert (row.state, row.why) == (State.REPLAYED, "saved by execution 1")


def test_a_cell_that_failed(path):
    """Its status is told, and what had not ended is let go."""

    def failing():
        square.go(1).result()
        raise RuntimeError("the cell")

    executed(path, failing)
    view = recall.recall("w", path).view
    assert view.status is RunStatus.FAILED
    assert words.line(view).startswith("w: failed, 1 ran, ")


DYING = """
    import os, time
    from nbdurable import go, select, workflow
    def quick():
        return 1
    def slow():
        time.sleep(60)
    with workflow("w", store="store.duckdb"):
        one, other = go(quick), go(slow)
        one.result()
        go(quick).result()
        os._exit(9)
"""


def test_a_kernel_that_died(path):
    """What was in flight says so; what had finished is done."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DYING)],
        cwd=path.parent,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert done.returncode == 9
    view = recall.recall("w", path).view
    assert view.status is RunStatus.DIED
    states = sorted((row.label, row.state) for row in view.steps.values())
    assert states == [
        ("quick()", State.DONE),
        ("quick()", State.DONE),
        ("slow()", State.LET_GO),
    ]
    (slow,) = [row for row in view.steps.values() if row.name == "slow"]
    assert (slow.why, slow.seconds) == ("in flight when the kernel died", None)
    assert view.elapsed() < 30


def test_a_run_that_goes_on_here(path):
    """Asked during the run it is running, and nothing of it is said to have ended."""
    with workflow("w", store=path):
        square.go(1).result()
        view = recall.recall("w", path).view
        assert (view.status, view.live, view.notes) == (RunStatus.RUNNING, True, ())
    assert recall.recall("w", path).view.status is RunStatus.FINISHED


# --- details ---------------------------------------------------------------------------


def details(path, label):
    """Return what is told of one step, by its terms."""
    recalled = recall.recall("w", path)
    (place,) = [row.place for row in recalled.view.steps.values() if row.label == label]
    return {term: text for term, text, _ in recalled.facts(place)}


def test_details(path):
    """Output, error with its traceback, attempts, place: what the store has of a step."""
    executed(path, everything)
    facts = details(path, "square(2)")
    assert facts["Output"] == "squaring 2\n"
    assert facts["Saved"].startswith("value, number 1 ")
    facts = details(path, "refuse(1)")
    assert "ValueError: refused 1\nfor a reason" in facts["Error"]
    assert facts["Attempts"].splitlines() == [
        "attempt 1: ValueError: refused 1",
        "attempt 2: ValueError: refused 1",
    ]
    assert details(path, "square(5)")["In"] == "outer(5)"
    assert details(path, "select(square(2), after(3600))")["Decided"].startswith("number 1 ")


def test_the_end_of_a_long_error_is_told(path):
    """However long a message is, what is shown of it holds its last words."""

    def wordy():
        raise ValueError("word " * 10_000 + "the last words")

    def program():
        with pytest.raises(ValueError, match="the last words"):
            step(wordy)()

    executed(path, program)
    recalled = recall.recall("w", path)
    assert "the last words" in summary.html(recalled.view, facts=recalled.facts)


def test_details_of_what_somebody_changed(path):
    """Where the signature fails nothing is restored, and that is said."""
    executed(path, everything)
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE nbdurable.checkpoints SET payload = 'x' WHERE kind = 'error'")
    recalled = recall.recall("w", path)
    facts = details(path, "refuse(1)")
    assert "not signed by your key" in facts["Not told"]
    (row,) = [row for row in recalled.view.steps.values() if row.name == "refuse"]
    assert (row.state, row.error) == (State.FAILED, "")


def test_details_while_another_process_holds_the_store(path):
    """The answer comes at once, and names the holder."""
    executed(path, everything)
    recalled = recall.recall("w", path)
    open_stores.close_stores()
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        facts = {term: text for term, text, _ in recalled.facts(0)}
        holder.communicate("\n")
    assert str(holder.pid) in facts["Not told"]


# --- what there is not, and what is damaged -------------------------------------------


def test_nothing_to_recall(path, monkeypatch):
    """No store, no run of the name, none executed yet, too many outcomes: no view."""
    assert recall.recall("w", path) is None
    assert not path.exists()
    executed(path, everything)
    assert recall.recall("other", path) is None
    monkeypatch.setattr(recall, "MOST", 3)
    assert recall.recall("w", path) is None


@pytest.mark.parametrize(
    "change",
    ["checkpoints SET kind = 'vaule'", "execution_ends SET status = 'finnished'"],
)
def test_words_that_nobody_writes(path, change):
    """A damaged store says what it should not, by name, or that it isn't what was signed."""
    executed(path, everything)
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"UPDATE nbdurable.{change}")
    with pytest.raises((StoreCorruptError, UntrustedCheckpointError), match=r"stands|not signed"):
        recall.recall("w", path)


def test_a_ring_of_parents_and_times_that_no_clock_gave(path):
    """What no run makes is shown as well as it can be; nothing hangs."""
    executed(path, everything)
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE nbdurable.checkpoints SET namespace = call")
        connection.execute("UPDATE nbdurable.checkpoints SET started = 'nan', seconds = 'inf'")
        connection.execute("UPDATE nbdurable.checkpoints SET why = 'so it was'")
    view = recall.recall("w", path).view
    for row in view.steps.values():
        above, seen = row, set()
        while above.parent is not None:
            assert above.place not in seen
            seen.add(above.place)
            above = view.steps[above.parent]
    assert words.text(view, times=True)


def test_what_the_last_execution_did_not_ask_for(path):
    """It is told apart from what it has replayed."""

    @step
    def outer(number):
        return square(number)

    def program(numbers):
        for number in numbers:
            square(number)
        outer(7)

    executed(path, lambda: program([2, 3]))
    executed(path, lambda: program([2]))
    view = recall.recall("w", path).view
    states = {row.label: (row.state, row.why) for row in view.steps.values()}
    assert states["square(2)"] == (State.REPLAYED, "saved by execution 1")
    assert states["square(3)"] == (
        State.NOT_STARTED,
        "saved by execution 1; the last one did not ask for it",
    )
    assert states["outer(7)"][0] is State.REPLAYED
    assert states["square(7)"][0] is State.REPLAYED, "it is below what has been replayed"
