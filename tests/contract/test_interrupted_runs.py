"""CONTRACT section 5: an interrupt suspends, running again resumes.

Each execution is in the test's own process and main thread, and is interrupted by a
real SIGINT once the program is where the test wants it: so bodies that no interrupt
can stop live on between two executions, as they do in a kernel.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from nbdurable import (
    StepTimeoutError,
    after,
    as_completed,
    gather,
    go,
    race,
    select,
    sleep,
    step,
    workflow,
)
from nbdurable.api import open_stores
from nbdurable.engine import claims
from nbdurable.events import AttemptStarted, StepLetGo
from nbdurable.store import Store, check
from nbdurable.testing import ManualClock, clock_of_runs

PATIENCE = 30  # seconds, for what a loaded machine may take


def until(condition, seconds=PATIENCE):
    """Wait until a condition holds; False if it never does."""
    pause = threading.Event()
    for _ in range(seconds * 500):
        if condition():
            return True
        pause.wait(0.002)
    return False


def stack_of_main():
    """Return the main thread's frames as (folder, function), innermost first."""
    frame = sys._current_frames()[threading.main_thread().ident]
    found = []
    while frame is not None:
        folders = Path(frame.f_code.co_filename).parts[:-1]
        where = "nbdurable" if "nbdurable" in folders else "".join(folders[-1:])
        found.append((where, frame.f_code.co_name))
        frame = frame.f_back
    return found


def waits_in_library():
    """Tell whether the main thread is inside nbdurable."""
    return stack_of_main()[0][0] == "nbdurable"


def waits_in_loop():
    """Tell whether the main thread's event loop has nothing to do."""
    return stack_of_main()[0][1] == "select"


def sleeps():
    """Tell whether the main thread waits in `nbdurable.sleep`."""
    stack = stack_of_main()
    return stack[0][0] == "nbdurable" and {("nbdurable", "sleep"), ("nbdurable", "result")} <= {
        *stack
    }


class Executions:
    """Executions of one run, one after the other, in this process."""

    def __init__(self, path):
        self.path = path
        self._helpers = []

    def run(self, program, *, interrupt=None, observers=(), **options):
        """Run `program` as one execution, interrupted as soon as `interrupt` holds."""
        events = []
        flow = workflow("w", store=self.path, observers=(events.append, *observers), **options)
        report = SimpleNamespace(value=None, error=None)
        self._interrupt_when(interrupt)
        try:
            with flow:
                report.value = program()
        except BaseException as error:
            report.error = error
        return self._ended(report, flow, events)

    def run_async(self, program, *, interrupt=None):
        """Run an async `program` with ``asyncio.run``, likewise."""
        events = []
        flow = workflow("w", store=self.path, observers=(events.append,))
        report = SimpleNamespace(value=None, error=None)

        async def main():
            async with flow:
                return await program()

        self._interrupt_when(interrupt)
        try:
            report.value = asyncio.run(main())
        except BaseException as error:
            report.error = error
        return self._ended(report, flow, events)

    def _interrupt_when(self, condition):
        if condition is None:
            return

        def helper():
            if until(condition):
                os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=helper, daemon=True)
        self._helpers.append(thread)
        thread.start()

    def _ended(self, report, flow, events):
        for helper in self._helpers:
            helper.join(PATIENCE)
        report.notes = flow.notes
        report.whys = [
            (one.why.value, one.attempt) for one in events if type(one) is AttemptStarted
        ]
        report.let_go = [one.reason for one in events if type(one) is StepLetGo]
        return report

    def rows(self, query):
        """Ask the store, which must be sound."""
        open_stores.close_stores()
        store = Store.open(self.path)
        try:
            assert check(store) == []
            return store.rows(query)
        finally:
            store.close()

    def saved(self):
        """Return the labels of what is saved, in the order of their numbers."""
        rows = self.rows("SELECT label FROM nbdurable.checkpoints ORDER BY number")
        return [label for (label,) in rows]

    def statuses(self):
        """Return how the executions ended, and how many decisions there are."""
        rows = self.rows("SELECT status FROM nbdurable.executions ORDER BY execution")
        return [status for (status,) in rows]

    def decisions(self):
        """Return the winners of the decisions."""
        return [winner for (winner,) in self.rows("SELECT winner FROM nbdurable.decisions")]


@pytest.fixture
def executions(tmp_path, probe):
    """Yield executions that SIGINT interrupts, and let every body end afterwards."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield Executions(tmp_path / "store.duckdb")
    probe.event("open").set()
    join(probe)
    open_stores.close_stores()
    signal.signal(signal.SIGINT, before)


def join(probe, most=None):
    """Wait until the threads that bodies ran in have ended; only the first `most` of them."""
    for thread in probe.threads[:most]:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def blocked(probe):
    """Make a body that waits on its thread until the test opens it: no interrupt stops it."""

    def blocked():
        probe.effect("blocked")
        probe.threads.append(threading.current_thread())
        probe.event("inside").set()
        probe.event("open").wait(PATIENCE)
        return "late"

    return blocked


def finished(probe):
    """Make a body that ends at once."""

    def finished():
        probe.effect("finished")
        return "done"

    return finished


def is_inside(probe):
    """Make the condition: the blocked body runs, and the main thread waits in nbdurable."""
    return lambda: probe.event("inside").is_set() and waits_in_library()


# --- interrupted, and resumed ---------------------------------------------------------

WAITS = {
    "result": lambda handle, _: handle.result(),
    "outcome": lambda handle, _: handle.outcome().value,
    "winner": lambda handle, timer: select(handle, timer).winner.result(),
    "select": lambda handle, timer: select(timer, handle).result(),
    "gather": lambda handle, _: gather(handle, handle).result()[1],
    "nested": lambda handle, timer: gather(select(handle, timer)).result()[0],
    "race": lambda handle, timer: race(timer, handle).result(),
    "as_completed": lambda handle, timer: next(as_completed(timer, handle)).result(),
    "timeout": lambda handle, _: handle.result(timeout=3600),
    "downstream": lambda handle, _: go(str, handle).result(),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_interrupted_while_it_waits(executions, probe, wait):
    """An interrupt in a blocked wait records nothing half done; the next execution resumes."""

    def program():
        assert step(finished(probe))() == "done"
        assert go(finished(probe)).result() == "done"
        return wait(go(blocked(probe)), after(3600))

    first = executions.run(program, interrupt=is_inside(probe))
    assert type(first.error) is KeyboardInterrupt
    assert executions.saved() == ["finished()", "finished()"]
    assert executions.decisions() == []
    assert executions.statuses() == ["interrupted"]
    probe.event("open").set()
    second = executions.run(program)
    assert (second.value, second.error) == ("late", None)
    assert (probe.count("finished"), probe.count("blocked")) == (2, 1)
    third = executions.run(program)
    assert third.value == "late"
    assert (probe.count("finished"), probe.count("blocked")) == (2, 1)
    assert executions.statuses() == ["interrupted", "finished", "finished"]


def test_interrupted_in_a_sleep(executions, probe):
    """A sleep that is interrupted is not recorded; the next execution sleeps the rest."""
    clock = ManualClock(1_000.0)

    def program():
        found = go(finished(probe)).result()
        sleep(100)
        return found

    with clock_of_runs(clock):
        first = executions.run(program, interrupt=sleeps)
        assert type(first.error) is KeyboardInterrupt
        assert executions.saved() == ["finished()"]
        clock.advance(60)
        mover = threading.Thread(target=lambda: until(sleeps) and clock.advance(40))
        mover.start()
        second = executions.run(program)
        mover.join(PATIENCE)
    assert second.value == "done"
    assert clock.time() == 1_100.0
    assert executions.saved() == ["finished()", "sleep(100)"]
    assert probe.count("finished") == 1


def test_interrupted_in_the_cells_own_code(executions, probe):
    """Code of the cell that computes and waits for nothing is interrupted too."""

    def program():
        found = go(finished(probe)).result()
        handle = go(blocked(probe))
        computing.set()
        while not probe.event("open").is_set():
            pass
        return found, handle.result()

    computing = threading.Event()
    first = executions.run(
        program, interrupt=lambda: computing.is_set() and probe.event("inside").is_set()
    )
    assert type(first.error) is KeyboardInterrupt
    assert executions.saved() == ["finished()"]
    assert executions.statuses() == ["interrupted"]
    probe.event("open").set()
    assert executions.run(program).value == ("done", "late")
    assert (probe.count("finished"), probe.count("blocked")) == (1, 1)


def test_interrupted_in_a_step_of_the_cells_own_thread(executions, probe):
    """A step called in place is interrupted in its body, is not saved, and runs again."""

    @step
    def computes(number):
        if probe.effect("computes") == 1:
            probe.event("inside").set()
            while True:
                number += 1
        return number

    def program():
        return step(finished(probe))(), computes(5)

    first = executions.run(program, interrupt=probe.event("inside").is_set)
    assert type(first.error) is KeyboardInterrupt
    assert executions.saved() == ["finished()"]
    assert executions.statuses() == ["interrupted"]
    assert first.notes == (), "nothing runs on, so nothing is left to adopt"
    second = executions.run(program)
    assert second.value == ("done", 5)
    assert (probe.count("finished"), probe.count("computes")) == (1, 2)


def test_why_an_interrupted_step_runs_again(executions, probe):
    """A step whose body the interrupt reached ran again because it was unfinished, not as new."""

    @step
    def interrupted():
        if probe.effect("interrupted") == 1:
            raise KeyboardInterrupt
        return "value"

    assert type(executions.run(interrupted).error) is KeyboardInterrupt
    second = executions.run(interrupted)
    assert second.value == "value"
    assert second.whys == [("unfinished", 2)]
    assert executions.rows("SELECT why FROM nbdurable.steps") == [("unfinished",)]


def test_interrupted_as_a_step_in_place_begins(executions, probe):
    """An interrupt between the begin of an attempt and its body leaves nothing to wait for."""

    @step
    def one():
        probe.effect("one")
        return "value"

    def interrupt(event):
        if type(event) is AttemptStarted:
            os.kill(os.getpid(), signal.SIGINT)

    first = executions.run(one, observers=(interrupt,))
    assert type(first.error) is KeyboardInterrupt
    assert first.notes == ()
    watchdog = threading.Timer(5, os.kill, (os.getpid(), signal.SIGINT))
    watchdog.start()
    second = executions.run(one)
    watchdog.cancel()
    assert (second.value, second.error) == ("value", None)
    assert executions.saved() == ["one()"]


def test_interrupted_in_a_step_inside_a_step(executions, probe):
    """Of steps called in place in one another, what had finished inside is kept."""

    @step
    def inner(number):
        if probe.effect(f"inner {number}") == 1 and number == 2:
            probe.event("inside").set()
            threading.Event().wait(PATIENCE)
        return number

    @step
    def outer():
        probe.effect("outer")
        return [inner(number) for number in (1, 2, 3)]

    first = executions.run(outer, interrupt=probe.event("inside").is_set)
    assert type(first.error) is KeyboardInterrupt
    assert executions.saved() == ["inner(1)"]
    assert executions.run(outer).value == [1, 2, 3]
    counts = [probe.count(name) for name in ("outer", "inner 1", "inner 2", "inner 3")]
    assert counts == [2, 1, 2, 1]


def test_interrupted_between_two_attempts(executions, probe):
    """An interrupt while a retry waits its time keeps the count of what has failed."""
    clock = ManualClock()

    @step(retries=2, backoff=5)
    def flaky():
        raise OSError(probe.effect("flaky"))

    def pauses():
        return probe.count("flaky") == 1 and ("nbdurable", "_pause") in stack_of_main()

    def move():
        until(lambda: clock.advance(1) or ended.is_set())

    ended = threading.Event()
    with clock_of_runs(clock):
        first = executions.run(flaky, interrupt=pauses)
        assert type(first.error) is KeyboardInterrupt
        assert executions.saved() == []
        mover = threading.Thread(target=move)
        mover.start()
        second = executions.run(flaky)
        ended.set()
        mover.join(PATIENCE)
    assert repr(second.error) == "OSError(3)", "two retries are three attempts in all"
    rows = executions.rows("SELECT attempt, ending FROM nbdurable.attempts ORDER BY attempt")
    assert rows == [(1, "error"), (2, "error"), (3, "error")]


@pytest.mark.timeout(60)
def test_interrupted_while_a_call_is_claimed(executions, probe, monkeypatch):
    """A cell that catches the interrupt and goes on has an end: nobody has that call."""
    label_of, moments = claims.label_of, iter([KeyboardInterrupt])

    def interrupted_once(*given):
        for moment in moments:
            raise moment
        return label_of(*given)

    def one(number):
        return probe.effect(f"one {number}")

    def program():
        with pytest.raises(KeyboardInterrupt):
            go(one, 1)
        return go(one, 2).result()

    monkeypatch.setattr(claims, "label_of", interrupted_once)
    report = executions.run(program)
    assert (report.value, report.error) == (1, None)
    assert executions.saved() == ["one(2)"]


@pytest.mark.parametrize("combine", [gather, select], ids=["gather", "select"])
def test_interrupted_in_an_idle_await(executions, probe, combine):
    """An async workflow that only awaits is interrupted; its steps run again on resume."""

    async def slow(number):
        probe.effect(f"slow {number}")
        if not probe.parameters.get("resumed"):
            probe.event("inside").set()
            await asyncio.Event().wait()
        return number

    async def program():
        found = await go(finished(probe))
        one, two = go(slow, 1), go(slow, 2)
        await combine(one, two)
        return found, await gather(one, two)

    first = executions.run_async(
        program, interrupt=lambda: probe.event("inside").is_set() and waits_in_loop()
    )
    assert type(first.error) is KeyboardInterrupt
    assert executions.saved() == ["finished()"]
    assert executions.decisions() == []
    assert executions.statuses() == ["interrupted"]
    assert first.let_go == ["cancelled", "cancelled"]
    probe.parameters["resumed"] = True
    second = executions.run_async(program)
    assert second.value == ("done", [1, 2])
    assert [probe.count(one) for one in ("finished", "slow 1", "slow 2")] == [1, 2, 2]
    assert {why for why, _ in second.whys} == {"unfinished"}


def test_an_interrupted_async_step_runs_again(executions, probe):
    """An async step of a cell that blocks is cancelled by the interrupt, and runs again."""

    async def slow():
        if probe.effect("slow") == 1:
            probe.event("inside").set()
            try:
                await asyncio.Event().wait()
            finally:
                probe.event("cancelled").set()
        return "value"

    def program():
        return go(slow).result()

    first = executions.run(program, interrupt=is_inside(probe))
    assert type(first.error) is KeyboardInterrupt
    assert probe.event("cancelled").wait(PATIENCE), "its body was cancelled, not left alone"
    assert first.notes == ()
    assert executions.saved() == []
    assert executions.run(program).value == "value"
    assert probe.count("slow") == 2
    assert executions.saved() == ["slow()"]


def test_interrupted_at_the_end_of_the_cell(executions, probe):
    """The wait for steps that nobody asked for is interrupted like any other."""

    def program():
        go(finished(probe)).result()
        go(blocked(probe))

    first = executions.run(program, interrupt=is_inside(probe))
    assert type(first.error) is KeyboardInterrupt
    assert executions.saved() == ["finished()"]
    assert executions.statuses() == ["interrupted"]
    probe.event("open").set()
    assert executions.run(program).error is None
    assert executions.saved() == ["finished()", "blocked()"]
    assert (probe.count("finished"), probe.count("blocked")) == (1, 1)


def test_nothing_starts_after_an_interrupt(executions, probe):
    """What waited for a free thread never starts; it runs in the next execution."""

    def queued(number):
        probe.effect(f"queued {number}")
        return number

    def program():
        first = go(blocked(probe))
        rest = [go(queued, number) for number in range(3)]
        return first.result(), gather(rest).result()

    first = executions.run(program, interrupt=is_inside(probe), limit=1)
    assert type(first.error) is KeyboardInterrupt
    probe.event("open").set()
    join(probe)
    assert executions.saved() == []
    assert [probe.count(f"queued {number}") for number in range(3)] == [0, 0, 0]
    assert executions.run(program, limit=1).value == ("late", [0, 1, 2])
    assert probe.count("blocked") == 1


def test_nothing_of_a_map_starts_after_an_interrupt(executions, probe):
    """Items that wait for room in a map's limit never start; they run in the next execution."""
    blocks = blocked(probe)

    def one(item):
        probe.effect(f"one {item}")
        return blocks() if item == 1 else item

    def program():
        return step(one).map(range(4), limit=1).result()

    first = executions.run(program, interrupt=is_inside(probe))
    assert type(first.error) is KeyboardInterrupt
    probe.event("open").set()
    join(probe)
    assert [probe.count(f"one {item}") for item in range(4)] == [1, 1, 0, 0]
    assert executions.run(program).value == [0, "late", 2, 3]
    assert [probe.count(f"one {item}") for item in range(4)] == [1, 1, 1, 1]


def test_an_interrupt_that_the_cell_handles(executions, probe):
    """A cell that handles its interrupt goes on, and its run ends as if there had been none."""

    def program():
        handle = go(blocked(probe))
        try:
            handle.result()
        except KeyboardInterrupt:
            probe.effect("handled")
        probe.event("open").set()
        return handle.result(), go(finished(probe)).result()

    first = executions.run(program, interrupt=is_inside(probe))
    assert (first.value, first.error) == (("late", "done"), None)
    assert executions.saved() == ["blocked()", "finished()"]
    assert executions.statuses() == ["finished"]
    assert executions.run(program).value == ("late", "done")
    assert [probe.count(one) for one in ("handled", "blocked", "finished")] == [1, 1, 1]


RESUMED_ELSEWHERE = """
    import os, signal, sys, threading
    from nbdurable import go, step, workflow

    signal.signal(signal.SIGINT, signal.default_int_handler)
    store, effects, stuck = sys.argv[1], sys.argv[2], sys.argv[3] == "stuck"

    @step(ignore=("stuck",))
    def one(number, stuck):
        with open(effects, "a") as file:
            print(number, file=file)
        if stuck and number == 2:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(30)
        return number

    try:
        with workflow("w", store=store):
            handles = [one.go(number, stuck) for number in (1, 2)]
            print(handles[0].result(), handles[1].result(), one(3, stuck))
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_interrupted_here_and_resumed_in_another_process(tmp_path):
    """Where the process is gone there is nothing to adopt: what was in flight runs again."""
    script, effects = tmp_path / "script.py", tmp_path / "effects"
    script.write_text(textwrap.dedent(RESUMED_ELSEWHERE))

    def execute(word):
        done = subprocess.run(
            [sys.executable, script, tmp_path / "store.duckdb", effects, word],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert execute("stuck") == "interrupted\n"
    assert execute("free") == "1 2 3\n"
    assert execute("free") == "1 2 3\n"
    counts = effects.read_text().split()
    assert counts.count("2") == 2, "it was in flight"
    assert counts.count("3") == 1
    with contextlib.closing(Store.open(tmp_path / "store.duckdb")) as store:
        assert check(store) == []
        found = store.rows("SELECT status FROM nbdurable.executions ORDER BY execution")
        assert found == [("interrupted",), ("finished",), ("finished",)]
        assert store.rows("SELECT count(*) FROM nbdurable.checkpoints") == [(3,)]


# --- bodies that no interrupt can stop ---------------------------------------------------


def test_a_body_that_still_runs_is_adopted(executions, probe):
    """A re-run takes the late result of a thread that runs on: the body runs once."""

    def program():
        handle = go(blocked(probe))
        if probe.parameters.get("open"):
            probe.event("open").set()
        return handle.result()

    first = executions.run(program, interrupt=is_inside(probe))
    assert type(first.error) is KeyboardInterrupt
    assert first.notes == ("still running: blocked(); a re-run adopts them",)
    assert first.let_go == ["still running"]
    assert executions.rows("SELECT label, status FROM nbdurable.steps") == [
        ("blocked()", "unfinished")
    ]
    probe.parameters["open"] = True
    second = executions.run(program)
    assert (second.value, second.error) == ("late", None)
    assert second.whys == [], "no attempt was started"
    assert second.notes == ("blocked(): still ran from before; it was adopted, not started again",)
    assert probe.count("blocked") == 1
    rows = executions.rows("SELECT label, status, attempts FROM nbdurable.steps")
    assert rows == [("blocked()", "finished", 1)]
    assert executions.run(program).notes[0].startswith("replayed: ")


def test_an_adopted_attempt_is_one_attempt(executions, probe):
    """An attempt that began in one execution and ended in another is one row of `attempts`."""

    def program():
        handle = go(blocked(probe))
        if probe.parameters.get("open"):
            probe.event("open").set()
        return handle.result()

    executions.run(program, interrupt=is_inside(probe))
    assert executions.rows("SELECT attempt, ending FROM nbdurable.attempts") == [(1, "stopped")]
    probe.parameters["open"] = True
    assert executions.run(program).value == "late"
    assert executions.rows("SELECT attempt, ending FROM nbdurable.attempts") == [(1, "value")]


def test_a_body_that_ended_meanwhile_is_adopted(executions, probe):
    """A body that ended between two executions gives its result to the second."""

    def program():
        return go(blocked(probe)).result(), go(finished(probe)).result()

    executions.run(program, interrupt=is_inside(probe))
    probe.event("open").set()
    join(probe)
    assert executions.saved() == [], "nobody took its result yet"
    assert executions.run(program).value == ("late", "done")
    assert (probe.count("blocked"), probe.count("finished")) == (1, 1)
    assert executions.saved() == ["blocked()", "finished()"]


@pytest.mark.parametrize("meanwhile", [True, False], ids=["ended meanwhile", "still running"])
def test_a_body_that_fails_late_is_adopted(executions, probe, meanwhile):
    """A late error is the outcome, as a late value would be, and is kept like any error."""

    def program():
        def fails():
            probe.effect("fails")
            probe.threads.append(threading.current_thread())
            probe.event("inside").set()
            probe.event("open").wait(PATIENCE)
            raise ValueError("late")

        handle = go(fails)
        if probe.parameters.get("open"):
            probe.event("open").set()
        try:
            return handle.result()
        except ValueError as error:
            return str(error), go(finished(probe)).result()

    executions.run(program, interrupt=is_inside(probe))
    if meanwhile:
        probe.event("open").set()
        join(probe)
    probe.parameters["open"] = True
    assert executions.run(program).value == ("late", "done")
    assert executions.run(program).value == ("late", "done")
    assert (probe.count("fails"), probe.count("finished")) == (1, 1)
    assert executions.saved() == ["fails()", "finished()"]


@pytest.mark.parametrize(
    "ends",
    [
        "at once",
        "meanwhile",
        "later",
    ],
)
def test_a_body_that_fails_late_is_retried(executions, probe, ends):
    """An adopted attempt that fails is one of the attempts that its policy grants.

    It may end while the interrupted execution comes to its end, or after it, or in the next.
    """

    def program():
        @step(retries=1, backoff=0.001)
        def flaky():
            probe.threads.append(threading.current_thread())
            if probe.effect("flaky") == 1:
                probe.event("inside").set()
                probe.event("open").wait(PATIENCE)
                raise OSError("late")
            return "in time"

        handle = flaky.go()
        if probe.parameters.get("open"):
            probe.event("open").set()
        elif ends == "at once":
            probe.event("inside").wait(PATIENCE)
            raise KeyboardInterrupt  # before anything waited: its start is not on disk yet
        return handle.result()

    def end(event):
        if type(event) is StepLetGo:
            probe.event("open").set()
            join(probe)

    if ends == "at once":
        executions.run(program, observers=(end,))
    else:
        executions.run(program, interrupt=is_inside(probe))
    if ends == "meanwhile":
        probe.event("open").set()
        join(probe)
    probe.parameters["open"] = True
    assert executions.run(program).value == "in time"
    assert probe.count("flaky") == 2
    rows = executions.rows("SELECT attempt, ending FROM nbdurable.attempt_ends")
    assert rows == [(1, "error")]
    assert executions.rows("SELECT attempt FROM nbdurable.checkpoints") == [(2,)]


def test_a_body_is_adopted_again_and_again(executions, probe):
    """Interrupted twice, a body that runs on is handed from execution to execution."""

    def program():
        handle = go(blocked(probe))
        waiting.set()
        return handle.result()

    waiting = threading.Event()
    for _ in range(3):
        waiting.clear()
        report = executions.run(program, interrupt=lambda: waiting.is_set() and is_inside(probe)())
        assert type(report.error) is KeyboardInterrupt
        assert any(note.startswith("still running: blocked()") for note in report.notes)
    probe.event("open").set()
    assert executions.run(program).value == "late"
    assert probe.count("blocked") == 1
    assert executions.statuses() == [*["interrupted"] * 3, "finished"]


def test_an_adopted_body_may_win_and_be_received(executions, probe):
    """What was adopted takes part in selects and is an argument like any other outcome."""

    def program():
        handle = go(blocked(probe))
        first = select(handle, after(3600))
        if probe.parameters.get("open"):
            probe.event("open").set()
        return first.result(), first.winner is handle, go(str.upper, handle).result()

    executions.run(program, interrupt=is_inside(probe))
    probe.parameters["open"] = True
    for _ in range(2):
        assert executions.run(program).value == ("late", True, "LATE")
    assert executions.decisions() == ["blocked()"]
    assert probe.count("blocked") == 1


def test_an_awaiting_cell_adopts_too(executions, probe):
    """A thread's body of an async workflow is adopted by the next execution's loop."""

    async def program():
        handle = go(blocked(probe))
        if probe.parameters.get("open"):
            asyncio.get_running_loop().call_soon(probe.event("open").set)
        return await gather(handle, go(finished(probe)))

    first = executions.run_async(
        program, interrupt=lambda: probe.event("inside").is_set() and waits_in_loop()
    )
    assert type(first.error) is KeyboardInterrupt
    # The other step may not have ended by then.
    assert first.notes[0].startswith("still running: blocked()")
    probe.parameters["open"] = True
    for _ in range(2):
        assert executions.run_async(program).value == ["late", "done"]
    assert probe.count("blocked") == 1


@pytest.mark.parametrize("way", ["in place", "thread", "async", "two levels"])
def test_a_body_below_a_step_is_adopted(executions, probe, way):
    """However the step above it was stopped, what it had started is adopted when it runs again."""

    def parent():
        probe.effect("parent")
        return go(blocked(probe)).result()

    async def async_parent():
        probe.effect("parent")
        return await go(blocked(probe))

    def grandparent():
        return go(parent).result()

    def program():
        if way == "in place":
            return step(parent)()
        return go(
            {"thread": parent, "async": async_parent, "two levels": grandparent}[way]
        ).result()

    first = executions.run(program, interrupt=is_inside(probe))
    assert type(first.error) is KeyboardInterrupt
    assert executions.saved() == []
    probe.event("open").set()
    join(probe)
    for _ in range(2):
        report = executions.run(program)
        assert (report.value, report.error) == ("late", None)
    assert (probe.count("blocked"), probe.count("parent")) == (1, 2)
    assert executions.saved()[0] == "blocked()"


def test_a_step_in_place_on_a_thread_records_nothing_late(executions, probe):
    """A step called in place in a body that outlives its execution is not recorded behind its back.

    The next execution may have taken its number, or have run the same step, by then.
    """

    def program():
        def parent():
            probe.effect("parent")
            return step(blocked(probe))()

        return go(parent).result()

    first = executions.run(program, interrupt=is_inside(probe))
    assert type(first.error) is KeyboardInterrupt
    probe.event("open").set()
    join(probe)
    assert executions.saved() == [], "the execution has ended"
    for _ in range(2):
        report = executions.run(program)
        assert (report.value, report.error) == ("late", None)
    assert executions.saved() == ["blocked()", "parent()"]


def test_a_step_in_place_on_a_thread_takes_no_number_late(executions, probe):
    """What a body of an earlier execution ends with takes no number of the next one."""

    def program():
        def parent():
            return step(blocked(probe))(), probe.effect("parent")

        handle = go(parent)
        probe.event("inside").wait(PATIENCE)
        if not probe.parameters.get("resumed"):
            raise KeyboardInterrupt
        found = go(finished(probe)).result()
        probe.event("open").set()
        join(probe, 1)
        return found, handle.result()[0]

    executions.run(program)
    probe.parameters["resumed"] = True
    for _ in range(2):
        report = executions.run(program)
        assert (report.value, report.error) == (("done", "late"), None)
    assert len(executions.saved()) == 3


def test_an_adopted_body_can_be_cancelled(executions, probe):
    """Cancelled is the outcome of an adopted body too, whatever it returns later."""

    def program():
        handle = go(blocked(probe))
        if probe.parameters.get("cancel"):
            handle.cancel()
            probe.event("open").set()
        return handle.outcome().kind.value

    executions.run(program, interrupt=is_inside(probe))
    probe.parameters["cancel"] = True
    assert executions.run(program).value == "cancelled"
    join(probe)
    assert executions.run(program).value == "cancelled"
    assert executions.saved() == ["blocked()"]
    assert probe.count("blocked") == 1


def test_an_adopted_body_can_lose_a_race(executions, probe):
    """A race cancels an adopted loser with its decision."""

    def program():
        handle = go(blocked(probe))
        if not probe.parameters.get("raced"):
            return handle.result()
        first = race(handle, go(finished(probe)))
        found = first.result(), handle.outcome().kind.value
        probe.event("open").set()
        return found

    executions.run(program, interrupt=is_inside(probe))
    probe.parameters["raced"] = True
    for _ in range(2):
        assert executions.run(program).value == ("done", "cancelled")
        join(probe)
    assert executions.decisions() == ["finished()"]
    assert (probe.count("blocked"), probe.count("finished")) == (1, 1)


def test_an_error_of_the_cell_leaves_bodies_to_adopt(executions, probe):
    """A cell that ended with an error of its own is re-run like an interrupted one."""

    def program():
        handle = go(blocked(probe))
        probe.event("inside").wait(PATIENCE)
        if not probe.parameters.get("open"):
            raise ZeroDivisionError
        probe.event("open").set()
        return handle.result()

    first = executions.run(program)
    assert type(first.error) is ZeroDivisionError
    assert first.notes == ("still running: blocked(); a re-run adopts them",)
    assert executions.statuses() == ["failed"]
    probe.parameters["open"] = True
    assert executions.run(program).value == "late"
    assert probe.count("blocked") == 1


def test_an_edited_step_does_not_adopt_the_old_body(executions, probe):
    """After an edit the step runs anew; the old body's late result belongs to the old code."""

    def program():
        if probe.parameters.get("edited"):

            def one():
                return probe.effect("new")

        else:

            def one():
                probe.threads.append(threading.current_thread())
                probe.event("inside").set()
                probe.event("open").wait(PATIENCE)
                return probe.effect("old")

        return step(one, name="one").go().result()

    executions.run(program, interrupt=is_inside(probe))
    probe.parameters["edited"] = True
    assert executions.run(program).value == 1
    probe.event("open").set()
    join(probe)
    assert executions.saved() == ["one()"]
    assert executions.run(program).value == 1
    assert (probe.count("old"), probe.count("new")) == (1, 1)


@pytest.mark.parametrize("ask", ["result", "start"])
def test_a_step_that_starts_steps_goes_on_after_an_interrupt(executions, probe, ask):
    """The body of a sub-workflow loses nothing by an interrupt: its steps are not repeated."""

    def program():
        def parent():
            probe.effect("parent")
            probe.threads.append(threading.current_thread())
            if ask == "result":
                late = go(blocked(probe)).result()
            else:
                probe.event("inside").set()
                probe.event("open").wait(PATIENCE)
                late = "late"
            return late, go(finished(probe)).result()

        return go(parent).result()

    executions.run(program, interrupt=is_inside(probe))
    probe.event("open").set()
    second = executions.run(program)
    assert (second.value, second.error) == (("late", "done"), None)
    assert probe.count("blocked") <= 1
    assert probe.count("finished") == 1
    assert executions.run(program).value == ("late", "done")


# --- attempts that were given up -----------------------------------------------------------


def test_a_timed_out_thread_that_ends_late_records_nothing(executions, probe):
    """The late result of an attempt that timed out is nobody's, in this execution or the next."""
    clock = ManualClock()

    def program():
        @step(timeout=60)
        def slow():
            probe.effect("slow")
            probe.threads.append(threading.current_thread())
            probe.event("inside").set()
            probe.event("open").wait(PATIENCE)
            return "late"

        handle = slow.go()
        if not handle.done():
            probe.event("inside").wait(PATIENCE)
            clock.advance(60)
        return type(handle.outcome().error)

    with clock_of_runs(clock):
        assert executions.run(program).value is StepTimeoutError
        before = executions.rows("FROM nbdurable.checkpoints")
        probe.event("open").set()
        join(probe)
        assert executions.run(program).value is StepTimeoutError
    assert executions.rows("FROM nbdurable.checkpoints") == before
    assert len(before) == 1
    assert probe.count("slow") == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_retry_is_not_overtaken_by_the_attempt_before_it(executions, probe):
    """A retry does not wait for the attempt that timed out; what that returns later is nobody's."""
    clock = ManualClock()

    def program():
        @step(timeout=60, retries=1, backoff=0)
        def slow():
            probe.threads.append(threading.current_thread())
            count = probe.effect("slow")
            probe.event(f"inside {count}").set()
            probe.event("open" if count == 1 else "open 2").wait(PATIENCE)
            probe.event(f"left {count}").set()
            return f"attempt {count}"

        def retried():
            clock.advance(0)  # fires the retry once it is due
            return probe.event("inside 2").is_set()

        handle = slow.go()
        probe.event("inside 1").wait(PATIENCE)
        clock.advance(60)
        assert until(retried, 5), "there is no second attempt"
        probe.event("open").set()
        probe.event("left 1").wait(PATIENCE)
        probe.event("open 2").set()
        return handle.result()

    with clock_of_runs(clock):
        report = executions.run(program)
        assert report.value == "attempt 2", report.error
        join(probe)
        assert executions.run(program).value == "attempt 2"
    rows = executions.rows("SELECT attempt, ending, error FROM nbdurable.attempts ORDER BY 1")
    assert [row[:2] for row in rows] == [(1, "error"), (2, "value")]
    assert "timeout of 60 s" in rows[0][2]


def test_an_adopted_attempt_still_times_out(executions, probe):
    """The timeout of an adopted attempt goes on, and is recorded in the order of its new run."""
    clock = ManualClock()

    def program():
        @step(timeout=60)
        def slow():
            probe.effect("slow")
            probe.threads.append(threading.current_thread())
            probe.event("inside").set()
            probe.event("open").wait(PATIENCE)
            return "late"

        assert go(finished(probe)).result() == "done"
        handle = slow.go()
        probe.event("inside").wait(PATIENCE)
        if not probe.parameters.get("resumed"):
            raise KeyboardInterrupt
        clock.advance(60)
        probe.event("open").set()
        assert until(handle.done, 5), "it never ends"
        return type(handle.outcome().error)

    with clock_of_runs(clock):
        executions.run(program)
        probe.parameters["resumed"] = True
        report = executions.run(program)
        assert report.value is StepTimeoutError, report.error
    assert executions.saved() == ["finished()", "slow()"]
    assert probe.count("slow") == 1


# --- KeyboardInterrupt out of a body ---------------------------------------------------------


@pytest.mark.parametrize("way", ["in place", "thread", "async"])
def test_a_body_that_raises_keyboard_interrupt(executions, probe, way):
    """An interrupt that a body raises itself is its error, and runs again with the next pass.

    In the cell's own thread it can't be told from a person's, so nothing is saved there.
    """

    def raises():
        if probe.effect("raises") == 1:
            raise KeyboardInterrupt("from inside")
        return "value"

    async def raises_async():
        return raises()

    def program():
        found = go(finished(probe)).result()
        if way == "in place":
            return found, step(raises)()
        return found, go(raises if way == "thread" else raises_async).result()

    first = executions.run(program)
    assert repr(first.error) == "KeyboardInterrupt('from inside')"
    own = {"in place": [], "thread": ["raises()"], "async": ["raises_async()"]}
    assert executions.saved() == ["finished()", *own[way]]
    assert executions.statuses() == ["interrupted"]
    assert executions.run(program).value == ("done", "value")
    assert (probe.count("finished"), probe.count("raises")) == (1, 2)


def test_a_bodys_interrupt_that_the_cell_handles(executions, probe):
    """Handled by the cell, a body's interrupt lets the run go on; in place it is never saved."""

    def raises(number):
        probe.effect(f"raises {number}")
        raise KeyboardInterrupt(number)

    def program():
        found = []
        for call in (lambda: step(raises)(1), lambda: go(raises, 2).result()):
            try:
                call()
            except KeyboardInterrupt as error:
                found.append(error.args)
        return found, go(finished(probe)).result()

    for _ in range(2):
        assert executions.run(program).value == ([(1,), (2,)], "done")
    assert executions.saved() == ["raises(2)", "finished()"]
    assert executions.statuses() == ["finished", "finished"]
    assert (probe.count("raises 1"), probe.count("raises 2")) == (2, 1)
    assert probe.count("finished") == 1


def test_an_interrupt_is_not_retried(executions, probe):
    """No policy retries what may be a person's interrupt; by default none retries a body's own."""

    @step(retries=5, backoff=0.001, retry_on=BaseException)
    def may_be_a_persons():
        probe.effect("raises")
        raise KeyboardInterrupt

    @step(retries=5, backoff=0.001)
    def its_own():
        probe.effect("raises")
        raise KeyboardInterrupt

    assert type(executions.run(may_be_a_persons).error) is KeyboardInterrupt
    assert type(executions.run(lambda: its_own.go().result()).error) is KeyboardInterrupt
    assert probe.count("raises") == 2
    endings = executions.rows("SELECT DISTINCT ending FROM nbdurable.attempts")
    assert set(endings) in ({("error",)}, {("error",), ("stopped",)})


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_body_that_ended_by_a_defect_is_not_waited_for(tmp_path, monkeypatch, kind):
    """The defect is raised where the step is waited for; the next execution runs it anew."""
    module = sys.modules["nbdurable.steps.attempts"]
    settle, defects = module.settle_value, [RuntimeError("a defect")]

    def spoilt(value, objects=None):
        if defects:
            raise defects.pop()
        return settle(value, objects)

    async def later():
        return 1

    monkeypatch.setattr(module, "settle_value", spoilt)

    def execute():
        with workflow("w", store=tmp_path / "store.duckdb"):
            return go(later if kind == "async" else lambda: 1).result()

    with pytest.raises(RuntimeError, match="a defect"):
        execute()
    assert execute() == 1
    open_stores.close_stores()
