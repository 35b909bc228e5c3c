"""CONTRACT section 4, asyncio's own waits: the same branches and the same order on every pass.

With the cases that users of other engines report: wait_for, asyncio.wait and as_completed
over durable things decide by wall time on replay (Temporal's Python SDK #429, #518, #533;
loops of ``asyncio_wait`` and ``as_completed`` of DBOS for Python).
"""

import asyncio
import contextlib
import time

import anyio
import pytest

from nbdurable import UsageError, gather, go, step
from nbdurable.inspection.amending import redo

SOON = 0.02
"""What a timeout waits that passes; what ends later waits for an event."""
LONG = 60


@step(version=1)
def held(probe, name):
    """Wait until the program says so."""
    probe.effect(name)
    assert probe.event(name).wait(LONG)
    return name


@step(version=1)
async def quick(probe, name):
    """End at once."""
    probe.effect(name)
    return name


def then(probe, *names):
    """Return a step that is `names[0]`, and lets the next one go on."""

    @step(name="then", version=1)
    async def one(name):
        probe.effect(name)
        while not probe.event(name).is_set():  # noqa: ASYNC110 - set in other threads, too
            await asyncio.sleep(0.001)
        for following in names[names.index(name) + 1 :][:1]:
            probe.event(following).set()
        return name

    return one


async def timeouts(probe):
    """Wait for what ends in time, and for what does not."""
    found = []
    waits = ("wait_for", "timeout", "of a gather", "of a call", "anyio", "move on")
    for number, wait in enumerate(waits):
        handle = held.go(probe, f"{wait}")
        try:
            if wait == "timeout":
                async with asyncio.timeout(SOON):
                    found.append(await handle)
            elif wait == "anyio":
                with anyio.fail_after(SOON):
                    found.append(await handle)
            elif wait == "move on":
                with anyio.move_on_after(SOON) as scope:
                    found.append(await handle)
                found.append(f"{wait}: {scope.cancelled_caught}")
            elif wait == "of a gather":
                both = gather(handle, quick.go(probe, f"quick {number}"))
                found.append(await asyncio.wait_for(both, SOON))
            elif wait == "wait_for":
                found.append(await asyncio.wait_for(handle, SOON))
            else:
                await asyncio.wait_for(asyncio.gather(handle), SOON)
        except TimeoutError:
            found.append(f"{wait}: too late")
        probe.event(wait).set()
        found.append(await handle)
    found.append(await asyncio.wait_for(quick(probe, "in time"), LONG))
    return found


def test_what_timed_out_does_so_again(always_replay):
    """A replayed outcome is there at once, and is waited for as long as it was."""
    assert always_replay(timeouts).value == [
        "wait_for: too late", "wait_for", "timeout: too late", "timeout", "of a gather: too late",
        "of a gather", "of a call: too late", "of a call", "anyio: too late", "anyio",
        "move on: True", "move on", "in time",
    ]  # fmt: skip


async def beside(probe):
    """Let tasks await what ends in the opposite order; each awaits another one then."""
    one = then(probe, "c", "b", "a", "a2", "b2", "c2")
    found = []

    async def follow(name):
        found.append(await one(name))
        found.append(await one(f"{name}2"))

    probe.event("c").set()
    if probe.parameters["how"] == "gather":
        await asyncio.gather(follow("a"), follow("b"), follow("c"))
    elif probe.parameters["how"] == "group":
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(follow(name))
    elif probe.parameters["how"] == "anyio":
        async with anyio.create_task_group() as group:
            for name in "abc":
                group.start_soon(follow, name)
    else:
        queue = asyncio.Queue()

        async def feed(name):
            await queue.put(await one(name))
            await queue.put(await one(f"{name}2"))

        tasks = [asyncio.create_task(feed(name)) for name in "abc"]
        found += [await queue.get() for _ in range(6)]
        await asyncio.gather(*tasks)
    return found


@pytest.mark.parametrize("how", ["gather", "group", "anyio", "queue"])
def test_tasks_go_on_in_the_order_of_outcomes(always_replay, how):
    """Among tasks that wait for handles the lower number goes on first."""
    report = always_replay(beside, parameters={"how": how})
    assert report.value == ["c", "b", "a", "a2", "b2", "c2"]


async def first_of_several(probe):
    """Wait for the first of what is left, until nothing is; then take tasks as they end."""
    one = then(probe, "d", "b", "a", "c")
    probe.event("d").set()
    left, found = {asyncio.create_task(one(name)) for name in "abcd"}, []
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        found += [task.result() for task in done]
    other = then(probe, "z", "x", "y")
    probe.event("z").set()
    found += [await task for task in asyncio.as_completed([other(name) for name in "xyz"])]
    last = then(probe, "s", "p", "r", "q")
    probe.event("s").set()
    done, _ = await asyncio.wait([asyncio.create_task(last(name)) for name in "pqrs"])
    found += [task.result() for task in done]
    return [*found, done.pop().result(), done.pop().result(), len(done)]


def test_loops_of_waits_and_as_completed(always_replay):
    """As DBOS's users write them; there 9 of 10 replays have another order."""
    value = always_replay(first_of_several).value
    assert value == [*"dbac", *"zxy", *"sprq", *"sp", 2]


async def a_wait_times_out(probe):
    """Let asyncio.wait time out over tasks, and a wait for a queue that one of them fills."""
    queue = asyncio.Queue()

    async def fill():
        await queue.put(await held.go(probe, "late"))

    filling = asyncio.create_task(fill())
    beside = asyncio.create_task(quick(probe, "beside"))
    await beside
    done, left = await asyncio.wait([filling, beside], timeout=SOON)
    found = [len(done), len(left)]
    try:
        found.append(await asyncio.wait_for(queue.get(), SOON))
    except TimeoutError:
        found.append("empty")
    probe.event("late").set()
    return [*found, await queue.get()]


def test_a_wait_that_timed_out_does_so_again(always_replay):
    """What had not been given when a timeout passed is not given before it passes again."""
    assert always_replay(a_wait_times_out).value == [1, 1, "empty", "late"]


async def a_group_that_fails(probe):
    """Let one task of a group fail while the other waits."""
    found = []

    async def waits():
        try:
            await held.go(probe, "held")
        except asyncio.CancelledError:
            found.append("cancelled")
            raise

    async def breaks():
        await quick(probe, "quick")
        raise ValueError("broken")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(waits())
            group.create_task(breaks())
    except* ValueError:
        found.append("group")
    probe.event("held").set()
    return found


def test_a_group_cancels_the_same_tasks_again(always_replay):
    """An await that was cancelled is cancelled again, though its outcome is there."""
    assert always_replay(a_group_that_fails).value == ["cancelled", "group"]


async def many_that_are_cancelled(probe):
    """Let one member of a group fail while many wait; they note in which order they hear of it."""
    heard = []

    async def waits(number):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.append(number)
            raise

    async def fails():
        await go(quick, probe, "last")
        raise ValueError("at last")

    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(waits(number))
            group.create_task(fails())
    return heard


def test_a_group_cancels_in_the_order_of_its_tasks(always_replay):
    """Asyncio keeps them in a set, which has an order by address."""
    assert always_replay(many_that_are_cancelled).value == list(range(30))


async def cancels_or_not(probe):
    """Cancel a task that waits for a step, or, edited, wait for that task."""

    async def wait():
        try:
            return await held.go(probe, "held")
        except asyncio.CancelledError:
            return "cancelled"

    task = asyncio.create_task(wait())
    await quick(probe, "quick")
    if probe.parameters["how"] == "cancel":
        task.cancel()
    probe.event("held").set()
    if probe.parameters["how"] != "queue":
        return await task
    queue = asyncio.Queue()
    task.add_done_callback(lambda done: queue.put_nowait(done.result()))
    return await queue.get()


@pytest.mark.parametrize("edited", ["wait", "queue"])
def test_a_program_that_no_longer_cancels_goes_on(bench, edited):
    """When nobody is left who could cancel it, the await gets its outcome, and it is said."""
    first = bench.run(cancels_or_not, parameters={"how": "cancel"})
    assert first.value == "cancelled"
    again = bench.run(cancels_or_not, parameters={"how": edited})
    assert again.value == "held"
    assert any("cancelled in an earlier pass" in note for note in again.notes)
    third = bench.run(cancels_or_not, parameters={"how": edited})
    assert (third.value, [note for note in third.notes if "earlier pass" in note]) == ("held", [])
    assert bench.effects() == {"held": 1, "quick": 1}


async def times_out_among_many(probe):
    """Wait beside tasks that always have another outcome to go on with."""
    over = False

    async def spin(task):
        count = 0
        while not over:
            await quick(probe, f"{task} {count}")
            count += 1

    tasks = [asyncio.create_task(spin(number)) for number in range(10)]
    try:
        async with asyncio.timeout(5 * SOON):
            await asyncio.gather(*tasks)
    except TimeoutError:
        over = True
    await asyncio.gather(*tasks, return_exceptions=True)
    return "too late"


def test_a_timeout_passes_however_much_goes_on(always_replay):
    """Only what had ended before goes on before it."""
    assert always_replay(times_out_among_many).value == "too late"


async def times_out_late(probe):
    """Begin to wait later than the timeout was made, the first time, as on a busy machine."""
    if probe.parameters["how"] == "at a time":
        block = asyncio.timeout_at(asyncio.get_running_loop().time() + 3 * SOON)
    else:
        block = asyncio.timeout(3 * SOON)
    if probe.count("held") == 0:
        time.sleep(4 * SOON)  # noqa: ASYNC251 - a busy machine
    queue = asyncio.Queue()

    async def fill():
        queue.put_nowait(await held.go(probe, "held"))

    task = asyncio.create_task(fill())
    try:
        async with block:
            return await queue.get()
    except TimeoutError:
        return "too late"
    finally:
        probe.event("held").set()
        await task


@pytest.mark.parametrize("how", ["delay", "at a time"])
def test_a_timeout_is_the_same_however_late_its_block_begins(bench, how):
    """It is known by what its code says, not by what was left of it."""
    for _ in range(3):
        report = bench.run(times_out_late, parameters={"how": how})
        assert (report.value, report.error) == ("too late", None)
    assert bench.effects() == {"held": 1}


async def ends_by_a_timeout(probe):
    """Let a timeout end the cell, the first time."""
    if probe.count("held") == 0:
        handle = held.go(probe, "held")
        await asyncio.sleep(0)
    else:
        probe.event("held").set()
        handle = held.go(probe, "held")
    return await asyncio.wait_for(handle, SOON if probe.count("again") == 0 else LONG)


def test_a_timeout_that_ended_the_cell_does_not_stand(bench):
    """As with errors that ended it: the next pass tries again."""
    first = bench.run(ends_by_a_timeout)
    assert first.error.startswith("TimeoutError")
    bench.effects_file.write_text(bench.effects_file.read_text() + "again\n")
    again = bench.run(ends_by_a_timeout)
    assert (again.value, again.error) == ("held", None)
    assert not any("earlier pass" in note for note in again.notes)
    assert bench.rows("SELECT count(*) FROM nbdurable.decision_log") == [(0,)]


async def bounds_a_thread(probe):
    """Bound what another thread does, which takes long in the first pass only."""
    once = probe.count("thread") == 0

    def work():
        probe.effect("thread")
        if once:
            assert probe.event("goes on").wait(LONG)
        return "in time"

    try:
        found = await asyncio.wait_for(asyncio.to_thread(work), 0.5)
    except TimeoutError:
        found = "too late"
    probe.event("goes on").set()
    await quick(probe, "one")
    return found


def test_a_timeout_that_does_not_pass_again_is_told(bench):
    """A thread's work is not recorded: where it ends in time on a later pass, that is said."""
    first = bench.run(bounds_a_thread)
    assert first.value == "too late"
    for _ in range(2):
        again = bench.run(bounds_a_thread)
        assert again.value == "in time"
        assert any("passed in an earlier pass, and not in" in note for note in again.notes)


async def refused(probe):
    """Pass handles to asyncio's waits, and a timeout to its as_completed."""
    handle = quick.go(probe, "one")
    messages = []
    for wait in (
        lambda: asyncio.wait([handle]),
        lambda: asyncio.as_completed([quick(probe, "two")], timeout=LONG),
    ):
        try:
            found = wait()
            await found
        except UsageError as error:
            messages.append(str(error))
    return messages


def test_what_is_not_promised_is_refused(always_replay):
    """Each names what is durable instead."""
    of_wait, of_completed = always_replay(refused).value
    assert "write `select(...)`" in of_wait
    assert "nbdurable's as_completed" in of_completed


async def asks_twice(probe):
    """Await one handle from two tasks, and again when it has ended."""
    one = then(probe, "a", "b")
    probe.event("a").set()
    first, second = one.go("a"), one.go("b")
    found = []

    async def ask(name, handle):
        found.append((name, await handle))
        found.append((name, await handle))

    await asyncio.gather(ask(1, second), ask(2, first), ask(3, second), ask(4, first))
    return found


def test_a_handle_may_be_awaited_by_several_tasks(always_replay):
    """They go on in the order in which they asked."""
    ended = [(2, "a"), (2, "a"), (4, "a"), (4, "a"), (1, "b"), (1, "b"), (3, "b"), (3, "b")]
    assert always_replay(asks_twice).value == ended


async def spins(probe):
    """Wait without ever letting the loop come to rest."""
    handle, turns = go(lambda: probe.effect("body")), 0
    task = asyncio.ensure_future(handle)
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    return task.result(), turns > 0


def test_a_loop_that_never_rests_holds_up_nobody(always_replay):
    """After a number of rounds a task goes on all the same."""
    assert always_replay(spins).value == (1, True)


async def prints_while_it_waits(probe):
    """Wait with a timeout for a step that prints before and after it."""

    def talks():
        print("before")
        assert probe.event("on").wait(LONG)
        print("after")

    handle = go(talks)
    try:
        async with asyncio.timeout(0.2):
            await handle
    except TimeoutError:
        print("too late")
    probe.event("on").set()
    await handle


def test_nothing_is_shown_of_what_times_out(always_replay):
    """Its output comes where it is received, as on replay."""
    report = always_replay(prints_while_it_waits)
    assert report.stdout == "too late\nbefore\nafter\n"


def test_a_redo_takes_out_that_an_await_was_cancelled(bench):
    """What was not awaited any longer is awaited anew, with the step that is made again."""
    bench.run(a_group_that_fails)
    assert bench.rows("SELECT count(*) FROM nbdurable.decision_log") == [(1,)]
    redo("program", ["held"], store=bench.store)
    assert bench.rows("SELECT count(*) FROM nbdurable.decision_log") == [(0,)]
    again = bench.run(a_group_that_fails)
    assert again.value == ["cancelled", "group"]
    assert bench.check()[0] == []
