"""CONTRACT sections 1, 2 and 4: steps, go, gather, handles, each live and replayed."""

import asyncio
import contextlib
import sys
import threading
import time

import pytest

from nbdurable import (
    NotInRunError,
    StepTimeoutError,
    UsageError,
    after,
    gather,
    go,
    select,
    sleep,
    step,
    workflow,
)
from nbdurable.api import open_stores
from nbdurable.events import StepFinished
from nbdurable.steps.attempts import explain
from nbdurable.store import Store, check


def hundred_in_order(probe):
    """Start a hundred steps and gather them."""

    def square(number):
        probe.effect(f"square {number}")
        return number * number

    return gather(go(square, number) for number in range(100)).result()


def test_hundred_steps_in_order(always_replay):
    """A hundred concurrent steps come back in argument order, and replay."""
    assert always_replay(hundred_in_order).value == [n * n for n in range(100)]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (KeyError(), "KeyError"),
        (SyntaxError("oh", ("f.py", 3, 2, "x y")), "SyntaxError: oh"),
        (ExceptionGroup("both", [OSError()]), "ExceptionGroup: both (1 sub-exception)"),
    ],
)
def test_an_error_in_one_line(error, line):
    """Class and first line of the message; notes, of earlier attempts, are not the error."""
    error.add_note("attempt 1 failed: OSError: no answer")
    assert explain(error) == line


def test_a_failed_steps_row_names_its_last_error(tmp_path):
    """After retries the view tells the error, not the note about an earlier attempt."""
    events = []

    def refuse():
        raise ValueError("refused")

    with (
        workflow("w", store=tmp_path / "store.duckdb", observers=(events.append,)),
        pytest.raises(ValueError, match="refused"),
    ):
        step(refuse, retries=2, backoff=0.0)()
    open_stores.close_stores()
    assert [one.error for one in events if type(one) is StepFinished] == ["ValueError: refused"]


def ten_named(probe):
    """Start ten steps under names of their own."""

    def one(number):
        probe.effect(f"one {number}")
        return number

    return [step(one, name=f"step{number}").go(number).result() for number in range(10)]


def test_ten_named_steps_recover_equal(always_replay, bench):
    """Ten named steps recover equal, under their names."""
    assert always_replay(ten_named).value == list(range(10))
    names = bench.rows("SELECT name FROM nbdurable.checkpoints ORDER BY number")
    assert names == [(f"step{number}",) for number in range(10)]


def calls_and_awaits_nothing(probe):
    """Call a step: it runs and gives its value."""

    @step
    def add(a, b=2):
        probe.effect("add")
        return a + b

    return add(1), add(1, b=2), add(a=1, b=3)


def test_call_runs_and_gives_the_value(always_replay, bench):
    """A called step gives its value; equal calls are counted as occurrences."""
    assert always_replay(calls_and_awaits_nothing).value == (3, 3, 4)
    assert bench.effects()["add"] == 3


async def async_steps(probe):
    """Run async and sync steps from an async cell."""

    @step
    async def fetch(number):
        probe.effect(f"fetch {number}")
        return number

    @step
    def double(number):
        probe.effect(f"double {number}")
        return 2 * number

    first = await fetch(1)
    handles = [fetch.go(number) for number in range(2, 5)]
    rest = await gather(handles)
    return first, rest, await double.go(5), double(6)


def test_async_steps_in_an_async_cell(always_replay):
    """Async steps are awaited; sync ones run on threads or in place."""
    assert always_replay(async_steps).value == (1, [2, 3, 4], 10, 12)


def async_steps_in_a_sync_cell(probe):
    """Run async steps from a sync cell, on the background loop."""

    async def fetch(number):
        probe.effect(f"fetch {number}")
        return number

    return gather([go(fetch, number) for number in range(5)]).result()


def test_async_steps_in_a_sync_cell(always_replay):
    """A sync cell's async steps run on one background loop."""
    assert always_replay(async_steps_in_a_sync_cell).value == [0, 1, 2, 3, 4]


def errors_verbatim(probe):
    """Catch a step's error twice, with everything it carries."""

    class Refused(Exception):
        def __init__(self, message, *, code):
            super().__init__(message)
            self.code = code

    def refuse():
        probe.effect("refuse")
        raise ValueError("no", 42)

    handle = go(refuse)
    found = []
    for _ in range(2):
        try:
            handle.result()
        except ValueError as error:
            found.append((type(error).__name__, error.args))
    outcome = handle.outcome()
    return found, outcome.kind.value, outcome.ok, outcome.error.args


def test_error_is_delivered_verbatim(always_replay, bench):
    """An error comes as itself, as often as it is asked for, and replays when it was handled."""
    twice = [("ValueError", ("no", 42))] * 2
    assert always_replay(errors_verbatim).value == (twice, "error", False, ("no", 42))
    assert bench.effects()["refuse"] == 1


def five_retries(probe):
    """Fail six times."""

    @step(retries=5, backoff=0.001)
    def flaky():
        count = probe.effect("flaky")
        raise OSError(f"failure {count}")

    try:
        flaky.go().result()
    except OSError as error:
        return str(error), error.__notes__


def test_five_retries_are_six_runs(always_replay, bench):
    """Five retries are six attempts; the error carries the earlier ones as notes."""
    message, notes = always_replay(five_retries).value
    assert message == "failure 6"
    assert notes == [f"attempt {n} failed: OSError: failure {n}" for n in range(1, 6)]
    assert bench.effects()["flaky"] == 6
    attempts = bench.rows("SELECT attempt, ending FROM nbdurable.attempts ORDER BY attempt")
    assert attempts == [(n, "error") for n in range(1, 7)]


def predicate_stops(probe):
    """Stop retrying where a predicate says so; retry only the types asked for."""

    @step(retries=5, backoff=0.001, retry_on=lambda error: "try" in str(error))
    def stops():
        count = probe.effect("stops")
        raise ValueError("try" if count < 3 else "enough")

    @step(retries=5, backoff=0.001, retry_on=OSError)
    def other():
        probe.effect("other")
        raise KeyError("not an OSError")

    found = []
    for one in (stops, other):
        try:
            one()
        except (ValueError, KeyError) as error:
            found.append(repr(error))
    return found


def test_predicate_stops_retries(always_replay, bench):
    """`retry_on` stops retries by predicate and by type."""
    found = always_replay(predicate_stops).value
    assert found == ["ValueError('enough')", "KeyError('not an OSError')"]
    assert bench.effects() == {"stops": 3, "other": 1}


def succeeds_at_last(probe):
    """Fail twice, then succeed."""

    @step(retries=3, backoff=0.001)
    def flaky():
        count = probe.effect("flaky")
        print("attempt", count)
        if count < 3:
            raise OSError("not yet")
        return "done"

    return flaky(), flaky.go().result()


def test_retry_then_success(always_replay):
    """A retried step gives its value; only the final attempt's output counts."""
    report = always_replay(succeeds_at_last)
    assert report.value == ("done", "done")
    assert report.stdout == "attempt 3\nattempt 4\n"


def timed_out_thread(probe):
    """Let an attempt run into its timeout; its late result is nobody's."""

    @step(timeout=0.05)
    def slow():
        probe.effect("slow")
        probe.event("late").wait(10)
        return "late"

    try:
        slow()
    except TimeoutError as error:
        message = str(error)
    probe.event("late").set()
    return message


def test_timeout_of_a_thread(always_replay, bench):
    """A step that takes too long ends with StepTimeoutError, whatever it returns later."""
    assert always_replay(timed_out_thread).value == (
        "slow(): an attempt took longer than its timeout of 0.05 s"
    )
    assert bench.effects()["slow"] == 1


async def timed_out_async(probe):
    """Let an async attempt run into its timeout; a TimeoutError of its own stays its own."""

    @step(timeout=0.05)
    async def slow():
        probe.effect("slow")
        await asyncio.Event().wait()

    @step(timeout=10)
    async def own():
        raise TimeoutError("mine")

    found = []
    for one in (slow, own):
        try:
            await one()
        except TimeoutError as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def test_timeout_of_an_async_step(always_replay):
    """An async timeout is told from a TimeoutError that the body raised."""
    assert always_replay(timed_out_async).value == [
        "StepTimeoutError: slow(): an attempt took longer than its timeout of 0.05 s",
        "TimeoutError: mine",
    ]


def output_in_program_order(probe):
    """Print from concurrent steps that finish in the other order."""

    def first():
        print("first begins")
        probe.event("second done").wait(10)
        print("first ends")
        return 1

    def second():
        print("second")
        probe.event("second done").set()
        return 2

    print("cell begins")
    handles = go(first), go(second)
    print(gather(handles).result())
    go(lambda: print("never asked"))
    print("cell ends")


def test_output_is_delivered_in_program_order(always_replay):
    """No two steps' prints interleave; replay delivers the same text."""
    report = always_replay(output_in_program_order)
    assert report.stdout == (
        "cell begins\nfirst begins\nfirst ends\nsecond\n[1, 2]\ncell ends\nnever asked\n"
    )


def dataflow(probe):
    """Pass handles as arguments, alone and inside containers."""

    def load(name):
        probe.effect(f"load {name}")
        return [name]

    def join(parts, *, extra):
        probe.effect("join")
        return sorted(parts[0] + parts[1]), extra

    def fail():
        raise ValueError("upstream")

    a, b = go(load, "a"), go(load, "b")
    joined = go(join, [a, b], extra={"c": go(load, "c")})
    downstream = go(join, [go(fail), a], extra=None)
    error = downstream.outcome().error
    return joined.result(), repr(error)


def test_handles_as_arguments(always_replay, bench):
    """A handle argument is waited for and replaced; a failed one passes its error on."""
    assert always_replay(dataflow).value == (
        (["a", "b"], {"c": ["c"]}),
        "ValueError('upstream')",
    )
    assert bench.effects() == {"load a": 1, "load b": 1, "load c": 1, "join": 1}


def go_inside_a_step(probe):
    """Start steps inside a step: a namespace of its own."""

    def leaf(number):
        probe.effect(f"leaf {number}")
        print("leaf", number)
        return number

    def parent(number):
        probe.effect(f"parent {number}")
        print("parent", number)
        return sum(gather(go(leaf, number), go(leaf, number + 1)).result())

    return gather(go(parent, 1), go(parent, 2)).result(), parent(3)


def test_go_inside_a_step(always_replay, bench):
    """A step's body may start steps; equal calls of two parents don't meet."""
    report = always_replay(go_inside_a_step, runs_again={"leaf 3", "leaf 4", "parent 3"})
    assert report.value == ([3, 5], 7)
    assert bench.effects()["leaf 2"] == 2


def more_parents_than_threads(probe):
    """Nest so deep that waiting parents alone would use up every thread."""

    def nest(depth):
        return 1 if depth == 0 else 1 + go(nest, depth - 1).result()

    return gather(go(nest, 6) for _ in range(10)).result()


def test_limits_cannot_deadlock(always_replay):
    """A step that waits for others holds no slot."""
    assert always_replay(more_parents_than_threads, limit=2).value == [7] * 10


def handles_are_one_value(probe):
    """Ask a handle twice; change what it gave; give it to a step."""

    def make():
        return [1]

    handle = go(make)
    handle.result().append(2)

    def seen(value):
        return list(value)

    return handle.result() is handle.result(), handle.result(), go(seen, handle).result()


def test_each_step_gets_its_own_decode(always_replay):
    """A handle gives one object to the cell; what a step receives is its own copy."""
    same, value, _ = always_replay(handles_are_one_value).value
    assert same
    assert value == [1, 2]


def sleeps(probe):
    """Sleep."""
    started = time.time()
    sleep(0.1)
    return time.time() - started >= 0.09 or probe.count("slept") > 0 or probe.parameters


def test_sleep_waits_and_replays(bench):
    """A sleep that has ended is not slept again."""
    assert bench.run(sleeps).value is True
    started = time.monotonic()
    assert bench.run(sleeps).value == {}
    assert time.monotonic() - started < 5
    assert len(bench.rows("SELECT 1 FROM nbdurable.checkpoints")) == 1


def returns_nothing_that_pickles(probe):
    """Return a lock."""

    def unpicklable():
        probe.effect("unpicklable")
        return threading.Lock()

    return type(go(unpicklable).result()).__name__


def test_unpicklable_result_is_handed_over(always_replay):
    """A result that can't be pickled reaches the cell, with a note, and runs again on replay."""
    report = always_replay(returns_nothing_that_pickles, runs_again={"unpicklable"})
    assert report.value == "lock"
    assert any("not saved" in note and "lock" in note for note in report.notes)


def test_unpicklable_result_in_strict_mode(bench):
    """Strict mode raises instead."""
    report = bench.run(returns_nothing_that_pickles, strict=True)
    assert report.error.startswith("EncodeError: ")
    assert "unpicklable()" in report.error


@pytest.mark.parametrize(
    ("operation", "call"),
    [
        ("go()", lambda: go(len, [])),
        ("select()", lambda: select(1)),
        ("gather()", gather),
        ("after()", lambda: after(1)),
        ("sleep()", lambda: sleep(1)),
        (".go()", lambda: step(len).go([])),
    ],
)
def test_outside_a_run(operation, call):
    """Outside a run each operation names both ways into one."""
    with pytest.raises(NotInRunError, match=r"%%durable NAME.*workflow\(NAME\)") as caught:
        call()
    assert operation in str(caught.value)


def test_step_outside_a_run_is_a_plain_call():
    """A decorated function called outside a run just runs."""
    assert step(lambda x: x + 1)(1) == 2


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: go(3), "can't be called"),
        (select, "needs at least one handle"),
        (lambda: select(1), "int is not a handle"),
        (lambda: select(None), "NoneType is not a handle"),
        (lambda: select([go(len, [1]), 2]), "int is not a handle"),
        (lambda: gather(go(len, [2]), "x"), "str is not a handle"),
        (lambda: select(*[go(len, [3])] * 2), "given twice"),
        (lambda: after(-1), "0 or more"),
        (lambda: after("soon"), "0 or more"),
        (lambda: bool(go(len, [])), "truth value"),
        (lambda: go(len, []) == 1, "compared"),
        (lambda: go(len, []) + 1, "calculated with"),
        (lambda: 1 + go(len, []), "calculated with"),
        (lambda: go(len, [])[0], "indexed"),
        (lambda: list(go(len, [])), "looped over"),
        (lambda: go(len, []) < 1, "compared"),
        (lambda: int(go(len, [])), "turned into a number"),
        (lambda: go(len, {go(len, [])}), "pass the handle"),
        (lambda: go(generator), "generator function"),
        (lambda: step(generator), "generator function"),
        (lambda: go(lambda: go(len, "ab")).result(), "returned a handle"),
        (lambda: step(len, retires=3), "unknown option 'retires'"),
        (lambda: step(retries=-1)(len), "retries=-1"),
        (lambda: step(timeout=0)(len), "timeout=0"),
        (lambda: step(name="")(len), "name=''"),
        (lambda: step(retry_on=3)(len), "retry_on=3"),
        (lambda: step(key=3)(len), "key=3"),
        (lambda: step(3), "can't be called"),
        (lambda: workflow("inner").__enter__(), "can't contain another"),
    ],
)
def test_misuse(call, says, tmp_path):
    """Misuse is a UsageError that says what is wrong, and the run goes on."""
    with workflow("misuse", store=tmp_path / "store.duckdb"):
        with pytest.raises(UsageError) as caught:
            call()
        assert says in str(caught.value)
        assert go(len, "abc").result() == 3


def generator():
    """Yield: no step can."""
    yield 1


def test_gather_of_nothing(tmp_path):
    """`gather()` of nothing is an empty list; of an empty dict an empty dict."""
    with workflow("empty", store=tmp_path / "store.duckdb"):
        assert gather().result() == []
        assert gather([]).result() == []
        assert gather({}).result() == {}
        assert gather({"a": go(len, "a")}).result() == {"a": 1}


def test_second_execution_is_refused(tmp_path):
    """One execution of a run at a time; the second names the first.

    It comes from a thread that began before: one that the run's code starts belongs to the run.
    """
    store = tmp_path / "store.duckdb"
    found, begun = [], threading.Event()

    def second():
        begun.wait(60)
        try:
            workflow("one", store=store).__enter__()
        except UsageError as error:
            found.append(str(error))

    thread = threading.Thread(target=second)
    thread.start()
    with workflow("one", store=store):
        begun.set()
        thread.join()
    assert found
    assert "one is being executed already, by MainThread" in found[0]


def test_unresolved_handle_after_the_run(tmp_path):
    """A handle that had not ended when its run did says so, and never blocks."""
    gate = threading.Event()
    with workflow("late", store=tmp_path / "store.duckdb"):
        loser = go(gate.wait, 10)
        winner = go(len, "a")
        assert select(loser, winner).winner is winner
    with pytest.raises(NotInRunError, match="had not ended"):
        loser.result()
    assert winner.result() == 1
    gate.set()


def test_looking_starts_and_waits_for_nothing(tmp_path):
    """repr, hash and identity comparison neither wait nor start."""
    gate = threading.Event()
    with workflow("looks", store=tmp_path / "store.duckdb"):
        handle = go(gate.wait, 10)
        assert "gate" not in repr(handle)
        assert repr(handle).startswith("<step Event.wait(")
        same = handle
        assert handle == same
        assert same in {handle, 1}
        assert not handle.done()
        gate.set()


def odd_texts(probe):
    """Use texts that UTF-8 can't hold wherever the store keeps one."""
    odd = "\ud800\0"

    @step(retries=1, backoff=0.001)
    def fails(text):
        print(text.encode("unicode_escape"), odd == text)
        raise ValueError(text)

    def gives(text, **options):
        return [text, options]

    try:
        fails.go(odd).result()
    except ValueError as error:
        found = error.args == (odd,)
    value = go(gives, odd, **{odd: odd}).result()
    return found, value == [odd, {odd: odd}]


def test_texts_that_are_no_utf8(always_replay):
    """A lone surrogate in a value, label, output or error is kept, and stops nothing."""
    assert always_replay(odd_texts).value == (True, True)


def oddly_named(probe):
    """Start functions whose names UTF-8 does not have, and one whose name has a line end."""
    values = []
    for number, name in enumerate(("odd\ud800", "two\nlines", "f.<locals>.odd\udfff")):

        def body(given):
            return given

        body.__qualname__ = body.__name__ = name
        handle = go(body, number)
        values.append((handle.name, handle.label, handle.result()))
        values.append(step(body)(10 + number))
    return values


def test_names_that_are_no_utf8(always_replay):
    """They are escaped, as in a label: such a function is a step like any other."""
    names = ["odd\\ud800", "two\\nlines", "odd\\udfff"]
    assert always_replay(oddly_named).value == [
        value
        for number, name in enumerate(names)
        for value in ((name, f"{name}({number})", number), 10 + number)
    ]


def test_runs_that_begin_at_the_same_moment(tmp_path):
    """Executions of many runs of one store, begun together, don't share a number."""
    barrier = threading.Barrier(8)
    store = tmp_path / "store.duckdb"

    def execute(number):
        barrier.wait()
        with workflow(f"run {number}", store=store):
            assert go(len, "abc").result() == 3

    threads = [threading.Thread(target=execute, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    open_stores.close_stores()
    with contextlib.closing(Store.open(store)) as opened:
        found = opened.rows("SELECT count(*), count(DISTINCT id) FROM nbdurable.execution_log")
        assert found == [(8, 8)]
        assert check(opened) == []


def test_an_observer_that_fails_stops_nothing(tmp_path):
    """A broken view is told nothing more, and said to be broken; the run goes on."""
    told = []

    def broken(event):
        told.append(event)
        raise RuntimeError("broken view")

    observed = workflow("observed", store=tmp_path / "store.duckdb", observers=(broken,))
    with observed:
        assert gather(go(len, "a"), go(len, "ab")).result() == [1, 2]
    assert len(told) == 1
    assert any("broken view" in note for note in observed.notes)


def test_a_thread_that_was_given_up_counts_again_when_it_comes_back(tmp_path):
    """A timed-out body's slot is lent while it hangs, not given away for good."""
    gate, running, most = threading.Event(), [], []

    @step(timeout=0.05)
    def hangs():
        gate.wait(10)

    def counted(number):
        running.append(number)
        most.append(len(running))
        started.wait(0.05)
        running.remove(number)

    started = threading.Event()
    with workflow("limited", store=tmp_path / "store.duckdb", limit=2):
        late = hangs.go()
        with pytest.raises(StepTimeoutError):
            late.result()
        gate.set()
        gather(go(counted, number) for number in range(3)).result()
        most.clear()
        gather(go(counted, number) for number in range(3, 12)).result()
    assert max(most) <= 2


def test_handles_have_no_dict(tmp_path):
    """Threads set attributes of one handle: CPython 3.11 can lose one while it makes a dict."""
    with workflow("slots", store=tmp_path / "store.duckdb"):
        one = go(len, "a")
        for handle in (one, after(0), select(one), gather(one)):
            assert not hasattr(handle, "__dict__")
            handle.result()


def many(probe):
    """Call two steps many times; arguments and code are parameters."""
    shift = probe.parameters.get("shift", 0)
    text = probe.parameters.get("text", "old")

    def shifted(number):
        return number

    def edited(number):
        return text, number

    handles = [go(shifted, number + shift) for number in range(40)]
    handles += [step(edited, name="edited").go(number) for number in range(40)]
    gather(handles).result()


def test_why_many_steps_ran(bench):
    """Each says what changed, the count of what no longer matches is said once."""
    assert bench.run(many).error is None
    report = bench.run(many, parameters={"shift": 1000, "text": "new"})
    told = [note for note in report.notes if "no longer match" in note]
    assert told == ["40 saved outcomes of edited no longer match: text changed"]
    assert "40 saved outcomes were not asked for this time" in report.notes
    found = bench.rows(
        "SELECT name, why, count(*) FROM nbdurable.checkpoints WHERE execution = 2 "
        "GROUP BY ALL ORDER BY ALL"
    )
    assert found == [
        ("edited", "value changed: text", 40),
        ("shifted", "argument changed: number", 40),
    ]
    assert bench.check()[0] == []


def many_fail(probe):
    """Leave many errors that nobody asks for, and a decision that one of them won."""

    def fails(number):
        if probe.effect(f"fails {number}") == 1:
            raise OSError(number)
        return number

    handles = [go(fails, number) for number in range(20)]
    won = select(handles[:2]).winner  # to know who won is to have seen its error
    return won in handles[:2], sum(one.outcome().ok for one in handles[:5])


def test_many_errors_are_tried_again_at_once(bench):
    """What nobody saw is taken out in one go; what was seen stays, with its decision."""
    for seen in (5, 20):
        assert bench.run(many_fail).value == (True, 0)
        assert sum(count == 1 for count in bench.effects().values()) == 25 - seen
    assert bench.rows("SELECT count(*) FROM nbdurable.decision_log") == [(1,)]
    assert bench.check()[0] == []


def test_secrets_are_masked_by_their_parameter(tmp_path):
    """A label masks what goes to a parameter called a secret, wherever it stands."""

    def login(user, password, *, api_key):
        return user

    class Account:
        def open(self, access_token, name):
            return name

    with workflow("secrets", store=tmp_path / "store.duckdb"):
        handle = go(login, "bob", "hunter2", api_key="k")
        assert handle.label == "login('bob', ***, api_key=***)"
        keyed = step(login, key=lambda user, *_, **__: user).go("bob", "hunter2", api_key="k")
        assert keyed.label == "login('bob', ***, api_key=***)"
        assert go(Account().open, "t0ken", "main").label == "Account.open(***, 'main')"


def test_a_retry_predicate_that_raises(tmp_path):
    """The step ends with its own error, and why it was not retried is said."""

    def fails():
        raise OSError("mine")

    def predicate(error):
        raise KeyError("the predicate's")

    run = workflow("predicate", store=tmp_path / "store.duckdb")
    with run:
        outcome = step(fails, retries=1, retry_on=predicate).go().outcome()
    assert outcome.error.args == ("mine",)
    assert any("retry_on raised KeyError" in note for note in run.notes)


def test_a_defect_does_not_leave_the_cell_waiting(tmp_path, monkeypatch):
    """What goes wrong in nbdurable itself as a step ends is raised where it is waited for."""

    def broken(*_):
        raise AssertionError("a defect")

    async def awaited():
        return 1

    monkeypatch.setattr(sys.modules["nbdurable.steps.attempts"], "settle_value", broken)
    for body in (lambda: 1, awaited):
        run = workflow("w", store=tmp_path / "store.duckdb")
        with pytest.raises(AssertionError, match="a defect"), run:
            go(body).result()
