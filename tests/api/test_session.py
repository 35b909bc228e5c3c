"""The plain-Python door: `workflow`, `configure`, which store, which run, and what they tell."""

import asyncio
import contextvars
import os
import re
import sys
import threading
from pathlib import Path

import pytest

from nbdurable import (
    FingerprintError,
    NotInRunError,
    StoreError,
    UntrustedCheckpointError,
    UsageError,
    configure,
    gather,
    go,
    step,
    workflow,
)
from nbdurable.api import configuration, open_stores
from nbdurable.events import AttemptStarted, RunFinished, RunStarted
from nbdurable.executors.clock import SystemClock
from nbdurable.handles import scope
from nbdurable.inspection import maintenance
from nbdurable.inspection import queries as questions
from nbdurable.output import streams
from nbdurable.records import RunStatus
from nbdurable.store import MEMORY, Store, begin_execution
from nbdurable.testing import ManualClock, clock_of_runs

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    """Begin each test in a folder of its own, with nothing set and nothing open."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBDURABLE_STORE", raising=False)
    yield
    open_stores.close_stores()
    configure(store=None, strict=None, limit=None)
    configuration.set_notebook(None)
    assert open_stores._state.executing == {}
    assert scope.current.get() is None
    assert streams._users == 0


@pytest.fixture
def path(tmp_path):
    """Return the path of a store that is not there yet."""
    return tmp_path / "store.duckdb"


@pytest.fixture
def clock():
    """Let runs go by a clock that the test moves."""
    with clock_of_runs(ManualClock()) as manual:
        yield manual


def double(number):
    """Double a number."""
    return 2 * number


def refuse(number):
    """Fail."""
    raise ValueError(f"refused {number}")


def execute(path, program=lambda: go(double, 2).result(), name="w", **options):
    """Run `program` as one execution; give its value, how many bodies ran, and the notes."""
    events = []
    run = workflow(name, store=path, observers=[events.append], **options)
    with run:
        value = program()
    return value, sum(isinstance(one, AttemptStarted) for one in events), run.notes


def names(path=None):
    """Return the names of the runs of a store, newest first."""
    return [one.name for one in questions.runs(path)]


# --- with ----------------------------------------------------------------------------


def test_with_a_workflow(path):
    """A `with` block is a run: its steps are saved, and replayed the next time."""
    assert execute(path) == (4, 1, ())
    value, ran, notes = execute(path)
    assert (value, ran) == (4, 0)
    assert notes == ("replayed: saved 0 s ago, --new to recompute",)
    assert names(path) == ["w"]


def test_async_with(path):
    """An `async with` block is a run on its loop: steps are awaited there."""

    async def fetch(number):
        return number, asyncio.get_running_loop()

    async def cell():
        async with workflow("w", store=path) as run:
            found = step(fetch, version=1).go(1)
            with pytest.raises(UsageError, match="await"):
                found.result()
            value, loop = await found
            assert loop is asyncio.get_running_loop()
            return value, run.settings.asynchronous

    assert asyncio.run(cell()) == (1, True)


def test_after_the_end_nothing_is_left(path):
    """The streams are put back, the scope is gone, late calls are refused."""
    before = sys.stdout, sys.stderr
    with workflow("w", store=path):
        handle = go(double, 1)
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before
    assert handle.result() == 2
    with pytest.raises(NotInRunError, match="workflow"):
        go(double, 1)


def test_steps_are_counted(path):
    """`steps` tells how many steps and timers the code asked for, and begins anew each time."""
    run = workflow("w", store=path)
    with run:
        gather(go(double, number) for number in range(3)).result()
    assert run.steps == 3
    with run:
        pass
    assert run.steps == 0


def test_observers_hear_the_run_from_begin_to_end(path):
    """Observers get the events of one execution, its begin first and its end last."""
    events = []
    with workflow("w", store=path, observers=[events.append]):
        go(double, 1).result()
    assert isinstance(events[0], RunStarted)
    assert (events[0].name, events[0].saved, events[0].execution) == ("w", 0, 1)
    assert isinstance(events[-1], RunFinished)
    assert events[-1].status is RunStatus.FINISHED


@pytest.mark.parametrize("name", ["", "  ", None, 5, "two\nlines", "a\0b"])
def test_a_workflow_needs_a_name(name):
    """A name that is empty, no text, or can't be shown is refused at once."""
    with pytest.raises(UsageError, match="workflow"):
        workflow(name)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("limit", 0),
        ("limit", -1),
        ("limit", 1.5),
        ("limit", True),
        ("limit", "2"),
        ("max_age", -1),
        ("max_age", float("nan")),
        ("max_age", "12h"),
        ("max_age", True),
        ("store", 5),
        ("store", b"s.duckdb"),
        ("id", "two\nlines"),
    ],
)
def test_options_that_cant_be(option, value):
    """An option that can't have this value is refused at once, by name."""
    with pytest.raises(UsageError, match=option):
        workflow("w", **{option: value})
    assert not Path(".nbdurable").exists()


def test_id_tells_runs_apart(path):
    """Runs of one name with different ids don't meet."""
    assert execute(path, id=1)[1] == 1
    assert execute(path, id=2)[1] == 1
    assert execute(path, id=1)[1] == 0
    assert names(path) == ["w[2]", "w[1]"]


# --- decorator -----------------------------------------------------------------------


def decorated(path, **options):
    """Return a workflow function and a list that grows when a step's body runs."""
    ran = []

    def observe(event):
        if isinstance(event, AttemptStarted):
            ran.append(event)

    @workflow("report", store=path, observers=[observe], **options)
    def report(day, scale=1, *rest, unit="m"):
        return go(double, day * scale).result(), unit, rest

    return report, ran


def test_arguments_tell_runs_apart(path):
    """Each set of arguments is a run of its own, and is replayed."""
    report, ran = decorated(path)
    assert report(1) == (2, "m", ())
    assert report(2) == (4, "m", ())
    assert report(1) == (2, "m", ())
    assert len(ran) == 2
    assert len(set(names(path))) == 2
    assert all(name.startswith("report(") for name in names(path))
    assert report.__name__ == "report"


def test_one_call_spelled_in_many_ways_is_one_run(path):
    """Positional, named or left at its default: equal arguments are one run."""
    report, ran = decorated(path)
    for _ in range(2):
        assert report(3) == report(day=3) == report(3, 1) == report(3, unit="m", scale=1)
    assert len(ran) == 1
    assert len(names(path)) == 1
    assert report(3, 1, 9) == (6, "m", (9,))
    assert len(names(path)) == 2


def test_without_arguments_the_name_is_the_runs(path):
    """A function without parameters has one run, called as the workflow."""

    @workflow("nightly", store=path)
    def nightly():
        return go(double, 4).result()

    assert nightly() == nightly() == 8
    assert names(path) == ["nightly"]


def test_id_stands_for_the_arguments(path):
    """With `id` the arguments need not be comparable, and don't tell runs apart."""
    report, ran = decorated(path, id="today")
    assert report(1, unit=threading.Lock())[0] == 2
    assert report(1)[0] == 2
    assert names(path) == ["report[today]"]
    assert len(ran) == 1


def test_arguments_that_cant_be_compared(path):
    """An argument that another process could not compare is named, and no run begins."""
    report, ran = decorated(path)
    with pytest.raises(FingerprintError, match="lock"):
        report(1, unit=threading.Lock())
    with pytest.raises(TypeError, match="day"):
        report()
    assert ran == []
    assert names(path) == []


def test_secrets_are_masked_in_a_runs_name(path):
    """A run's name shows its arguments, but no secret, by place or by name."""

    @workflow("login", store=path)
    def login(user, password):
        return user

    login("ann", "hunter2")
    login("ann", password="hunter3")
    assert len(names(path)) == 2
    for name in names(path):
        assert name.startswith("login('ann', ***) ")
        assert "hunter" not in name


def test_a_decorated_async_function(path):
    """An async function is decorated alike."""

    @workflow("report", store=path)
    async def report(day):
        return await go(double, day)

    assert asyncio.run(report(1)) == asyncio.run(report(1)) == 2
    assert len(names(path)) == 1
    assert questions.runs(path)[0].executions == 2


def test_a_decorated_function_reads_settings_when_it_is_called(tmp_path):
    """What is configured after the decoration counts: the run begins with the call."""

    @workflow("late")
    def late():
        return go(double, 1).result()

    configure(store=tmp_path / "later.duckdb", strict=True)
    assert late() == 2
    assert (tmp_path / "later.duckdb").exists()
    assert not (tmp_path / ".nbdurable").exists()


def test_what_cant_be_decorated():
    """A generator function's body would run after the run; a value can't be called."""

    def generator():
        yield 1

    async def asynchronous():
        yield 1

    for function in (generator, asynchronous):
        with pytest.raises(UsageError, match=r"generator function.*return a list"):
            workflow("w")(function)
    with pytest.raises(UsageError, match="a int can't be called"):
        workflow("w")(5)


# --- configure -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"limit": 0}, "limit=0: give a whole number"),
        ({"limit": -3}, "limit"),
        ({"limit": 2.0}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"store": 5}, "store=5: give the path"),
        ({"store": b"x"}, "store"),
        ({"strict": "no"}, "strict='no'"),
        ({"strict": 2}, "strict"),
        ({"colour": "red"}, r"colour=\.\.\.\): unknown setting; there are store, strict, limit"),
        ({"limit": 3, "store": "s.duckdb", "nonsense": 1}, "nonsense"),
    ],
)
def test_configure_refuses(settings, said):
    """A setting that is unknown or can't have this value is refused, and none is set."""
    before = configuration._state.settings
    with pytest.raises(UsageError, match=said):
        configure(**settings)
    assert configuration._state.settings == before


def test_configure_sets_and_sets_back(tmp_path):
    """Settings hold for later runs, one at a time; None sets a default back."""
    configure(store=tmp_path / "one.duckdb", limit=3)
    configure(strict=True)
    execute(None)
    assert (tmp_path / "one.duckdb").exists()
    assert configuration.default_limit() == 3
    with workflow("x") as run:
        assert run.strict
        assert run.settings.limit == 3
    with workflow("y", strict=False, limit=2) as run:
        assert not run.strict
        assert run.settings.limit == 2
    configure(limit=None, strict=None)
    assert configuration.default_limit() == min(32, os.cpu_count() + 4)
    with workflow("z") as run:
        assert not run.strict


def test_where_the_store_lies(tmp_path, monkeypatch):
    """First `configure`, then NBDURABLE_STORE, then the notebook, then the folder."""
    assert configuration.default_store() == str(tmp_path / ".nbdurable" / "default.duckdb")
    configuration.set_notebook(tmp_path / "work" / "my analysis.ipynb")
    beside = tmp_path / "work" / ".nbdurable" / "my analysis.duckdb"
    assert configuration.default_store() == str(beside)
    monkeypatch.setenv("NBDURABLE_STORE", "~/elsewhere.duckdb")
    assert configuration.default_store() == str(Path("~/elsewhere.duckdb").expanduser())
    configure(store="mine.duckdb")
    assert configuration.default_store() == str(tmp_path / "mine.duckdb")
    configure(store=None)
    monkeypatch.setenv("NBDURABLE_STORE", "")
    assert configuration.default_store() == str(beside)


def test_a_notebook_called_as_the_schema(tmp_path):
    """A notebook called nbdurable has a store all the same."""
    configuration.set_notebook(tmp_path / "NBDurable.ipynb")
    execute(None)
    assert execute(None)[1] == 0
    assert [one.name for one in (tmp_path / ".nbdurable").glob("*.duckdb")] == ["_NBDurable.duckdb"]


def test_the_store_of_a_run_comes_first(tmp_path, monkeypatch):
    """``workflow(store=...)`` overrides everything, ``~`` included."""
    monkeypatch.setenv("HOME", str(tmp_path))
    configure(store="configured.duckdb")
    execute("~/asked.duckdb")
    assert (tmp_path / "asked.duckdb").exists()
    assert not (tmp_path / "configured.duckdb").exists()


# --- stores, open and closed ---------------------------------------------------------


@pytest.fixture
def closing(monkeypatch):
    """Move the clock by which stores are closed."""
    manual = ManualClock()
    monkeypatch.setattr(open_stores._state, "clock", manual)
    return manual


def test_a_store_is_closed_shortly_after_its_last_use(path, closing):
    """A store stays open for the next cell, then lets go of its file."""
    execute(path)
    [opened] = open_stores._state.opens.values()
    closing.advance(open_stores.LINGER_SECONDS * 0.9)
    execute(path)
    assert list(open_stores._state.opens.values()) == [opened], "the next cell used the same one"
    closing.advance(open_stores.LINGER_SECONDS * 0.9)
    assert open_stores._state.opens, "the first use's time to close was put off"
    closing.advance(open_stores.LINGER_SECONDS)
    assert open_stores._state.opens == {}
    assert execute(path)[1] == 0
    assert list(open_stores._state.opens.values()) != [opened]


def test_a_store_in_use_is_not_closed(path, closing):
    """While a run goes on, nothing closes its store; another run's end does not either."""
    with workflow("outer", store=path):
        done = threading.Event()
        thread = threading.Thread(target=lambda: (execute(path), done.set()), daemon=True)
        contextvars.Context().run(thread.start)  # else it would belong to the run
        assert done.wait(30)
        closing.advance(100)
        open_stores.close_stores()
        assert go(double, 1).result() == 2
    closing.advance(100)
    assert open_stores._state.opens == {}


def test_memory_is_kept_for_the_process(closing):
    """``:memory:`` is not let go: what it holds would be lost."""
    assert execute(MEMORY)[1] == 1
    closing.advance(1e6)
    assert execute(MEMORY)[1] == 0
    assert names(MEMORY) == ["w"]
    assert questions.steps(store=MEMORY)[0]["step"] == "double(2)"


def test_closing_goes_by_a_clock_of_its_own():
    """A clock that a test moves for its runs does not keep stores open."""
    with clock_of_runs(ManualClock()):
        assert isinstance(open_stores._state.clock, SystemClock)


# --- one at a time -------------------------------------------------------------------


def test_a_run_inside_a_run(path):
    """A run can't begin inside another, in a step neither; the outer one goes on."""

    def inside():
        with workflow("inner", store=path):
            pass

    with workflow("outer", store=path):
        with pytest.raises(UsageError, match=r"inner would begin inside outer.*sub-workflow"):
            inside()
        with pytest.raises(UsageError, match="inside outer"):
            go(inside).result()
        assert go(double, 1).result() == 2
    assert names(path) == ["outer"]


def test_a_run_inside_an_async_run(path):
    """Likewise in an async cell."""

    async def cell():
        async with workflow("outer", store=path):
            with pytest.raises(UsageError, match="inside outer"):
                async with workflow("inner", store=path):
                    pass
            return await go(double, 1)

    assert asyncio.run(cell()) == 2


def test_a_second_execution_of_a_run(path):
    """One execution per run at a time: the second names the first; afterwards it may begin."""
    inside, leave = threading.Event(), threading.Event()

    def first():
        with workflow("w", store=path):
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=first, name="the first one", daemon=True)
    thread.start()
    assert inside.wait(30)
    with pytest.raises(UsageError, match="w is being executed already, by the first one"):
        execute(path)
    assert execute(path, name="another")[0] == 4
    assert execute(path.with_name("other.duckdb"))[0] == 4
    leave.set()
    thread.join(30)
    assert execute(path)[0] == 4


def test_one_workflow_object_twice(path):
    """The same object can't be entered twice at once, but again later."""
    run = workflow("w", store=path)
    context = []

    def enter():
        with pytest.raises(UsageError, match="this very workflow"):
            run.__enter__()
        context.append("refused")

    with run:
        thread = threading.Thread(target=enter, daemon=True)
        contextvars.Context().run(thread.start)  # else it would belong to the run
        thread.join(30)
    assert context == ["refused"]
    with run:
        assert go(double, 2).result() == 4


def test_a_run_that_could_not_begin_leaves_nothing(path, tmp_path, monkeypatch):
    """When beginning fails the run can begin later, and its store is not held."""
    execute(path)
    open_stores.close_stores()
    with monkeypatch.context() as patch:
        patch.setenv("NBDURABLE_KEY_FILE", str(tmp_path / "other.key"))
        with pytest.raises(UntrustedCheckpointError):
            execute(path)
    assert open_stores._state.executing == {}
    assert open_stores._state.opens == {}
    value, steps, (note,) = execute(path)
    assert (value, steps) == (4, 0)
    assert re.fullmatch(r"replayed: saved \d s ago, --new to recompute", note)


# --- how an execution ends -----------------------------------------------------------


def status(path):
    """Return the newest run's status and the error of its last execution."""
    frame = questions.query(
        "SELECT status, error FROM executions ORDER BY execution DESC LIMIT 1", path
    )
    return questions.runs(path)[0].status, frame["error"][0]


def test_an_execution_that_fails(path):
    """The error shows as itself; the run is failed, and the next execution goes on with it."""

    def cell():
        go(double, 1).result()
        go(refuse, 2).result()

    with pytest.raises(ValueError, match="refused 2"), workflow("w", store=path):
        cell()
    assert status(path) == (RunStatus.FAILED, "ValueError: refused 2")
    events = []
    with (
        pytest.raises(ValueError, match="refused 2"),
        workflow("w", store=path, observers=[events.append]),
    ):
        cell()
    ran = [one for one in events if isinstance(one, AttemptStarted)]
    assert len(ran) == 1, "the error that ended the run is tried again, the value is not"
    assert questions.runs(path)[0].executions == 2


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, asyncio.CancelledError])
def test_an_execution_that_is_interrupted(path, interrupt):
    """An interrupt suspends the run; the next execution resumes it."""

    def cell():
        go(double, 1).result()
        raise interrupt

    with pytest.raises(interrupt), workflow("w", store=path):
        cell()
    assert status(path)[0] is RunStatus.INTERRUPTED
    assert execute(path, lambda: go(double, 1).result())[:2] == (2, 0)
    assert status(path) == (RunStatus.FINISHED, "")
    assert len(questions.runs(path)) == 1


def test_an_execution_that_exits(path):
    """`sys.exit` is no interrupt: the run has failed."""
    with pytest.raises(SystemExit), workflow("w", store=path):
        sys.exit(3)
    assert status(path) == (RunStatus.FAILED, "SystemExit: 3")


# --- new, max_age, restart -----------------------------------------------------------


def test_new_recomputes_what_is_finished(path):
    """`new` begins a run where the last one finished; the old one stays as history."""
    execute(path)
    assert execute(path, new=True)[:2] == (4, 1)
    assert execute(path)[:2] == (4, 0)
    assert len(questions.runs(path)) == 2


def test_new_resumes_what_is_not(path):
    """`new` goes on with an unfinished run, so it may stay in the cell."""

    def cell():
        go(double, 2).result()
        raise OSError("in the middle")

    with pytest.raises(OSError, match="middle"), workflow("w", store=path, new=True):
        cell()
    assert execute(path, new=True)[:2] == (4, 0)
    assert len(questions.runs(path)) == 1


def test_max_age(path, clock):
    """`max_age` begins a run when the last checkpoint is older, however often it was replayed."""
    execute(path)
    clock.advance(60)
    assert execute(path, max_age=100)[1] == 0
    clock.advance(50)
    assert execute(path, max_age=100)[1] == 1
    clock.advance(90)
    assert execute(path, max_age=100)[1] == 0
    assert len(questions.runs(path)) == 2
    assert execute(path, max_age=0)[1] == 1


def test_restart(path):
    """After `restart` the next execution begins a new run, `new` or not."""
    execute(path)
    said = maintenance.restart("w", path)
    assert said == "w: its next run starts from nothing; the old one stays as history"
    assert execute(path)[:2] == (4, 1)
    assert execute(path)[:2] == (4, 0)
    assert len(questions.runs(path)) == 2


def test_restart_of_what_is_not_there(path):
    """`restart` of an unknown name tells the names that there are."""
    with pytest.raises(UsageError, match="there are none yet"):
        maintenance.restart("w", path)
    assert not path.exists()
    execute(path, name="b")
    execute(path, name="a")
    with pytest.raises(UsageError, match="restart w: no run has that name; there are a, b"):
        maintenance.restart("w", path)


# --- notes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7_000, "117 min"),
        (7_200, "2 h"),
        (26 * 3_600, "26 h"),
        (3 * 86_400, "3 days"),
    ],
)
def test_a_replayed_run_says_how_old_it_is(path, clock, seconds, said):
    """A finished run that is replayed says when it was saved, and how to recompute."""
    execute(path)
    clock.advance(seconds)
    assert execute(path)[2] == (f"replayed: saved {said} ago, --new to recompute",)


def test_no_note_where_something_ran(path, clock):
    """A run in which a body ran, or that had not finished, was not replayed."""
    assert execute(path)[2] == ()
    value, ran, notes = execute(path, lambda: [go(double, n).result() for n in (2, 3)])
    assert (value, ran) == ([4, 6], 1)
    assert not any("replayed" in note for note in notes)
    with pytest.raises(KeyError), workflow("x", store=path):
        raise KeyError
    assert execute(path, lambda: None, name="x")[2] == ()


def test_no_note_where_nothing_was_saved(path, clock):
    """A run without steps has no age."""
    assert execute(path, lambda: 1) == (1, 0, ())
    assert execute(path, lambda: 1) == (1, 0, ())


def test_outcomes_that_were_not_asked_for(path):
    """A run says how many saved outcomes it did not ask for."""
    execute(path, lambda: [go(double, n).result() for n in (1, 2, 3)])
    notes = execute(path, lambda: go(double, 2).result())[2]
    assert "2 saved outcomes were not asked for this time" in notes


# --- questions -----------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["runs", "unfinished", "status", "steps", "why"])
def test_questions_without_a_store(path, ask):
    """Where there is no store there is nothing to tell, and none is made by asking."""
    assert getattr(questions, ask)(store=path) == []
    assert getattr(questions, ask)() == []
    assert list(path.parent.iterdir()) == []


def test_query_without_a_store(path):
    """A query names the store that is not there."""
    with pytest.raises(StoreError, match=r"there is no store at .*store.duckdb yet"):
        questions.query("SELECT 1", path)
    with pytest.raises(StoreError, match=r"default.duckdb yet"):
        questions.query("SELECT 1")
    assert list(path.parent.iterdir()) == []


def failing():
    """Save a value, then fail."""
    go(double, 1).result()
    go(refuse, 2).result()


def test_runs_and_unfinished(path, clock):
    """`runs` tells of all runs, `unfinished` of the newest of each name if it is not finished."""
    execute(path, name="done")
    for name in ("failed", "mended"):
        clock.advance(1)
        with pytest.raises(ValueError, match="refused"), workflow(name, store=path):
            failing()
    clock.advance(1)
    maintenance.restart("mended", path)
    clock.advance(1)
    execute(path, name="mended")
    clock.advance(1)
    open_stores.close_stores()
    store = Store.open(path)
    begin_execution(store, "died", now=clock.time())
    store.close()
    maintenance.restart("done", path)
    assert [(one.name, one.status) for one in questions.unfinished(path)] == [
        ("died", RunStatus.DIED),
        ("failed", RunStatus.FAILED),
    ]
    assert sorted(names(path)) == ["died", "done", "done", "failed", "mended", "mended"]
    [failed] = [one for one in questions.runs(path) if one.name == "failed"]
    assert (failed.saved, failed.executions) == (2, 1)
    assert failed.last_ended == failed.last_started == failed.created


def test_status_steps_and_why(path, clock):
    """The newest run of a name, or of all, is told of as rows."""
    with pytest.raises(ValueError, match="refused"), workflow("it's", store=path):
        failing()
    clock.advance(5)
    execute(path, name="later")
    [later, first] = questions.status(path)
    assert (later["workflow"], later["status"], later["saved"]) == ("later", "finished", 1)
    assert (first["workflow"], first["status"], first["executions"]) == ("it's", "failed", 1)
    assert [row["step"] for row in questions.steps(store=path)] == ["double(2)"]
    rows = questions.steps("it's", path)
    assert [(row["step"], row["status"], row["attempts"]) for row in rows] == [
        ("double(1)", "finished", 1),
        ("refuse(2)", "failed", 1),
    ]
    assert [row["number"] for row in rows] == [1, 2]
    with pytest.raises(ValueError, match="refused"), workflow("it's", store=path):
        failing()
    assert [row["why"] for row in questions.why("it's", path)] == ["new", "error retried"]
    assert questions.steps("nobody", path) == questions.why("nobody", path) == []


def test_query(path):
    """SQL reaches the views; what gives no result gives None or nothing."""
    execute(path)
    frame = questions.query("SELECT name, status FROM steps", path)
    assert frame.to_dict("records") == [{"name": "double", "status": "finished"}]
    assert questions.query("", path) is None


def test_query_that_is_wrong(path):
    """A mistake in SQL is a StoreError with DuckDB's sentence, and the run goes on."""
    execute(path)
    for sql, said in (("SELEC", "syntax"), ("FROM nowhere", "nowhere"), ("SELECT x", "x")):
        with pytest.raises(StoreError, match=said):
            questions.query(sql, path)
    assert execute(path)[1] == 0


def test_questions_during_a_run(path):
    """A question can be asked in the middle of a run, of its own store."""
    with workflow("w", store=path):
        go(double, 1).result()
        assert [row["step"] for row in questions.steps("w", path)] == ["double(1)"]
        assert questions.runs(path)[0].status is RunStatus.DIED, "no end is written yet"
        assert go(double, 2).result() == 4
