"""A kill before and after every commit: enumerated, not sampled.

Each program is run uninterrupted once. Then, for n = 1, 2, ..., it is killed with
SIGKILL before (and, apart, after) its n-th commit, and run again in a new process,
until a run is no longer killed; by default at every fourth commit, with
``NBDURABLE_COMMITS=all`` at each. What the cell gave must be as if nothing had
happened; what had been committed must not run again.
"""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from nbdurable import after, current_step, gather, go, select, sleep, step
from nbdurable.inspection import amending

MOST_COMMITS = 60
EVERY = os.environ.get("NBDURABLE_COMMITS") == "all"
"""Else every fourth commit, after others than before."""


def go_and_gather(probe):
    """Start steps, print, gather."""

    def one(number):
        probe.effect(f"one({number})")
        print("step", number)
        return number

    print("cell")
    return gather(go(one, number) for number in range(5)).result()


def calls_in_place(probe):
    """Call steps one after the other."""

    @step
    def add(total, number):
        probe.effect(f"add({total}, {number})")
        return total + number

    total = 0
    for number in range(1, 5):
        total = add(total, number)
        print(total)
    return total


def decided_race(probe):
    """Decide a race, act on it, then read the loser."""

    def fast():
        probe.effect("fast()")
        return "fast"

    def slow():
        probe.effect("slow()")
        if probe.count("then('fast()')") == 0:
            probe.event("acted").wait(10)
        return "slow"

    def then(label):
        probe.effect(f"then({label!r})")
        return label

    loser = go(slow)
    first = select(loser, go(fast))
    acted = go(then, first.winner.label).result()
    probe.event("acted").set()
    print("won", acted)
    return acted, first.result(), loser.result()


def close_race(probe):
    """Race two equals; whoever wins, wins for good."""

    def runner(name):
        # Whoever did not run in front before does so now: a race run twice ends otherwise.
        before = probe.count("runner('a')")
        probe.effect(f"runner({name!r})")
        if name == ("b" if before == 0 else "a"):
            probe.event("ahead").wait(0.2)
        return name

    a, b = go(runner, "a"), go(runner, "b")
    winner = select(a, b).winner.result()
    probe.effect(f"winner {winner}")
    probe.event("ahead").set()
    return gather(a, b).result()


def nested_combinators(probe):
    """Close a select and a gather with one outcome."""

    def one(name):
        probe.effect(f"one({name!r})")
        if name == "slow":
            probe.event("done").wait(0.2)
        return name

    slow = go(one, "slow")
    both = gather(go(one, "x"), go(one, "y"))
    first = select(both, gather(slow, go(one, "z")), after(60))
    found = first.result(), first.index
    probe.event("done").set()
    inner = select(gather(slow, select(go(one, "p"), after(60))), after(60))
    return found, inner.result()


def with_retries(probe):
    """Fail twice, then succeed; fail for good, and handle it."""

    @step(retries=4, backoff=0.001)
    def flaky(name):
        if probe.effect(f"flaky({name!r})") < 3:
            raise OSError("not yet")
        return name

    @step(retries=1, backoff=0.001)
    def hopeless():
        probe.effect("hopeless()")
        raise ValueError("hopeless")

    found = [flaky("in place"), flaky.go("beside").result()]
    try:
        hopeless()
    except ValueError as error:
        found.append(str(error))
    return found


def handled_error(probe):
    """Handle an error, and go on with another step."""

    def fails():
        probe.effect("fails()")
        raise KeyError("gone")

    def instead():
        probe.effect("instead()")
        return "instead"

    try:
        found = go(fails).result()
    except KeyError as error:
        print("handled", error)
        found = go(instead).result()
    return found


def error_ends_the_run(probe):
    """End with a step's error."""

    def fine():
        probe.effect("fine()")
        return 1

    def fails():
        probe.effect("fails()")
        raise KeyError("the end")

    go(fine).result()
    go(fails).result()


def sub_workflow(probe):
    """Start steps inside a step; sleep between."""

    def leaf(number):
        probe.effect(f"leaf({number})")
        print("leaf", number)
        return number

    def parent():
        probe.effect("parent()")
        first = go(leaf, 1).result()
        sleep(0.01)
        return first + go(leaf, 2).result()

    return go(parent).result()


def large_values(probe):
    """Return arrays that lie in object files, one of them twice."""

    def fill(number):
        probe.effect(f"fill({number})")
        return np.full(100_000, float(number))

    first = go(fill, 1).result()
    rest = gather(go(fill, number) for number in (2, 3)).result()
    first += 1
    return float(first.sum()), [float(one.sum()) for one in rest]


def saved_on_the_way(probe):
    """Save on the way in a step that fails once, beside another; receive what it gives."""

    @step(retries=1, backoff=0.001)
    def train(epochs):
        me = current_step()
        at, total = me.saved((0, 0))
        for epoch in range(at, epochs):
            probe.effect(f"epoch {epoch}")
            total += epoch
            me.progress(epoch, epochs)
            me.save((epoch + 1, total))
            if epoch == 1 and probe.effect("stumbles") == 1:
                raise OSError("once")
        return total

    def doubled(total):
        probe.effect("doubled")
        return 2 * total

    weights = np.zeros(40_000)
    large = go(fills, weights)
    return go(doubled, train.go(3)).result(), float(large.result())


def fills(weights):
    """Save what lies in a file, twice."""
    me = current_step()
    weights = me.saved(weights)
    for _ in range(int(weights[0]), 2):
        weights = weights + 1
        me.save(weights)
    return weights.sum()


PROGRAMS = [
    go_and_gather,
    calls_in_place,
    decided_race,
    close_race,
    nested_combinators,
    with_retries,
    handled_error,
    error_ends_the_run,
    sub_workflow,
    large_values,
    saved_on_the_way,
]
# How often one attempt may raise and be tried again by its own policy.
ATTEMPTS = {"stumbles": 3, "flaky('in place')": 5, "flaky('beside')": 5, "hopeless()": 3}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_killed_at_every_commit(bench, make_bench, program, moment):
    """Killed at any commit and run again, a program gives what it gives uninterrupted."""
    expected = bench.run(program)
    assert expected.code == 0
    for killed, commit in enumerate(commits(moment)):
        trial = make_bench()
        first = trial.run(program, kill=(moment, commit))
        if not first.killed:
            assert first.seen() == expected.seen(), first.traceback
            assert killed, "no commit was reached"
            return
        died = trial.effects()
        saved = set(trial.check()[1]) if trial.store.exists() else set()
        again = trial.run(program)
        assert again.seen() == expected.seen(), (commit, again.traceback)
        _ran_as_promised(trial, died, saved)
        problems, _ = trial.check()
        assert problems == []
        replay = trial.run(program)
        assert replay.seen() == expected.seen(), (commit, replay.traceback)
    pytest.fail(f"more than {MOST_COMMITS} commits")


def commits(moment):
    """Return the numbers of the commits to be killed at."""
    first = 3 if moment == "after" else 1
    return range(1, MOST_COMMITS) if EVERY else range(first, MOST_COMMITS, 4)


def _ran_as_promised(trial, died, saved):
    """What was saved at the death never ran again; what was in flight ran at most twice."""
    effects = trial.effects()
    winners = [name for name in effects if name.startswith("winner ")]
    assert len(winners) <= 1, f"a decided race was decided again: {winners}"
    for name, count in effects.items():
        if name in saved and not name.startswith("fails"):
            assert count == died[name], f"{name} had been saved and ran again"
        assert count <= ATTEMPTS.get(name, 2), f"{name} ran {count} times"


REDO = """
import sys
from nbdurable import testing
from nbdurable.inspection import amending
testing.kill_at(sys.argv[2], 1)
amending.redo("program", sys.argv[3:], store=sys.argv[1])
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_a_redo_and_at_every_commit_after_it(bench, make_bench, moment):
    """A redo is all or nothing; killed at any commit after it, the run ends as if undisturbed."""
    program = saved_on_the_way
    expected = bench.run(program)
    before = bench.effects()
    for commit in (0, *commits(moment)):
        trial = make_bench()
        shutil.copytree(bench.folder, trial.folder, dirs_exist_ok=True)
        if commit == 0:  # the redo's own
            redo = [sys.executable, "-c", REDO, str(trial.store), moment, "train"]
            assert subprocess.run(redo, check=False).returncode == -signal.SIGKILL
            left = trial.rows("SELECT count(*) FROM nbdurable.checkpoints WHERE name = 'train'")
            redone = trial.rows("SELECT count(*) FROM nbdurable.redos")
            assert (left, redone) == (([(1,)], [(0,)]) if moment == "before" else ([(0,)], [(1,)]))
        else:
            amending.redo("program", ["train"], store=trial.store)
            if not trial.run(program, kill=(moment, commit)).killed:
                assert commit > 3, "no commit was reached"
                return
        again = trial.run(program)
        assert again.seen() == expected.seen(), (commit, again.traceback)
        assert trial.check()[0] == []
        after = trial.effects()
        assert after["doubled"] == before["doubled"] == 1  # what it received is equal
        if commit:
            assert all(1 <= after[f"epoch {n}"] - before[f"epoch {n}"] <= 2 for n in range(3))
    pytest.fail(f"more than {MOST_COMMITS} commits")
