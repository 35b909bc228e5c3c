"""Twins of DBOS's tests of Go and Select, and the cases that no engine's suite has.

A program is run, then run again in new processes; each test says what must be the
same. Where a case makes sense for cells that await and cells that don't, it is there
for both. Below, each case and the tests that cover it (``steps``, ``select``, ``async``
and ``errors`` are ``test_steps.py``, ``test_select.py``, ``test_async_cells.py`` and
``test_seen_errors.py`` in this folder, ``interrupted`` is ``test_interrupted_runs.py``,
``crash`` is ``../crash/test_every_commit.py``; no file: this one).

Go and Select, as DBOS for Go tests them:

- Go outside a workflow: steps::test_outside_a_run
- a step's error verbatim: steps::test_error_is_delivered_verbatim,
  test_awaited_errors_are_verbatim
- a hundred Gos in order: steps::test_hundred_steps_in_order, test_hundred_awaited_steps
- ten named Gos recover equal: steps::test_ten_named_steps_recover_equal,
  test_ten_named_awaited_steps
- Select outside a workflow: steps::test_outside_a_run
- an empty Select: steps::test_misuse, test_a_refused_select_records_nothing
- a cancel while blocked records nothing: test_cancelled_while_it_waits,
  interrupted::test_interrupted_while_it_waits
- recover ten times, same result, same rows: test_ten_recoveries
- Go inside a step: steps::test_go_inside_a_step, test_go_inside_an_async_step
- five retries are six runs: steps::test_five_retries_are_six_runs,
  test_awaited_retries_keep_every_error
- a predicate stops retries: steps::test_predicate_stops_retries
- interval defaults: test_retry_waits_by_default, test_no_retries_by_default
- a store's retry does not re-number: test_a_failed_commit_takes_no_number
- a cancelled step runs again on resume: test_cancelled_while_it_waits,
  interrupted::test_an_interrupted_async_step_runs_again
- recording is idempotent: test_one_outcome_one_row, test_an_attempt_ends_once
- timing rows: test_times_are_those_of_the_first_run
- sleep, recovered and cancelled: steps::test_sleep_waits_and_replays,
  ../test_testing.py::test_a_sleep_by_the_clock, test_a_cancelled_sleep_goes_on_where_it_was

From the Rust and Python SDKs:

- replay polls only the winner: select::test_a_loser_without_checkpoint_is_not_started_on_replay,
  test_select_in_an_async_cell[loser never recorded]
- a crash between winner and select: crash::test_killed_at_every_commit[decided_race]
- a losing sleep: test_a_losing_timer
- ten branches: test_ten_branches
- a durable wait for the first, for all, for the first error, with a timeout: test_four_waits
- gather keeps the call order 25 times: test_gather_keeps_the_call_order

No engine's suite has:

- a loser read after the select, not ready: select::test_winner_and_late_loser,
  test_select_in_an_async_cell[late loser]; ready: test_a_loser_that_was_ready
- select in a loop: select::test_select_in_a_loop, test_shrinking_sets,
  test_loops_over_one_set_agree
- the same handle twice: steps::test_misuse, test_a_refused_select_records_nothing
- an error wins: select::test_an_error_wins, test_select_in_an_async_cell[error wins]
- all branches fail: errors::test_all_branches_failed_replays,
  test_select_in_an_async_cell[all fail]
- both ready at once: select::test_both_ready, test_select_in_an_async_cell[both ready]
- the winner last in the list: select::test_winner_and_late_loser, test_ten_branches
- a kill at every commit point: crash::test_killed_at_every_commit,
  test_a_decision_does_not_wait_for_what_is_being_written (the execution after it)
- recovery with the loser unrecorded: select::test_a_deferred_loser_starts_when_asked_for,
  test_an_async_loser_starts_when_asked_for, test_an_edited_loser_of_a_loop_is_left_again
- a loser that finishes after the run succeeded: test_a_loser_that_ends_after_the_run
- a branch added, removed, reordered: select::test_changed_sets; renamed: test_a_renamed_branch
- two same-name calls with swapped arguments: test_swapped_loop_items,
  select::test_swapped_arguments_take_their_values_along
- a winner that can't be pickled: select::test_unpicklable_winner_stays_the_winner,
  test_an_unpicklable_winner_of_an_async_cell
- BaseException and KeyboardInterrupt in one branch: select::test_base_exception_in_a_branch,
  select::test_an_interrupt_is_no_outcome, test_what_is_no_exception_in_an_async_branch

Seen on dbos 3.4.0, shown not to happen here:

- swapped loop items: test_swapped_loop_items
- loops of waits for the first, and as_completed, in another order on replay:
  test_shrinking_sets, test_as_completed_on_ten_replays, test_an_order_that_was_seen_stays
- loops of asyncio's own wait and as_completed over steps:
  test_asyncio_waits.py::test_loops_of_waits_and_as_completed
- an argument mutated in a step, lost on replay: test_an_argument_changed_by_its_step,
  test_a_changed_argument_that_is_returned
"""

import asyncio
import contextlib
import random
import threading

import pytest

from nbdurable import (
    UsageError,
    WaitTimeoutError,
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
from nbdurable.events import AttemptFailed
from nbdurable.records import Kind, RetryPolicy
from nbdurable.steps.attempts import Ending, Running, backoff
from nbdurable.store import Store, check, journal
from nbdurable.testing import ManualClock, clock_of_runs


@pytest.fixture
def ask(tmp_path):
    """Yield a function that asks the store of this process's runs, which must be sound."""

    def rows(query):
        open_stores.close_stores()
        store = Store.open(tmp_path / "store.duckdb")
        try:
            assert check(store) == []
            return store.rows(query)
        finally:
            store.close()

    yield rows
    open_stores.close_stores()


# --- Go ------------------------------------------------------------------------------


async def awaited_error(probe):
    """Await a step that fails, twice."""

    async def refuse():
        probe.effect("refuse")
        raise ValueError("no", 42)

    handle = go(refuse)
    found = []
    for _ in range(2):
        try:
            await handle
        except ValueError as error:
            found.append((type(error).__name__, error.args))
    return found, handle.outcome().error.args


def test_awaited_errors_are_verbatim(always_replay, bench):
    """An async step's error comes as itself, as often as it is awaited."""
    assert always_replay(awaited_error).value == ([("ValueError", ("no", 42))] * 2, ("no", 42))
    assert bench.effects()["refuse"] == 1


async def hundred_awaited(probe):
    """Start a hundred async steps and gather them."""

    async def square(number):
        probe.effect(f"square {number}")
        await asyncio.sleep(0)
        return number * number

    return await gather(go(square, number) for number in range(100))


def test_hundred_awaited_steps(always_replay):
    """A hundred async steps come back in argument order, and replay."""
    assert always_replay(hundred_awaited).value == [n * n for n in range(100)]


async def ten_named_awaited(probe):
    """Start ten async steps under names of their own."""

    async def one(number):
        probe.effect(f"one {number}")
        return number

    return [await step(one, name=f"step{number}").go(number) for number in range(10)]


def test_ten_named_awaited_steps(always_replay, bench):
    """Ten named async steps recover equal, under their names."""
    assert always_replay(ten_named_awaited).value == list(range(10))
    names = bench.rows("SELECT name FROM nbdurable.checkpoints ORDER BY number")
    assert names == [(f"step{number}",) for number in range(10)]


async def go_inside_an_async_step(probe):
    """Start async steps inside async steps."""

    async def leaf(number):
        probe.effect(f"leaf {number}")
        await asyncio.sleep(0)
        return number

    async def parent(number):
        probe.effect(f"parent {number}")
        return sum(await gather(go(leaf, number), go(leaf, number + 1)))

    return await gather(go(parent, 1), go(parent, 2))


def test_go_inside_an_async_step(always_replay, bench):
    """An async body starts steps of its own; equal calls of two parents don't meet."""
    assert always_replay(go_inside_an_async_step).value == [3, 5]
    assert bench.effects()["leaf 2"] == 2


async def awaited_retries(probe):
    """Fail six times, awaiting."""

    @step(retries=5, backoff=0.001)
    async def flaky():
        raise OSError(f"failure {probe.effect('flaky')}")

    try:
        await flaky()
    except OSError as error:
        return str(error), error.__notes__


def test_awaited_retries_keep_every_error(always_replay, bench):
    """Five retries of an async step are six attempts, and each one's error is told."""
    message, notes = always_replay(awaited_retries).value
    assert message == "failure 6"
    assert notes == [f"attempt {n} failed: OSError: failure {n}" for n in range(1, 6)]
    assert bench.effects()["flaky"] == 6


def test_retry_waits_by_default(tmp_path, probe):
    """A retry waits 0.1 s, then twice as long each time, 5 s at most, and a little more at random.

    The run goes by a clock that moves as fast as it is asked to.
    """
    events, clock = [], ManualClock()

    @step(retries=8)
    def fails():
        raise OSError(probe.effect("fails"))

    with (
        clock_of_runs(clock),
        workflow("w", store=tmp_path / "store.duckdb", observers=(events.append,)),
    ):
        handle = fails.go()
        while not handle.done():
            clock.advance(0.01)
        assert isinstance(handle.outcome().error, OSError)
    waits = [event.wait for event in events if isinstance(event, AttemptFailed)]
    least = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert all(low <= wait <= low + 0.025 for wait, low in zip(waits, least, strict=True))
    assert max(waits) == 5.0
    assert probe.count("fails") == 9


def test_waits_between_retries_stay_in_their_bounds():
    """Neither the jitter nor a high attempt number takes a wait past its maximum."""
    policy = RetryPolicy(retries=1000, backoff=2.0, max_backoff=7.0)
    assert 2.0 <= backoff(policy, 1) <= 2.5
    assert 4.0 <= backoff(policy, 2) <= 4.5
    assert {backoff(policy, failed) for failed in (3, 4, 50, 1000)} == {7.0}


def no_retries(probe):
    """Fail, with no option given."""

    @step
    def decorated():
        raise OSError(probe.effect("decorated"))

    def plain():
        raise OSError(probe.effect("plain"))

    return [handle.outcome().error.args for handle in (decorated.go(), go(plain))]


def test_no_retries_by_default(always_replay, bench):
    """A step without options has one attempt."""
    assert always_replay(no_retries).value == [(1,), (1,)]
    assert bench.rows("SELECT max(attempt) FROM nbdurable.attempts") == [(1,)]


def test_a_failed_commit_takes_no_number(tmp_path, probe, ask, monkeypatch):
    """An outcome whose commit failed is handed to nobody; the next one takes the number."""

    def program():
        @step
        def one(number):
            probe.effect(f"one {number}")
            return number

        return [one(number) for number in range(4)]

    def third_fails(moment, _):
        commits.append(moment)
        if commits.count("before") == 4:  # the first commit begins the execution
            raise OSError("no such device")

    commits = []
    monkeypatch.setattr(journal, "commit_hook", third_fails)
    failing = workflow("w", store=tmp_path / "store.duckdb")
    with pytest.raises(Exception, match="no such device"), failing:
        program()
    monkeypatch.setattr(journal, "commit_hook", None)
    with workflow("w", store=tmp_path / "store.duckdb"):
        assert program() == [0, 1, 2, 3]
    assert [probe.count(f"one {number}") for number in range(4)] == [1, 1, 2, 1]
    numbers = ask("SELECT number, label FROM nbdurable.checkpoints ORDER BY number")
    assert numbers == [(number + 1, f"one({number})") for number in range(4)]


def asked_by_many(probe):
    """Ask for one outcome from several threads, and through combinators."""

    def one():
        probe.effect("one")
        return ["one"]

    handle = go(one)
    found = []
    threads = [threading.Thread(target=lambda: found.append(handle.result())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found += gather(handle, handle).result()
    found.append(select(handle, after(60)).result())
    return len(found), all(value is found[0] for value in found), found[0]


def test_one_outcome_one_row(always_replay, bench):
    """However many ask, an outcome is one object and one row."""
    assert always_replay(asked_by_many).value == (11, True, ["one"])
    assert bench.rows("SELECT label, number FROM nbdurable.checkpoints") == [("one()", 1)]


def test_an_attempt_ends_once():
    """A second ending reaches nobody; nor does that of an attempt that was taken away."""
    taken = []
    first, second = Ending(Kind.VALUE, value=1), Ending(Kind.VALUE, value=2)
    running = Running(1, 0.0)
    running.adopt(taken.append)
    running.end(first)
    running.end(second)
    assert taken == [first]
    assert not running.fence(), "it had ended"
    late = Running(1, 0.0)
    late.adopt(taken.append)
    assert late.fence()
    late.end(second)
    assert taken == [first]


def test_times_are_those_of_the_first_run(tmp_path, probe, ask):
    """When a step began and how long it took are told by its first run, not by a replay."""
    probe.clock = ManualClock(1_000.0)

    def takes(seconds):
        probe.clock.advance(seconds)
        if seconds == 3:
            raise OSError("three")
        return seconds

    query = "SELECT label, ending, epoch(started), seconds FROM nbdurable.attempts ORDER BY started"
    expected = [
        ("takes(2.5)", "value", 1_000.0, 2.5),
        ("takes(3)", "error", 1_002.5, 3.0),
        ("takes(0)", "value", 1_005.5, 0.0),
    ]
    for _ in range(2):
        with clock_of_runs(probe.clock), workflow("w", store=tmp_path / "store.duckdb"):
            assert step(takes)(2.5) == 2.5
            assert str(go(takes, 3).outcome().error) == "three"
            assert go(takes, 0).result() == 0
            probe.clock.advance(7)  # between the last step and the end
        assert ask(query) == expected
        probe.clock.advance(50)


def test_a_cancelled_sleep_goes_on_where_it_was(tmp_path, ask):
    """A sleep that was cancelled is not recorded; the resumed run sleeps the rest."""
    clock = ManualClock(1_000.0)

    async def cell(*moves):
        async with workflow("w", store=tmp_path / "store.duckdb"):
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            mover = threading.Thread(target=move, args=(loop, task, moves))
            mover.start()
            await sleep(100)
            mover.join()
            return clock.time()

    def move(loop, task, moves):
        clock.wait_for_timers(1)
        for seconds in moves:
            clock.wait_for_timers(1, timeout=0)  # it still sleeps
            clock.advance(seconds)
        if sum(moves) < 30:
            loop.call_soon_threadsafe(task.cancel)

    with clock_of_runs(clock):
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(cell(20))
        assert ask("SELECT count(*) FROM nbdurable.checkpoints") == [(0,)]
        assert ask("SELECT status FROM nbdurable.executions") == [("interrupted",)]
        assert asyncio.run(cell(79, 1)) == 1_100.0
    assert ask("SELECT label FROM nbdurable.checkpoints") == [("sleep(100)",)]


# --- Select ----------------------------------------------------------------------------


def refused_selects(probe):
    """Misuse select in every way."""
    one = go(len, "ab")
    found = []
    for wrong in ((), ([],), (None,), (1,), (one, one), ([one, None],), (one, "one")):
        try:
            select(*wrong)
        except UsageError as error:
            found.append(str(error).partition(":")[0])
    return found, one.result()


async def refused_selects_awaiting(probe):
    """Misuse select in every way, in a cell that awaits."""
    one = go(len, "ab")
    found = []
    for wrong in ((), ([],), (None,), (1,), (one, one), ([one, None],), (one, "one")):
        try:
            select(*wrong)
        except UsageError as error:
            found.append(str(error).partition(":")[0])
    return found, await one


@pytest.mark.parametrize("program", [refused_selects, refused_selects_awaiting])
def test_a_refused_select_records_nothing(always_replay, bench, program):
    """An empty select, a non-handle or a handle twice is refused, and leaves no row."""
    found, value = always_replay(program).value
    assert len(found) == 7
    assert value == 2
    assert bench.rows("SELECT count(*) FROM nbdurable.decision_log") == [(0,)]
    assert bench.rows("SELECT count(*) FROM nbdurable.checkpoints") == [(1,)]


async def cancelled_in_a_select(probe):
    """Wait in a select whose second branch cancels the cell, the first time."""
    probe.task = asyncio.current_task()

    async def branch(number):
        probe.effect(f"branch {number}")
        if not probe.parameters.get("resumed"):
            if number == 2:
                probe.task.cancel()
            await asyncio.Event().wait()
        return number

    one, two = go(branch, 1), go(branch, 2)
    first = select(one, two)
    await first
    return await gather(one, two)


async def cancelled_in_a_gather(probe):
    """Wait in a gather, one of whose branches cancels the cell the first time."""
    probe.task = asyncio.current_task()

    async def branch(number):
        probe.effect(f"branch {number}")
        if not probe.parameters.get("resumed"):
            if number == 2:
                probe.task.cancel()
            await asyncio.Event().wait()
        return number

    return await gather(go(branch, 1), go(branch, 2))


@pytest.mark.parametrize("program", [cancelled_in_a_select, cancelled_in_a_gather])
def test_cancelled_while_it_waits(bench, program):
    """A cell that is cancelled while it waits records nothing; its steps run again on resume."""
    assert bench.run(program).error == "CancelledError: "
    assert bench.check() == ([], [])
    assert bench.rows("SELECT count(*) FROM nbdurable.decision_log") == [(0,)]
    assert bench.rows("SELECT status FROM nbdurable.executions") == [("interrupted",)]
    assert bench.run(program, parameters={"resumed": True}).value == [1, 2]
    assert bench.effects() == {"branch 1": 2, "branch 2": 2}
    assert bench.run(program).value == [1, 2]
    assert bench.effects() == {"branch 1": 2, "branch 2": 2}
    assert bench.check()[0] == []


def a_bit_of_everything(probe):
    """Use each operation once."""

    @step(retries=2, backoff=0.001)
    def flaky(name):
        if probe.effect(f"flaky {name}") < 2:
            raise OSError("not yet")
        return name

    def fails():
        probe.effect("fails")
        raise KeyError("gone")

    def parent(number):
        probe.effect("parent")
        return go(len, "x" * number).result()

    def loser():
        probe.event("decided").wait(10)
        return "late"

    slow = go(loser)
    handles = [flaky.go(name) for name in "abc"]
    first = select([*handles, slow])
    found = [first.result(), first.winner.label]
    try:
        go(fails).result()
    except KeyError as error:
        found.append(error.args)
    sleep(0.001)
    probe.event("decided").set()
    found += gather(handles).result()
    found += [flaky("in place"), go(parent, 3).result(), slow.result()]
    found.append(select(after(0.001), slow).index)
    return found


def test_ten_recoveries(bench):
    """Ten recoveries give the same result, run nothing, and leave the same rows."""
    tables = "checkpoints", "decision_log", "starts", "attempt_ends", "seen_errors", "codes"
    first = bench.run(a_bit_of_everything)
    assert first.error is None, first.traceback
    effects = bench.effects()
    before = [bench.rows(f"FROM nbdurable.{table} ORDER BY ALL") for table in tables]
    assert all(before[:2])
    for _ in range(10):
        assert bench.run(a_bit_of_everything).seen() == first.seen()
    assert [bench.rows(f"FROM nbdurable.{table} ORDER BY ALL") for table in tables] == before
    assert bench.effects() == effects
    assert bench.check()[0] == []


def losing_timer(probe):
    """Let an hour lose against a step."""
    hour = after(3600)
    first = select(hour, go(len, "ab"))
    return first.index, first.result(), first.winner is hour


async def losing_timer_awaited(probe):
    """Let an hour lose against a step, awaiting."""
    hour = after(3600)
    first = select(hour, go(len, "ab"))
    value = await first
    return first.index, value, first.winner is hour


@pytest.mark.parametrize("program", [losing_timer, losing_timer_awaited])
def test_a_losing_timer(always_replay, bench, program):
    """A timer that lost holds nothing up, is not recorded, and is not armed on replay."""
    assert always_replay(program).value == (1, 2, False)
    assert bench.rows("SELECT label FROM nbdurable.checkpoints") == [("len('ab')",)]
    assert "AttemptStarted" not in bench.run(program).events


def ten_branches(probe):
    """Race ten; the eighth is the one that is let through."""

    def branch(number):
        probe.effect(f"branch {number}")
        if number != 7:
            probe.event("decided").wait(10)
        return number

    handles = [go(branch, number) for number in range(10)]
    first = select(handles)
    found = first.index, first.result(), first.winner is handles[7]
    probe.event("decided").set()
    return found, gather(handles).result()


async def ten_branches_awaited(probe):
    """Race ten async steps; the last one is let through."""
    probe.decided = asyncio.Event()

    async def branch(number):
        probe.effect(f"branch {number}")
        if number != 9:
            await probe.decided.wait()
        return number

    handles = [go(branch, number) for number in range(10)]
    first = select(handles)
    value = await first
    found = first.index, value, first.winner is handles[9]
    probe.decided.set()
    return found, await gather(handles)


@pytest.mark.parametrize(("program", "index"), [(ten_branches, 7), (ten_branches_awaited, 9)])
def test_ten_branches(always_replay, bench, program, index):
    """One of ten wins, wherever it stands; the nine losers are recorded too."""
    report = always_replay(program, limit=10)
    assert report.value == ((index, index, True), list(range(10)))
    assert bench.rows("SELECT winner FROM nbdurable.decisions") == [(f"branch({index})",)]


def four_waits(probe):
    """Wait for the first, with a timeout, for the first error, for all."""

    def gated():
        probe.event("open").wait(10)
        return "slow"

    def fails():
        raise ValueError("failed")

    quick, slow = go(str, "quick"), go(gated)
    found = [select(slow, quick).winner is quick]
    try:
        slow.result(timeout=0.01)
    except WaitTimeoutError:
        found.append("timeout")
    try:
        gather(slow, go(fails)).result()
    except ValueError as error:
        found.append(str(error))
    probe.event("open").set()
    return [*found, gather(quick, slow).result()]


async def four_waits_awaited(probe):
    """Wait for the first, with a timeout, for the first error, for all, awaiting."""
    probe.open = asyncio.Event()

    async def gated():
        await probe.open.wait()
        return "slow"

    async def fails():
        raise ValueError("failed")

    quick, slow, timer = go(str, "quick"), go(gated), after(0.01)
    found = [await select(slow, quick) == "quick"]
    first = select(slow, timer)
    await first
    if first.winner is timer:
        found.append("timeout")
    try:
        await gather(slow, go(fails))
    except ValueError as error:
        found.append(str(error))
    probe.open.set()
    return [*found, await gather(quick, slow)]


@pytest.mark.parametrize("program", [four_waits, four_waits_awaited])
def test_four_waits(always_replay, program):
    """The first, the first error, all, and a timeout are each waited for as the first time."""
    report = always_replay(program)
    assert report.value == [True, "timeout", "failed", ["quick", "slow"]]


def order_kept(probe):
    """Gather four steps, 25 times, that let each other through from the last to the first."""

    def one(turn, number):
        if number < 3:
            probe.event((turn, number + 1)).wait(10)
        probe.event((turn, number)).set()
        return number

    return [gather(go(one, turn, n) for n in range(4)).result() for turn in range(25)]


async def order_kept_awaited(probe):
    """Gather four async steps, 25 times, that let each other through from the last."""
    probe.passed = {}

    async def one(turn, number):
        if number < 3:
            await probe.passed.setdefault((turn, number + 1), asyncio.Event()).wait()
        probe.passed.setdefault((turn, number), asyncio.Event()).set()
        return number

    return [await gather(go(one, turn, n) for n in range(4)) for turn in range(25)]


@pytest.mark.parametrize("program", [order_kept, order_kept_awaited])
def test_gather_keeps_the_call_order(always_replay, bench, program):
    """25 gathers in a row give their results in call order, not in the order of the endings."""
    assert always_replay(program).value == [[0, 1, 2, 3]] * 25
    turned = bench.rows(
        "SELECT count(*) FROM nbdurable.checkpoints a JOIN nbdurable.checkpoints b "
        "ON a.label LIKE 'one(%, 0)' AND b.label = replace(a.label, ', 0)', ', 3)') "
        "WHERE a.number > b.number"
    )
    assert turned[0][0] > 0


# --- what no engine's suite has -----------------------------------------------------------


def ready_loser(probe):
    """Select when both have ended, then read the loser."""
    a, b = go(len, "a"), go(len, "bb")
    gather(a, b).result()
    first = select(a, b)
    return first.index, first.result(), (b if first.winner is a else a).result()


async def ready_loser_awaited(probe):
    """Select when both have ended, then read the loser, awaiting."""
    a, b = go(len, "a"), go(len, "bb")
    await gather(a, b)
    first = select(a, b)
    value = await first
    return first.index, value, await (b if first.winner is a else a)


@pytest.mark.parametrize("program", [ready_loser, ready_loser_awaited])
def test_a_loser_that_was_ready(always_replay, program):
    """A loser that had ended before the select gives its value after it, again and again."""
    index, won, lost = always_replay(program).value
    assert (won, lost) == ((1, 2) if index == 0 else (2, 1))


async def error_wins(probe):
    """Let an async step's error win."""
    probe.decided = asyncio.Event()

    async def fails():
        probe.effect("fails")
        raise ValueError("first")

    async def waits():
        await probe.decided.wait()
        return "late"

    loser = go(waits)
    first = select(loser, go(fails))
    try:
        await first
    except ValueError as error:
        found = str(error)
    probe.decided.set()
    return found, first.winner.name, first.index, await loser


async def all_fail(probe):
    """Fail in every async branch, of a select for the first and of one for a success."""

    async def branch(number):
        probe.effect(f"branch {number}")
        raise ValueError(number)

    one, two = go(branch, 1), go(branch, 2)
    try:
        await select(one, two, success=True)
    except ExceptionGroup as group:
        found = sorted(error.args for error in group.exceptions)
    first = select(one, two)
    try:
        await first
    except ValueError as error:
        return found, error.args == (first.index + 1,)


async def both_ready(probe):
    """Select twice over async steps that have both ended."""
    a, b = go(asyncio.sleep, 0, "a"), go(asyncio.sleep, 0, "b")
    await gather(b, a)
    first, again = select(a, b), select(b, a)
    same = await first == await again
    return same, first.winner is again.winner, first.index + again.index


async def late_loser(probe):
    """Read an async loser that had not ended when it lost."""
    probe.decided = asyncio.Event()

    async def branch(name):
        probe.effect(name)
        if name == "slow":
            await probe.decided.wait()
        return name

    slow, fast = go(branch, "slow"), go(branch, "fast")
    first = select(slow, fast)
    found = [await first, first.index, first.winner is fast]
    probe.decided.set()
    return [*found, await slow]


async def loser_never_recorded(probe):
    """End while the async loser still waits."""

    async def branch(name):
        probe.effect(name)
        if name == "loser":
            await asyncio.Event().wait()
        return name

    return await select(go(branch, "loser"), go(branch, "winner"))


async def in_a_loop(probe):
    """Select in a loop over async steps that let each other through."""
    probe.passed = [asyncio.Event() for _ in range(4)]

    async def one(number):
        probe.effect(f"one {number}")
        if number:
            await probe.passed[number - 1].wait()
        return number

    left = {number: go(one, number) for number in (3, 1, 2, 0)}
    order = []
    while left:
        order.append(await select(left.values()))
        probe.passed[order[-1]].set()
        del left[order[-1]]
    return order


@pytest.mark.parametrize(
    ("program", "value"),
    [
        pytest.param(error_wins, ("first", "fails", 1, "late"), id="error wins"),
        pytest.param(all_fail, ([(1,), (2,)], True), id="all fail"),
        pytest.param(both_ready, (True, True, 1), id="both ready"),
        pytest.param(late_loser, ["fast", 1, True, "slow"], id="late loser"),
        pytest.param(loser_never_recorded, "winner", id="loser never recorded"),
        pytest.param(in_a_loop, [0, 1, 2, 3], id="in a loop"),
    ],
)
def test_select_in_an_async_cell(always_replay, bench, program, value):
    """A cell that awaits its selects gets what one that blocks gets; each body ran once."""
    assert always_replay(program).value == value
    assert set(bench.effects().values()) <= {1}


async def async_loser_asked(probe):
    """Await the async loser, if told to."""

    async def loser():
        if probe.effect("loser") == 1:
            await asyncio.Event().wait()
        return "lost"

    slow = go(loser)
    found = await select(slow, go(len, "ab"))
    return found, await slow if probe.parameters.get("ask") else None


def test_an_async_loser_starts_when_asked_for(bench):
    """An async loser without checkpoint starts on replay once it is awaited; it has still lost."""
    assert bench.run(async_loser_asked).value == (2, None)
    assert bench.run(async_loser_asked, parameters={"ask": True}).value == (2, "lost")
    assert bench.run(async_loser_asked, parameters={"ask": True}).value == (2, "lost")
    assert bench.effects()["loser"] == 2
    assert bench.check()[0] == []


def test_a_loser_that_ends_after_the_run(tmp_path, probe, ask):
    """A loser's body that outlives its run records nothing, and holds nobody up."""

    def program():
        def loser():
            probe.effect("loser")
            probe.threads.append(threading.current_thread())
            probe.event("inside").set()
            probe.event("open").wait(20)
            return probe.count("loser")

        slow = go(loser)
        if not probe.threads:
            probe.event("inside").wait(20)
        found = select(slow, go(len, "ab")).result()
        return (found, slow.result()) if probe.parameters else found

    probe.threads = []
    with workflow("w", store=tmp_path / "store.duckdb"):
        assert program() == 2
    saved = ask("SELECT label FROM nbdurable.checkpoints")
    probe.event("open").set()
    probe.threads[0].join(20)
    assert not probe.threads[0].is_alive()
    assert ask("SELECT label FROM nbdurable.checkpoints") == saved == [("len('ab')",)]
    with workflow("w", store=tmp_path / "store.duckdb"):
        assert program() == 2
    assert probe.count("loser") == 1
    probe.parameters["ask"] = True
    with workflow("w", store=tmp_path / "store.duckdb"):
        assert program() == (2, 2)
    assert ask("SELECT winner FROM nbdurable.decisions") == [("len('ab')",)]


def named_branches(probe):
    """Race two steps whose names are a parameter."""
    names = probe.parameters.get("names", ("fast", "slow"))

    def fast():
        probe.effect("fast")
        return "fast"

    def slow():
        probe.effect("slow")
        if not probe.parameters:
            probe.event("decided").wait(10)
        return "slow"

    handles = step(fast, name=names[0]).go(), step(slow, name=names[1]).go()
    first = select(handles)
    found = first.result(), first.winner.name
    probe.event("decided").set()
    gather(handles).result()
    return found


@pytest.mark.parametrize(
    ("names", "expected", "ran"),
    [
        (("fast", "other"), ("fast", "fast"), {"slow"}),  # what had won is there, and was first
        (("other", "slow"), ("slow", "slow"), {"fast"}),  # the loser's outcome is the older now
    ],
)
def test_a_renamed_branch(bench, names, expected, ran):
    """A renamed branch is another one: it runs, and the race is decided anew by the numbers."""
    assert bench.run(named_branches).value == ("fast", "fast")
    for _ in range(2):
        assert bench.run(named_branches, parameters={"names": names}).value == expected
        assert {name for name, count in bench.effects().items() if count == 2} == ran
    assert bench.run(named_branches).value == ("fast", "fast"), "the old names, the old decision"
    assert sum(bench.effects().values()) == 2 + len(ran)
    assert bench.check()[0] == []


async def unpicklable_winner(probe):
    """Let an async branch win whose result can't be saved."""
    probe.decided = asyncio.Event()

    async def winner():
        probe.effect("winner")
        return threading.Lock()

    async def loser():
        await probe.decided.wait()
        return "loser"

    slow = go(loser)
    first = select(go(winner), slow)
    found = type(await first).__name__, first.winner.name
    probe.decided.set()
    return found, await slow


def test_an_unpicklable_winner_of_an_async_cell(always_replay):
    """An async winner that is not saved runs again on replay, and has still won."""
    report = always_replay(unpicklable_winner, runs_again={"winner"})
    assert report.value == (("lock", "winner"), "loser")


async def no_exceptions(probe):
    """Leave async branches with what is no Exception: they win."""
    probe.left = asyncio.Event()

    async def leaves(kind):
        probe.effect(f"leaves {kind.__name__}")
        raise kind("out")

    async def works():
        await probe.left.wait()
        return "works"

    working = go(works)
    found = []
    for kind in (SystemExit, KeyboardInterrupt):
        leaving = go(leaves, kind)
        first = select(leaving, working)
        try:
            await first
        except BaseException as error:
            found += [first.winner.name, repr(error)]
    probe.left.set()
    return [*found, await working]


def test_what_is_no_exception_in_an_async_branch(always_replay):
    """SystemExit and KeyboardInterrupt of an async branch are outcomes, and win."""
    report = always_replay(no_exceptions)
    ended = ["SystemExit('out')", "KeyboardInterrupt('out')"]
    assert report.value == ["leaves", ended[0], "leaves", ended[1], "works"]


# --- seen on dbos 3.4.0 ---------------------------------------------------------------------


def loop_over_items(probe):
    """Start a step for each item, in an order that is a parameter."""

    def measure(item):
        probe.effect(f"measure {item}")
        return f"data of {item}"

    handles = {item: go(measure, item) for item in probe.parameters.get("items", "abc")}
    found = {item: handle.result() for item, handle in handles.items()}
    return [found[item] for item in "abc"], gather(handles).result() == found


async def loop_over_items_awaited(probe):
    """Await a step for each item, in an order that is a parameter."""

    @step
    async def measure(item):
        probe.effect(f"measure {item}")
        return f"data of {item}"

    found = {item: await measure(item) for item in probe.parameters.get("items", "abc")}
    return [found[item] for item in "abc"], True


@pytest.mark.parametrize("program", [loop_over_items, loop_over_items_awaited])
def test_swapped_loop_items(bench, program):
    """Items in another order keep their data, and nothing runs again."""
    expected = [f"data of {item}" for item in "abc"], True
    for items in ("abc", "bac", "cba", "acb"):
        assert bench.run(program, parameters={"items": items}).value == expected
    assert bench.effects() == {f"measure {item}": 1 for item in "abc"}
    assert bench.check()[0] == []


def shrinking_set(probe):
    """Take the first of what is left, until nothing is; nobody orders the steps."""

    def one(number):
        threading.Event().wait(random.random() * 0.01)
        return number

    left = [go(one, number) for number in range(8)]
    order = []
    while left:
        winner = select(left).winner
        order.append(winner.result())
        left.remove(winner)
    return order


async def shrinking_set_awaited(probe):
    """Take the first async step of what is left, until nothing is."""

    async def one(number):
        await asyncio.sleep(random.random() * 0.01)
        return number

    left = {number: go(one, number) for number in range(8)}
    order = []
    while left:
        order.append(await select(left.values()))
        del left[order[-1]]
    return order


@pytest.mark.parametrize("program", [shrinking_set, shrinking_set_awaited])
def test_shrinking_sets(bench, program):
    """A loop that takes the first of what is left goes in the same order on ten replays."""
    order = bench.run(program).value
    assert sorted(order) == list(range(8))
    assert [bench.run(program).value for _ in range(10)] == [order] * 10
    assert bench.rows("SELECT count(*) FROM nbdurable.decision_log") == [(8,)]
    assert bench.check()[0] == []


def ends_in_any_order(probe):
    """Take steps as they end; nobody orders them."""

    def one(number):
        threading.Event().wait(random.random() * 0.01)
        return number

    return [ended.result() for ended in as_completed(go(one, number) for number in range(8))]


async def ends_in_any_order_awaited(probe):
    """Take async steps as they end; nobody orders them."""

    async def one(number):
        await asyncio.sleep(random.random() * 0.01)
        return number

    handles = [go(one, number) for number in range(8)]
    return [await ended async for ended in as_completed(handles)]


@pytest.mark.parametrize("program", [ends_in_any_order, ends_in_any_order_awaited])
def test_as_completed_on_ten_replays(bench, program):
    """The order in which steps ended is the order on ten replays, with no record of its own."""
    order = bench.run(program).value
    assert sorted(order) == list(range(8))
    assert [bench.run(program).value for _ in range(10)] == [order] * 10
    assert bench.rows("SELECT count(*) FROM nbdurable.decision_log") == [(0,)]
    assert bench.check()[0] == []


def seen_one_by_one(probe):
    """Take the first of what is left, in one of three ways, and say so as it comes."""

    def one(number):
        threading.Event().wait(random.random() * 0.01)
        return number

    left = [go(one, number) for number in range(6)]
    order = []

    def came(handle):
        order.append(handle.result())
        probe.effect(f"pass {probe.parameters['pass']} saw {order[-1]}")
        step(len)("a commit between two ends")

    if probe.parameters["way"] == "as_completed":
        for ended in as_completed(left):
            came(ended)
    while probe.parameters["way"] == "select" and left:
        came(first := select(left).winner)
        left.remove(first)
    if probe.parameters["way"] == "race":
        came(race(left).winner)
    return order


@pytest.mark.parametrize("way", ["as_completed", "select", "race"])
@pytest.mark.parametrize("commit", [3, 4, 6])
def test_an_order_that_was_seen_stays(bench, way, commit):
    """What the cell had seen when it was killed comes in the same order in the next execution."""

    def seen(number):
        start = f"pass {number} saw "
        lines = bench.effects_file.read_text().splitlines()
        return [int(one.removeprefix(start)) for one in lines if one.startswith(start)]

    parameters = {"way": way, "pass": 1}
    first = bench.run(seen_one_by_one, kill=("after", commit), parameters=parameters)
    report = bench.run(seen_one_by_one, parameters={"way": way, "pass": 2})
    assert report.error is None, report.traceback
    assert first.killed or way == "race"  # which has few commits
    assert report.value[: len(seen(1))] == seen(1)
    assert bench.run(seen_one_by_one, parameters={"way": way, "pass": 3}).value == report.value
    assert bench.check()[0] == []


class Blocked:
    """An entry that needs a lock to be written, as outcomes need their run's."""

    def __init__(self, lock):
        self.lock = lock
        self.writing = threading.Event()

    def write(self, batch):
        """Take the lock."""
        self.writing.set()
        with self.lock:
            pass

    def committed(self):
        """Nobody waits."""

    def failed(self, error):
        """Nobody waits."""


def test_a_decision_does_not_wait_for_what_is_being_written(tmp_path):
    """Who holds the run's lock can enqueue while another thread writes what needs that lock.

    A select over what has ended does so; in an execution after a death, bodies write
    their starts at the same time, before the journal has a thread of its own.
    """
    with contextlib.closing(Store.open(tmp_path / "store.duckdb")) as store:
        lock = threading.Lock()
        entry = Blocked(lock)
        store.journal.enqueue(entry, kick=False)
        writer = threading.Thread(target=store.journal.flush)
        kicker = threading.Thread(target=store.journal.kick)
        with lock:
            writer.start()
            assert entry.writing.wait(20)
            kicker.start()
            kicker.join(1)
            stuck = kicker.is_alive()
        writer.join(20)
        kicker.join(20)
        assert not stuck


def two_loops(probe):
    """Leave two loops over one set early, at one place and at another."""
    handles = [go(len, "x" * number) for number in range(3)]
    found = []
    for most in (1, 1, 2):
        order = []
        for ended in as_completed(handles):
            order.append(ended.result())
            if len(order) == most:
                break
        found.append(order)
    return found


def test_loops_over_one_set_agree(always_replay):
    """Loops over one set of handles give one order, and leave a sound store, left early or not."""
    first, second, third = always_replay(two_loops).value
    assert first == second == third[:1]


def edited_loser_of_a_loop(probe):
    """Leave a loop early; the text of what is left behind is a parameter."""
    text = probe.parameters.get("text", "old")

    def loser():
        probe.effect(f"loser {text}")
        probe.event("never").wait(10)
        return text

    for ended in as_completed([go(loser), go(len, "ab")]):
        return ended.label
    return None


def test_an_edited_loser_of_a_loop_is_left_again(bench):
    """After an edit the loop is left anew, for good: a replay does not start the new loser."""
    for text in ("old", "old", "new", "new", "old", "new"):
        assert bench.run(edited_loser_of_a_loop, parameters={"text": text}).value == "len('ab')"
    assert bench.effects() == {"loser old": 1, "loser new": 1}
    assert bench.check()[0] == []


def fills_its_argument(probe):
    """Change an argument in a step that returns nothing."""

    @step
    def fill(box, item):
        probe.effect(f"fill {item}")
        box.append(item)

    box = []
    fill(box, 1)
    go(fill, box, 2).result()
    return box


def test_an_argument_changed_by_its_step(always_replay):
    """A step that changed its argument is not saved, so the change happens on replay too."""
    report = always_replay(fills_its_argument, runs_again={"fill 1", "fill 2"})
    assert report.value == [1, 2]
    assert [note.partition(":")[0] for note in report.notes if "not saved" in note] == [
        "fill([], 1)",
        "fill([1], 2)",
    ]


def returns_its_argument(probe):
    """Change an argument in a step that returns it, and go on with what it returned."""

    @step
    def fill(box, item):
        probe.effect(f"fill {item}")
        box.append(item)
        return box

    return go(fill, fill([], 1), 2).result()


def test_a_changed_argument_that_is_returned(always_replay, bench):
    """A step that returns what it changed is saved, and says to use what it returned."""
    report = always_replay(returns_its_argument)
    assert report.value == [1, 2]
    assert sum("use what it returned" in note for note in report.notes) == 2
    assert bench.effects() == {"fill 1": 1, "fill 2": 1}
