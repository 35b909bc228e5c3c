"""Mistakes that would pass in silence: refused before anything starts, or told in a line."""

import asyncio
import functools
import gc
import random
import warnings

import pytest
from kernel_harness import kernel

from nbdurable import UsageError, gather, go, select, step, workflow
from nbdurable.api import open_stores
from nbdurable.handles.coroutines import StepCoroutine
from nbdurable.steps.signatures import check_arguments

ran = []


@pytest.fixture(autouse=True)
def clean():
    """Leave no store open, and no trace of what ran."""
    ran.clear()
    yield
    open_stores.close_stores()


def takes(one, two=2, *, three=3):
    """Take one to three arguments."""
    ran.append((one, two, three))
    return one


def takes_any(*args, **kwargs):
    """Take whatever comes."""
    ran.append((args, kwargs))


async def takes_async(one, /, two):
    """Take two arguments, later."""
    ran.append((one, two))


def passes_on(function):
    """Decorate: a client is given as the first argument, which callers don't give."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function("client", *args, **kwargs)

    return wrapper


@passes_on
def wrapped(client, one):
    """Take a client and an argument."""
    ran.append((client, one))


class Takes:
    """Calls that take one argument."""

    def __init__(self, one):
        self.one = one

    def method(self, one):
        """Take one."""
        ran.append(one)

    @classmethod
    def of_class(cls, one):
        """Take one."""
        ran.append(one)

    @staticmethod
    def static(one):
        """Take one."""
        ran.append(one)

    def __call__(self, one):
        """Take one."""
        ran.append(one)


MISFITS = {
    "none": (takes, (), {}),
    "too many": (takes, (1, 2, 3), {}),
    "twice": (takes, (1,), {"one": 1}),
    "unknown": (takes, (1,), {"four": 4}),
    "no such name": (takes, (), {"two": 4}),
    "an async one": (takes_async, (1,), {}),
    "by name": (takes_async, (), {"one": 1, "two": 2}),
    "partial": (functools.partial(takes, 1), (2, 3), {}),
    "partial twice": (functools.partial(functools.partial(takes, three=3), four=4), (1,), {}),
    "a method": (Takes(1).method, (), {}),
    "of a class": (Takes.of_class, (1, 2), {}),
    "static": (Takes.static, (1, 2), {}),
    "a class": (Takes, (), {}),
    "an instance": (Takes(1), (1, 2), {}),
    "a lambda": (lambda one: one, (), {}),
}


@pytest.mark.parametrize("name", MISFITS)
@pytest.mark.parametrize("how", ["go", "step.go", "call"])
def test_arguments_that_do_not_fit(tmp_path, name, how):
    """What a plain call raises is raised in its own words; nothing ran, nothing is recorded."""
    function, args, kwargs = MISFITS[name]
    with pytest.raises(TypeError) as plain:
        function(*args, **kwargs)
    made = step(function, name="made", version=1)
    with workflow("w", store=tmp_path / "s.duckdb") as run:
        start = {"go": functools.partial(go, function), "call": made, "step.go": made.go}[how]
        with pytest.raises(TypeError) as refused:
            start(*args, **kwargs)
        assert run.handles == []
    assert str(refused.value) == str(plain.value)
    assert ran == []


FITS = {
    "defaults": (takes, (1,), {}),
    "all": (takes, (1, 2), {"three": 3}),
    "any": (takes_any, (1, 2, 3), {"four": 4}),
    "by name": (takes, (), {"one": 1}),
    "a wrapper that adds one": (wrapped, (1,), {}),
    "partial": (functools.partial(takes, two=5), (1,), {"two": 2}),
    "a method": (Takes(1).method, (1,), {}),
    "of a class": (Takes.of_class, (1,), {}),
    "an instance": (Takes(1), (1,), {}),
    "a built-in without signature": (dict, (), {"a": 1}),
    "a built-in": (len, ("abc",), {}),
    "a built-in that doesn't fit": (len, (), {}),
    "a built-in class": (int, ("1",), {"base": 2}),
}


@pytest.mark.parametrize("name", FITS)
def test_arguments_that_may_fit(name):
    """What Python may accept is let through, and nothing is called for it."""
    function, args, kwargs = FITS[name]
    check_arguments(function, args, kwargs)
    assert ran == []


def test_whatever_python_takes_fits():
    """Functions and calls drawn at random: let through is what Python lets through."""
    draw = random.Random(11)
    for _ in range(400):
        names = [f"a{n}" for n in range(draw.randint(0, 4))]
        only = [f"k{n}" for n in range(draw.randint(0, 2))]
        defaults = draw.randint(0, len(names))
        parts = [
            name + ("=0" if at >= len(names) - defaults else "") for at, name in enumerate(names)
        ]
        if names and draw.random() < 0.5:
            parts.insert(draw.randint(1, len(names)), "/")
        parts += ["*args"] if draw.random() < 0.3 else ["*"] * bool(only)
        parts += [name + draw.choice(["", "=1"]) for name in only]
        parts += ["**rest"] * (draw.random() < 0.3)
        function = eval(f"lambda {', '.join(parts)}: True")
        for _ in range(8):
            args = (0,) * draw.randint(0, 5)
            known = [*names, *only, "unknown"]
            kwargs = dict.fromkeys(draw.sample(known, draw.randint(0, min(3, len(known)))))
            assert outcome_of(check_arguments, function, args, kwargs) == outcome_of(
                lambda call, args, kwargs: call(*args, **kwargs), function, args, kwargs
            )


def outcome_of(call, *args):
    """Return what a call that is refused says; None if it isn't."""
    try:
        call(*args)
    except TypeError as error:
        return str(error)
    return None


def test_a_map_is_refused_before_it_starts(tmp_path):
    """A constant that the function doesn't take, and rows of which the last doesn't fit."""
    made = step(takes)
    with workflow("w", store=tmp_path / "s.duckdb") as run:
        with pytest.raises(TypeError, match="unexpected keyword argument 'four'"):
            made.map([1, 2], four=4)
        with pytest.raises(TypeError, match="takes from 1 to 2 positional arguments but 4"):
            made.starmap([(1, 2), (1, 2, 3, 4)])
        with pytest.raises(TypeError, match="not iterable"):
            made.starmap([(1, 2), 3])
        with pytest.raises(UsageError, match=r"1 or more"):
            made.starmap([(1,)], limit=0)
        assert run.handles == []
    assert ran == []


def test_a_map_of_two_iterables(tmp_path):
    """As the built-in `map` takes them: `starmap` is offered."""
    with workflow("w", store=tmp_path / "s.duckdb") as run:
        with pytest.raises(UsageError, match=r"takes.map\(\).*got 2.*takes.starmap\(zip\(\.\.\."):
            step(takes).map([1], [2])
        assert run.handles == []


# --- a forgotten await ------------------------------------------------------------------------


def test_an_async_step_that_nobody_awaits(tmp_path):
    """It is told at the end of the run, once, by its label; Python warns of no coroutine."""

    async def fetch(n):
        ran.append(n)
        return n

    made = step(fetch)

    def execute():
        flow = workflow("w", store=tmp_path / "s.duckdb")

        async def cell():
            async with flow:
                made(1)
                gathered = await asyncio.gather(made(2), asyncio.create_task(made(3)))
                made(4)
                return gathered

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert asyncio.run(cell()) == [2, 3]
            gc.collect()
        return [note for note in flow.notes if "await" in note]

    for _ in range(2):
        assert execute() == [
            "called and never awaited, so not run: fetch(1), fetch(4); write `await fetch(1)`"
        ]
    assert sorted(ran) == [2, 3]


def test_it_is_told_where_an_error_escapes(tmp_path):
    """The error may come from nothing else: what was called is no value."""

    async def fetch(n):
        return n

    flow = workflow("w", store=tmp_path / "s.duckdb")

    def calculates():
        with flow:
            step(fetch)(1) + 1

    with pytest.raises(TypeError, match="StepCoroutine"):
        calculates()
    assert any("write `await fetch(1)`" in note for note in flow.notes)


def test_many_are_told_in_one_line(tmp_path):
    """Of a loop that never awaits, the first few are named."""

    async def fetch(n):
        return n

    flow = workflow("w", store=tmp_path / "s.duckdb")
    with flow:
        for n in range(9):
            step(fetch)(n)
    [note] = [note for note in flow.notes if "await" in note]
    assert note.count("fetch(") == 6
    assert " and 4 more; " in note


def test_the_coroutine_of_a_step(tmp_path):
    """It is a coroutine for whoever runs one, and can't be taken for a value."""

    async def fetch(n):
        await asyncio.sleep(0)
        return n

    async def fails():
        raise ValueError("no")

    async def cell():
        async with workflow("w", store=tmp_path / "s.duckdb"):
            called = step(fetch)(1)
            assert isinstance(called, StepCoroutine)
            assert asyncio.iscoroutine(called)
            assert repr(called) == "<coroutine of fetch(1): not awaited>"
            task = asyncio.create_task(called)
            assert "fetch" in repr(task)
            assert await task == 1
            assert repr(called) == "<coroutine of fetch(1): finished>"
            with pytest.raises(RuntimeError, match="already awaited"):
                await called
            with pytest.raises(ValueError, match="no"):
                await step(fails)()
            stopped = asyncio.create_task(step(fetch)(2))
            await asyncio.sleep(0)
            stopped.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopped
            closed = step(fetch)(3)
            closed.close()
            with pytest.raises(UsageError, match=r"fetch\(4\).*write `await`"):
                go(lambda given: given, [step(fetch)(4)])
            with pytest.raises(UsageError, match="returned a coroutine"):
                await go(lambda: step(fetch)(5))

    asyncio.run(cell())


# --- a handle that is shown -------------------------------------------------------------------


def test_what_a_notebook_shows_of_a_handle(tmp_path):
    """How far it is and how to get its value: a line that waits for nothing."""

    def fails():
        raise ValueError("no")

    def shown(handle):
        return handle._repr_mimebundle_(include=None, exclude=None)["text/plain"].splitlines()

    with workflow("w", store=tmp_path / "s.duckdb"):
        first = go(takes, 1)
        assert shown(select(first, go(int)))[1].startswith("a handle")
        first.result()
        failed = go(fails)
        failed.outcome()
        whole = gather(first)
        whole.result()
    assert shown(first) == [
        "<step takes(1): finished>", "a handle, not its value: .result() gives it",
    ]  # fmt: skip
    assert "raises its error" in shown(failed)[1]
    assert ".result() gives it" in shown(whole)[1]


CELL = """
%%durable shown
import asyncio, threading
from nbdurable import go, step

@step
def quote(source):
    return source

handle = quote.go("alpha")
"""


def test_a_handle_as_the_last_expression_and_a_forgotten_await(tmp_path):
    """In a kernel: one line each, and no warning that names what is inside."""
    with kernel(tmp_path) as running:
        running.run("%load_ext nbdurable")
        last = running.run(CELL + "handle", "a cell")
        assert last.value.splitlines() == [
            "<step quote('alpha'): finished>", "a handle, not its value: .result() gives it",
        ]  # fmt: skip
        many = running.run("[handle, handle]", "another")
        assert many.value.count("\n") == 0
        forgotten = running.run(
            "%%durable forgotten\n@step\nasync def fetch(n):\n    return n\nfetch(1)\nfetch(2)\n"
            "await fetch(3)\nfetch(4)",
            "a third",
        )
        assert forgotten.value == "<coroutine of fetch(4): not awaited>"
        told = "never awaited, so not run: fetch(1), fetch(2), fetch(4); write `await fetch(1)`"
        everything = str(forgotten.outputs)
        assert everything.count(told) >= 1
        assert "RuntimeWarning" not in everything
        after = running.run("import gc; gc.collect()")
        assert "never awaited" not in after.text


def test_wrong_arguments_are_one_error():
    """It is raised in Python's words, and no other error is shown with it."""

    def takes_one(one):
        return one

    with pytest.raises(TypeError, match="takes 1 positional argument but 2") as found:
        check_arguments(takes_one, (1, 2), {})
    assert found.value.__context__ is None
