"""CONTRACT sections 5 and 7: outcomes taken out to be made again, and what hung on them."""

import asyncio
import threading

import pytest

from nbdurable import (
    StoreError,
    UsageError,
    as_completed,
    current_step,
    gather,
    go,
    race,
    select,
    sleep,
    step,
    workflow,
)
from nbdurable.inspection import amending, queries
from nbdurable.store import Store, check


def whys(place):
    """Return why each step of the newest run ran when it last did."""
    return {row["step"]: row["why"] for row in queries.why(None, str(place))}


def redo(bench, *labels, **options):
    """Redo steps of the program, and give what was said before and after."""
    said = []
    after = amending.redo("program", labels, store=bench.store, say=said.append, **options)
    return [*said, after]


def squares(probe):
    """Square numbers on threads."""

    def square(number):
        probe.effect(f"square({number})")
        return number * number

    return gather(go(square, number) for number in range(4)).result()


async def squares_async(probe):
    """Square numbers on the loop."""

    async def square(number):
        await asyncio.sleep(0)
        probe.effect(f"square({number})")
        return number * number

    return await gather(*[go(square, number) for number in range(4)])


@pytest.mark.parametrize("program", [squares, squares_async])
def test_what_is_redone_runs_again_and_nothing_else(bench, program):
    """One label: its body runs once more; it is said before how many and what they took."""
    first = bench.run(program)
    before, after = redo(bench, "square(2)")
    assert before.startswith("redo program takes out 1 outcome of square, which took ")
    assert after == "program: run its cell again to make them anew"
    assert bench.run(program).seen() == first.seen()
    assert bench.effects() == {f"square({n})": 1 + (n == 2) for n in range(4)}
    assert whys(bench.store)["square(2)"] == "redo"
    assert bench.run(program).seen() == first.seen()
    assert bench.effects()["square(2)"] == 2
    assert bench.check()[0] == []


def test_by_name_and_all(bench):
    """A step's name means all its calls; no label means every step."""
    bench.run(squares)
    assert "4 outcomes of square" in redo(bench, "square")[0]
    bench.run(squares)
    redo(bench)
    bench.run(squares)
    assert set(bench.effects().values()) == {3}


def test_a_dead_run_is_redone(bench):
    """What it had saved is taken out; the rest goes on."""
    assert bench.run(trains_and_dies, kill=("after", 6)).killed
    said = redo(bench, "prepare", "train")[0]
    assert "1 outcome of prepare" in said
    assert "1 save of work in progress" in said
    assert bench.run(trains_and_dies).value == (1, 0)
    assert bench.effects()["prepare()"] == 2
    assert whys(bench.store) == {"prepare()": "redo", "train()": "redo"}


def trains_and_dies(probe):
    """Prepare, then train with a save each epoch; tell from which save the last attempt began."""

    @step
    def prepare():
        return probe.effect("prepare()") > 0 and 1

    @step
    def train():
        me = current_step()
        began = me.saved(0)
        for epoch in range(began, 4):
            me.save(epoch + 1)
        return began

    return prepare(), train()


def decides(probe):
    """Decide a race and a select, and order what completes."""

    def one(name):
        probe.effect(f"one({name!r})")
        if name == probe.parameters.get("late"):
            probe.event("won").wait(0.3)
        return name

    raced = race(go(one, "a"), go(one, "b"))
    first = raced.winner.label
    probe.event("won").set()
    chosen = select(go(one, "c"), go(one, "d"))
    order = [handle.label for handle in as_completed([go(one, "e"), go(one, "f")])]
    return first, chosen.winner.label, order


def test_decisions_and_cancellations_go_with_what_they_hung_on(bench):
    """The race is open again, its cancelled loser runs; another select stays decided."""
    first = bench.run(decides, parameters={"late": "b"})
    assert first.value[0] == "one('a')"
    assert redo(bench, "one('a')")[0].endswith("1 decision; 1 cancellation")
    again = bench.run(decides, parameters={"late": "a"})
    assert again.value[0] == "one('b')"
    assert again.value[1:] == first.value[1:]
    counts = bench.effects()
    assert (counts["one('a')"], counts["one('b')"]) == (2, 2)
    assert {counts[f"one({name!r})"] for name in "ef"} == {1}
    assert bench.run(decides).seen() == again.seen()
    assert bench.check()[0] == []


def test_what_lost_is_redone_too(bench):
    """A loser's redo opens the select that it lost."""
    first = bench.run(decides, parameters={"late": "b"})
    assert "1 decision" in redo(bench, "one('b')")[0]
    assert bench.run(decides, parameters={"late": "b"}).value == first.value


def leaves_early(probe):
    """Leave an iterator after its first."""

    def one(name):
        probe.effect(f"one({name!r})")
        if name == "b":
            probe.event("first").wait(0.3)
        return name

    for handle in as_completed([go(one, "a"), go(one, "b")]):
        found = handle.result()
        break
    probe.event("first").set()
    return found


def test_completion_positions_go_from_its_own_on(bench):
    """What was left after the redone one is no loser any more."""
    assert bench.run(leaves_early).value == "a"
    losers = bench.rows("SELECT count(*) FROM nbdurable.decision_log")
    assert losers == [(1,)]
    assert "1 decision" in redo(bench, "one('a')")[0]
    assert bench.rows("SELECT count(*) FROM nbdurable.decision_log") == [(0,)]
    bench.run(leaves_early)
    assert bench.check()[0] == []


def families(probe):
    """Start steps in a step, and hand values on through handles."""

    @step
    def leaf(number):
        probe.effect(f"leaf({number})")
        return number

    @step
    def parent():
        probe.effect("parent()")
        return leaf(1) + leaf(2)

    def draw():
        return probe.effect("draw()") // 3

    def receive(value):
        probe.effect("receive()")
        return value

    return parent(), go(receive, go(draw)).result()


def test_a_parents_children_replay_and_a_childs_parent_runs(bench):
    """The body of a redone parent runs, its children replay; a redone child takes its parent."""
    bench.run(families)
    assert redo(bench, "parent")[0].endswith("replay, unless they are named too")
    bench.run(families)
    counts = bench.effects()
    assert (counts["parent()"], counts["leaf(1)"], counts["leaf(2)"]) == (2, 1, 1)
    assert "1 body above, which received it" in redo(bench, "leaf(2)")[0]
    bench.run(families)
    counts = bench.effects()
    assert (counts["parent()"], counts["leaf(1)"], counts["leaf(2)"]) == (3, 1, 2)
    assert whys(bench.store)["parent()"] == "redo"


def test_what_received_an_equal_value_stays(bench):
    """By versions: an equal value runs nothing else again, another one does."""
    assert bench.run(families).value[1] == 0
    redo(bench, "draw")
    assert bench.run(families).value[1] == 0
    assert bench.effects()["receive()"] == 1
    redo(bench, "draw")
    assert bench.run(families).value[1] == 1
    assert bench.effects()["receive()"] == 2


def fails_in_part(probe):
    """Fail for odd numbers, the first time."""

    def work(number):
        if probe.effect(f"work({number})") == 1 and number % 2:
            raise ValueError(number)
        return number

    handles = [go(work, number) for number in range(4)]
    return [type(one).__name__ for one in gather(*handles, return_exceptions=True).result()]


def test_errors_only(bench):
    """`--errors` takes the errors out, however seen they are, and leaves the values."""
    assert bench.run(fails_in_part).value == ["int", "ValueError"] * 2
    assert bench.run(fails_in_part).value == ["int", "ValueError"] * 2
    assert "2 outcomes of work" in redo(bench, errors=True)[0]
    assert bench.run(fails_in_part).value == ["int"] * 4
    assert bench.effects() == {f"work({n})": 1 + n % 2 for n in range(4)}
    with pytest.raises(UsageError, match="no saved error"):
        redo(bench, errors=True)


def test_the_key_changes_with_a_redo_and_not_above_it(tmp_path):
    """A redone step pays anew; the body above, which runs again for its sake, does not."""
    keys = {"outer": [], "inner": []}

    def run():
        @step(ignore=("keys",))
        def inner():
            keys["inner"].append(current_step().idempotency_key)

        @step(ignore=("keys",), version=1)
        def outer():
            keys["outer"].append(current_step().idempotency_key)
            inner()

        with workflow("w", store=tmp_path / "s.duckdb"):
            outer()

    run()
    amending.redo("w", ["inner"], store=tmp_path / "s.duckdb")
    run()
    assert len(set(keys["inner"])) == 2
    assert len(keys["outer"]) == 2
    assert len(set(keys["outer"])) == 1


def test_a_redone_sleep_is_slept_again(tmp_path):
    """A timer counts anew, not from when it first began."""
    place = tmp_path / "s.duckdb"
    for _ in range(2):
        with workflow("w", store=place):
            sleep(0.02)
        amending.redo("w", ["sleep"], store=place)
    with workflow("w", store=place):
        sleep(0.02)
    assert whys(place) == {"sleep(0.02)": "redo"}
    store = Store.open(place)
    assert store.rows("SELECT seconds >= 0.02 FROM nbdurable.checkpoints") == [(True,)]
    assert check(store) == []
    store.close()


def test_a_redone_run_is_not_finished(bench):
    """It is told as unfinished; `--new` in the cell resumes it, and begins no other run."""
    bench.run(squares)
    assert queries.unfinished(bench.store) == []
    redo(bench, "square(1)")
    assert [one.name for one in queries.unfinished(bench.store)] == ["program"]
    assert queries.status(bench.store)[0]["status"] == "interrupted"
    bench.run(squares, new=True)
    assert sum(bench.effects().values()) == 5
    assert queries.unfinished(bench.store) == []


def test_what_cannot_be_redone_gets_one_line(bench, tmp_path):
    """No such run, no such step, nothing there, a run that is being executed: nothing changes."""
    bench.run(squares)
    with pytest.raises(UsageError, match="no run is called progam: did you mean program"):
        amending.redo("progam", store=bench.store)
    with pytest.raises(UsageError, match="no saved outcome of sqare: did you mean square"):
        redo(bench, "square", "sqare")
    with pytest.raises(StoreError, match="there is no store"):
        amending.redo("program", store=tmp_path / "none.duckdb")
    bench.run(squares)
    assert set(bench.effects().values()) == {1}
    with (
        workflow("program", store=bench.store),
        pytest.raises(UsageError, match="redo program: it is running"),
    ):
        redo(bench)


def test_a_body_that_still_runs_is_not_redone(tmp_path):
    """An interrupted cell's body may be saved yet: it is to be adopted, or its kernel restarted."""
    place, over, began = tmp_path / "s.duckdb", threading.Event(), threading.Event()

    def quick():
        return 1

    def slow():
        current_step().save(1)
        began.set()
        over.wait(10)
        return 2

    def interrupted():
        with workflow("w", store=place):
            step(quick, version=1)()
            step(slow, version=1).go()
            began.wait(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(UsageError, match="still run"):
        amending.redo("w", ["slow"], store=place)
    over.set()


def test_labels_as_they_are_typed(tmp_path):
    """Quotes and spaces of a label may be as a shell leaves them."""
    place = tmp_path / "s.duckdb"

    def add(first, second):
        return first + second

    with workflow("w", store=place):
        go(add, "a", "b").result()
        go(add, "a", "c").result()
    said = []
    amending.redo("w", ["add(a,", "b)"], store=place, say=said.append)
    assert "1 outcome of add" in said[0]
