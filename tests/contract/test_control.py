"""What a person at the screen can ask about a run, and do to it, from any thread."""

import gc
import signal
import threading
import time
import weakref

import numpy as np
import pytest

from nbdurable import StepCancelledError, after, gather, go, race, select, sleep, step, workflow
from nbdurable.api import open_stores
from nbdurable.events import StepCreated
from nbdurable.records import RunStatus

pytestmark = pytest.mark.timeout(60)


def facts(control, place):
    """Return the facts of one step by their terms."""
    return {term: text for term, text, _ in control.detail(place)["facts"]}


def soon(told, wanted, seconds=10):
    """Wait until `told` gives what is wanted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := told()) == wanted:
            return
        time.sleep(0.005)
    assert found == wanted


def elsewhere(function, *arguments):
    """Call it in another thread, and give what it gave."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function(*arguments)))
    thread.start()
    thread.join(20)
    return found[0]


class Hostile:
    """Whatever one asks it for is counted, and too much."""

    asked = 0

    def __repr__(self):
        Hostile.asked += 1
        raise RuntimeError("nobody may ask")

    __str__ = __len__ = __iter__ = __repr__


def test_a_running_step_tells_its_arguments_and_output(tmp_path):
    """Arguments masked and short, output so far, the attempt; nothing of a user's is called."""
    begun, gate = threading.Event(), threading.Event()

    @step
    def work(n, xs, api_key, thing):
        print("so far")
        begun.set()
        gate.wait(10)
        return xs * n

    run = workflow("w", store=tmp_path / "s.duckdb")
    with run:
        xs = np.ones((3, 2))
        handle = work.go(2, xs, api_key="sk-0123456789abcdef", thing=Hostile())
        assert begun.wait(10)
        told = elsewhere(facts, run.control, 0)
        assert told["State"] == "running"
        assert told["Why"] == "new"
        assert told["Arguments"].splitlines() == [
            "2",
            "<ndarray 3 x 2 of float64>",
            "api_key=***",
            "thing=<Hostile>",
        ]
        assert told["Output"] == "so far\n"
        assert "Result" not in told
        gate.set()
        handle.result()
        told = facts(run.control, 0)
        assert told["State"] == "finished"
        assert told["Result"] == "<ndarray 3 x 2 of float64>"
        assert told["Output"] == "so far\n"
        assert told["Arguments"].splitlines() == [
            "2",
            "<ndarray 3 x 2>",
            "api_key=***",
            "thing=<Hostile>",
        ]
        assert told["Saved"].startswith("value, number 1 in the order of commits, ")
    assert facts(run.control, 0)["Result"] == "<ndarray 3 x 2 of float64>"
    assert Hostile.asked == 0


def test_failures_are_noted_to_be_tried_again(tmp_path):
    """One failed step, or each, by its label; of what has not failed it is said so."""

    @step
    def refuse(n):
        raise ValueError(n)

    run = workflow("w", store=tmp_path / "s.duckdb")
    with run:
        assert run.control.redo(None) == "no step has failed and was saved so"
        assert gather(*(refuse.go(n) for n in range(3)), return_exceptions=True).result()
        go(len, "abc").result()
        assert "taken out when this cell has ended" in run.control.redo(1)
        assert run.control.redos == ["refuse(1)"]
        assert run.control.redo(3) == "it has not failed"
        assert run.control.redo(4) == "it has not failed"  # the len() is no error
        assert "3 failed steps" in elsewhere(run.control.redo, None)
        assert sorted(run.control.redos) == ["refuse(0)", "refuse(1)", "refuse(2)"]
    assert "run has ended" in run.control.redo(0)


def test_a_hostile_result_is_only_named(tmp_path):
    """A result's class is told, and none of its code is run."""
    run = workflow("w", store=tmp_path / "s.duckdb")
    with run:
        go(Hostile).result()
        assert facts(run.control, 0)["Result"] == "<Hostile>"
    assert Hostile.asked == 0


def test_errors_and_attempts(tmp_path):
    """A failed step tells its error with where it came from, and the attempts before."""

    @step(retries=1, backoff=0.01)
    def work():
        raise KeyError("nothing here")

    run = workflow("w", store=tmp_path / "s.duckdb")
    with run:
        work.go().outcome()
        told = facts(run.control, 0)
    assert told["Attempts"] == "attempt 1 failed: KeyError: 'nothing here'"
    assert 'raise KeyError("nothing here")' in told["Error"]
    assert told["Saved"].startswith("error, number 1")


def test_a_replayed_value_is_not_decoded_for_the_detail(tmp_path):
    """What nobody has asked for stays what it is on the disk; once asked for, it is shown."""
    for _ in range(2):
        run = workflow("w", store=tmp_path / "s.duckdb")
        with run:
            handle = step(lambda: print("hello") or [1, 2], name="work").go()
            if facts(run.control, 0).get("Why") != "new":
                told = facts(run.control, 0)
                assert "Result" not in told
                assert told["Output"] == "hello\n"
                assert told["Saved"].startswith("value, number 1")
            handle.result()
            assert facts(run.control, 0)["Result"] == "[1, 2]"
        open_stores.close_stores()


def test_combinators_parents_and_inputs(tmp_path):
    """A combinator tells its branches, a child its parents, a step what it waits for."""
    gate, started = threading.Event(), threading.Event()

    @step
    def child():
        started.set()
        gate.wait(10)
        return 1

    @step
    def parent():
        return child.go().result()

    @step
    def last(x):
        return x

    events = []
    run = workflow("w", store=tmp_path / "s.duckdb", observers=[events.append])
    with run:
        above = parent.go()
        assert started.wait(10)
        below = last.go(above)
        both = gather(above, below)
        assert facts(run.control, 1)["In"] == "parent()"
        assert facts(run.control, below.place)["Waits for"] == "parent()"
        told = facts(run.control, both.place)
        assert told["Branches"].splitlines() == ["parent(): running", "last(parent): waiting"]
        gate.set()
        both.result()
        assert facts(run.control, both.place)["State"] == "finished"
    made = {event.step: event for event in events if isinstance(event, StepCreated)}
    assert made[below.place].inputs == (above.place,)


@pytest.mark.parametrize("how", ["waits", "selects"])
def test_cancel_while_the_cell_waits(tmp_path, how):
    """From another thread: the wait ends, the cancellation is durable, nothing runs again."""
    gate, runs = threading.Event(), []

    @step
    def slow():
        runs.append(1)
        gate.wait(20)
        return 1

    def execute(*, cancel):
        run = workflow("w", store=tmp_path / "s.duckdb")
        said = []
        with run:
            handle = slow.go()
            if cancel:
                soon(lambda: facts(run.control, 0)["State"], "running")
                thread = threading.Timer(0.05, lambda: said.append(run.control.cancel(0)))
                thread.start()
            if how == "waits":
                with pytest.raises(StepCancelledError):
                    handle.result()
            else:
                first = select(handle, after(30))
                assert first.winner is handle
        return said, run

    said, run = execute(cancel=True)
    soon(lambda: said, ["slow() is cancelled, for good"])
    assert "has ended already" in run.control.cancel(0)
    gate.set()
    open_stores.close_stores()
    execute(cancel=False)
    assert runs == [1]


def test_cancel_a_combinator_and_a_timer(tmp_path):
    """As `cancel()` does: what has not ended below it ends."""
    run = workflow("w", store=tmp_path / "s.duckdb")
    with run:
        first = race(after(30), after(40))
        assert run.control.cancel(first.place) == (
            "race(after(30), after(40)) is cancelled, for good"
        )
        with pytest.raises(StepCancelledError):
            first.result()


def test_retry_now(tmp_path):
    """A long backoff ends when somebody says so, on a thread and in the cell's own."""
    tried = []

    @step(retries=1, backoff=1000, max_backoff=1000)
    def work(where):
        tried.append(where)
        if tried.count(where) == 1:
            raise OSError("not yet")
        return where

    run = workflow("w", store=tmp_path / "s.duckdb")
    with run:

        def hurry(place):
            soon(lambda: run.control.retry_now(place).endswith("is tried again now"), True)

        handle = work.go("thread")
        hurry(0)
        assert handle.result() == "thread"
        assert run.control.retry_now(0) == "this step does not wait for another attempt"
        helper = threading.Thread(target=hurry, args=(1,))
        helper.start()
        assert work("here") == "here"
        helper.join(10)
    assert tried == ["thread", "thread", "here", "here"]


@pytest.mark.parametrize("where", ["here", "thread"])
def test_cancelled_during_its_backoff(tmp_path, where):
    """A step that waits for its next attempt ends at once, and its body does not run again."""
    tried = []

    @step(retries=3, backoff=1000, max_backoff=1000)
    def work():
        tried.append(1)
        raise OSError("not yet")

    run = workflow("w", store=tmp_path / "s.duckdb")
    with run:

        def cancel():
            # As early as can be: the step may not even wait yet.
            soon(lambda: facts(run.control, 0).get("Attempts", "")[:9], "attempt 1")
            run.control.cancel(0)

        helper = threading.Thread(target=cancel)
        helper.start()
        with pytest.raises(StepCancelledError):
            work() if where == "here" else work.go().result()
        helper.join(10)
    assert tried == [1]


@pytest.mark.parametrize("where", ["here", "thread"])
def test_a_child_in_its_backoff_ends_with_its_parent(tmp_path, where):
    """Cancelling what started it drops the wait: its body does not run again, now or later."""
    tried = []

    @step(retries=3, backoff=0.2, max_backoff=0.2)
    def child():
        tried.append(1)
        raise OSError("not yet")

    @step
    def parent():
        return child() if where == "here" else child.go().result()

    run = workflow("w", store=tmp_path / "s.duckdb")
    with run:
        handle = parent.go()
        soon(lambda: facts(run.control, 1).get("Attempts", "")[:9], "attempt 1")
        run.control.cancel(0)
        with pytest.raises(StepCancelledError):
            handle.result()
        sleep(0.5)  # longer than the wait that was dropped
    assert tried == [1]


def test_a_program_that_passes_over_interrupts_is_not_ended(tmp_path):
    """Where SIGINT has no handler of Python's, suspend says so and sends nothing."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        run = workflow("w", store=tmp_path / "s.duckdb")
        with run:
            assert "passes over interrupts" in run.control.suspend()
    finally:
        signal.signal(signal.SIGINT, before)


def test_retried_once_however_often_one_says_so(tmp_path):
    """Two at once, and the wait's own end: the attempt begins once."""
    tried = []

    @step(retries=1, backoff=0.05)
    def work():
        tried.append(1)
        if len(tried) == 1:
            raise OSError("not yet")
        time.sleep(0.1)

    run = workflow("w", store=tmp_path / "s.duckdb")
    with run:
        handle = work.go()
        while handle.state != "finished":
            for _ in range(3):
                run.control.retry_now(0)
            time.sleep(0.001)
    assert len(tried) == 2


@pytest.fixture
def interrupts():
    """Let SIGINT interrupt: who starts the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_suspend_while_the_cell_waits(tmp_path, interrupts):
    """The run is interrupted, and goes on where it was when it is executed again."""
    gate, runs = threading.Event(), []

    @step
    def quick():
        runs.append("quick")
        return 1

    @step
    def slow():
        runs.append("slow")
        gate.wait(20)
        return 2

    events = []
    run = workflow("w", store=tmp_path / "s.duckdb", observers=[events.append])

    def execute():
        with run:
            one, other = quick.go(), slow.go()
            one.result()
            threading.Timer(0.1, run.control.suspend).start()
            gather(one, other).result()

    with pytest.raises(KeyboardInterrupt):
        execute()
    assert events[-1].status is RunStatus.INTERRUPTED
    assert run.control.suspend() == "the run has ended"
    gate.set()
    with workflow("w", store=tmp_path / "s.duckdb"):
        assert gather(quick.go(), slow.go()).result() == [1, 2]
    assert runs.count("quick") == 1


def test_suspend_is_the_main_threads(tmp_path):
    """A run of another thread can't be interrupted, and says so."""

    def execute():
        run = workflow("w", store=tmp_path / "s.duckdb")
        with run:
            return run.control.suspend()

    assert "not the main thread's" in elsewhere(execute)


def test_what_is_asked_too_late_or_amiss_is_answered(tmp_path):
    """Places that are not there, ended steps, an ended run: a sentence, and nothing else."""
    run = workflow("w", store=tmp_path / "s.duckdb")
    assert run.control is None
    with run:
        handle = go(lambda: 1)
        for place in (-1, 99):
            assert facts(run.control, place) == {"State": "there is no such step"}
            assert run.control.cancel(place) == "there is no such step"
            assert "does not wait" in run.control.retry_now(place)
        handle.result()
        late = step(lambda: time.sleep(0.01), name="late").go()
        lost = select(handle, late)
        assert lost.winner is handle
    assert "has ended" in run.control.cancel(late.place)
    assert facts(run.control, late.place)["State"]


def test_an_endless_output_tells_its_end(tmp_path):
    """Of much output the last part is told."""
    run = workflow("w", store=tmp_path / "s.duckdb")
    with run:
        step(lambda: print("x" * 50_000 + "end"), name="work").go().result()
        told = facts(run.control, 0)["Output"]
    assert len(told) < 21_000
    assert told.startswith("...x")
    assert told.endswith("xend\n")


def test_a_run_that_ended_keeps_no_value_for_its_view(tmp_path):
    """Once nobody holds its handles, the run is gone, and what is asked says where to look."""

    class Large:
        """Something that can be held weakly."""

    run = workflow("w", store=tmp_path / "s.duckdb")
    with run:
        value = weakref.ref(step(Large).go().result())

    def kept():
        gc.collect()
        return value() is not None

    soon(kept, False)  # a timer of the run may have to pass first
    assert "%durable why" in facts(run.control, 0)["State"]
    assert "%durable why" in run.control.cancel(0)
    assert "does not wait" in run.control.retry_now(0)
    assert run.control.suspend() == "the run has ended"
