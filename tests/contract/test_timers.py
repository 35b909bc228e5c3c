"""CONTRACT section 4: timers alone and as branches, over deaths, edits and days."""

import threading
import time

import pytest

from nbdurable import after, gather, select, step, workflow
from nbdurable.api import open_stores
from nbdurable.events import StepLetGo
from nbdurable.executors.clock import Pause, SystemClock
from nbdurable.testing import ManualClock, clock_of_runs

DAY = 86_400


def raced(path, clock, version, *, seconds, gate=None):
    """Race `work` against a timer of 30 s in one execution; tell who won.

    With a `gate`, `work` waits for it; the time is moved by `seconds` when it does.
    """
    begun = threading.Event()

    def work():
        begun.set()
        if gate is not None:
            gate.wait(10)
        return f"worked {version}"

    with clock_of_runs(clock), workflow("w", store=path):
        timer = after(30)
        first = select(step(work, version=version).go(), timer)
        if gate is not None:
            assert begun.wait(10)
            asking = threading.Thread(target=first.outcome)  # who asks arms the timer
            asking.start()
            clock.wait_for_timers(1)
            clock.advance(seconds)
            gate.set()
            asking.join(10)
        winner = "timer" if first.winner is timer else first.result()
    open_stores.close_stores()
    return winner


@pytest.mark.parametrize(("seconds", "winner"), [(29, "worked 2"), (31, "timer")])
def test_the_winners_code_is_edited_a_day_later(tmp_path, seconds, winner):
    """The select is open again, and its timer counts from now, not from yesterday."""
    path, clock = tmp_path / "store.duckdb", ManualClock()
    assert raced(path, clock, "1", seconds=0) == "worked 1"
    clock.advance(DAY)
    assert raced(path, clock, "2", seconds=seconds, gate=threading.Event()) == winner
    clock.advance(DAY)
    # What was decided then stays decided, and so does what was decided before.
    assert raced(path, clock, "2", seconds=0) == winner
    assert raced(path, clock, "1", seconds=0) == "worked 1"


def test_what_waits_when_the_run_ends_is_let_go(tmp_path):
    """A timer that lost, and a step in its backoff, do not look as if they went on."""
    let_go = []

    def flaky():
        raise OSError("no answer")

    def observe(event):
        if type(event) is StepLetGo:
            let_go.append(event.step)

    def interrupted():
        with workflow("w", store=tmp_path / "store.duckdb", observers=(observe,)):
            timer = after(DAY)
            failing = step(flaky, retries=1, backoff=DAY, max_backoff=DAY).go()
            assert select(timer, step(lambda: 1).go()).result() == 1
            while failing.life.pause is None:
                time.sleep(0.001)
            places.extend([timer.place, failing.place])
            assert let_go == []
            raise RuntimeError("the cell")

    places = []
    with pytest.raises(RuntimeError, match="the cell"):
        interrupted()
    open_stores.close_stores()
    assert let_go == places


def test_a_body_that_has_just_begun_again_is_fenced(tmp_path):
    """A backoff that is over at the very end, its mark still there, has a body running."""
    reasons, inside, gate = [], threading.Event(), threading.Event()

    def body():
        inside.set()
        gate.wait(10)

    def observe(event):
        if type(event) is StepLetGo:
            reasons.append(event.reason)

    def interrupted():
        with workflow("w", store=tmp_path / "store.duckdb", observers=(observe,)):
            handle = step(body).go()
            assert inside.wait(10)
            handle.life.pause_for(Pause(SystemClock(), DAY, lambda: None))
            raise RuntimeError("the cell")

    with pytest.raises(RuntimeError, match="the cell"):
        interrupted()
    gate.set()
    open_stores.close_stores()
    assert reasons == ["still running"]


def slept(path, clock, *moves):
    """Wait for a timer inside a gather while the time is moved; give the time at its end."""

    def move():
        for seconds in moves:
            clock.wait_for_timers(1)
            clock.advance(seconds)

    moving = threading.Thread(target=move)
    with clock_of_runs(clock), workflow("w", store=path):
        timer = after(100)
        moving.start()
        gather(timer).result()
        moving.join()
        return clock.time()


def test_what_is_waited_for_alone_is_not_armed_anew(tmp_path):
    """A gather of timers wakes at the recorded times, in whatever execution."""
    path, clock = tmp_path / "store.duckdb", ManualClock(1_000.0)
    with clock_of_runs(clock):
        run = workflow("w", store=path)
        run.__enter__()
        timer = after(100)
        clock.advance(40)
        stopped = KeyboardInterrupt()
        run.__exit__(type(stopped), stopped, None)
        assert not timer.durable
        open_stores.close_stores()
    clock.advance(40)
    assert slept(path, clock, 20) == 1_100.0
    open_stores.close_stores()
