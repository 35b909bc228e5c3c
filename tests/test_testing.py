"""The public tools for testing durable code: the manual clock, kill points, counted commits."""

import signal
import subprocess
import sys
import threading

import pytest

from nbdurable import WaitTimeoutError, after, go, select, sleep, workflow
from nbdurable.api import configuration, open_stores
from nbdurable.events import AttemptStarted
from nbdurable.inspection import queries as questions
from nbdurable.store import Store, begin_execution, check, journal, restart
from nbdurable.testing import ManualClock, clock_of_runs, counted_commits

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def clean():
    """Leave no store open and no hook behind."""
    yield
    open_stores.close_stores()
    assert journal.commit_hook is None


@pytest.fixture
def clock():
    """Return a clock that stands still."""
    return ManualClock(100.0)


# --- the manual clock ----------------------------------------------------------------


def test_time_moves_by_hand_alone(clock):
    """The clock stands still until it is moved."""
    assert clock.time() == clock.time() == 100.0
    clock.advance(2.5)
    assert clock.time() == 102.5
    assert ManualClock().time() == ManualClock().time()


def test_timers_fire_in_order_at_their_time(clock):
    """Each timer fires in `advance`, once, at its own time; equals in the order of setting."""
    fired = []

    def note(name):
        return lambda: fired.append((name, clock.time()))

    clock.call_later(3, note("third"))
    clock.call_later(1, note("first"))
    clock.call_later(2, note("second"))
    clock.call_later(2, note("second too"))
    clock.advance(0.5)
    assert fired == []
    clock.advance(2)
    assert fired == [("first", 101.0), ("second", 102.0), ("second too", 102.0)]
    assert clock.time() == 102.5
    clock.advance(100)
    assert fired[3:] == [("third", 103.0)]


def test_moves_of_several_threads_add_up(clock):
    """Another thread moves the clock while a timer is being called, and so does that timer."""
    told = []

    def moves_on():
        other = threading.Thread(target=clock.advance, args=(5,))
        other.start()
        other.join(10)
        clock.advance(1)
        told.append(clock.time())

    clock.call_later(2, moves_on)
    clock.call_later(15.5, lambda: told.append(clock.time()))
    clock.advance(10)
    assert clock.time() == 116.0
    assert told == [115.5, 116.0]


def test_a_timer_that_is_due_waits_for_advance(clock):
    """A timer of no time, or of less, fires in the next `advance`, not where it is set."""
    fired = []
    clock.call_later(0, lambda: fired.append("none"))
    clock.call_later(-5, lambda: fired.append("less"))
    assert fired == []
    clock.advance(0)
    assert fired == ["none", "less"]
    assert clock.time() == 100.0


def test_a_timer_that_sets_another(clock):
    """What a timer sets fires in the same `advance` if it falls due there."""
    fired = []

    def again():
        fired.append(clock.time())
        clock.call_later(10, again)

    clock.call_later(10, again)
    clock.advance(35)
    assert fired == [110.0, 120.0, 130.0]


def test_a_cancelled_timer_is_silent(clock):
    """A cancelled timer does not fire, nor count as pending; cancelling twice is no error."""
    fired = []
    cancel = clock.call_later(1, lambda: fired.append("cancelled"))
    clock.call_later(1, lambda: fired.append("kept"))
    cancel()
    cancel()
    clock.wait_for_timers(1)
    with pytest.raises(TimeoutError, match="1 timers pending instead of 2"):
        clock.wait_for_timers(2, timeout=0)
    clock.advance(1)
    assert fired == ["kept"]
    cancel()


def test_a_timer_that_cancels_another(clock):
    """A timer can cancel one that is due at the same time."""
    fired = []
    clock.call_later(1, lambda: (fired.append("first"), cancel()))
    cancel = clock.call_later(1, lambda: fired.append("second"))
    clock.advance(5)
    assert fired == ["first"]


def test_waiting_for_timers_of_another_thread(clock):
    """`wait_for_timers` waits until other threads have set theirs."""
    gate = threading.Event()

    def set_two():
        gate.wait(20)
        clock.call_later(1, lambda: None)
        clock.call_later(1, lambda: None)

    thread = threading.Thread(target=set_two)
    thread.start()
    with pytest.raises(TimeoutError, match="0 timers"):
        clock.wait_for_timers(1, timeout=0)
    gate.set()
    clock.wait_for_timers(2, timeout=3_600)
    thread.join(20)


# --- runs by the manual clock --------------------------------------------------------


def test_runs_go_by_the_clock(tmp_path, clock):
    """Inside the block a run's timers, its times and a wait's end are the manual clock's."""
    path = tmp_path / "s.duckdb"
    hold = threading.Event()

    def program():
        stuck = go(hold.wait, 30)
        timer = after(3_600)
        first = select(stuck, timer)
        clock.wait_for_timers(1)
        clock.advance(3_600)
        assert first.winner is timer
        hold.set()
        return stuck.result()

    with clock_of_runs(clock) as given:
        assert given is clock
        with workflow("w", store=path):
            assert program()
        assert questions.runs(path)[0].created == 100.0
        assert questions.runs(path)[0].last_ended >= 3_700.0
    with workflow("other", store=path):
        pass
    assert questions.runs(path)[0].created > 1e9


def test_a_wait_by_the_clock(tmp_path, clock):
    """``.result(timeout=...)`` times out when the clock is moved, and on replay again."""

    def waits():
        inside.set()
        hold.wait(30)

    inside, hold = threading.Event(), threading.Event()

    def move(before):
        clock.wait_for_timers(before + 1)
        clock.advance(60)

    def program():
        handle = go(waits)
        assert inside.wait(30)
        mover = threading.Thread(target=move, args=(len(clock._pending()),))
        mover.start()
        try:
            handle.result(timeout=60)
        except WaitTimeoutError as error:
            return str(error)
        finally:
            mover.join(30)
            hold.set()

    with clock_of_runs(clock), workflow("w", store=tmp_path / "s.duckdb"):
        assert "60 s" in program()


def test_a_sleep_by_the_clock(tmp_path, clock):
    """A sleep wakes at its recorded time: a resumed run waits the rest, not anew."""
    path = tmp_path / "s.duckdb"

    def execute(seconds, *, stop):
        def move():
            clock.wait_for_timers(1)
            clock.advance(seconds)
            if stop:
                interrupt.set()

        interrupt = threading.Event()
        events = []
        with workflow("w", store=path, observers=[events.append]):
            mover = threading.Thread(target=move)
            mover.start()
            if stop:
                after_all = after(100.0)
                assert interrupt.wait(30)
                mover.join(30)
                raise KeyboardInterrupt
            sleep(100.0)
            mover.join(30)
        return after_all if stop else [one for one in events if isinstance(one, AttemptStarted)]

    with clock_of_runs(clock):
        with pytest.raises(KeyboardInterrupt):
            execute(70, stop=True)
        execute(101, stop=False)
    assert clock.time() == 271.0


def test_the_clock_is_put_back(clock):
    """After the block, and after an error in it, runs go by the real clock again."""
    before = configuration._state.clock
    with pytest.raises(KeyError), clock_of_runs(clock):
        raise KeyError
    assert configuration._state.clock is before


# --- kill points ---------------------------------------------------------------------

KILLED = """
import os, sys
from nbdurable import step, testing, workflow

@step
def number(value):
    os.write(1, b"ran %d\\n" % value)  # past the capture of its output
    return value

testing.kill_at(sys.argv[2], int(sys.argv[3]), 0.0)
with workflow("w", store=sys.argv[1]):
    for value in range(3):
        print("got", number(value), flush=True)  # in place: one commit each
print("the end", flush=True)
"""


def kill(path, moment, commit):
    """Run the program above until it is killed; give its lines."""
    command = [sys.executable, "-c", KILLED, str(path), moment, str(commit)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.stderr == ""
    return found.returncode, found.stdout.splitlines()


def labels(path):
    """Return what is saved, in order, from a sound store."""
    store = Store.open(path)
    try:
        assert check(store) == []
        return [
            label for (label,) in store.rows("SELECT label FROM nbdurable.checkpoints ORDER BY 1")
        ]
    finally:
        store.close()


def test_killed_before_a_commit(tmp_path):
    """Before its third commit (begin, first step, second step) the process dies with SIGKILL."""
    code, lines = kill(tmp_path / "s.duckdb", "before", 3)
    assert code == -signal.SIGKILL
    assert lines == ["ran 0", "got 0", "ran 1"]
    assert labels(tmp_path / "s.duckdb") == ["number(0)"]


def test_killed_after_a_commit(tmp_path):
    """After its third commit the row is there, and nobody has been told."""
    code, lines = kill(tmp_path / "s.duckdb", "after", 3)
    assert code == -signal.SIGKILL
    assert lines == ["ran 0", "got 0", "ran 1"]
    assert labels(tmp_path / "s.duckdb") == ["number(0)", "number(1)"]


def test_a_kill_that_is_not_reached(tmp_path):
    """A program with fewer commits ends as ever, and the next run of it replays."""
    code, lines = kill(tmp_path / "s.duckdb", "before", 1_000)
    assert code == 0
    assert lines[-1] == "the end"
    code, lines = kill(tmp_path / "s.duckdb", "after", 1_000)
    assert lines == ["got 0", "got 1", "got 2", "the end"]


def test_counted_commits(tmp_path):
    """Each commit inside the block has an entry, in order; outside nothing is counted."""
    store = Store.open(tmp_path / "s.duckdb")
    try:
        with counted_commits() as commits:
            begin_execution(store, "w", now=1.0)
            restart(store, "w", now=2.0)
            assert len(commits) == 2
        assert commits == sorted(set(commits))
        restart(store, "w", now=3.0)
        assert len(commits) == 2
        with pytest.raises(KeyError), counted_commits():
            raise KeyError
    finally:
        store.close()
