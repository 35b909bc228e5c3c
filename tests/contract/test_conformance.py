"""The requirements of a published suite for durable steps, waits, parallel and map.

The suite is ``aws-durable-execution-conformance-tests`` 1.0.0 on PyPI: 155 requirements
with ids such as 8-11. It drives another system's handlers through that system's
service; here each requirement that says something about nbdurable has a test of its
own, named after what nbdurable does, with the id in its docstring. A *suspension*
there is a death here: the process is killed, and the program run again in a new one.

Not tested, since they say nothing about nbdurable:

- 1-6, 8-15, 9-14, 9-19, 9-20 (a serializer for one operation): values are stored in
  one way, which their own classes can shape; there is nothing to choose.
- 1-17 (a step that crashed is failed at once): a step runs at least once, so what was
  in flight at a death runs again; 1-18 is tested.
- 2-2 (a wait with a name): timers are told apart by their length and their place.
- 2-4 (minutes and hours): times are in seconds; 2-5 shows an hour.
- 8-13, 8-22, 9-10 (stop when more than so many per cent failed), 8-18 (more than N
  failed, or M succeeded): when to stop is what the cell says in its loop over
  ``as_completed``; 8-8, 8-10, 9-7 and 9-9 show such loops.
- 8-12, 9-12 (branches without a record of their own): what is started is what is
  recorded; a branch that starts no steps is one record.

Of some only the half that fits is tested: 8-6 and 9-5 (fail fast: the others go on
here, and are recorded), 1-13 (the default policy: none here).

The other groups of the suite are about what nbdurable does not have: callbacks (4-*,
7-*), calls of other functions (5-*), polling as an operation of its own (6-*, here a
loop of ``sleep`` and a step), plug-ins (10-*). Child contexts (3-*) are steps that
start steps: 8-1, 8-14 and 8-21 go through them, and ``../crash/test_every_commit.py``.
"""

import asyncio
import logging
import os
import signal
import sys

import pytest

from nbdurable import UsageError, after, as_completed, gather, go, select, sleep, step, workflow
from nbdurable.api import open_stores
from nbdurable.events import AttemptFailed
from nbdurable.store import Store
from nbdurable.testing import ManualClock, clock_of_runs


def die_once(probe):
    """Kill the process where a parameter says so, with everything that was begun on disk."""
    if probe.parameters.get("die"):
        step(len)("what is begun goes along with this commit")
        os.kill(os.getpid(), signal.SIGKILL)


def killed_and_resumed(bench, program):
    """Run a program that dies, then again; give what the second run gave and the effects."""
    assert bench.run(program, parameters={"die": True}).killed
    report = bench.run(program)
    assert report.error is None, report.traceback
    assert bench.check()[0] == []
    again = bench.run(program)
    assert again.seen() == report.seen()
    return report.value, dict(bench.effects())


def attempts(bench):
    """Return each attempt of each step: label, number, ending."""
    return bench.rows(
        "SELECT label, attempt, ending FROM nbdurable.attempts ORDER BY started, attempt"
    )


# --- steps ---------------------------------------------------------------------------


def greets(probe):
    """Run one step."""

    def greet(name):
        probe.effect("greet")
        return f"Hello, {name}!"

    return go(greet, "World").result()


def test_a_step_gives_its_value(always_replay, bench):
    """1-1: a step that succeeds at once has one attempt, and its value is handed on."""
    assert always_replay(greets).value == "Hello, World!"
    assert attempts(bench) == [("greet('World')", 1, "value")]


def named(probe):
    """Run one step under a name of its own."""
    return step(str.upper, name="custom_step_name").go("abc").result()


def test_a_step_is_recorded_under_its_name(always_replay, bench):
    """1-2: ``name=`` is what the store and the label know a step by."""
    assert always_replay(named).value == "ABC"
    assert bench.rows("SELECT name, label FROM nbdurable.steps") == [
        ("custom_step_name", "custom_step_name('abc')")
    ]


def chained(probe):
    """Pass what one step returned to the next."""

    def one():
        probe.effect("one")
        return "first"

    def two(before):
        probe.effect("two")
        return f"{before}_second"

    return go(two, go(one).result()).result(), go(two, go(one)).result()


def test_a_step_takes_what_another_returned(always_replay, bench):
    """1-3: the second of two steps gets the first's result, as a value or as its handle."""
    assert always_replay(chained).value == ("first_second", "first_second")
    labels = [label for label, _, _ in attempts(bench)]
    assert labels[0] == "one()"
    assert len(labels) == 4


def nested_value(probe):
    """Return lists in dicts."""

    def build(name, tags):
        return {"user": {"name": name, "tags": tags}, "count": len(tags), "rest": (None, 1.5)}

    return go(build, "Alice", ["admin", "active"]).result()


def test_a_nested_value_comes_back_whole(always_replay):
    """1-4: a value of dicts, lists and mixed types is stored and restored as it was."""
    assert always_replay(nested_value).value == {
        "user": {"name": "Alice", "tags": ["admin", "active"]},
        "count": 2,
        "rest": (None, 1.5),
    }


def nothing(probe):
    """Return nothing."""

    def nothing():
        probe.effect("nothing")

    return [go(nothing).result(), step(nothing)()]


def test_none_is_a_value(always_replay, bench):
    """1-5: a step that returns nothing is recorded, and not run again."""
    assert always_replay(nothing).value == [None, None]
    assert bench.effects() == {"nothing": 2}


def logs(probe):
    """Log inside a step."""

    def greet(name):
        handler = logging.StreamHandler(sys.stdout)
        logger = logging.getLogger(f"greeter of {name}")
        logger.setLevel("INFO")
        logger.addHandler(handler)
        logger.info("greeting %s", name)
        logger.info("greeted %s", name)
        logger.removeHandler(handler)
        return name

    return go(greet, "World").result()


def test_what_a_step_logs_is_shown_once_on_each_pass(always_replay):
    """1-7: a step's log lines are shown when it is received, once, and on replay as well."""
    assert always_replay(logs).stdout == "greeting World\ngreeted World\n"


def step_then_wait(probe):
    """Run a step, then wait; die in the wait, the first time."""

    def compute():
        probe.effect("compute")
        return "computed"

    value = go(compute).result()
    timer = after(0.02)
    die_once(probe)
    timer.result()
    return value


def test_what_finished_before_a_wait_is_not_run_after_it(bench):
    """1-8: resumed in a wait, a run does not repeat the step before it, and the wait ends."""
    assert killed_and_resumed(bench, step_then_wait) == ("computed", {"compute": 1})
    finished = bench.rows("SELECT name FROM nbdurable.steps WHERE status = 'finished'")
    assert {"compute", "after"} <= {name for (name,) in finished}


def value_with_a_trace(probe):
    """Return what tells how often the body has run."""

    def cached():
        return f"value of run {probe.effect('cached')}"

    value = step(cached)()
    timer = after(0.02)
    die_once(probe)
    timer.result()
    return value


def test_a_replayed_step_gives_its_first_value(bench):
    """1-9: on replay the saved value is given; the body, which would give another, is not run."""
    assert killed_and_resumed(bench, value_with_a_trace) == ("value of run 1", {"cached": 1})


def error_before_a_wait(probe):
    """Handle a step's error, then wait; die in the wait, the first time."""

    def fails():
        raise ValueError(f"failure {probe.effect('fails')}")

    try:
        go(fails).result()
    except ValueError as error:
        found = str(error)
    timer = after(0.02)
    die_once(probe)
    timer.result()
    return found


def test_a_replayed_error_is_raised_without_running(bench):
    """1-10: an error that was handled before the death is raised again, and its body not run."""
    assert killed_and_resumed(bench, error_before_a_wait) == ("failure 1", {"fails": 1})


def fails_once(probe):
    """Fail, then succeed."""

    @step(retries=1, backoff=0.001)
    def unreliable():
        if probe.effect("unreliable") == 1:
            raise OSError("for now")
        return "Operation succeeded"

    return unreliable.go().result()


def test_a_failed_attempt_is_followed_by_another(always_replay, bench):
    """1-11: the attempt that failed and the one that succeeded are both on record."""
    assert always_replay(fails_once).value == "Operation succeeded"
    assert attempts(bench) == [("unreliable()", 1, "error"), ("unreliable()", 2, "value")]


def fails_for_good(probe):
    """Fail in every one of four attempts, and let the error end the run."""

    @step(retries=3, backoff=0.001)
    def hopeless():
        raise OSError(f"failure {probe.effect('hopeless')}")

    hopeless.go().result()


def test_when_retries_are_used_up_the_run_fails(bench):
    """1-12: four attempts, all on record; the last one's error is the run's."""
    assert bench.run(fails_for_good).error == "OSError: failure 4"
    assert attempts(bench) == [("hopeless()", number, "error") for number in range(1, 5)]
    assert bench.rows("SELECT status FROM nbdurable.runs") == [("failed",)]


def no_policy(probe):
    """Fail without a policy, and handle it."""

    @step
    def unreliable():
        raise OSError(f"failure {probe.effect('unreliable')}")

    return [str(unreliable.go().outcome().error), unreliable.go().outcome().ok]


def test_without_a_policy_nothing_is_retried(always_replay, bench):
    """1-13: the default is no retry at all: what costs money is not repeated unasked."""
    assert always_replay(no_policy).value == ["failure 1", False]
    assert bench.effects() == {"unreliable": 2}


def test_waits_between_attempts_follow_the_policy(tmp_path):
    """1-14: ``backoff`` doubles up to ``max_backoff``, a little more at random; by a fast clock."""
    events, clock = [], ManualClock()

    @step(retries=3, backoff=2, max_backoff=6)
    def fails():
        raise OSError

    with (
        clock_of_runs(clock),
        workflow("w", store=tmp_path / "store.duckdb", observers=(events.append,)),
    ):
        handle = fails.go()
        while not handle.done():
            clock.advance(0.1)
        assert not handle.outcome().ok
    open_stores.close_stores()
    waits = [event.wait for event in events if isinstance(event, AttemptFailed)]
    assert [int(wait) for wait in waits] == [2, 4, 6]
    assert max(waits) == 6


class TransientError(Exception):
    """An error that may pass."""


def passing_error(probe):
    """Retry on one type of error."""

    @step(retries=2, backoff=0.001, retry_on=TransientError)
    def unreliable():
        if probe.effect("unreliable") == 1:
            raise TransientError
        return "fine"

    return unreliable.go().result()


def test_an_error_of_the_named_type_is_retried(always_replay, bench):
    """1-15: ``retry_on`` names a type, and an error of that type is tried again."""
    assert always_replay(passing_error).value == "fine"
    assert bench.effects() == {"unreliable": 2}


def lasting_error(probe):
    """Retry on another type than what is raised."""

    @step(retries=2, backoff=0.001, retry_on=OSError)
    def unreliable():
        probe.effect("unreliable")
        raise TransientError("lasting")

    unreliable.go().result()


def test_an_error_of_another_type_is_not_retried(bench):
    """1-16: an error that ``retry_on`` doesn't name ends the step, and here the run, at once."""
    assert bench.run(lasting_error).error == "TransientError: lasting"
    assert attempts(bench) == [("unreliable()", 1, "error")]


def dies_in_a_step(probe):
    """Kill the process in a step that has no retries, the first time."""

    def flaky():
        count = probe.effect("flaky")
        probe.event("inside").set()
        if count == 1:
            probe.event("begun on disk").wait(10)
            os.kill(os.getpid(), signal.SIGKILL)
        return f"succeeded on attempt {count}"

    handle = go(flaky)
    probe.event("inside").wait(10)
    step(len)("what is begun goes along with this commit")
    probe.event("begun on disk").set()
    return handle.result()


def test_a_step_in_flight_at_a_death_has_another_attempt(bench):
    """1-18: the attempt that died is on record; the next one counts on, whatever ``retries``."""
    assert bench.run(dies_in_a_step).killed
    assert bench.run(dies_in_a_step).value == "succeeded on attempt 2"
    found = [one for one in attempts(bench) if one[0] == "flaky()"]
    assert found == [("flaky()", 1, "died"), ("flaky()", 2, "value")]
    why = bench.rows("SELECT why FROM nbdurable.steps WHERE name = 'flaky'")
    assert why == [("unfinished",)]


def fails_at_once(probe):
    """Let a step's error end the run."""

    @step
    def fails():
        probe.effect("fails")
        raise ValueError("no")

    fails()


def test_a_steps_error_ends_the_run(bench):
    """1-19: an error that nobody handles ends the run, which has failed."""
    assert bench.run(fails_at_once).error == "ValueError: no"
    assert bench.rows("SELECT status, error FROM nbdurable.executions") == [
        ("failed", "ValueError: no")
    ]
    assert bench.effects() == {"fails": 1}


def falls_back(probe):
    """Handle a step's error with another step."""

    def fails():
        probe.effect("fails")
        raise ValueError("no")

    def instead():
        probe.effect("instead")
        return "fallback_result"

    try:
        return step(fails)()
    except ValueError:
        return step(instead)()


def test_a_handled_error_lets_the_run_go_on(always_replay, bench):
    """1-20: the cell handles the error and goes on with another step; both are on record."""
    assert always_replay(falls_back).value == "fallback_result"
    assert attempts(bench) == [("fails()", 1, "error"), ("instead()", 1, "value")]
    assert bench.rows("SELECT DISTINCT status FROM nbdurable.executions") == [("finished",)]


# --- waits ---------------------------------------------------------------------------


def waits(probe):
    """Wait; die while the time runs, the first time."""
    timer = after(0.5)
    die_once(probe)
    timer.result()
    return "awake"


def test_a_wait_outlives_a_death(bench):
    """2-1: a wait that had begun goes on in the next execution, and is recorded at its end."""
    assert killed_and_resumed(bench, waits) == ("awake", {})
    rows = bench.rows(
        "SELECT c.execution, c.seconds >= 0.5, c.started = s.started FROM nbdurable.checkpoints c "
        "JOIN nbdurable.starts s USING (call, version) WHERE c.name = 'after' AND s.execution = 1"
    )
    assert rows == [(2, True, True)], "it counted from where it began"


def two_waits(probe):
    """Wait twice for the same time, one after the other; die in the second, the first time."""
    sleep(0.01)
    probe.effect("between")
    timer = after(0.5)
    die_once(probe)
    timer.result()
    sleep(0.01)
    return "awake"


def test_waits_of_one_length_are_told_apart(bench):
    """2-3: waits in a row are timers of their own; a resumed run waits only for what is left."""
    value, effects = killed_and_resumed(bench, two_waits)
    assert (value, effects["between"]) == ("awake", 3), "cell code runs on every pass"
    rows = bench.rows(
        "SELECT name, execution FROM nbdurable.checkpoints WHERE name <> 'len' ORDER BY number"
    )
    assert rows == [("sleep", 1), ("after", 2), ("sleep", 2)]


def test_an_hour_is_an_hour(tmp_path):
    """2-5: a long wait is begun at once, recorded with its length, and wakes at its time."""
    clock = ManualClock(5_000.0)
    path = tmp_path / "store.duckdb"
    with clock_of_runs(clock), workflow("w", store=path):
        timer = after(3600)
        clock.advance(3599)
        assert not timer.done()
        clock.advance(1)
        timer.result()
    open_stores.close_stores()
    store = Store.open(path)
    try:
        rows = store.rows("SELECT label, started, seconds FROM nbdurable.checkpoints")
    finally:
        store.close()
    assert rows == [("after(3600)", 5_000.0, 3600.0)]


# --- parallel ------------------------------------------------------------------------


def branches_of_steps(probe):
    """Gather two branches that each run a step."""

    def task(number):
        probe.effect(f"task {number}")
        return f"task-{number}"

    def branch(number):
        probe.effect(f"branch {number}")
        return step(task)(number)

    return gather(go(branch, 1), go(branch, 2)).result()


def test_branches_of_steps(always_replay, bench):
    """8-1: each branch is recorded, and before it the step inside; one at a time, in order."""
    assert always_replay(branches_of_steps, limit=1).value == ["task-1", "task-2"]
    labels = bench.rows("SELECT label FROM nbdurable.checkpoints ORDER BY number")
    assert labels == [("task(1)",), ("branch(1)",), ("task(2)",), ("branch(2)",)]
    assert set(bench.effects().values()) == {1}


def unnamed_branches(probe):
    """Gather two branches without names."""
    return gather([go(lambda: "alpha"), go(lambda: "beta")]).result()


def test_branches_without_names(always_replay):
    """8-2: branches need no names: functions of one name are told apart by order and code."""
    assert always_replay(unnamed_branches, limit=1).value == ["alpha", "beta"]


def named_branches(probe):
    """Gather two branches with names."""
    first = step(lambda: "one", name="first").go()
    second = step(lambda: "two", name="second").go()
    return gather(first, second).result(), gather({"a": second, "b": first}).result()


def test_branches_with_names(always_replay, bench):
    """8-3: branches are recorded under their names; a dict of them gives a dict."""
    assert always_replay(named_branches).value == (["one", "two"], {"a": "two", "b": "one"})
    names = bench.rows("SELECT name FROM nbdurable.steps ORDER BY name")
    assert names == [("first",), ("second",)]


def branches_of_types(probe):
    """Gather values of several types."""
    return gather(go(lambda: "hello"), go(lambda: 42), go(lambda: {"k": "v"})).result()


def test_branches_of_several_types(always_replay):
    """8-4: each branch's value keeps its own type."""
    assert always_replay(branches_of_types, limit=1).value == ["hello", 42, {"k": "v"}]


def no_branches(probe):
    """Gather nothing."""
    return gather().result(), gather([]).result(), gather({}).result()


def test_no_branches(always_replay, bench):
    """8-5: a gather of nothing is there at once, and leaves no record."""
    assert always_replay(no_branches).value == ([], [], {})
    assert bench.rows("SELECT count(*) FROM nbdurable.checkpoints") == [(0,)]


def first_failure(probe):
    """Fail in the second of three branches, which run one at a time."""

    def branch(number):
        probe.effect(f"branch {number}")
        if number == 1:
            raise ValueError(f"branch {number}")
        if number == 2:
            probe.event("failure seen").wait(10)
        return number

    handles = [go(branch, number) for number in range(3)]
    try:
        gather(handles).result()
    except ValueError as error:
        found = str(error)
    probe.event("failure seen").set()
    return found, [handle.outcome().ok for handle in handles]


def test_a_gather_fails_at_once_and_the_others_are_recorded(always_replay, bench):
    """8-6: the first failure ends the gather; the others, begun or not, go on and are recorded."""
    assert always_replay(first_failure, limit=1).value == ("branch 1", [True, False, True])
    endings = [ending for _, _, ending in attempts(bench)]
    assert endings == ["value", "error", "value"]


def failure_unhandled(probe):
    """Let a gather's failure end the run."""

    def branch(number):
        probe.effect(f"branch {number}")
        if number == 0:
            raise ValueError("branch 0")
        probe.event("never").wait(10)

    handles = [go(branch, number) for number in range(2)]
    gather(handles).result()


def test_a_gathers_failure_ends_the_run(bench):
    """8-7: a failure that nobody handles ends the run at once, whatever still runs."""
    assert bench.run(failure_unhandled, limit=1).error == "ValueError: branch 0"
    assert bench.rows("SELECT status FROM nbdurable.runs") == [("failed",)]
    assert bench.rows("SELECT label FROM nbdurable.checkpoints") == [("branch(0)",)]


def enough_successes(probe):
    """Go on as soon as two of five branches have succeeded."""

    def branch(number):
        probe.effect(f"branch {number}")
        if number == 0:
            raise ValueError("branch 0")
        if number > 2:
            probe.event("never").wait(10)
        return number

    found = []
    for ended in as_completed([go(branch, number) for number in range(5)]):
        outcome = ended.outcome()
        if outcome.ok:
            found.append(outcome.value)
        if len(found) == 2:
            break
    return sorted(found)


def test_a_loop_can_stop_at_enough_successes(always_replay, bench):
    """8-8: the cell leaves its loop at the second success; what still runs is let go, for good."""
    assert always_replay(enough_successes, limit=5).value == [1, 2]
    assert set(bench.effects().values()) == {1}
    assert bench.rows("SELECT count(*) FROM nbdurable.checkpoints WHERE kind = 'value'") == [(2,)]


def failures_as_values(probe):
    """Gather everything, failures included."""

    def branch(number):
        probe.effect(f"branch {number}")
        if number == 1:
            raise ValueError(number)
        return number

    handles = [go(branch, number) for number in range(3)]
    return [repr(one) for one in gather(handles, return_exceptions=True).result()]


def test_failures_can_be_gathered_with_the_values(always_replay, bench):
    """8-9: with ``return_exceptions=True`` all branches end, failures stand in their places."""
    assert always_replay(failures_as_values, limit=1).value == ["0", "ValueError(1)", "2"]
    assert len(bench.effects()) == 3


def too_many_failures(probe):
    """Stop at the second failure of four branches, one at a time."""

    def branch(number):
        probe.effect(f"branch {number}")
        if number > 1:
            probe.event("never").wait(10)
        raise ValueError(number)

    failed = []
    for ended in as_completed([go(branch, number) for number in range(4)]):
        failed.append(ended.outcome().error.args)
        if len(failed) == 2:
            break
    return failed


def test_a_loop_can_stop_at_too_many_failures(always_replay, bench):
    """8-10: the cell leaves its loop at the second failure; the rest is neither waited for nor run.

    One at a time: the third branch may have begun by then, the fourth never does.
    """
    assert always_replay(too_many_failures, limit=1).value == [(0,), (1,)]
    assert bench.effects()["branch 3"] == 0


def overtaking(probe):
    """Gather branches that end in another order than they stand in."""

    def branch(number):
        if number == 0:
            probe.event("two ended").wait(10)
        if number == 2:
            probe.event("two ended").set()
        return f"r{number}"

    return gather(go(branch, number) for number in range(3)).result()


def test_results_stand_in_the_order_of_the_branches(always_replay, bench):
    """8-11: two at a time, the first ends after another: results keep the branches' order."""
    assert always_replay(overtaking, limit=2).value == ["r0", "r1", "r2"]
    last = bench.rows("SELECT label FROM nbdurable.checkpoints ORDER BY number")
    assert last[0] == ("branch(1)",)


def wait_in_a_branch(probe):
    """Gather two branches, one of which waits; die in that wait, the first time."""

    def task(number):
        probe.effect(f"task {number}")
        return f"b{number}"

    def branch(number):
        probe.effect(f"branch {number}")
        found = step(task)(number)
        if number == 1:
            timer = after(0.05)
            die_once(probe)
            timer.result()
        return found

    done = go(branch, 0)
    done.result()
    return gather(done, go(branch, 1)).result()


def test_a_resumed_branch_repeats_nothing_that_finished(bench):
    """8-14: killed in one branch's wait, the other branch and the steps inside are not repeated."""
    value, effects = killed_and_resumed(bench, wait_in_a_branch)
    assert value == ["b0", "b1"]
    assert effects == {"task 0": 1, "branch 0": 1, "task 1": 1, "branch 1": 2}


def all_fail(probe):
    """Fail in every branch, and gather that."""

    def branch(number):
        probe.effect(f"branch {number}")
        raise ValueError(number)

    handles = [go(branch, number) for number in range(3)]
    return [error.args for error in gather(handles, return_exceptions=True).result()]


def test_branches_that_all_fail_all_run(always_replay, bench):
    """8-16: where every branch fails, every branch has run, and every error is there."""
    assert always_replay(all_fail, limit=1).value == [(0,), (1,), (2,)]
    assert [ending for _, _, ending in attempts(bench)] == ["error"] * 3


def no_success(probe):
    """Wait for a success that doesn't come."""

    def branch(number):
        probe.effect(f"branch {number}")
        raise ValueError(number)

    try:
        select([go(branch, number) for number in range(3)], success=True).result()
    except ExceptionGroup as group:
        return [error.args for error in group.exceptions]


def test_a_success_that_does_not_come(always_replay):
    """8-17: when no branch succeeds, all have run, and the errors come as one group, in order."""
    assert always_replay(no_success, limit=1).value == [(0,), (1,), (2,)]


@pytest.mark.parametrize("limit", [0, -1, 1.5, "2"])
def test_a_limit_that_can_not_be(tmp_path, limit):
    """8-19: a limit below one, of a run, a step or a map, is refused before anything is begun."""
    with pytest.raises(UsageError, match="limit="):
        workflow("w", store=tmp_path / "store.duckdb", limit=limit)
    assert not (tmp_path / "store.duckdb").exists()
    with pytest.raises(UsageError, match="limit="):
        step(len, limit=limit)
    with workflow("w", store=tmp_path / "store.duckdb") as run:
        with pytest.raises(UsageError, match="limit="):
            step(len).map(["a", "b"], limit=limit)
        assert run.step_count() == 0
    open_stores.close_stores()


def outcomes(probe):
    """Ask branches how they ended."""

    def branch(number):
        if number == 1:
            raise ValueError("one")
        return number

    handles = [go(branch, number) for number in range(3)]
    found = [handle.outcome() for handle in handles]
    return (
        [one.ok for one in found],
        [one.kind.value for one in found],
        [one.value for one in found],
        [repr(one.error) for one in found if not one.ok],
    )


def test_outcomes_tell_how_branches_ended(always_replay):
    """8-20: each branch's outcome tells success and failure, value and error, raising nothing."""
    assert always_replay(outcomes, limit=1).value == (
        [True, False, True],
        ["value", "error", "value"],
        [0, None, 2],
        ["ValueError('one')"],
    )


def gather_in_a_branch(probe):
    """Gather inside a branch of a gather."""

    def inner(number):
        probe.effect(f"inner {number}")
        return f"i{number}"

    def branch():
        return gather(go(inner, 1), go(inner, 2)).result()

    return gather(go(branch)).result()


def test_gathers_nest(always_replay, bench):
    """8-21: a branch's own gather gives it a list, one branch at a time all the same."""
    assert always_replay(gather_in_a_branch, limit=1).value == [["i1", "i2"]]
    assert bench.effects() == {"inner 1": 1, "inner 2": 1}


# --- map -----------------------------------------------------------------------------


def map_of_steps(probe):
    """Run a step for each item."""

    def greet(name):
        probe.effect(f"greet {name}")
        return f"Hello, {name}!"

    def iteration(name):
        return step(greet)(name)

    return step(iteration).map(["World", "Kiro"]).result()


def test_a_map_of_steps(always_replay, bench):
    """9-1: each item's step is recorded before the item, in item order one at a time."""
    assert always_replay(map_of_steps, limit=1).value == ["Hello, World!", "Hello, Kiro!"]
    names = bench.rows("SELECT name FROM nbdurable.checkpoints ORDER BY number")
    assert names == [("greet",), ("iteration",)] * 2


def map_of_values(probe):
    """Double each item."""

    def double(number):
        return number * 2

    return step(double).map([1, 2]).result()


def test_a_map_of_a_plain_function(always_replay, bench):
    """9-2: an item whose function starts no step is one record."""
    assert always_replay(map_of_values, limit=1).value == [2, 4]
    assert len(bench.rows("FROM nbdurable.checkpoints")) == 2


def map_with_places(probe):
    """Use each item's place."""

    def add(place, item):
        return place + item

    items = [10, 20, 30]
    return [
        gather(go(add, place, item) for place, item in enumerate(items)).result(),
        step(lambda pair, start: sum(pair) + start, name="add")
        .map(enumerate(items), start=1)
        .result(),
    ]


def test_a_map_may_use_the_items_places(always_replay):
    """9-3: a place is an argument like any other; what is the same for all is given by name."""
    assert always_replay(map_with_places, limit=1).value == [[10, 21, 32], [11, 22, 33]]


def map_of_nothing(probe):
    """Map over nothing."""
    return step(len).map([]).result()


def test_a_map_of_nothing(always_replay, bench):
    """9-4: no items: an empty list at once, and no record."""
    assert always_replay(map_of_nothing).value == []
    assert bench.rows("SELECT count(*) FROM nbdurable.checkpoints") == [(0,)]


def map_fails_fast(probe):
    """Fail for the second of three items; ask what became of the others."""

    def one(item):
        probe.effect(item)
        if item == "fail":
            raise ValueError(item)
        if item == "last":
            probe.event("failure seen").wait(10)
        return item

    handles = [go(one, item) for item in ("ok", "fail", "last")]
    found = repr(gather(handles).outcome().error)
    probe.event("failure seen").set()
    return found, handles[2].result()


def test_a_map_fails_with_its_first_failure(always_replay, bench):
    """9-5: one item's failure ends the map while others have yet to end; they do, on record."""
    assert always_replay(map_fails_fast, limit=1).value == ("ValueError('fail')", "last")
    assert [ending for _, _, ending in attempts(bench)] == ["value", "error", "value"]


def map_fails(probe):
    """Let an item's failure end the run."""

    def one(item):
        probe.effect(item)
        raise ValueError(item)

    step(one).map(["a", "b"]).result()


def test_a_maps_failure_ends_the_run(bench):
    """9-6: an item's failure that is not handled is the run's error."""
    assert bench.run(map_fails, limit=1).error == "ValueError: a"
    assert bench.rows("SELECT status, error FROM nbdurable.executions") == [
        ("failed", "ValueError: a")
    ]


def map_until_success(probe):
    """Try items until one succeeds."""

    def one(item):
        probe.effect(f"one {item}")
        if item < 2:
            raise ValueError(item)
        if item > 2:
            probe.event("never").wait(10)
        return item

    return select((go(one, item) for item in range(4)), success=True).result()


def test_items_are_tried_until_one_succeeds(always_replay, bench):
    """9-7: the first success of several items is taken, for good; what still runs is let go."""
    assert always_replay(map_until_success, limit=4).value == 2
    assert bench.rows("SELECT winner FROM nbdurable.decisions") == [("one(2)",)]


def map_with_failures(probe):
    """Fail for one of three items, and go on."""

    def one(item):
        probe.effect(f"one {item}")
        return 6 // item

    found = step(one).map([1, 0, 2], return_exceptions=True).result()
    return [one if isinstance(one, int) else type(one).__name__ for one in found]


def test_a_map_can_keep_failures(always_replay, bench):
    """9-8: every item ends, and a failure stands in its item's place."""
    assert always_replay(map_with_failures, limit=1).value == [6, "ZeroDivisionError", 3]
    assert len(bench.effects()) == 3


async def map_until_failures(probe):
    """Stop at the second failure, in a cell that awaits."""

    async def one(item):
        probe.effect(f"one {item}")
        if item > 1:
            await asyncio.Event().wait()
        raise ValueError(item)

    failed = []
    async for ended in as_completed([go(one, item) for item in range(4)]):
        failed.append(ended.outcome().error.args)
        if len(failed) == 2:
            break
    return failed


def test_items_are_given_up_at_too_many_failures(always_replay, bench):
    """9-9: an awaiting loop is left at the second failure; what still runs is stopped, for good."""
    assert always_replay(map_until_failures).value == [(0,), (1,)]
    assert bench.effects() == {f"one {item}": 1 for item in range(4)}


def map_overtaking(probe):
    """Let a later item end before the first."""

    def one(item):
        if item == 0:
            probe.event("two ended").wait(10)
        if item == 2:
            probe.event("two ended").set()
        return f"r{item}"

    return step(one).map(range(3), limit=2).result()


def test_a_maps_results_stand_in_item_order(always_replay):
    """9-11: two at a time, results keep the items' order, whatever order they end in."""
    assert always_replay(map_overtaking).value == ["r0", "r1", "r2"]


def map_with_names(probe):
    """Run each item's step under a name of its own."""

    def ten_times(item):
        return item * 10

    handles = [step(ten_times, name=f"item-{item}").go(item) for item in (1, 2)]
    return gather(handles).result()


def test_a_maps_items_can_have_names(always_replay, bench):
    """9-13: each item is recorded under the name it was given."""
    assert always_replay(map_with_names, limit=1).value == [10, 20]
    names = bench.rows("SELECT name FROM nbdurable.steps ORDER BY name")
    assert names == [("item-1",), ("item-2",)]


def map_waits_inside(probe):
    """Wait for the second item before its step; die in that wait, the first time."""

    def task(item):
        probe.effect(f"task {item}")
        return item

    def iteration(item):
        if item == "r1":
            timer = after(0.05)
            die_once(probe)
            timer.result()
        return step(task)(item)

    first = go(iteration, "r0")
    first.result()
    return gather(first, go(iteration, "r1")).result()


def test_a_map_resumes_in_the_item_it_died_in(bench):
    """9-15: killed in the second item's wait, the first item's step is not repeated."""
    value, effects = killed_and_resumed(bench, map_waits_inside)
    assert value == ["r0", "r1"]
    assert effects == {"task r0": 1, "task r1": 1}


def large_map(probe):
    """Return 70,000 characters for each of four items."""

    def one(item):
        probe.effect(f"one {item}")
        return item * 70_000

    found = step(one).map("abcd").result()
    return [(len(text), set(text)) for text in found]


def test_large_results_come_back_whole(always_replay, bench):
    """9-16: results of hundreds of kilobytes replay as they were."""
    assert always_replay(large_map, limit=1).value == [(70_000, {item}) for item in "abcd"]
    assert set(bench.effects().values()) == {1}


def map_then_wait(probe):
    """Wait after a map; die in the wait, the first time."""

    def upper(item):
        probe.effect(f"upper {item}")
        return item.upper()

    found = step(upper).map("ab").result()
    timer = after(0.02)
    die_once(probe)
    timer.result()
    return found


def test_a_map_before_a_wait_is_not_repeated(bench):
    """9-17: killed in a wait after it, a finished map replays."""
    value, effects = killed_and_resumed(bench, map_then_wait)
    assert (value, effects) == (["A", "B"], {"upper a": 1, "upper b": 1})


def failing_map_then_wait(probe):
    """Wait after a map with a failure that was handled; die in the wait, the first time."""

    def one(item):
        probe.effect(f"one {item}")
        if item == "fail":
            raise ValueError(item)
        return item

    found = step(one).map(["ok", "fail"], return_exceptions=True).result()
    timer = after(0.02)
    die_once(probe)
    timer.result()
    return [str(one) for one in found]


def test_a_map_with_a_failure_is_not_repeated(bench):
    """9-18: killed in a wait after it, a map whose failure was handled replays, failure and all."""
    value, effects = killed_and_resumed(bench, failing_map_then_wait)
    assert (value, effects) == (["ok", "fail"], {"one ok": 1, "one fail": 1})
