"""CONTRACT sections 2 and 4: race, cancel, and what a retried or edited outcome undoes."""

import asyncio
import threading

import pytest

from nbdurable import (
    NotInRunError,
    StepCancelledError,
    UsageError,
    after,
    gather,
    go,
    race,
    select,
    step,
    workflow,
)


def raced(probe):
    """Race two threads; the loser ends late and would print."""

    def fast():
        probe.effect("fast")
        return "fast"

    def slow():
        probe.effect("slow")
        probe.event("decided").wait(10)
        print("never seen")
        probe.event("late").set()
        return "slow"

    loser = go(slow)
    first = race(loser, go(fast), after(60))
    found = first.result(), first.index, first.winner.name
    probe.event("decided").set()
    if probe.parameters.get("wait_for_the_loser", True) and probe.count("then") == 0:
        probe.event("late").wait(10)
    outcome = loser.outcome()
    go(probe.effect, "then").result()
    return found, outcome.kind.value, str(outcome.error)


def test_losers_of_a_race_are_cancelled(always_replay, bench):
    """The losers' outcome is a recorded cancellation, whatever their bodies do later."""
    report = always_replay(raced)
    assert report.value == (("fast", 1, "fast"), "cancelled", "slow(): it lost a race")
    assert report.stdout == ""
    kinds = "SELECT name, kind, cause > 0 FROM nbdurable.checkpoints ORDER BY name"
    assert bench.rows(kinds)[:3] == [
        ("after", "cancelled", True),
        ("effect", "value", False),
        ("fast", "value", False),
    ]
    assert bench.effects() == {"fast": 1, "slow": 1, "then": 1}


async def raced_async(probe):
    """Race async steps; the loser's coroutine is cancelled where it waits."""

    async def slow():
        probe.effect("slow")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            probe.effect("stopped")
            raise

    async def fast():
        probe.effect("fast")
        return "fast"

    loser = go(slow)
    first = race(loser, go(fast))
    found = await first
    with pytest.raises(StepCancelledError):
        await loser
    return found


def test_an_async_loser_is_stopped(always_replay, bench):
    """Cancelling an async step cancels its task."""
    assert always_replay(raced_async).value == "fast"
    assert bench.effects() == {"slow": 1, "fast": 1, "stopped": 1}


def race_of_the_finished(probe):
    """Race what has ended already, and one that has not."""

    def one(number):
        return number

    def hangs():
        probe.event("never").wait(10)

    first = go(one, 1)
    first.result()
    second = go(one, 2)
    second.result()
    late = go(hangs)
    won = race(second, late, first)
    return won.winner is first, won.result(), second.result(), late.outcome().kind.value


def test_a_race_made_late(always_replay):
    """The lowest number wins, what had ended keeps its outcome, the rest is cancelled."""
    assert always_replay(race_of_the_finished).value == (True, 1, 2, "cancelled")


def nested_race(probe):
    """Nest races, gathers and selects; a leaf of the winner is below a loser, too."""

    def one(name):
        if name in {"slow", "slower"}:
            probe.event("never").wait(10)
        return name

    a, b, slow, slower = (go(one, name) for name in ("a", "b", "slow", "slower"))
    both = gather(a, b)
    first = race(both, gather(a, slow), select(slower, after(60)))
    found = first.result(), first.index
    return found, [handle.outcome().kind.value for handle in (a, b, slow, slower)]


def test_nested_races(always_replay):
    """What is below the winner is never cancelled, all else below the losers is."""
    found, kinds = always_replay(nested_race).value
    assert found == (["a", "b"], 0)
    assert kinds == ["value", "value", "cancelled", "cancelled"]


def cancelled_by_handle(probe):
    """Cancel what runs, what waits for it, what has ended; a timer; a combinator."""

    def hangs(name):
        probe.effect(f"hangs {name}")
        probe.event("never").wait(10)

    running = go(hangs, "one")
    downstream = go(str, running)
    ended = go(len, "abc")
    ended.result()
    timer = after(60)
    both = gather(go(hangs, "two"), go(hangs, "three"))
    for handle in (running, ended, timer, both):
        handle.cancel()
        handle.cancel()
    first = select(running, timer)
    found = [first.winner is running]
    for handle in (running, downstream, ended, timer, both):
        outcome = handle.outcome()
        found.append((outcome.kind.value, type(outcome.error).__name__))
    return found


def test_cancel(always_replay):
    """Cancelled is an outcome, and can win; what had ended stays as it was."""
    assert always_replay(cancelled_by_handle).value == [
        True,
        ("cancelled", "StepCancelledError"),
        ("cancelled", "StepCancelledError"),
        ("value", "NoneType"),
        ("cancelled", "StepCancelledError"),
        ("cancelled", "StepCancelledError"),
    ]


def cancelled_while_waiting(probe):
    """Cancel a step that waits for its upstream, and one between two attempts."""

    def upstream():
        probe.event("go on").wait(10)
        return 1

    @step(retries=5, backoff=1000, max_backoff=1000)
    def fails():
        probe.effect("fails")
        probe.event("failed").set()
        raise OSError("again")

    def downstream(number):
        probe.effect("downstream")
        return number

    waiting = go(downstream, go(upstream))
    retrying = fails.go()
    if probe.count("fails") == 0:
        probe.event("failed").wait(10)
    waiting.cancel()
    retrying.cancel()
    probe.event("go on").set()
    return waiting.outcome().kind.value, retrying.outcome().kind.value


def test_cancel_before_the_body_runs(always_replay, bench):
    """Neither a pending step nor a pending retry runs after its cancellation."""
    program = always_replay(cancelled_while_waiting)
    assert program.value == ("cancelled", "cancelled")
    assert bench.effects()["downstream"] == 0


def cancelled_parent(probe):
    """Cancel a step whose body has started others."""

    def child(name):
        probe.effect(f"child {name}")
        probe.event("started").set()
        probe.event("never").wait(10)

    def parent():
        first = go(child, "one")
        try:
            first.result()
        except StepCancelledError:
            probe.effect("told")
        try:
            go(child, "two")
        except NotInRunError:
            probe.effect("refused")
        probe.event("over").set()

    handle = go(parent)
    probe.event("started").wait(10)
    handle.cancel()
    probe.event("over").wait(10)
    return handle.outcome().kind.value


def test_cancelling_a_parent_stops_its_children(bench):
    """The children end with it, and its body, still running, can start nothing more."""
    report = bench.run(cancelled_parent)
    assert report.value == "cancelled", report.traceback
    assert bench.effects() == {"child one": 1, "told": 1, "refused": 1}
    assert bench.rows("SELECT name, kind FROM nbdurable.checkpoints") == [("parent", "cancelled")]


def race_won_by_an_error(probe):
    """Let an error win a race, and end the run; the next time nobody fails."""

    def fails():
        if probe.effect("fails") == 1:
            probe.event("begun").wait(10)  # else a slow machine cancels what has not begun
            raise OSError("for now")
        probe.event("never").wait(10)
        return "fixed"

    def other():
        if probe.effect("other") == 1:
            probe.event("begun").set()
            probe.event("never").wait(10)
        return "other"

    return race(go(fails), go(other)).result()


def test_retrying_an_error_undoes_the_race_it_won(bench):
    """The decision and the cancellations it caused go with the error: the race is run again."""
    first = bench.run(race_won_by_an_error)
    assert first.error == "OSError: for now"
    assert bench.check()[0] == []
    for _ in range(2):
        assert bench.run(race_won_by_an_error).value == "other"
        assert bench.effects() == {"fails": 2, "other": 2}
        assert bench.check()[0] == []


def chain_of_races(probe):
    """Let an error win one race, and what that cancelled another."""

    def fails():
        if probe.effect("fails") == 1:
            raise OSError("for now")
        return "fixed"

    def hangs(name):
        if probe.effect(f"hangs {name}") == 1 or name == "c":
            probe.event("never").wait(10)
        return name

    a, b, c = go(fails), go(hangs, "b"), go(hangs, "c")
    second = race(b, c)
    first = race(a, b)
    try:
        first.result()
    finally:
        probe.effect(f"second {second.outcome().kind.value}")
    return second.outcome().kind.value, first.result()


def test_undoing_goes_on_through_what_a_cancellation_won(bench):
    """A cancellation that won another race takes that decision and its cancellations along."""
    assert bench.run(chain_of_races).error == "OSError: for now"
    assert bench.effects()["second cancelled"] == 1
    kind = "SELECT count(*) FROM nbdurable.checkpoints WHERE kind = 'cancelled'"
    assert bench.rows(kind) == [(2,)]
    second = bench.run(chain_of_races)
    assert second.error is None, second.traceback
    assert bench.check()[0] == []
    again = bench.run(chain_of_races)
    assert again.seen() == second.seen()


def edited_race(probe):
    """Race two steps; the winner's code is a parameter."""
    text = probe.parameters.get("text", "old")

    def winner():
        probe.effect(f"winner {text}")
        probe.event("begun" if text == "old" else "decided").wait(10)
        return text

    def other():
        if probe.effect("other") == 1:
            probe.event("begun").set()
            probe.event("never").wait(10)
        return "other"

    loser = go(other)
    named = probe.parameters.get("named", True)
    first = race(loser, step(winner, name="winner").go() if named else go(winner))
    found = first.result()
    probe.event("decided").set()
    return found, loser.outcome().kind.value


@pytest.mark.parametrize("named", [True, False])
def test_an_edit_reopens_a_race_and_undoes_its_cancellations(bench, named):
    """The loser of a race that is another one now runs after all; it may win.

    A step with a name has another version after the edit; an inner function is another call.
    """
    given = {"named": named}
    assert bench.run(edited_race, parameters=given).value == ("old", "cancelled")
    for _ in range(2):
        report = bench.run(edited_race, parameters={"text": "new", **given})
        assert report.value == ("other", "value"), report.traceback
        assert bench.check()[0] == []
    assert bench.effects() == {"winner old": 1, "winner new": 1, "other": 2}
    assert bench.run(edited_race, parameters=given).value == ("old", "value")


def asked_before_the_race(probe):
    """Ask a loser through a gather made before the race that cancels it."""

    def hangs():
        probe.effect("hangs")
        probe.event("never").wait(10)

    loser = go(hangs)
    early = gather(loser, go(len, "a"))
    race(loser, go(len, "ab")).result()
    return early.outcome().kind.value


def test_a_combinator_made_before_the_race_ends_with_it(always_replay):
    """A gather fails with the cancellation of its branch; on replay as well."""
    assert always_replay(asked_before_the_race).value == "cancelled"


@pytest.mark.parametrize(
    ("call", "says"),
    [(race, "race\\(\\) needs at least one handle"), (lambda: race(1), "int is not a handle")],
)
def test_misuse_of_race(tmp_path, call, says):
    """A race of nothing, or of no handle, is refused before anything is recorded."""
    with workflow("misuse", store=tmp_path / "store.duckdb"), pytest.raises(UsageError, match=says):
        call()


def test_cancel_after_the_run(tmp_path):
    """A handle of a run that has ended can't be cancelled."""
    with workflow("over", store=tmp_path / "store.duckdb"):
        handle = go(len, "a")
    with pytest.raises(NotInRunError, match="has ended"):
        handle.cancel()


def test_cancelled_in_line(tmp_path):
    """What is cancelled while it waits for a thread, or for room, takes neither with it."""
    gate, started = threading.Event(), threading.Event()

    @step(version=1, limit=2)
    def limited(number):
        started.set()
        gate.wait(10)
        return number

    def plain(number):
        gate.wait(10)
        return number

    with workflow("in line", store=tmp_path / "store.duckdb", limit=2):
        line = [limited.go(number) for number in range(6)]
        started.wait(10)
        threads = [step(plain, version=1).go(number) for number in range(6)]
        gather(*line[2:5], *threads[2:5]).cancel()
        gate.set()
        kept = [*line[:2], line[5], *threads[:2], threads[5]]
        assert gather(kept).result() == [0, 1, 5, 0, 1, 5]
        assert gather(step(plain, version=2).go(number) for number in range(9)).result()
