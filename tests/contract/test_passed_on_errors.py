"""A body that lets the error of a step of its own escape has not seen it.

When it is tried again, so are the steps whose errors it passed on, all in one pass.
"""

import asyncio

import pytest

from nbdurable import gather, go, race, select, step


def is_up(probe):
    """Tell whether the server that the steps ask answers by now."""
    return bool(probe.parameters.get("up"))


def make_inner(probe):
    """Make a step that fails while the server is down."""

    @step(version="1")
    def inner(x):
        probe.effect(f"inner {x}")
        if not is_up(probe):
            raise ConnectionError(f"down ({x})")
        return x

    return inner


def in_place(probe):
    """Call the child in place."""
    inner = make_inner(probe)

    @step(version="1")
    def outer(x):
        return inner(x) * 10

    return outer.map(range(5)).result()


def concurrent(probe):
    """Start two children; the first failure escapes."""
    inner = make_inner(probe)

    @step(version="1")
    def outer(x):
        return sum(gather(inner.go(x), inner.go(x + 10)).result())

    return outer.map(range(3)).result()


def three_levels(probe):
    """Pass the error on twice."""
    inner = make_inner(probe)

    @step(version="1")
    def middle(x):
        return inner(x)

    @step(version="1")
    def outer(x):
        return middle.go(x).result() * 10

    return outer.map(range(3)).result()


def wrapped(probe):
    """Raise another error from the child's."""
    inner = make_inner(probe)

    @step(version="1")
    def outer(x):
        try:
            return inner(x)
        except ConnectionError as error:
            raise RuntimeError("wrapped") from error

    return outer.map(range(3)).result()


def in_a_context(probe):
    """Raise an error without relation while the child's is handled."""
    inner = make_inner(probe)

    @step(version="1")
    def outer(x):
        try:
            return inner(x)
        except ConnectionError:
            raise RuntimeError("instead") from None

    return outer.map(range(3)).result()


def in_a_group(probe):
    """Raise what a gather has collected as a group."""
    inner = make_inner(probe)

    @step(version="1")
    def outer(x):
        both = gather(inner.go(x), inner.go(x + 10), return_exceptions=True).result()
        failed = [one for one in both if isinstance(one, Exception)]
        if failed:
            raise ExceptionGroup("both", failed)
        return sum(both)

    return outer.map(range(3)).result()


def through_a_select(probe):
    """Let the group of a select without winner escape."""
    inner = make_inner(probe)

    @step(version="1")
    def outer(x):
        return select(inner.go(x), inner.go(x + 10), success=True).result() % 10

    return outer.map(range(3)).result()


def through_a_downstream(probe):
    """Let escape what a downstream passes on."""
    inner = make_inner(probe)

    @step(version="1")
    def outer(x):
        return go(str, inner.go(x)).result()

    return outer.map(range(3)).result()


async def awaited(probe):
    """Await the child in an async body."""
    inner = make_inner(probe)

    @step(version="1")
    async def outer(x):
        await asyncio.sleep(0)
        return await inner.go(x) * 10

    return await outer.map(range(3))


PROGRAMS = {
    in_place: [0, 10, 20, 30, 40],
    concurrent: [10, 12, 14],
    three_levels: [0, 10, 20],
    wrapped: [0, 1, 2],
    in_a_context: [0, 1, 2],
    in_a_group: [10, 12, 14],
    through_a_select: [0, 1, 2],
    through_a_downstream: ["0", "1", "2"],
    awaited: [0, 10, 20],
}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_one_pass_is_enough(bench, program):
    """Once the server is up again, one pass gives all: each child ran once more."""
    down = bench.run(program)
    assert down.error is not None
    assert bench.check()[0] == []
    before = bench.effects()
    up = bench.run(program, parameters={"up": True})
    assert (up.value, up.error) == (PROGRAMS[program], None), up.traceback
    assert bench.check()[0] == []
    effects = bench.effects()
    assert max((effects - before).values()) == 1
    assert bench.run(program, parameters={"up": True}).value == PROGRAMS[program]
    assert bench.effects() == effects


def staggered(probe):
    """Fail the cell while another body has been given its child's error and goes on."""
    inner = make_inner(probe)

    @step(version="1")
    def outer(x):
        probe.effect(f"outer {x}")
        try:
            return inner(x)
        except ConnectionError:
            if x == 1:
                probe.event("given").set()
                probe.event("never").wait(0 if is_up(probe) else 60)
            raise

    @step(version="1")
    def fails():
        probe.event("given").wait(60)
        if not is_up(probe):
            raise ConnectionError("down")
        return "up"

    handle = outer.go(1)
    return fails.go().result(), handle.result()


def test_a_body_that_had_not_ended(bench):
    """It is given the error that it was given, lets it escape, and is tried again with it."""
    assert bench.run(staggered).error == "ConnectionError: down"
    up = bench.run(staggered, parameters={"up": True})
    assert up.value == ("up", 1), up.error
    assert bench.effects() == {"inner 1": 2, "outer 1": 3}
    assert bench.check()[0] == []
    assert bench.rows(
        "SELECT label, status, attempts FROM nbdurable.steps WHERE name = 'outer'"
    ) == [("outer(1)", "finished", 3)]


def with_retries(probe):
    """Retry the parent while the child fails twice, and a sibling that nobody asks once."""

    @step(version="1")
    def inner():
        if probe.effect("inner") < 3:
            raise ConnectionError("down")
        return "up"

    @step(version="1")
    def sibling():
        probe.effect("sibling")
        return "value"

    @step(version="1", retries=2, backoff=0.001)
    def outer():
        probe.effect("outer")
        first = select(inner.go(), step(probe.event("never").wait, name="waits").go(60))
        return sibling(), first.result()

    return outer.go().result()


def test_a_retried_parent_retries_its_children(always_replay, bench):
    """Each attempt of the body asks its failed child again, and nothing else."""
    report = always_replay(with_retries)
    assert report.value == ("value", "up")
    assert bench.effects() == {"inner": 3, "outer": 3, "sibling": 1}
    decided = bench.rows("SELECT winner, number FROM nbdurable.decisions")
    ((number,),) = bench.rows("SELECT number FROM nbdurable.steps WHERE name = 'inner'")
    assert decided == [("inner()", number)]


def a_race_is_run_again(probe):
    """Retry a parent whose failed child had won a race: its loser is no longer cancelled."""

    @step(version="1")
    def inner():
        if probe.effect("inner") == 1:
            raise ConnectionError("down")
        probe.event("other").wait(60)
        return "up"

    @step(version="1")
    async def other():
        if probe.effect("other") == 1:
            await asyncio.Event().wait()
        return "other"

    @step(version="1", retries=1, backoff=0.001)
    def outer():
        slow = other.go()
        while not probe.count("other"):
            probe.event("never").wait(0.01)
        return race(inner.go(), slow).result(), slow.outcome().kind.value

    return outer.go().result()


def test_a_race_of_a_retried_body(always_replay):
    """What it had decided, and cancelled by that, is undone with the error that won it."""
    assert always_replay(a_race_is_run_again).value == ("other", "value")


def handled(probe):
    """Handle one child's error in the body, which fails by another's later."""
    inner = make_inner(probe)

    @step(version="1")
    def other():
        probe.effect("other")
        if not is_up(probe):
            raise ValueError("other")
        return "other"

    @step(version="1")
    def outer(collect):
        if collect:
            seen = gather(inner.go(1), return_exceptions=True).result()
        else:
            try:
                seen = [inner(2)]
            except ConnectionError as error:
                seen = [error]
        return str(seen[0]), other()

    return outer(True), outer(False)


def test_what_a_body_has_handled_replays(bench):
    """An error that the body has seen and gone on from is not tried again with it."""
    assert bench.run(handled).error == "ValueError: other"
    half = bench.run(handled, parameters={"up": True})
    assert half.value == (("down (1)", "other"), ("2", "other"))
    assert bench.effects() == {"inner 1": 1, "inner 2": 1, "other": 3}


def handled_by_the_cell(probe):
    """Handle in the cell what a body has passed on."""
    inner = make_inner(probe)

    def outer(x):
        probe.effect(f"outer {x}{probe.parameters.get('edit', '')}")
        return inner(x)

    version = "1" + probe.parameters.get("edit", "")
    try:
        step(outer, version=version)(1)
    except ConnectionError as error:
        return str(error)
    return "up"


def test_a_parent_that_replays(always_replay, bench):
    """Nothing below a body whose error the cell has seen is tried again."""
    assert always_replay(handled_by_the_cell).value == "down (1)"
    rows = bench.rows("SELECT label, status FROM nbdurable.steps ORDER BY number")
    assert rows == [("inner(1)", "failed"), ("outer(1)", "failed")]


def test_an_edited_parent(bench):
    """A body that runs again, since it was edited, has what it passed on tried again."""
    bench.run(handled_by_the_cell)
    edited = bench.run(handled_by_the_cell, parameters={"up": True, "edit": "2"})
    assert edited.value == "up"
    assert bench.effects() == {"inner 1": 2, "outer 1": 1, "outer 12": 1}
    assert bench.check()[0] == []
    assert bench.run(handled_by_the_cell, parameters={"up": True, "edit": "2"}).value == "up"
    assert bench.effects() == {"inner 1": 2, "outer 1": 1, "outer 12": 1}


def unseen_loser(probe):
    """Let a step fail that has lost, and ask it only on a later pass."""

    @step(version="1")
    def loses():
        probe.event("won").wait(60)
        probe.effect("loses")
        if not is_up(probe):
            raise ValueError("lost")
        return "up"

    slow = loses.go()
    value = select(step(len, version="1").go("abc"), slow).result()
    probe.event("won").set()
    if is_up(probe):
        return value, slow.result()
    while not probe.count("loses") or slow.state == "running":
        probe.event("never").wait(0.01)
    return value, ""


def test_a_losers_unseen_error_is_kept(bench):
    """It stays failed, and is tried again only when it is asked for."""
    for _ in range(3):
        assert bench.run(unseen_loser).value == (3, "")
        rows = bench.rows("SELECT label, status FROM nbdurable.steps ORDER BY number")
        assert rows == [("len('abc')", "finished"), ("loses()", "failed")]
    assert bench.effects() == {"loses": 1}
    assert bench.run(unseen_loser, parameters={"up": True}).value == (3, "up")
    rows = bench.rows("SELECT label, status, why FROM nbdurable.steps ORDER BY number")
    assert rows[1] == ("loses()", "finished", "error retried")
    assert bench.effects() == {"loses": 2}
    assert bench.check()[0] == []
