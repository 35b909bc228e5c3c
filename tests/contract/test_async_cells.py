"""Async cells and steps: whose loop a body runs on, and what would block it."""

import asyncio

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
