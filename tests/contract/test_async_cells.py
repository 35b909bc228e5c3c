"""Async cells and steps: whose loop a body runs on, and what would block it."""

import asyncio
import threading

import pytest

from nbdurable import UsageError, gather, go, step


async def sync_step_starts_an_async_one(probe):
    """Start an async step inside a sync step that runs in the cell's own thread."""

    async def inner():
        await asyncio.sleep(0.001)
        probe.effect("inner")
        return 5

    @step
    def outer():
        return go(inner).result()

    return outer()


def test_a_sync_step_may_wait_for_async_steps(always_replay):
    """An async step whose starter can't await runs on a loop of its own: no deadlock."""
    assert always_replay(sync_step_starts_an_async_one).value == 5


async def thread_step_starts_an_async_one(probe):
    """Start async steps from a body on a thread, and others from the cell."""

    async def inner(number):
        await asyncio.sleep(0.001)
        return number, asyncio.get_running_loop() is probe.loop

    def outer():
        return go(inner, 1).result()

    probe.loop = asyncio.get_running_loop()
    return await gather(go(outer), go(inner, 2))


def test_an_async_step_runs_on_the_loop_that_awaits_it(always_replay):
    """The cell's async steps run on the cell's loop, those of a thread's body elsewhere."""
    assert always_replay(thread_step_starts_an_async_one).value == [(1, False), (2, True)]


async def argument_in_flight(probe):
    """Call a sync step in place with a handle that was not awaited; then with one that was."""

    async def inner():
        await asyncio.sleep(0.001)
        return 5

    @step
    def add(number):
        return number + 1

    handle = go(inner)
    try:
        add(handle)
    except UsageError as error:
        refused = str(error)
    await handle
    return refused, add(handle)


def test_a_call_in_place_does_not_wait_for_its_arguments(always_replay):
    """It would block the loop, so it is refused, on replay too, with the way out."""
    refused, value = always_replay(argument_in_flight).value
    assert "write `await " in refused
    assert value == 6


async def waits_inside_a_body(probe):
    """Wait, in a sync step of the cell's thread, for an async step of the cell's loop."""

    async def inner():
        await asyncio.sleep(0.001)
        return 5

    handle = go(inner)

    @step(version=1)  # else the handle in its closure is refused
    def outer():
        return handle.result()

    try:
        return outer()
    except UsageError as error:
        return str(error)


def test_a_body_does_not_block_the_loop_that_it_waits_for(always_replay):
    """A wait that could never end is refused, wherever it stands."""
    assert "would block" in always_replay(waits_inside_a_body).value


async def hundreds(probe):
    """Start more async steps than may be under way at once, and some that wait for others."""

    async def leaf(number):
        await asyncio.sleep(0)
        return number

    async def parent(number):
        return sum(await gather(go(leaf, number), go(leaf, -number)))

    return sum(await gather(go(parent, number) for number in range(150)))


def test_more_async_steps_than_slots(always_replay):
    """A coroutine that waits for others gives its slot away: limits can't deadlock."""
    assert always_replay(hundreds).value == 0


def bound_elsewhere():
    """Return what awaits one of asyncio's things, by name, each in use on a loop of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def bind():
        lock, event, queue = asyncio.Lock(), asyncio.Event(), asyncio.Queue()
        semaphore, future = asyncio.Semaphore(0), asyncio.get_running_loop().create_future()
        await lock.acquire()
        awaits = {
            "lock": lock.acquire,
            "event": event.wait,
            "queue": queue.get,
            "semaphore": semaphore.acquire,
        }
        kept = [asyncio.ensure_future(wait()) for wait in awaits.values()]
        await asyncio.sleep(0)
        return {
            **awaits,
            "future": lambda: future,
            "task": lambda: kept[0],
            "wait_for": lambda: asyncio.wait_for(future, 1),
        }

    return asyncio.run_coroutine_threadsafe(bind(), loop).result(10)


CLOSED = asyncio.new_event_loop()
CLOSED.close()


async def closed():
    """Use a loop that has been closed."""
    CLOSED.call_soon(print)


async def in_a_group():
    """Fail in a task group, with a cause."""

    async def wrapped():
        try:
            await closed()
        except RuntimeError as error:
            raise OSError("no connection") from error

    async with asyncio.TaskGroup() as group:
        group.create_task(wrapped())


async def unrelated():
    """Fail otherwise."""
    raise RuntimeError("something else")


def failing(awaits):
    """Start a step for each of what fails; give the names and the handles."""

    @step(version=1, key=lambda name: name)
    async def use(name):
        await awaits[name]()

    return list(awaits), [use.go(name) for name in awaits]


def notes_of(names, outcomes):
    """Return what was noted, of each error."""
    return {
        name: getattr(outcome.error, "__notes__", [])
        for name, outcome in zip(names, outcomes, strict=True)
    }


def elsewhere():
    """Return what fails on another loop, and what fails for another reason."""
    return {
        **bound_elsewhere(), "closed": closed, "group": in_a_group, "unrelated": unrelated
    }  # fmt: skip


def another_loop_in_a_sync_cell(probe):
    """Use, in async steps of a cell that does not await, what is bound to another loop."""
    names, handles = failing(elsewhere())
    return notes_of(names, [handle.outcome() for handle in handles])


async def another_loop_in_an_async_cell(probe):
    """Use it in async steps of a cell that awaits."""
    names, handles = failing(elsewhere())
    await gather(handles, return_exceptions=True)
    return notes_of(names, [handle.outcome() for handle in handles])


@pytest.mark.parametrize(
    ("program", "where"),
    [
        (another_loop_in_a_sync_cell, "use('{}') ran on nbdurable's background event loop"),
        (another_loop_in_an_async_cell, "use('{}') ran on the event loop of the code that started"),
    ],
    ids=["sync", "async"],
)
def test_an_error_about_another_loop_says_where_the_step_ran(always_replay, program, where):
    """The error is as asyncio raised it, with one note, live and replayed; others get none."""
    found = always_replay(program).value
    assert found.pop("unrelated") == []
    assert len(found) == 9
    for name, notes in found.items():
        assert [note[: len(where.format(name))] for note in notes] == [where.format(name)]
        assert "make it inside the step; or " in notes[0]


def another_loop_twice(probe):
    """Fail twice with the very same error."""
    error = RuntimeError("Event loop is closed")

    @step(version=1, retries=1, backoff=0.001)
    async def use():
        raise error

    return use.go().outcome().error.__notes__


def test_a_retry_notes_it_once(always_replay):
    """One error that is raised twice has one note, beside that of the earlier attempt."""
    loop, attempt = always_replay(another_loop_twice).value
    assert loop.startswith("use() ran on")
    assert attempt.startswith("attempt 1 failed")


async def kept_by_the_cell(probe):
    """Use a lock of the cell's own in its async steps: they share its loop."""
    lock = asyncio.Lock()

    @step(version=1)
    async def use(number):
        async with lock:
            await asyncio.sleep(0.001)
        return number

    return sum(await use.map(range(5)))


def test_in_a_cell_that_awaits_steps_share_its_loop(always_replay):
    """What the note promises: there a cell's lock holds its steps apart."""
    assert always_replay(kept_by_the_cell).value == 10
