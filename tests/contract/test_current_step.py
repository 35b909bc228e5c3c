"""CONTRACT sections 2 and 4: what a step knows of itself, tells of itself, and saves."""

import asyncio
import os
import signal
import threading
import time

import numpy as np
import pytest

from nbdurable import (
    EncodeError,
    NotInRunError,
    StepTimeoutError,
    UntrustedCheckpointError,
    UsageError,
    current_step,
    go,
    race,
    step,
    workflow,
)
from nbdurable.events import StepProgressed
from nbdurable.inspection import history, queries
from nbdurable.labels import share
from nbdurable.store import Store, check
from nbdurable.testing import ManualClock, clock_of_runs
from nbdurable.view.notice import Notice
from nbdurable.view.progress import RunView, State
from nbdurable.view.words import reached


def attempts_and_keys(probe):
    """Fail once in each of two calls, and tell attempts and keys."""

    @step(retries=1, backoff=0.001)
    def charge(order):
        me = current_step()
        probe.effect(f"key {me.idempotency_key}")
        if me.attempt == 1:
            raise OSError("no answer")
        return me.attempt

    @step(retries=1, backoff=0.001)
    async def charge_async(order):
        await asyncio.sleep(0)
        me = current_step()
        probe.effect(f"key {me.idempotency_key}")
        if me.attempt == 1:
            raise OSError("no answer")
        return me.attempt

    return charge(1), charge.go(2).result(), charge_async.go(1).result()


def test_attempts_have_one_key(always_replay, bench):
    """The key is the same for each attempt of a call and another for another call."""
    assert always_replay(attempts_and_keys).value == (2, 2, 2)
    counts = [count for name, count in bench.effects().items() if name.startswith("key ")]
    assert counts == [2, 2, 2]


def trains(probe):
    """Save after each epoch; die where the test says."""

    @step
    def train(epochs):
        me = current_step()
        at, total = me.saved((0, 0))
        for epoch in range(at, epochs):
            probe.effect(f"epoch {epoch}")
            total += epoch
            me.save((epoch + 1, total))
        return total

    return train(6)


async def trains_async(probe):
    """The same in an async step."""

    @step
    async def train(epochs):
        me = current_step()
        at, total = me.saved((0, 0))
        for epoch in range(at, epochs):
            await asyncio.sleep(0)
            probe.effect(f"epoch {epoch}")
            total += epoch
            me.save((epoch + 1, total))
        return total

    return await train(6)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("program", [trains, trains_async])
def test_a_killed_loop_goes_on_from_its_last_save(bench, program, moment):
    """What was saved when the process died is not done again, and the result is the same."""
    deaths = 0
    while (report := bench.run(program, kill=(moment, 4))).killed:
        deaths += 1
        assert deaths < 10
    assert report.value == 15
    assert deaths >= 2
    counts = bench.effects()
    # Only an epoch whose save was not yet durable is done again.
    assert set(counts.values()) == ({1, 2} if moment == "before" else {1})
    assert bench.check()[0] == []
    assert bench.rows("SELECT count(*) FROM nbdurable.saves") == [(0,)]
    assert bench.run(program).value == 15
    assert bench.effects() == counts


def saves_and_fails(probe):
    """Save, fail at epoch 3 of the first code; the second code has no such bug."""
    mended = probe.parameters.get("mended")

    @step(name="train", version=probe.parameters.get("version"))
    def train():
        me = current_step()
        at = me.saved(0)
        for epoch in range(at, 5):
            if epoch == 3 and not mended:
                raise ValueError("the bug")
            probe.effect(f"epoch {epoch}")
            me.save(epoch + 1)
        return at

    return train()


def test_an_edit_keeps_what_was_saved_and_says_so(bench):
    """The bug of epoch 3 doesn't cost the first three; the cell tells what it goes on from."""
    assert "the bug" in bench.run(saves_and_fails).error
    mended = bench.run(saves_and_fails, parameters={"mended": True})
    assert mended.value == 3
    assert max(bench.effects().values()) == 1
    assert any("goes on from what the earlier code saved" in note for note in mended.notes)


def test_another_version_drops_what_was_saved(bench):
    """`version=` says that the old work is no use."""
    assert "the bug" in bench.run(saves_and_fails).error
    anew = bench.run(saves_and_fails, parameters={"mended": True, "version": 2})
    assert anew.value == 0


def saves_of_what_it_received(probe):
    """Save by a value that comes through a handle."""

    def load():
        return probe.parameters["data"]

    @step
    def train(data):
        me = current_step()
        seen = me.saved(())
        me.save((*seen, data))
        probe.effect("train")
        if not probe.parameters.get("end"):
            raise OSError("not yet")
        return me.saved()

    return train.go(step(load, version=repr(probe.parameters["data"])).go()).result()


def test_a_save_belongs_to_the_values_received(bench):
    """Trained on other data, a step does not go on from weights of the old ones."""
    bench.run(saves_of_what_it_received, parameters={"data": 1})
    bench.run(saves_of_what_it_received, parameters={"data": 1})
    found = bench.run(saves_of_what_it_received, parameters={"data": 2, "end": True})
    assert found.value == (2,)


def test_a_finished_step_that_is_edited_starts_anew(tmp_path, probe):
    """What has a value has no save any more: the edited step does not return old work."""
    seen = []
    for factor in (1, 2):
        with workflow("w", store=tmp_path / "s.duckdb"):

            @step(name="train", ignore=("seen",))
            def train(factor=factor):
                seen.append(current_step().saved("nothing"))
                current_step().save("work")
                return factor

            assert train(factor) == factor
    assert seen == ["nothing", "nothing"]


def large_saves(probe):
    """Save arrays that lie in object files."""

    @step
    def train():
        me = current_step()
        weights = me.saved(np.zeros(100_000))
        for _ in range(5):
            weights = weights + 1
            me.save(weights)
        return float(weights.sum())

    return train()


def test_large_saves_lie_in_files_and_older_ones_go(bench):
    """A loop that saves a large value each time leaves one file, not one an epoch."""
    assert bench.run(large_saves, kill=("after", 6)).killed
    files = list((bench.folder / "store.duckdb.objects").iterdir())
    assert len(files) <= 2
    assert bench.run(large_saves).code == 0
    assert bench.check()[0] == []


def test_a_save_whose_file_is_gone_is_told_and_not_given(bench):
    """Where it can't be restored the step starts anew, and says why."""
    assert bench.run(large_saves, kill=("after", 4)).killed
    for file in (bench.folder / "store.duckdb.objects").iterdir():
        file.unlink()
    found = bench.run(large_saves)
    assert found.value == 500_000.0
    assert any("can't be restored" in note for note in found.notes)


def test_a_save_that_nobody_signed_is_never_unpickled(tmp_path):
    """Its payload is replaced: the step fails, and says what drops it."""
    place = tmp_path / "s.duckdb"

    def train(probe=()):
        me = current_step()
        me.saved()
        me.save(1)
        raise OSError("not yet")

    def run():
        with workflow("w", store=place):
            go(train).result()

    with pytest.raises(OSError, match="not yet"):
        run()
    store = Store.open(place)
    store.commit(
        lambda batch: batch.execute("UPDATE nbdurable.saves SET payload = ?", [b"cos\nbad\n."])
    )
    store.close()
    with pytest.raises(UntrustedCheckpointError, match=r"Nothing of it was unpickled.*redo NAME"):
        run()
    store = Store.open(place)
    assert [one for one in check(store) if "saves" in one]
    store.close()


def test_what_outside_a_step_and_what_cannot_be_pickled_get(tmp_path):
    """One line each; what was saved before stays."""
    with pytest.raises(NotInRunError, match=r"^current_step\(\)"):
        current_step().save(1)
    said = []

    @step(ignore=("said",))
    def train():
        me = current_step()
        me.save(1)
        for save in (
            lambda: me.save(threading.Lock()),
            lambda: me.progress("x", 2),
            lambda: me.progress(10**400, 2),
        ):
            try:
                save()
            except (EncodeError, UsageError) as error:
                said.append((type(error), str(error).count("\n")))
        return me.saved()

    with workflow("w", store=tmp_path / "s.duckdb"):
        with pytest.raises(NotInRunError, match="outside a step"):
            current_step()
        assert train() == 1
    assert said == [(EncodeError, 0), (UsageError, 0), (UsageError, 0)]


_MAY_BE_PICKLED = threading.Event()


class _Slow:
    """Is pickled once it may be."""

    def __reduce__(self):
        _MAY_BE_PICKLED.wait(10)
        return int, ()


@pytest.mark.parametrize("how", ["timeout", "race", "async timeout", "while it is pickled"])
def test_an_attempt_that_was_let_go_saves_nothing(tmp_path, how):
    """After its end it belongs to nobody: `save` raises, and the store holds no save of it."""
    place, over, said = tmp_path / "s.duckdb", threading.Event(), []
    tried = threading.Event()
    _MAY_BE_PICKLED.clear()

    def late():
        me = current_step()
        if how != "while it is pickled":
            over.wait(10)
        try:
            me.save("late" if how != "while it is pickled" else _Slow())
        except NotInRunError as error:
            said.append(str(error))
        tried.set()

    async def late_async():
        me = current_step()
        try:
            await asyncio.sleep(10)
        finally:
            try:
                me.save("late")
            except NotInRunError as error:
                said.append(str(error))
            tried.set()

    with workflow("w", store=place):
        if how == "race":
            slow = step(late, name="late", version=1).go()
            race(slow, go(lambda: 1)).result()
        elif how != "async timeout":
            with pytest.raises(StepTimeoutError):
                step(late, name="late", version=1, timeout=0.05).go().result()
        else:
            slow = step(late_async, name="late", version=1).go()
            race(slow, go(lambda: 1)).result()
        over.set()
        _MAY_BE_PICKLED.set()
        assert tried.wait(10)
    assert len(said) == 1
    store = Store.open(place)
    assert store.rows("SELECT count(*) FROM nbdurable.saves") == [(0,)]
    store.close()


def test_progress_is_throttled_shown_and_reset(tmp_path):
    """Thousands of calls are a few events; a retry begins again at nothing; the end is told."""
    events, view = [], RunView()
    clock = ManualClock()

    def observe(event):
        view.apply(event)
        if isinstance(event, StepProgressed):
            facts = active.control.detail(0)["facts"]
            assert ("Progress", share(event.done, event.total), False) in facts
            events.append((event.done, event.total))
            shown.append(reached(view.steps[0]))

    shown, before, looped = [], [], threading.Event()

    @step(retries=1, backoff=0.001, version=1)
    def count():
        me = current_step()
        before.append(reached(view.steps[0]))
        for at in range(1000):
            me.progress(at + 1, 1000)
        if me.attempt == 1:
            looped.set()
            raise OSError("again")

    active = workflow("w", store=tmp_path / "s.duckdb", observers=(observe,))
    with clock_of_runs(clock), active:
        handle = count.go()
        assert looped.wait(10)
        clock.wait_for_timers(3)  # of the start, of the progress, and before the next attempt
        clock.advance(0.01)
        handle.result()
    assert before == ["", ""]
    assert events == [(1.0, 1000.0), (1000.0, 1000.0)] * 2
    assert shown[-1] == "1,000 of 1,000"
    assert view.steps[0].state is State.DONE


def dies_on_the_way(probe):
    """Tell how far it is, and die."""

    def train():
        me = current_step()
        began = me.saved(0)
        for epoch in range(began, 90):
            me.progress(epoch, 90)
            if epoch == 37 and not began:
                me.save(epoch)
                os.kill(os.getpid(), signal.SIGKILL)
        return 90

    return go(train).result()


def test_a_dead_run_says_how_far_it_was(bench):
    """In the notice at load, in `status`, and in the run's view."""
    assert bench.run(dies_on_the_way).killed
    place = str(bench.store)
    (row,) = queries.status(place)
    assert row["status"] == "died at 37 of 90"
    assert "died at 37 of 90" in str(Notice(queries.runs(place), time.time()))
    assert history.recall("program", place).view.steps[0].why == "died at 37 of 90"
    assert bench.run(dies_on_the_way).value == 90
    assert queries.status(place)[0]["status"] == "finished"
