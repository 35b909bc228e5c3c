"""CONTRACT section 2: as_completed, map, limits, recorded clock, ids and draws, sleep until."""

import asyncio
import contextvars
import datetime as dt
import random
import threading
import time
import uuid

import pytest

from nbdurable import (
    UsageError,
    after,
    as_completed,
    gather,
    go,
    now,
    rng,
    select,
    sleep,
    step,
    uuid4,
    workflow,
)
from nbdurable.api import open_stores
from nbdurable.engine.retries import Retries
from nbdurable.store import Store


def in_turn(probe):
    """Let five steps end in an order that is not that of their starts."""
    order = [3, 0, 4, 1, 2]

    def one(number):
        at = order.index(number)
        if at:
            probe.event(order[at - 1]).wait(10)
        return number

    handles = [go(one, number) for number in range(5)]
    found = []
    for handle in as_completed(handles):
        found.append(handle.result())
        probe.event(found[-1]).set()
    return found


def test_as_completed_gives_the_order_of_ends(always_replay):
    """The order in which steps ended is the order on every replay."""
    assert always_replay(in_turn).value == [3, 0, 4, 1, 2]


async def in_turn_async(probe):
    """Iterate in an async cell, over async and sync steps, a timer and a combinator."""

    async def quick():
        return "quick"

    def slow():
        probe.event("timer").wait(10)
        return "slow"

    last = go(slow)
    handles = [last, after(1), go(quick), gather(last)]
    try:
        next(as_completed(handles))
    except UsageError as error:
        refused = "async for" in str(error)
    found = []
    async for handle in as_completed(handles):
        found.append(handle.name)
        if handle.name == "after":
            probe.event("timer").set()
    return refused, found


def test_as_completed_in_an_async_cell(always_replay):
    """`async for` awaits; a plain `for` would block the loop, and says so."""
    assert always_replay(in_turn_async).value == (True, ["quick", "after", "slow", "gather"])


def leaves_early(probe):
    """Leave after the first that is good enough."""

    def one(number):
        probe.effect(f"one {number}")
        if number != 1:
            probe.event("left").wait(10)
        return number

    handles = [go(one, number) for number in range(4)]
    for handle in as_completed(handles):
        found = handle.result()
        if found:
            break
    if probe.parameters.get("let_go"):
        probe.event("left").set()
    return found


def test_leaving_early_makes_losers_of_the_rest(always_replay, bench):
    """The cell does not wait for them, and a replay does not start them."""
    assert always_replay(leaves_early).value == 1
    assert bench.effects() == {f"one {number}": 1 for number in range(4)}


def with_unsaved(probe):
    """Let results that can't be saved come between others."""

    def one(number):
        if number:
            probe.event(number - 1).wait(10)
        return number if number != 1 else threading.Lock()

    handles = [go(one, number) for number in range(3)]
    found = []
    for handle in as_completed(handles):
        found.append(handle.label)
        probe.event(len(found) - 1).set()
    return found


@pytest.mark.timeout(20)
def test_a_loop_may_be_let_go_of_while_a_transaction_is_written(tmp_path):
    """The garbage collector does it in whatever thread, whatever that one holds."""
    with workflow("w", store=tmp_path / "store.duckdb") as run:
        loop = as_completed([go(len, "a"), go(len, "bb")])
        next(loop)
        with run._state.store.journal.lock:
            del loop
    open_stores.close_stores()
    store = Store.open(tmp_path / "store.duckdb")
    try:
        assert store.rows("SELECT label FROM nbdurable.decision_log") == [("as_completed",)]
    finally:
        store.close()


def test_what_was_not_saved_keeps_its_position(always_replay):
    """It runs again on replay, and comes where it came."""
    assert always_replay(with_unsaved).value == ["one(0)", "one(1)", "one(2)"]


def failing_first(probe):
    """Let an error come first, and end the run."""

    def one(number):
        if probe.effect(f"one {number}") == 1 and number == 0:
            raise OSError("for now")
        if number:
            probe.event("failed").wait(10)
        else:
            probe.event("others").wait(10)
        return number

    handles = [go(one, number) for number in range(3)]
    found = []
    for handle in as_completed(handles):
        outcome = handle.outcome()
        found.append(handle.label)
        probe.event("failed").set()
        if len(found) == 2:
            probe.event("others").set()
        if outcome.error is not None and probe.count("ended") == 0:
            others = [one for one in handles if one is not handle]
            gather(others).result()
            probe.effect("ended")
            raise outcome.error
    return found[-1]


def test_a_retried_error_takes_another_position(bench):
    """What is tried again ends later: it comes after what had ended before."""
    assert bench.run(failing_first).error == "OSError: for now"
    for _ in range(2):
        report = bench.run(failing_first)
        assert report.value == "one(0)", report.traceback
    assert bench.effects()["one 0"] == 2
    assert bench.effects()["one 1"] == 1
    assert bench.check()[0] == []


def mapped(probe):
    """Map a step over a list, with what all have in common."""

    @step
    def scaled(number, table, *, factor):
        probe.effect(f"scaled {number}")
        if number == 3:
            raise ValueError(number)
        return table["offset"] + number * factor

    table = {"offset": 100}
    good = scaled.map([1, 2], table=table, factor=10).result()
    mixed = scaled.map([1, 3], table=table, factor=10, return_exceptions=True).result()
    nothing = scaled.map([], table=table, factor=1).result()
    again = scaled.go(2, table=table, factor=10)
    return good, [mixed[0], str(mixed[1])], nothing, again.result()


def test_map(always_replay, bench):
    """Results in the order of the items; a mapped call is the same call as any other."""
    assert always_replay(mapped).value == ([110, 120], [110, "3"], [], 120)
    assert bench.effects() == {"scaled 1": 2, "scaled 2": 2, "scaled 3": 1}


def mapped_by_rows(probe):
    """Map a step over rows of arguments, with what all have in common, and handles among them."""

    @step
    def scaled(number, times, *, table):
        probe.effect(f"scaled {number} {times}")
        if times == 3:
            raise ValueError(times)
        return table["offset"] + number * times

    table = {"offset": 100}
    good = scaled.starmap(zip([1, 2], [10, 20], strict=True), table=table).result()
    rows = ([one, go(int, times)] for one, times in [(1, "4"), (5, "3")])
    mixed = scaled.starmap(rows, table=table, return_exceptions=True, limit=1).result()
    nothing = scaled.starmap([], table=table).result()
    again = scaled.map([1], times=10, table=table)
    return good, [mixed[0], str(mixed[1])], nothing, again.result()


def test_starmap(always_replay, bench):
    """As `map`, with a row of arguments for each call: the same calls, in the order of the rows."""
    assert always_replay(mapped_by_rows).value == ([110, 140], [104, "3"], [], [110])
    assert bench.effects() == {"scaled 1 10": 2, "scaled 2 20": 1, "scaled 1 4": 1, "scaled 5 3": 1}


def test_what_starmap_holds_constant_is_digested_once(tmp_path):
    """As with `map`: one implementation, so what moves under it is noticed, too."""

    @step(version=1)
    def uses(one, two, table):
        return one + two + Counted.looked

    def looked(rows):
        Counted.looked = 0
        with workflow("rows", store=tmp_path / "store.duckdb", new=True):
            uses.starmap([(one, 2) for one in range(rows)], table=Counted()).result()
        return Counted.looked

    few, many = looked(2), looked(8)
    # Each body's start and end looks at it, whatever the digesting at the call.
    assert many - few == 6 * 2


class Counted:
    """A value that counts how often it is looked at."""

    looked = 0

    def __reduce_ex__(self, protocol):
        """Count, and give a state."""
        Counted.looked += 1
        return Counted, ()


def test_what_map_holds_constant_is_digested_once(tmp_path):
    """Once at the start, whatever the number of items; moves are still noticed."""

    @step
    def uses(number, table):
        return number

    with workflow("constants", store=tmp_path / "store.duckdb"):
        table = {"a": [1]}
        assert uses.map(range(3), table=table).result() == [0, 1, 2]
        gate = threading.Event()

        @step(version=1)
        def waits(number, table):
            gate.wait(10)
            table["a"].append(number)
            return number

        handle = waits.map([1], table=table)
        gate.set()
        assert handle.result() == [1]
    assert any("not saved" in note for note in _notes(tmp_path, waits, table))


def _notes(folder, waits, table):
    again = workflow("constants again", store=folder / "store.duckdb")
    with again:
        waits.map([2], table=table).result()
    return again.notes


def most_at_once(folder, start, **options):
    """Run twenty bodies by `start`, and give how many there were at once at the most."""
    lock, running, most = threading.Lock(), [], []

    def body(number):
        with lock:
            running.append(number)
            most.append(len(running))
        threading.Event().wait(0.005)
        with lock:
            running.remove(number)
        return number

    with workflow("limited", store=folder / "store.duckdb", limit=16):
        assert start(body).result() == list(range(20))
    return max(most)


def test_limits(tmp_path):
    """A step's and a map's limit hold, the lower of the two; without one there are many."""

    def mapped(limit, own):
        return lambda body: step(body, version=1, limit=own).map(range(20), limit=limit)

    def started(own):
        return lambda body: gather(step(body, version=1, limit=own).go(n) for n in range(20))

    for number, (start, expected) in enumerate(
        [(mapped(2, None), 2), (mapped(5, 1), 1), (mapped(3, 6), 3), (started(2), 2)]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert most_at_once(folder, start) <= expected
    assert most_at_once(tmp_path, started(None)) > 3


@pytest.mark.parametrize("how", ["threads", "loops", "called", "timed out", "retried"])
def test_a_limits_next_body_begins_after_the_last_outcome(tmp_path, monkeypatch, how):
    """With a limit of one, an outcome is in the queue for the disk before the next body begins."""
    order = []
    began, queued, second = (threading.Event() for _ in range(3))
    concluded = Retries._attempt_failed if how == "retried" else Retries.settled
    options = {
        "timed out": {"timeout": 0.05},
        "retried": {"retries": 1, "backoff": 0.001},
    }.get(how, {})

    def slowly(self, handle, *arguments, **options):
        if handle.label == "one(1)":
            second.wait(0.2)
            order.append("the first has ended")
        return concluded(self, handle, *arguments, **options)

    monkeypatch.setattr(Retries, concluded.__name__, slowly)

    def body(number):
        if number == 2:
            order.append("the second begins")
            second.set()
        else:
            began.set()
            queued.wait(10)
            if how == "timed out":
                second.wait(10)
            elif how == "retried" and not order:
                raise OSError("again")

    @step(limit=1, version=1, **options)
    def one(number):
        body(number)

    @step(name="one", limit=1, version=1)
    async def one_async(number):
        body(number)

    start = one_async if how == "loops" else one

    def start_the_second():
        began.wait(10)
        start.go(2)
        queued.set()

    def start_both():
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(start_the_second,))
        thread.start()
        return (one if how == "called" else start.go)(1)

    async def on_its_own_loop():
        async with workflow("one at a time", store=tmp_path / "store.duckdb"):
            start_both()

    if how == "loops":
        asyncio.run(on_its_own_loop())
    else:
        with workflow("one at a time", store=tmp_path / "store.duckdb"):
            start_both()
            queued.wait(10)
    assert order[:2] == ["the first has ended", "the second begins"]


def test_a_step_that_waits_counts_in_no_limit(tmp_path):
    """A limited step that starts itself and waits for it doesn't wait for ever."""

    @step(limit=1, version=1)
    def countdown(number):
        return number and countdown.go(number - 1).result()

    with workflow("recursive", store=tmp_path / "store.duckdb"):
        assert countdown.go(5).result() == 0
        assert gather(countdown.go(number) for number in range(6, 9)).result() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_map_whose_limit_is_above_its_runs(tmp_path, kind):
    """The run's threads are not exceeded; how they become more is said, once it matters."""

    def item(number):
        return number

    async def item_async(number):
        return number

    body = step(item if kind == "sync" else item_async, name="item", version=1)
    run = workflow("narrow", store=tmp_path / "store.duckdb", limit=2)
    for expected in (kind == "sync", False):
        with run:
            body.map(range(5), limit=4).result()
        said = [note for note in run.notes if "item.map(limit=4)" in note]
        assert bool(said) is expected
    with run:
        body.map(range(7, 9), limit=4).result()  # two at most: nothing is missing
    assert not any("map(limit" in note for note in run.notes)


@pytest.mark.parametrize("how", ["threads", "loops"])
def test_a_maps_limit_counts_what_waits(tmp_path, how):
    """A sub-workflow that waits for its own steps is under way all the same."""
    lock, under_way, most = threading.Lock(), set(), []

    def begins(number):
        with lock:
            under_way.add(number)
            most.append(len(under_way))

    def ends(number):
        with lock:
            under_way.discard(number)
        return number

    @step(version=1)
    def inner(number):
        threading.Event().wait(0.005)
        return number

    @step(version=1)
    def waits(number):
        begins(number)
        return ends(inner.go(number).result())

    @step(version=1)
    async def awaits(number):
        begins(number)
        return ends(await inner.go(number))

    with workflow("wide", store=tmp_path / "store.duckdb", limit=16):
        item = waits if how == "threads" else awaits
        assert item.map(range(20), limit=3).result() == list(range(20))
    assert max(most) == 3


async def limited_async(probe):
    """Run async steps under a limit."""
    running = []

    @step(limit=2, version=1)
    async def one(number):
        running.append(number)
        most = len(running)
        await asyncio.sleep(0.001)
        running.remove(number)
        return most

    return max(await gather(one.go(number) for number in range(10)))


def test_a_limit_of_async_steps(always_replay):
    """Async steps keep to their limit as well."""
    assert always_replay(limited_async).value == 2


def recorded(probe):
    """Take the time, ids and draws."""
    first, second = now(), now()
    ids = uuid4(), uuid4(), uuid4(name="mine")
    draws, other = rng(), rng()
    return (
        first <= second,
        first.tzinfo is not None,
        repr((first, second, ids)),
        len(set(ids)),
        [draws.random(), draws.randrange(10**9), other.random()],
        isinstance(ids[0], uuid.UUID) and isinstance(draws, random.Random),
    )


def test_time_ids_and_draws_are_recorded(always_replay):
    """Every pass gets what the first one got."""
    found = always_replay(recorded).value
    assert found[:2] == (True, True)
    assert found[3] == 3
    assert found[4][0] != found[4][2]
    assert found[5]


def sleeps_until(probe):
    """Sleep until a moment that the first pass recorded."""
    moment = now() + dt.timedelta(seconds=0.05)
    sleep(until=moment)
    sleep(until=moment.timestamp())
    sleep(until=0)
    return time.time() >= moment.timestamp()


def test_sleep_until(always_replay):
    """A moment in the past is no wait; replay waits for nothing."""
    assert always_replay(sleeps_until).value is True


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (sleep, "one of the two"),
        (lambda: sleep(1, until=2), "one of the two"),
        (lambda: sleep(until="noon"), "give a datetime"),
        (lambda: now(name=""), "not empty"),
        (lambda: as_completed(3), "int is not a handle"),
        (lambda: step(len).map([], limit=0), "1 or more"),
        (lambda: step(len, limit=1.5), "a whole number"),
    ],
)
def test_misuse(tmp_path, call, says):
    """Each is a UsageError that says what to give."""
    with workflow("misuse", store=tmp_path / "store.duckdb"), pytest.raises(UsageError, match=says):
        call()


def mixed(probe):
    """Nest what is new in what there was."""

    def one(name):
        if name == "slow":
            probe.event("done").wait(10)
        return name

    slow, fast = go(one, "slow"), go(one, "fast")
    first = select(gather(slow), gather(fast, step(one).map(["x", "y"])))
    found = first.result()
    probe.event("done").set()
    ended = [handle.name for handle in as_completed(gather(slow), first)]
    return found, ended


def test_new_and_old_combinators_nest(always_replay):
    """A map is a gather is a handle."""
    assert always_replay(mixed).value == (["fast", ["x", "y"]], ["select", "gather"])


def long_chain(probe):
    """Chain many more steps than Python nests calls; then one that begins with an error."""

    def add(number):
        return number + 1

    def fails():
        raise ValueError("at the start")

    good, bad = go(add, 0), go(fails)
    for _ in range(1500):
        good, bad = go(add, good), go(add, bad)
    try:
        bad.result()
    except ValueError as error:
        return good.result(), str(error)


def test_a_chain_of_handles_is_as_long_as_it_likes(always_replay):
    """A handle that waits for a handle that waits ... costs no stack."""
    assert always_replay(long_chain).value == (1501, "at the start")
