"""CONTRACT section 4, steps called in threads: they belong to the run that handed them over.

With the cases that users of other engines report: steps called from ThreadPoolExecutor.map,
tqdm's thread_map, joblib's threads and run_in_executor, which other engines don't save
(Prefect #8652, Temporal's Python SDK #263).
"""

import asyncio
import contextlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import Pool, ThreadPool

import joblib
import pytest
from tqdm.contrib.concurrent import thread_map

from nbdurable import NotInRunError, UsageError, step, workflow
from nbdurable.api import open_stores
from nbdurable.store import Store

LONG = 60
ITEMS = "abc"


@step(version=1)
def work(probe, item):
    """Count, and give what no other process would."""
    probe.effect(item)
    return item, random.SystemRandom().random()


@step(version=1)
def roll(probe):
    """Be the same call wherever it is."""
    probe.effect("roll")
    return random.SystemRandom().random()


def joined(threads):
    """Run threads to their ends."""
    threads = list(threads)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def by_map(probe):
    """Map over a pool."""
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(work, [probe] * 3, ITEMS))


def by_submit(probe):
    """Submit one by one."""
    with ThreadPoolExecutor(3) as pool:
        return [one.result() for one in [pool.submit(work, probe, item=item) for item in ITEMS]]


def by_function(probe):
    """Submit a function that calls the step."""
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda item: work(probe, item), ITEMS))


def by_thread(probe):
    """Start threads."""
    found = {}
    joined(
        threading.Thread(target=lambda item=item: found.update({item: work(probe, item)}))
        for item in ITEMS
    )
    return sorted(found.items())


class Worker(threading.Thread):
    """A thread with a body of its own."""

    def __init__(self, probe, item):
        super().__init__()
        self.given, self.found = (probe, item), None

    def run(self):
        """Call the step."""
        self.found = work(*self.given)


def by_threads_of_their_own(probe):
    """Start threads that are a class of the user's."""
    threads = [Worker(probe, item) for item in ITEMS]
    joined(threads)
    return [thread.found for thread in threads]


def by_pool(probe):
    """Use the pool of multiprocessing that has threads."""
    with ThreadPool(2) as pool:
        return [
            pool.starmap(work, [(probe, item) for item in "ab"]),
            pool.map(lambda item: work(probe, item), "cd"),
            list(pool.imap(lambda item: work(probe, item), "ef")),
            pool.apply(work, (probe, "g")),
        ]


def by_thread_map(probe):
    """Map with tqdm."""
    return thread_map(lambda item: work(probe, item), ITEMS, max_workers=2, disable=True)


def by_joblib(probe):
    """Use joblib's threads."""
    calls = (joblib.delayed(work)(probe, item) for item in ITEMS)
    return joblib.Parallel(n_jobs=2, backend="threading")(calls)


WAYS = [by_map, by_submit, by_function, by_thread, by_threads_of_their_own, by_pool,
        by_thread_map, by_joblib]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_step_in_a_thread_is_saved(always_replay, bench, way):
    """However it got there; nothing runs again, and every value is the first one."""
    always_replay(way)
    effects = bench.effects()
    assert effects
    assert set(effects.values()) == {1}
    assert len(bench.check()[1]) == len(effects)


async def by_executor(probe):
    """Hand steps to the loop's executor, one of the user's, and to_thread."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as pool:
        return [
            await asyncio.gather(*(loop.run_in_executor(None, work, probe, one) for one in "ab")),
            await asyncio.gather(*(loop.run_in_executor(pool, work, probe, one) for one in "cd")),
            await asyncio.gather(*(asyncio.to_thread(work, probe, one) for one in "ef")),
            await asyncio.to_thread(lambda: work(probe, "g")),
            [await one for one in asyncio.as_completed([asyncio.to_thread(work, probe, one)
                                                        for one in "hi"])],
        ]  # fmt: skip


def test_a_step_in_an_executor_is_saved(always_replay, bench):
    """Tasks that await them go on in the order of their outcomes, as with handles."""
    always_replay(by_executor)
    assert bench.effects() == dict.fromkeys("abcdefghi", 1)


async def cancelled_while_running(probe):
    """Stop waiting for a step in a thread that has begun."""

    @step(version=1)
    def held():
        probe.effect("held")
        assert probe.event("go on").wait(LONG)
        return "whole"

    waiting = asyncio.create_task(asyncio.to_thread(held))
    while probe.count("held") == 0:  # noqa: ASYNC110 - it is counted in a thread
        await asyncio.sleep(0.001)
    waiting.cancel()
    try:
        await waiting
    except asyncio.CancelledError:
        return "left"
    finally:
        probe.event("go on").set()


def test_what_was_left_while_it_ran_is_saved(bench):
    """The cell's end waits for its outcome, and no later pass runs it."""
    for _ in range(3):
        assert bench.run(cancelled_while_running).value == "left"
        assert bench.effects() == {"held": 1}
    with contextlib.closing(Store.open(bench.store)) as store:
        assert store.rows("SELECT status FROM nbdurable.steps") == [("finished",)]


async def fails_in_an_executor(probe):
    """Raise the error of a step in an executor where it is awaited, and cancel a wait for one."""

    @step(version=1)
    def fails():
        raise KeyError("gone")

    @step(version=1)
    def waits():
        assert probe.event("on").wait(LONG)

    found = []
    try:
        await asyncio.to_thread(fails)
    except KeyError as error:
        found.append(repr(error))
    try:
        await asyncio.wait_for(asyncio.to_thread(waits), 0.02)
    except TimeoutError:
        found.append("too late")
    probe.event("on").set()
    return found


def test_errors_and_timeouts_of_executors(always_replay):
    """They are those of the step, live and on replay."""
    assert always_replay(fails_in_an_executor).value == ["KeyError('gone')", "too late"]


def equal_calls(probe):
    """Make one call from several threads, in the order that they happen to have."""
    started = threading.Barrier(4)

    def rolls():
        started.wait(LONG)
        return roll(probe), roll(probe)

    with ThreadPoolExecutor(4) as pool:
        found = [one.result() for one in [pool.submit(rolls) for _ in range(4)]]
        submitted = [one.result() for one in [pool.submit(roll, probe) for _ in range(3)]]
    return found, submitted, roll(probe)


async def equal_calls_of_tasks(probe):
    """Make one call from several tasks; which comes first differs from run to run."""

    async def rolls(number):
        for _ in range(random.SystemRandom().randrange(5)):
            await asyncio.sleep(0)
        return number, await asyncio.to_thread(roll, probe)

    return await asyncio.gather(*map(rolls, range(5)))


@pytest.mark.parametrize("program", [equal_calls, equal_calls_of_tasks])
def test_equal_calls_of_several_threads(always_replay, program):
    """Each gets its own again: their order is that in which they were handed over."""
    always_replay(program)


def a_body_with_a_pool(probe):
    """Call steps from a pool inside a step, and print in both."""

    def child(item):
        print("child", item)
        return work(probe, item)

    @step(version=1)
    def parent():
        with ThreadPoolExecutor(1) as pool:
            found = list(pool.map(step(child, version=1), ITEMS))
        print("parent")
        if probe.effect("parent") == 1:
            raise OSError("not yet")
        return found

    try:
        return parent.with_options(retries=1, backoff=0)()
    finally:
        print("the end")


def test_a_body_may_use_a_pool(always_replay, bench):
    """What it calls there is its own: a retry of the body does not run it again."""
    always_replay(a_body_with_a_pool)
    assert bench.effects() == {"a": 1, "b": 1, "c": 1, "parent": 2}


def prints_in_threads(probe):
    """Let steps in threads print; the one that was submitted first ends last."""

    @step(version=1)
    def talks(number):
        if number < 3:
            assert probe.event(str(number + 1)).wait(LONG)
        print("step", number)
        probe.event(str(number)).set()

    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(talks, range(4)):
            print("next")
        pool.submit(lambda: talks(4))
        print("the cell ends")


def test_output_of_threads_has_an_order(always_replay):
    """It is shown where the cell asks for what the work gave; what nobody asked for, at the end."""
    shown = [line for number in range(4) for line in (f"step {number}", "next")]
    lines = "\n".join([*shown, "the cell ends", "step 4", ""])
    assert always_replay(prints_in_threads).stdout == lines


def cancels_what_waits(probe):
    """Cancel work before it begins; leave other work to the end of the cell."""
    pool = ThreadPoolExecutor(1)
    first = pool.submit(lambda: probe.event("on").wait(LONG))
    left = pool.submit(work, probe, "left")
    cancelled = pool.submit(work, probe, "cancelled").cancel()
    probe.event("on").set()
    return cancelled, first.result(), left is not None


def test_work_that_was_cancelled_is_not_waited_for(always_replay, bench):
    """It does not run; what was submitted and not asked for has run at the cell's end."""
    assert always_replay(cancels_what_waits).value == (True, True, True)
    assert bench.effects() == {"left": 1}


def test_a_thread_that_began_before_the_run(tmp_path, probe):
    """Its calls are plain ones, and the cell says so, once a step."""
    asked, answered, found = threading.Semaphore(0), threading.Semaphore(0), []

    def serve():
        for _ in range(2):
            asked.acquire()
            found.append(work(probe, "x"))
            answered.release()

    thread = threading.Thread(target=serve)
    thread.start()
    run = workflow("w", store=tmp_path / "s.duckdb")
    with run:
        for _ in range(2):
            asked.release()
            answered.acquire()
    thread.join()
    open_stores.close_stores()
    assert len(found) == 2
    (said,) = [note for note in run.notes if "plain call" in note]
    assert said.startswith("work was called by a thread or task that began before this run")


def test_nothing_stays_patched(tmp_path):
    """Outside of runs the standard library is as it was, and in one for code of no run."""
    places = [(ThreadPoolExecutor, "submit"), (threading.Thread, "start"), (Pool, "apply_async"),
              (asyncio.BaseEventLoop, "create_task"), (asyncio, "as_completed"),
              (asyncio.timeouts.Timeout, "_on_timeout"), (asyncio.tasks, "_wait")]  # fmt: skip
    before = [vars(owner)[name] for owner, name in places]
    seen, asked = [], threading.Event()
    with ThreadPoolExecutor(1) as outside, ThreadPoolExecutor(1) as pool:

        def submits():
            assert asked.wait(LONG)
            return pool.submit(lambda: seen.append("plain")).result()

        future = outside.submit(submits)
        with workflow("w", store=tmp_path / "s.duckdb"):
            assert vars(ThreadPoolExecutor)["submit"] is not before[0]
            asked.set()
            future.result()
    open_stores.close_stores()
    assert seen == ["plain"]
    assert [vars(owner)[name] for owner, name in places] == before


def test_a_thread_that_outlives_its_run(tmp_path, probe):
    """It is refused, and not silently plain; a run of its own is none of the old one's."""
    on, found = threading.Event(), []

    def late():
        assert on.wait(LONG)
        try:
            work(probe, "late")
        except NotInRunError as error:
            found.append(str(error))
        with workflow("own", store=tmp_path / "own.duckdb"):
            found.append(work(probe, "own")[0])

    with workflow("w", store=tmp_path / "s.duckdb"):
        thread = threading.Thread(target=late)
        thread.start()
    on.set()
    thread.join()
    open_stores.close_stores()
    assert "has ended" in found[0]
    assert found[1:] == ["own"]
    assert probe.count("late") == 0


def test_threads_without_an_order(tmp_path, probe):
    """Equal calls from a raw thread, whose order nobody took, are still refused."""
    import _thread  # noqa: PLC0415 - not handed over by anything that a program uses
    import contextvars  # noqa: PLC0415 - likewise

    done, found = threading.Event(), []

    def call(context):
        try:
            context.run(roll, probe)
        except UsageError as error:
            found.append(str(error))
        done.set()

    with workflow("w", store=tmp_path / "s.duckdb"):
        roll(probe)
        _thread.start_new_thread(call, (contextvars.copy_context(),))
        assert done.wait(LONG)
    open_stores.close_stores()
    assert "no order between them" in found[0]
