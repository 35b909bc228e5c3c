"""CONTRACT section 10: the same programs on threads, a loop, processes, any executor, Dask.

What matters of an executor runs on each of them; NBDURABLE_TEST_EXECUTORS=all runs every
program of this file on each.
"""

import asyncio
import contextlib
import importlib
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nbdurable import (
    EncodeError,
    NotInRunError,
    StepCancelledError,
    StepError,
    StepTimeoutError,
    UsageError,
    configure,
    current_step,
    gather,
    go,
    race,
    select,
    step,
    workflow,
)
from nbdurable.engine import remote
from nbdurable.events import AttemptFailed, StepProgressed
from nbdurable.inspection import queries
from nbdurable.store import Objects

# A pool that broke, or a cluster, leaves sockets and pipes to the garbage collector.
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

EVERY = ("threads", "loop", "process", "pool", "dask")
OUTSIDE = ("process", "pool", "dask")
ALL = os.environ.get("NBDURABLE_TEST_EXECUTORS") == "all"


def on(*names):
    """Run a test on these executors, or, where it is asked for, on all that are outside."""
    return pytest.mark.parametrize("where", OUTSIDE if ALL else names, indirect=True)


class Where:
    """One executor, and how a step is made for it."""

    def __init__(self, name, executor):
        self.name = name
        self.executor = executor

    def step(self, function=None, **options):
        """Make a step whose body runs there."""
        if function is None:
            return lambda function: self.step(function, **options)
        if self.name == "loop":

            async def body(*args, **kwargs):
                await asyncio.sleep(0)
                return function(*args, **kwargs)

            body.__name__ = body.__qualname__ = function.__name__
            return step(body, **options)
        return step(function, executor=self.executor, **options)


@pytest.fixture(scope="module")
def made():
    """Keep what is made for all tests of this file, and end it."""
    with contextlib.ExitStack() as stack:
        yield {}, stack


@pytest.fixture
def where(request, made):
    """Return an executor by its name."""
    known, stack = made
    name = request.param
    if name not in known:
        known[name] = name if name in {"threads", "process"} else _made(name, stack)
    return Where(name, known[name])


def _made(name, stack):
    if name == "loop":
        return None
    if name == "pool":
        pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
        return stack.enter_context(pool)
    distributed = importlib.import_module("distributed")  # who needs it not doesn't wait for it
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    )
    stack.callback(cluster.close)
    client = distributed.Client(cluster, set_as_default=False)
    stack.callback(client.close)
    return client


@pytest.fixture
def effects(tmp_path):
    """Return the path of a file in which bodies leave a line, and what reads it."""
    path = tmp_path / "effects"
    path.touch()
    return str(path), lambda: sorted(path.read_text().splitlines())


def note(path, line):
    """Leave a line in a file that several processes write."""
    with Path(path).open("a") as file:
        file.write(f"{line}\n")


def run(store, program, **options):
    """Run a program, and give its value, what it printed, and the notes."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        durable = workflow("program", store=store, **options)
        with durable:
            value = program()
    return value, out.getvalue(), durable.notes


# --- what matters, on each ----------------------------------------------------------------


class Answer:
    """A class that comes back as itself."""

    def __init__(self, text):
        self.text = text


class RefusedError(Exception):
    """An error with an argument that is no text."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


@pytest.mark.parametrize("where", EVERY, indirect=True)
def test_the_same_program(where, tmp_path, effects):
    """Values, errors, retries, output, order, handles as arguments: the same on both passes."""
    path, left = effects

    @where.step
    def ask(source):
        note(path, f"ask {source}")
        print("asking", source)
        return Answer(source * 2)

    @where.step(retries=1, backoff=0.001)
    def flaky(at):
        me = current_step()
        note(path, f"flaky {me.attempt}")
        if me.attempt == 1:
            raise OSError("no answer")
        return me.attempt, len(me.idempotency_key)

    @where.step
    def refuses(code):
        note(path, f"refuses {code}")
        raise RefusedError(code)

    @where.step
    def joined(answers, table):
        note(path, "joined")
        print("joining")
        return "".join(one.text for one in answers) + str(int(table.sum())), table * 2

    def program():
        answers = gather([ask.go("a"), ask.go("b")])
        table = np.arange(100_000.0)
        text, doubled = joined.go(answers, table).result()
        refused = refuses.go(7)
        try:
            refused.result()
        except RefusedError as error:
            code, trace = error.code, error.__traceback__
        frames = []
        while trace is not None:
            frames.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        first = select(ask.go("a"), ask.go("b")).winner.name
        tried = flaky.go(1).result()
        doubled[0] = 5.0  # what comes back is one's own
        return text, doubled.sum(), code, frames[-1], first, tried, type(answers.result()[0])

    store = tmp_path / "store.duckdb"
    first = run(store, program)
    bodies = left()
    assert bodies == sorted(
        ["ask a", "ask a", "ask b", "ask b", "flaky 1", "flaky 2", "joined", "refuses 7"]
    )
    assert first[0] == ("aabb4999950000", 9999900005.0, 7, "refuses", "ask", (2, 32), Answer)
    assert {"asking a", "asking b", "joining"} == {*first[1].splitlines()}
    again = run(store, program)
    assert again[:2] == first[:2]
    assert left() == bodies


@pytest.mark.parametrize("where", EVERY, indirect=True)
def test_a_map_keeps_its_order(where, tmp_path):
    """A map of more steps than there are slots gives its values in their order, twice."""

    @where.step
    def square(number, offset):
        return number * number + offset

    def program():
        return square.map(range(60), offset=1).result()

    first = run(tmp_path / "store.duckdb", program)
    assert first[0] == [number * number + 1 for number in range(60)]
    again = run(tmp_path / "store.duckdb", program)
    assert again[0] == first[0]


def test_moving_a_step_elsewhere_replays(tmp_path, effects):
    """The executor is in neither call nor version."""
    path, left = effects

    def body(number):
        note(path, number)
        return number

    for executor in ("threads", "process", None):
        moved = step(body, name="body", executor=executor)
        assert run(tmp_path / "store.duckdb", lambda moved=moved: moved.go(3).result())[0] == 3
    assert left() == ["3"]


@pytest.mark.parametrize("run_wide", [True, False])
def test_the_run_says_where(tmp_path, run_wide):
    """A run's executor is that of its sync steps, unless one says threads."""
    here = os.getpid()

    @step
    def there():
        return os.getpid()

    @step(executor="threads")
    def inside():
        return os.getpid()

    @step
    async def awaited():
        return os.getpid()

    def program():
        return there(), inside(), awaited.go().result()

    found = run(tmp_path / "s.duckdb", program, executor="process" if run_wide else None)[0]
    assert (found[0] != here) is run_wide
    assert found[1:] == (here, here)


# --- what ends a body ---------------------------------------------------------------------


def _pid_of(path):
    """Wait for a body to leave its process's id."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            return int(Path(path).read_text())
        threading.Event().wait(0.02)
    raise AssertionError("the body did not begin")


def _is_gone(pid):
    """Tell whether a process ends soon."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                return True
        except FileNotFoundError:
            return True
        threading.Event().wait(0.02)
    return False


def sleeper(path):
    """Leave the process's id, and sleep far too long."""
    draft = Path(f"{path}.draft")
    draft.write_text(str(os.getpid()))
    draft.replace(path)
    time.sleep(1000)


def test_a_timeout_ends_the_process(tmp_path):
    """A body that took too long is killed; the step can be tried again, and others go on."""
    path = str(tmp_path / "pid")

    @step(executor="process", timeout=0.3)
    def slow():
        sleeper(path)

    @step(executor="process")
    def quick():
        return 1

    def program():
        outcome = slow.go().outcome()
        return type(outcome.error), quick.go().result()

    assert run(tmp_path / "s.duckdb", program)[0] == (StepTimeoutError, 1)
    assert _is_gone(_pid_of(path))


@pytest.mark.parametrize("how", ["cancel", "race", "error"])
def test_what_is_not_wanted_any_more_is_ended(how, tmp_path):
    """A cancelled step, a race's loser, and what runs when the cell fails: killed."""
    path = str(tmp_path / "pid")

    @step(executor="process")
    def slow():
        sleeper(path)

    @step
    def waits():
        return _pid_of(path)

    def program():
        handle = slow.go()
        if how == "race":
            assert race(handle, waits.go()).index == 1
            return None
        waits()
        if how == "error":
            raise KeyError("the cell")
        handle.cancel()
        return type(handle.outcome().error)

    if how == "error":
        with pytest.raises(KeyError):
            run(tmp_path / "s.duckdb", program)
    else:
        assert run(tmp_path / "s.duckdb", program)[0] in {None, StepCancelledError}
    assert _is_gone(_pid_of(path))


@on("process", "pool", "dask")
def test_a_worker_that_dies(where, tmp_path, effects):
    """The step is tried again by its policy; its neighbours are untouched, or lose no attempt."""
    path, left = effects
    gate = tmp_path / "gate"

    @where.step(retries=1, backoff=0.001)
    def dies(number):
        note(path, f"dies {current_step().attempt}")
        if current_step().attempt == 1:
            deadline = time.monotonic() + 30
            while not gate.exists() and time.monotonic() < deadline:
                time.sleep(0.01)  # in a worker: until the neighbour runs
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    @where.step
    def neighbour(number):
        gate.touch()
        time.sleep(0.6)
        return number, current_step().attempt

    failed = []

    def observe(event):
        if isinstance(event, AttemptFailed):
            failed.append(event.error)

    def program():
        return gather(dies.go(1), neighbour.go(2)).result()

    found = run(tmp_path / "s.duckdb", program, observers=[observe])[0]
    assert found == [1, (2, 1)]
    assert left()[-1] == "dies 2"
    assert len(failed) == 1
    assert "died" in failed[0]
    attempts = queries.query(
        "SELECT s.name, count(*) AS n FROM steps s GROUP BY s.name", tmp_path / "s.duckdb"
    )
    assert len(attempts) == 2


@pytest.mark.parametrize(
    ("how", "said"), [("exit", "exit code 3"), ("kill", "SIGKILL"), ("fault", "SIGSEGV")]
)
def test_a_death_is_named(how, said, tmp_path):
    """Without retries a worker's death is the step's error, and the kernel lives."""

    @step(executor="process")
    def dies():
        if how == "exit":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGSEGV)

    def program():
        return dies.go().outcome().error

    error = run(tmp_path / "s.duckdb", program)[0]
    assert isinstance(error, StepError)
    assert said in str(error)


def test_memory_is_bounded(tmp_path):
    """A body that takes more than it may fails by MemoryError, and the next one has it again."""

    @step(executor="process", memory="600 MiB")
    def takes(megabytes):
        return len(bytearray(megabytes << 20))

    def program():
        return type(takes.go(2000).outcome().error), takes.go(10).result()

    assert run(tmp_path / "s.duckdb", program)[0] == (MemoryError, 10 << 20)


# --- what a body can ask ------------------------------------------------------------------


@on("process", "dask")
def test_what_a_body_outside_can_ask(where, tmp_path):
    """It tells how far it is; it can save and start nothing, and the error says the way out."""

    @where.step
    def far():
        for done in (1, 2, 3):
            current_step().progress(done, 3)
        return "done"

    @where.step
    def saves():
        current_step().save(1)

    @where.step
    def starts():
        return go(len, "abc").result()

    @where.step
    def calls():
        return far()

    seen = []

    def observe(event):
        if isinstance(event, StepProgressed):
            seen.append((event.done, event.total))

    def program():
        value = far.go().result()
        return value, [one.go().outcome().error for one in (saves, starts, calls)]

    value, errors = run(tmp_path / "s.duckdb", program, observers=[observe])[0]
    assert value == "done"
    assert seen[-1] == (3, 3)
    for error in errors:
        assert isinstance(error, NotInRunError)
        assert 'executor="threads"' in str(error)
        assert "%%durable" not in str(error)


@on("process", "dask")
def test_output_is_live(where, tmp_path):
    """What a body prints is there while it runs."""
    path = str(tmp_path / "seen")

    @where.step
    def chatty():
        print("first")
        deadline = time.monotonic() + 30
        while not Path(path).exists() and time.monotonic() < deadline:
            time.sleep(0.01)  # in a worker: until it was shown
        print("second", Path(path).exists())

    class Out(io.StringIO):
        def write(self, text):
            if "first" in text:
                Path(path).touch()
            return super().write(text)

    out = Out()
    with (
        contextlib.redirect_stdout(out),
        workflow("live", store=tmp_path / "s.duckdb"),
    ):
        chatty.go().result()
    assert out.getvalue() == "first\nsecond True\n"


def test_files_that_a_worker_read_are_evidence(tmp_path):
    """A named file that has changed since the run finished makes its step run again."""
    data = tmp_path / "data.txt"
    data.write_text("one")

    @step(executor="process")
    def read(path):
        return Path(path).read_text()

    @step(executor="process")
    def seen(parts):
        return Path(*parts).read_text()

    def program():
        return read.go(str(data)).result(), seen.go(data.parts).result()

    store = tmp_path / "s.duckdb"
    assert run(store, program)[0] == ("one", "one")
    data.write_text("two!")
    value, _, notes = run(store, program)
    assert value == ("two!", "one")
    assert any("data.txt" in note for note in notes)


# --- what can't be sent, or come back -----------------------------------------------------


def test_what_cannot_be_pickled_is_named_first(tmp_path, effects):
    """The error names the argument and the cure, where the step is started, and nothing starts."""
    path, left = effects
    lock = threading.Lock()

    @step(executor="process")
    def takes(number, thing):
        note(path, number)

    @step(executor="process")
    def captures():
        note(path, "captures")
        return lock

    def program():
        said = []
        opened = stack.enter_context(Path(path).open())  # noqa: SIM115 - the stack does
        for start in (
            lambda: takes.go(1, thing=lock),
            lambda: takes.go(1, opened),
            captures.go,
        ):
            try:
                start()
            except EncodeError as error:
                said.append(str(error))
        return said

    with contextlib.ExitStack() as stack:
        thing, file, captured = run(tmp_path / "s.duckdb", program)[0]
    assert "argument `thing` (a _thread.lock) can't be pickled" in thing
    assert 'executor="threads"' in thing
    assert "argument 2" in file
    assert "pass its path" in file
    assert "`lock` (a _thread.lock), which it captures," in captured
    assert left() == []


def test_what_cannot_come_back(tmp_path):
    """A result that can't be pickled is an error that says so; the run goes on."""

    @step(executor="process")
    def locks():
        return threading.Lock()

    error = run(tmp_path / "s.duckdb", lambda: locks.go().outcome().error)[0]
    assert isinstance(error, EncodeError)
    assert "can't come back from a worker" in str(error)


@pytest.mark.parametrize(
    "options",
    [
        {"executor": "processes"},
        {"executor": 3},
        {"executor": "process", "memory": "much"},
        {"executor": "process", "memory": True},
    ],
)
def test_options_that_mean_nothing(options):
    """They are refused where they are set."""
    with pytest.raises(UsageError):
        step(len, **options)


def test_an_async_step_stays_here():
    """It is refused where an executor is set for it."""

    async def waits():
        """Wait."""

    with pytest.raises(UsageError, match="event loop"):
        step(waits, executor="process")


def test_memory_needs_a_process(tmp_path):
    """On threads nobody could bound it."""
    with (
        workflow("memory", store=tmp_path / "s.duckdb"),
        pytest.raises(UsageError, match='executor="process"'),
    ):
        step(len, memory="1 GiB").go("a")


# --- the project's modules ----------------------------------------------------------------


def test_an_edited_module_is_what_runs(tmp_path, monkeypatch):
    """Workers run what the kernel has loaded: anew after a reload; without one it is refused."""
    module = tmp_path / "edited_helper.py"
    module.write_text("def helped(x):\n    return ('old', x)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    edited_helper = importlib.import_module("edited_helper")

    @step(executor="process")
    def asks(number):
        return edited_helper.helped(number)

    store = tmp_path / "s.duckdb"
    try:
        assert run(store, lambda: asks.go(1).result())[0] == ("old", 1)
        module.write_text("def helped(x):\n    return ('edited', x)\n")
        with pytest.raises(UsageError, match="edited and not loaded again"):
            run(store, lambda: asks.go(2).result())
        importlib.reload(edited_helper)
        assert run(store, lambda: asks.go(1).result())[0] == ("edited", 1)
    finally:
        sys.modules.pop("edited_helper", None)


# --- other executors ----------------------------------------------------------------------


def test_threads_of_ones_own(tmp_path):
    """Any executor will do, one of this process, too."""
    here = os.getpid()

    def body(number):
        print("there", number)
        return number, os.getpid()

    streams = sys.stdout, sys.stderr
    with ThreadPoolExecutor(2) as pool:
        mine = step(body, executor=pool)
        value, out, _ = run(tmp_path / "s.duckdb", lambda: mine.map([1, 2, 3]).result())
    assert (sys.stdout, sys.stderr) == streams
    assert value == [(1, here), (2, here), (3, here)]
    assert out == "there 1\nthere 2\nthere 3\n"


def test_an_executor_that_was_ended(tmp_path):
    """One line says so."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    mine = step(len, name="mine", executor=pool)
    error = run(tmp_path / "s.duckdb", lambda: mine.go("a").outcome().error)[0]
    assert isinstance(error, UsageError)
    assert "takes no more work" in str(error)


def test_another_folder(tmp_path, monkeypatch):
    """Workers that don't see the kernel's files get and give what is large in messages."""
    monkeypatch.setattr(Objects, "shared", lambda self: (str(tmp_path / "elsewhere"), "probe"))
    made = []
    monkeypatch.setattr(Objects, "writer", _counted(Objects.writer, made))

    @step(executor="process")
    def doubles(table):
        return table * 2

    def program():
        return float(doubles.go(np.ones(100_000)).result().sum())

    assert run(tmp_path / "s.duckdb", program)[0] == 200_000
    assert made  # the kernel has written the result, and the argument before it knew
    assert run(tmp_path / "s.duckdb", program)[0] == 200_000


def _counted(method, made):
    def counted(self):
        made.append(1)
        return method(self)

    return counted


def test_other_versions_are_refused(tmp_path, monkeypatch):
    """Workers of another Python or nbdurable are refused in one line, and nothing runs."""
    monkeypatch.setattr(remote, "version", lambda: ["CPython", "3.99.1", "7.0"])

    @step(executor="process")
    def body():
        return 1

    error = run(tmp_path / "s.duckdb", lambda: body.go().outcome().error)[0]
    assert isinstance(error, UsageError)
    assert "this kernel CPython 3.99.1 and nbdurable 7.0: give them the same" in str(error)


# --- Dask ---------------------------------------------------------------------------------


@on("dask")
def test_dasks_own_settings_are_passed_on(where, tmp_path):
    """`configure(dask=...)` says on which of the workers bodies run."""
    address = min(where.executor.nthreads())

    @where.step
    def body(number):
        return importlib.import_module("distributed").get_worker().address

    configure(dask={"workers": [address], "priority": 3})
    try:
        found = run(tmp_path / "s.duckdb", lambda: body.map(range(8)).result())[0]
    finally:
        configure(dask=None)
    assert found == [address] * 8


@on("dask")
def test_a_cancelled_body_on_dask_ends(where, tmp_path):
    """Python code is ended where it stands, and its worker is free for others."""
    beats = tmp_path / "beats"

    @where.step
    def beat():
        while True:
            with beats.open("a") as file:
                file.write(".")
            time.sleep(0.01)

    @where.step
    def after(number):
        return number

    @step
    def until_it_beats():
        deadline = time.monotonic() + 30
        while not beats.exists() and time.monotonic() < deadline:
            threading.Event().wait(0.02)

    def program():
        handles = [beat.go(), beat.with_options(name="other").go()]
        until_it_beats()
        for handle in handles:
            handle.cancel()
        return after.map(range(4)).result()

    assert run(tmp_path / "s.duckdb", program)[0] == [0, 1, 2, 3]


def test_no_cluster(tmp_path):
    """One line says that there is none where Dask's setting leads to."""
    dask = importlib.import_module("dask")

    @step(executor="dask")
    def body():
        return 1

    with dask.config.set(
        {
            "scheduler-address": "tcp://127.0.0.1:9",
            "distributed.comm.timeouts.connect": "500ms",
        }
    ):
        error = run(tmp_path / "s.duckdb", lambda: body.go().outcome().error)[0]
    assert isinstance(error, UsageError)
    assert "no cluster of Dask could take it" in str(error)
    assert "\n" not in str(error)


def test_settings_of_dask_that_are_none():
    """They are refused where they are set."""
    with pytest.raises(UsageError, match="resources"):
        configure(dask={"memory": 3})
    with pytest.raises(UsageError):
        configure(dask=3)
    with pytest.raises(UsageError, match="threads"):
        configure(executor="cluster")
