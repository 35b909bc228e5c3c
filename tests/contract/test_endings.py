"""Every way in which a body can end is an outcome: no wait is left open, and it replays."""

import asyncio
import subprocess
import sys
import textwrap

from nbdurable import after, as_completed, gather, go, select, step


class Leaves(BaseException):
    """A class of a user's own that no `except Exception` catches."""


KINDS = {
    one.__name__: one
    for one in (
        SystemExit,
        GeneratorExit,
        KeyboardInterrupt,
        asyncio.CancelledError,
        StopIteration,
        StopAsyncIteration,
        Leaves,
    )
}


def leaving(probe, *, asynchronous):
    """Make a body that leaves by what it is given."""

    def leaves(name):
        probe.effect(name)
        raise KINDS[name](3)

    async def leaves_async(name):
        await asyncio.sleep(0)
        leaves(name)

    return leaves_async if asynchronous else leaves


def told(wait):
    """Return what a wait raises."""
    try:
        wait()
    except BaseException as error:
        return type(error).__name__, error.args[:1]


def in_threads(probe):
    """Leave by each, in threads: select, gather, outcome, a limited wait, as_completed."""
    body = leaving(probe, asynchronous=False)
    found = []
    for name in KINDS:
        handle = go(body, name)
        first = select(handle, after(60))
        outcome = handle.outcome()
        found += [
            (first.index, outcome.kind.value, told(first.result) == told(handle.result)),
            type(outcome.error).__name__,
            told(lambda handle=handle: handle.result(timeout=60)),
            told(gather(handle, go(len, "abc")).result)[0],
            [type(one).__name__ for one in gather(handle, return_exceptions=True).result()],
            [one.name for one in as_completed([handle])],
        ]
    return found


def on_the_background_loop(probe):
    """Leave by each, in async steps that a sync cell waits for."""
    body = leaving(probe, asynchronous=True)
    handles = {name: go(body, name) for name in KINDS}
    return {
        name: (select(handle, after(60)).index, told(handle.result)[0])
        for name, handle in handles.items()
    }


async def on_the_cells_loop(probe):
    """Leave by each, in async steps of a cell that awaits; then start one more."""
    body = leaving(probe, asynchronous=True)
    found = {}
    for name in KINDS:
        handle = go(body, name)
        first = select(handle, after(60))
        try:
            await first
        except BaseException as error:
            found[name] = first.index, type(error).__name__
    return found, await go(len, "abc")


def in_place(probe):
    """Leave by each but an interrupt, in steps that the cell calls in its own thread."""
    body = step(leaving(probe, asynchronous=False))
    return {
        name: told(lambda name=name: body(name))[0] for name in KINDS if name != "KeyboardInterrupt"
    }


async def in_an_inner_task(probe):
    """Leave by what a task that the body made was cancelled by."""

    async def body():
        probe.effect("body")
        inner = asyncio.create_task(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner

    async def itself():
        probe.effect("itself")
        asyncio.current_task().cancel()
        await asyncio.sleep(60)

    found = []
    for one in (body, itself):
        first = select(go(one), after(60))
        try:
            await first
        except BaseException as error:
            found.append((first.index, type(error).__name__))
    return found


def an_inner_task_ends_the_loop(probe):
    """Leave the background loop, too, by what a task of the body raises; others run on it."""

    async def body(kind):
        probe.effect(kind)

        async def inner():
            raise KINDS[kind](3)

        await asyncio.create_task(inner())

    async def other():
        await asyncio.sleep(0.05)
        return "runs on"

    going = go(other)
    found = [
        told(select(go(body, kind), after(60)).result)[0]
        for kind in ("SystemExit", "KeyboardInterrupt")
    ]
    return found, going.result(), go(other).result()


def expected(name, *, asynchronous=False):
    """Return the name of the exception that arrives."""
    if name == "CancelledError":
        return "StepCancelledError"
    # Python itself turns it into a RuntimeError where a coroutine raises it.
    return "RuntimeError" if asynchronous and name == "StopIteration" else name


def test_in_threads(always_replay):
    """Whatever a body raises ends its waits at once, and is what they raise on replay."""
    found = always_replay(in_threads).value
    for at, name in enumerate(KINDS):
        kind = expected(name)
        index, error, limited, gathered, settled, completed = found[6 * at : 6 * at + 6]
        assert index == (0, "error", True)
        assert (error, limited[0], gathered, settled, completed) == (
            kind,
            kind,
            kind,
            [kind],
            ["leaves"],
        )


def test_on_the_background_loop(always_replay):
    """An async step's ends are outcomes too."""
    found = always_replay(on_the_background_loop).value
    assert found == {name: (0, expected(name, asynchronous=True)) for name in KINDS}


def test_on_the_cells_loop(always_replay):
    """On the cell's own loop, which goes on."""
    found, later = always_replay(on_the_cells_loop).value
    assert found == {name: (0, expected(name, asynchronous=True)) for name in KINDS}
    assert later == 3


def test_in_place(always_replay):
    """In the cell's own thread; there KeyboardInterrupt is a person's."""
    found = always_replay(in_place).value
    assert found == {name: expected(name) for name in KINDS if name != "KeyboardInterrupt"}


def test_a_cancellation_from_inside(always_replay):
    """A body whose inner task, or which itself, was cancelled by its own code ends so."""
    assert always_replay(in_an_inner_task).value == [(0, "StepCancelledError")] * 2


def test_the_background_loop_goes_on(always_replay):
    """What asyncio raises out of its loop leaves no other step without one."""
    found = always_replay(an_inner_task_ends_the_loop).value
    assert found == (["SystemExit", "KeyboardInterrupt"], "runs on", "runs on")


FORKS = """
    import asyncio, os, sys, time
    import nbdurable
    from nbdurable import go, select, after, step, workflow

    def forks(way):
        child = os.fork()
        if child == 0:
            if way == "raises":
                raise ValueError("in the child")
            if way == "exits":
                sys.exit(7)
            return "the child's"
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    async def forks_async(way):
        return forks(way)

    def outer(way):
        return step(forks)(way)

    with workflow("w", store=sys.argv[1]):
        ways = "returns", "raises", "exits"
        print([go(forks, way).result() for way in ways])
        print([step(forks, name="here")(way) for way in ways])
        print([go(forks_async, way).result() for way in ways])
        print([go(outer, way).result() for way in ways])
    """


def test_a_forked_child_that_comes_back(tmp_path):
    """It commits nothing, says one line and ends, by the status that it would have had."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(FORKS))
    told = []
    for ran in (12, 0):
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path / "store.duckdb")],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == "[0, 1, 7]\n" * 4
        lines = [line for line in done.stderr.splitlines() if "a forked child" in line]
        assert len(lines) == ran
        told += lines
    assert all("it ends here and nothing of it is saved" in line for line in told)
    by = "the body of forks('raises') by ValueError: in the child"
    assert sum(by in line for line in told) == 2, "the others have other names"
