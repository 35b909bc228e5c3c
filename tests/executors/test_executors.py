"""Threads, loops and clocks: limits, slots given away, nothing that keeps a process alive."""

import asyncio
import contextvars
import queue
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, Executor, Future

import pytest

from nbdurable.executors.clock import SystemClock
from nbdurable.executors.futures import Futures
from nbdurable.executors.loops import Coroutines, LoopThread, call_in, running_loop
from nbdurable.executors.remote import Call
from nbdurable.executors.threads import Threads

pytestmark = pytest.mark.timeout(60)

LONG = 20  # seconds after which a test has failed
A_MOMENT = 0.1  # seconds in which what must not happen would have happened


class Counted:
    """Counts who is inside at once."""

    def __init__(self):
        self.most = self.inside = 0
        self.began = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self):
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.began.release()

    def __exit__(self, *error):
        with self._lock:
            self.inside -= 1

    def wait_for(self, count):
        """Wait until so many have come in."""
        return all(self.began.acquire(timeout=LONG) for _ in range(count))


@pytest.fixture
def pools():
    """Make pools that are closed after the test."""
    made = []

    def make(limit):
        made.append(Threads(limit))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


# --- threads -------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3])
def test_threads_up_to_the_limit(pools, limit):
    """As many run at once as the limit says, no more, and all in the end."""
    pool, counted, leave = pools(limit), Counted(), threading.Event()
    left = threading.Semaphore(0)

    def work():
        with counted:
            leave.wait(LONG)
        left.release()

    for _ in range(10):
        pool.submit(work)
    assert counted.wait_for(limit)
    assert not counted.began.acquire(timeout=A_MOMENT)
    leave.set()
    assert all(left.acquire(timeout=LONG) for _ in range(10))
    assert counted.most == limit


def test_threads_first_come_first_served(pools):
    """Work is taken in the order in which it was submitted."""
    pool, order, done = pools(1), [], threading.Event()
    for number in range(50):
        pool.submit(lambda number=number: order.append(number))
    pool.submit(done.set)
    assert done.wait(LONG)
    assert order == list(range(50))


def test_threads_are_few_and_kept(pools):
    """No more threads are made than the limit; they serve one piece of work after the other."""
    pool, names = pools(4), set()
    for _ in range(5):
        left = threading.Barrier(5)
        for _ in range(4):
            pool.submit(lambda left=left: (names.add(threading.get_ident()), left.wait(LONG)))
        left.wait(LONG)
    assert len(names) == 4


def test_threads_that_are_asked_for_at_once(pools):
    """However many submit at the same moment, there are no more threads than the limit."""
    pool = pools(3)
    for _ in range(10):
        pool._grow()
    assert pool._threads == 3


@pytest.mark.parametrize("queued_first", [True, False])
def test_a_thread_that_waits_gives_its_slot_away(pools, queued_first):
    """Who waits for others says so: they run meanwhile, though the limit is one."""
    pool, inside, helped, done = (pools(1), *(threading.Event() for _ in range(3)))
    queued = threading.Event()

    def waits():
        if queued_first:
            queued.wait(LONG)
        with pool.blocked():
            inside.set()
            assert helped.wait(LONG)
        done.set()

    pool.submit(waits)
    if not queued_first:
        assert inside.wait(LONG)
    pool.submit(helped.set)
    queued.set()
    assert done.wait(LONG)


def test_threads_that_wait_for_each_other_in_depth(pools):
    """Forty levels of work, each waiting for the next, need a limit of one."""
    pool, done = pools(1), threading.Event()

    def level(depth, finished):
        if depth:
            below = threading.Event()
            pool.submit(lambda: level(depth - 1, below))
            with pool.blocked():
                assert below.wait(LONG)
        finished.set()

    pool.submit(lambda: level(40, done))
    assert done.wait(LONG)


def test_the_limit_holds_again_after_waiting(pools):
    """When those that waited have gone on, only as many run as the limit says."""
    pool, gate, done = pools(2), threading.Event(), threading.Semaphore(0)

    def waits():
        with pool.blocked():
            gate.wait(LONG)
        done.release()

    for _ in range(6):
        pool.submit(waits)
    gate.set()
    assert all(done.acquire(timeout=LONG) for _ in range(6))
    counted, leave = Counted(), threading.Event()

    def work():
        with counted:
            leave.wait(LONG)
        done.release()

    serve_once_more(pool)
    for _ in range(6):
        pool.submit(work)
    assert counted.wait_for(2)
    assert not counted.began.acquire(timeout=A_MOMENT)
    leave.set()
    assert all(done.acquire(timeout=LONG) for _ in range(6))


def serve_once_more(pool):
    """Let each thread there is serve one piece of work, after which the extra ones end."""
    everyone = threading.Barrier(pool._threads + 1)
    for _ in range(pool._threads):
        pool.submit(lambda: everyone.wait(LONG))
    everyone.wait(LONG)


def test_waiting_in_a_foreign_thread_changes_nothing(pools):
    """A thread that is none of the pool's has no slot to give away."""
    pool = pools(1)
    with pool.blocked():
        assert pool._given_up == 0
    with pytest.raises(KeyError), pool.blocked():
        raise KeyError


def test_a_slot_comes_back_when_waiting_fails(pools):
    """A wait that ends with an error gives the slot back too."""
    pool, done = pools(1), threading.Event()

    def fails():
        try:
            with pool.blocked():
                raise KeyError
        except KeyError:
            done.set()

    pool.submit(fails)
    assert done.wait(LONG)
    assert pool._given_up == 0


def test_a_hung_thread_is_let_go(pools):
    """A thread that does not come back holds up nobody once it was let go."""
    pool, hung, back, free = (pools(1), *(threading.Event() for _ in range(3)))

    def hangs():
        hung.set()
        back.wait(LONG)
        pool.came_back()

    pool.submit(hangs)
    assert hung.wait(LONG)
    pool.submit(free.set)
    assert not free.wait(A_MOMENT)
    pool.let_go()
    assert free.wait(LONG)
    back.set()


def test_a_thread_that_came_back_does_not_raise_the_limit(pools):
    """After a let-go thread has come back, the limit is what it was."""
    pool, done = pools(2), threading.Semaphore(0)
    for _ in range(4):
        hung, back = threading.Event(), threading.Event()

        def hangs(hung=hung, back=back):
            hung.set()
            back.wait(LONG)
            pool.came_back()
            done.release()

        pool.submit(hangs)
        assert hung.wait(LONG)
        pool.let_go()
        back.set()
        assert done.acquire(timeout=LONG)
    serve_once_more(pool)
    counted, leave = Counted(), threading.Event()

    def work():
        with counted:
            leave.wait(LONG)

    for _ in range(6):
        pool.submit(work)
    assert counted.wait_for(2)
    assert not counted.began.acquire(timeout=A_MOMENT)
    leave.set()


def test_closed_threads_start_nothing_more(pools):
    """After `close` what runs goes on, what was queued or comes later does not start."""
    pool, inside, leave, left = (pools(1), *(threading.Event() for _ in range(3)))
    ran = []

    def work():
        inside.set()
        leave.wait(LONG)
        left.set()

    before = threading.active_count()
    pool.submit(work)
    assert inside.wait(LONG)
    [thread] = [one for one in threading.enumerate() if one.name == "nbdurable-step"][-1:]
    pool.submit(lambda: ran.append("queued"))
    pool.close()
    pool.submit(lambda: ran.append("late"))
    leave.set()
    assert left.wait(LONG)
    thread.join(LONG)
    assert not thread.is_alive()
    assert ran == []
    assert threading.active_count() <= before


HANGING = """
import asyncio, threading
from nbdurable.executors.loops import LoopThread
from nbdurable.executors.clock import SystemClock
from nbdurable.executors.threads import Threads

ready = threading.Barrier(4)

def hang():
    ready.wait(20)
    threading.Event().wait()

async def block_the_loop():
    hang()

pool = Threads(2)
pool.submit(hang)
LoopThread("loop").loop.call_soon_threadsafe(hang)
SystemClock().call_later(0, hang)
ready.wait(20)
print("the end", flush=True)
"""


def test_nothing_keeps_a_process_alive():
    """A process ends while a body, a loop and a timer hang: all threads are daemons."""
    command = [sys.executable, "-c", HANGING]
    found = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=True)
    assert found.stdout == "the end\n"
    assert found.stderr == ""


def test_every_thread_is_a_daemon(pools):
    """Each kind of thread says that it is one."""
    found, done = [], threading.Barrier(4)

    def look():
        found.append(threading.current_thread().daemon)
        done.wait(LONG)

    pools(1).submit(look)
    LoopThread("loop").loop.call_soon_threadsafe(look)
    SystemClock().call_later(0, look)
    done.wait(LONG)
    assert found == [True] * 3


# --- loops ---------------------------------------------------------------------------


def test_one_loop_for_all():
    """Threads that ask at once get one loop, which runs."""
    holder, gate, found = LoopThread("loop"), threading.Barrier(8), []

    def ask():
        gate.wait(LONG)
        found.append(holder.loop)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    assert found[0].is_running()


def test_running_loop():
    """The loop that runs in this thread, or None."""

    async def inside():
        return running_loop() is asyncio.get_running_loop()

    assert running_loop() is None
    assert asyncio.run(inside())


def test_calling_into_a_loop_that_is_closed():
    """A loop that was closed meanwhile is no error; any other mistake is."""
    loop = asyncio.new_event_loop()
    loop.close()
    call_in(loop, print, "never")

    class Odd:
        def call_soon_threadsafe(self, *_):
            raise RuntimeError("something else")

        def is_closed(self):
            return False

    with pytest.raises(RuntimeError, match="something else"):
        call_in(Odd(), print)


# --- coroutines ----------------------------------------------------------------------


@pytest.fixture
def loop():
    """Return a loop on a thread of its own."""
    return LoopThread("test-loop").loop


def run_on(loop, coroutine):
    """Run a coroutine on a loop of another thread and wait for it."""
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(LONG)


async def settle():
    """Let everything that can run on this loop run."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.parametrize("limit", [1, 3])
def test_coroutines_up_to_the_limit(loop, limit):
    """As many are under way as the limit says, no more, in their order, and all in the end."""
    coroutines = Coroutines(limit)

    async def test():
        leave, left, inside, order, most = asyncio.Event(), asyncio.Event(), set(), [], []

        async def work(number):
            order.append(number)
            inside.add(number)
            most.append(len(inside))
            await leave.wait()
            inside.discard(number)
            if number == 7:
                left.set()

        for number in range(8):
            coroutines.submit(
                lambda number=number: work(number),
                contextvars.copy_context(),
                running_loop(),
                "test",
            )
        await settle()
        assert order == list(range(limit))
        leave.set()
        await left.wait()
        assert order == list(range(8))
        return max(most)

    assert run_on(loop, test()) == limit


def test_coroutines_that_wait_give_their_slots_away(loop):
    """Thirty levels of coroutines, each waiting for the next, need a limit of one."""
    coroutines, done = Coroutines(1), threading.Event()

    async def level(depth, finished):
        if depth:
            below = asyncio.Event()
            coroutines.submit(
                lambda: level(depth - 1, below), contextvars.copy_context(), running_loop(), "test"
            )
            with coroutines.blocked():
                await below.wait()
        finished.set()

    coroutines.submit(lambda: level(30, done), contextvars.copy_context(), loop, "test")
    assert done.wait(LONG)


def test_blocked_in_a_task_of_somebody_elses(loop):
    """A task that is not under the limit has no slot to give away."""
    coroutines = Coroutines(1)

    async def test():
        with coroutines.blocked():
            return coroutines._under_way

    assert run_on(loop, test()) == 0


def test_coroutines_on_several_loops(loop):
    """Each runs on its own loop, in its own context; the limit is one for all."""
    coroutines, other = Coroutines(2), LoopThread("other").loop
    variable = contextvars.ContextVar("variable", default="none")
    found, done = [], threading.Semaphore(0)

    async def work(name):
        found.append((name, running_loop(), variable.get()))
        done.release()

    for name, where in (("a", loop), ("b", other)):
        context = contextvars.copy_context()
        context.run(variable.set, name)
        coroutines.submit(lambda name=name: work(name), context, where, "test")
    assert all(done.acquire(timeout=LONG) for _ in range(2))
    assert sorted(found, key=lambda one: one[0]) == [("a", loop, "a"), ("b", other, "b")]


def test_closed_coroutines(loop):
    """After `close` nothing starts, and what runs is cancelled."""
    coroutines, started, cancelled, ran = Coroutines(1), threading.Event(), threading.Event(), []

    async def work():
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def never():
        ran.append("never")

    coroutines.submit(work, contextvars.copy_context(), loop, "test")
    assert started.wait(LONG)
    coroutines.submit(never, contextvars.copy_context(), loop, "test")
    coroutines.close()
    assert cancelled.wait(LONG)
    coroutines.submit(never, contextvars.copy_context(), loop, "test")
    run_on(loop, settle())
    assert ran == []


# --- the clock -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def clock():
    """Return a real clock."""
    return SystemClock()


def test_the_time_is_the_systems(clock):
    """It is the system's time, in seconds since the epoch."""
    before = time.time()
    found = clock.time()
    assert before <= found <= time.time()


@pytest.mark.parametrize("seconds", [-5, 0, 0.01])
def test_a_timer_fires_once(clock, seconds):
    """A timer calls after its time, at once where that has passed."""
    fired, later = [], threading.Event()
    clock.call_later(seconds, lambda: fired.append(threading.current_thread().name))
    clock.call_later(0.05, later.set)
    assert later.wait(LONG)
    assert fired == ["nbdurable-clock"]


def test_timers_fire_in_their_order(clock):
    """The one that is due first fires first, whoever was set first."""
    order, done = [], threading.Event()
    clock.call_later(0.06, lambda: (order.append("late"), done.set()))
    clock.call_later(0.01, lambda: order.append("early"))
    assert done.wait(LONG)
    assert order == ["early", "late"]


def test_a_cancelled_timer_does_not_fire(clock):
    """A timer that was cancelled, at once or later, twice or from elsewhere, is silent."""
    fired, done, armed = [], threading.Event(), threading.Event()
    at_once = clock.call_later(0.02, lambda: fired.append("at once"))
    at_once()
    later = clock.call_later(0.05, lambda: fired.append("later"))
    clock.call_later(0, armed.set)
    assert armed.wait(LONG)
    threading.Thread(target=later).start()
    later()
    clock.call_later(0.1, done.set)
    assert done.wait(LONG)
    assert fired == []


def test_a_timer_can_be_cancelled_after_it_fired(clock):
    """That is no error."""
    fired = threading.Event()
    cancel = clock.call_later(0, fired.set)
    assert fired.wait(LONG)
    cancel()


def test_a_timer_without_end(clock):
    """A timer that is never due holds up no other."""
    cancel = clock.call_later(float("inf"), lambda: None)
    fired = threading.Event()
    clock.call_later(0, fired.set)
    assert fired.wait(LONG)
    cancel()


def test_a_thread_that_was_blocked_is_not_one_too_many():
    """When it goes on, the idle thread that stood in for it ends."""
    threads = Threads(1)
    inside, go_on, most = threading.Event(), threading.Event(), []
    running, ended = threading.Lock(), threading.Event()

    def blocks():
        with threads.blocked():
            inside.set()
            go_on.wait(10)
        with running:
            threading.Event().wait(0.1)

    def alone():
        most.append(running.acquire(blocking=False))
        ended.set()

    threads.submit(blocks)
    assert inside.wait(10)
    stood_in = threading.Event()
    threads.submit(stood_in.set)
    assert stood_in.wait(10)
    go_on.set()
    while not running.locked():
        pass
    threads.submit(alone)
    assert ended.wait(10)
    assert most == [True]
    running.release()
    threads.close()


def test_a_closed_loop_keeps_no_slot():
    """What can't run any more counts in no limit."""
    closed = asyncio.new_event_loop()
    closed.close()
    coroutines = Coroutines(1)
    ran = []

    async def one():
        ran.append(1)

    async def main():
        coroutines.submit(one, contextvars.copy_context(), closed, "test")
        coroutines.submit(one, contextvars.copy_context(), asyncio.get_running_loop(), "test")
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert ran == [1]


# --- the executors of others ----------------------------------------------------------


class Locked(Executor):
    """Ends what it has under the lock that it takes for a submission, as the standard library."""

    def __init__(self):
        self.lock = threading.Lock()
        self.submitted = queue.SimpleQueue()

    def submit(self, function, /, *args, **kwargs):
        """Return a future that the test ends."""
        if not self.lock.acquire(timeout=A_MOMENT * 10):
            raise AssertionError("submitted where its lock is held")
        self.lock.release()
        future = Future()
        self.submitted.put(future)
        return future


@pytest.mark.parametrize("how", ["broken", "cancelled"])
def test_what_an_executor_ends_under_its_own_lock(how):
    """Such a call is sent again, and nobody waits for that lock in the thread that holds it."""
    executor = Locked()
    pool = Futures(len, executor)
    again = Call({}, lambda arrival: None, lambda told: None, lost_before=1)
    call = Call({}, lambda arrival: pool.send(again), lambda told: None)
    pool.send(call)
    future = executor.submitted.get(timeout=LONG)
    with executor.lock:
        if how == "broken":
            future.set_exception(BrokenExecutor("a worker died"))
        else:
            future.cancel()
    assert executor.submitted.get(timeout=LONG) is not future
