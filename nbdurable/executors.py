"""Where callables run: daemon threads, event loops, a clock. Knows no steps.

Invariant: nothing here keeps a process alive. Every thread is a daemon, so a
kernel's restart never waits for a body; that is why `concurrent.futures`, whose
threads are joined at exit, does not do.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
import time
import weakref
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from .interrupts import STEP_TASK

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextvars import Context

    _Work = Callable[[], Coroutine[Any, Any, None]]
    _Coroutine = tuple[_Work, Context, asyncio.AbstractEventLoop, str]


class Clock(Protocol):
    """Wall time and timers; `nbdurable.testing.ManualClock` is the other one."""

    def time(self) -> float:
        """Give the time in seconds since the epoch."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` once, in any thread, after `seconds`; give what cancels it."""


class Pause:
    """A wait before something goes on, which can be cut short, or dropped with what follows.

    However it ends, it ends once: of the clock, `end` and `drop` the first one counts.
    """

    def __init__(
        self,
        clock: Clock,
        seconds: float,
        go_on: Callable[[], object],
        *,
        dropped: Callable[[], object] | None = None,
    ) -> None:
        self.was_dropped = False
        self._once = threading.Lock()
        self._go_on = go_on
        self._dropped = dropped
        self._cancel = clock.call_later(seconds, self._end)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._once.locked()

    def end(self) -> None:
        """Go on now."""
        self._cancel()
        self._end()

    def drop(self) -> None:
        """Let nothing follow; who waits is told."""
        self._cancel()
        if self._once.acquire(blocking=False):
            self.was_dropped = True
            if self._dropped is not None:
                self._dropped()

    def _end(self) -> None:
        if self._once.acquire(blocking=False):
            self._go_on()


class Threads:
    """Runs callables on at most `limit` daemon threads, first come first served.

    A callable that waits for others says so with `blocked()`: its slot goes to
    somebody else meanwhile, so waiting can't use up the limit.
    """

    def __init__(self, limit: int, name: str = "nbdurable-step") -> None:
        self._limit = limit
        self._name = name
        self._lock = threading.Lock()
        self._work: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._threads = 0
        self._given_up = 0
        self._mine = threading.local()
        self._closed = False

    def submit(self, work: Callable[[], object]) -> None:
        """Run `work` as soon as a slot is free; it must not raise."""
        self._work.put(work)
        if self._threads < self._limit + self._given_up:
            self._grow()

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """Give this thread's slot away while it waits (nothing outside our threads)."""
        if not getattr(self._mine, "working", False):
            yield
            return
        with self._lock:
            self._given_up += 1
        if not self._work.empty():
            self._grow()
        try:
            yield
        finally:
            self.came_back()

    def let_go(self) -> None:
        """A thread will not come back soon: another may take its slot until `came_back`."""
        with self._lock:
            self._given_up += 1
        self._grow()

    def came_back(self) -> None:
        """A thread that was let go, or blocked, is there again: one may be too many now."""
        with self._lock:
            self._given_up -= 1
            surplus = self._threads > self._limit + self._given_up
        if surplus:
            self._work.put(_nothing)

    def close(self) -> None:
        """Start nothing more; threads end after what they are running."""
        self._closed = True
        with contextlib.suppress(Empty):
            while True:
                self._work.get_nowait()
        for _ in range(self._threads):
            self._work.put(None)

    def _grow(self) -> None:
        with self._lock:
            if self._closed or self._threads >= self._limit + self._given_up:
                return
            self._threads += 1
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        self._mine.working = True
        while True:
            work = self._work.get()
            if work is None:
                return
            work()
            if self._threads > self._limit + self._given_up:
                with self._lock:
                    if self._threads > self._limit + self._given_up:
                        self._threads -= 1
                        return


def _nothing() -> None:
    """Wake an idle thread, so that it ends if there are too many."""


class Limit:
    """At most so many at a time; the others wait in a line, which costs them no thread.

    One that is ``kept`` counts its bodies also while they wait for steps of their own.
    """

    def __init__(self, most: int, *, kept: bool = False) -> None:
        self._free = most
        self._kept = kept
        self._lock = threading.Lock()
        self._line: deque[Callable[[], object]] = deque()

    def take(self, start: Callable[[], object]) -> None:
        """Call `start` as soon as there is room; it must not raise, and `give` must follow."""
        with self._lock:
            if self._free <= 0:
                self._line.append(start)
                return
            self._free -= 1
        start()

    def give(self) -> None:
        """Make room: for the next in line, if there is one."""
        with self._lock:
            if self._free < 0 or not self._line:
                self._free += 1
                return
            start = self._line.popleft()
        start()

    def lend(self) -> None:
        """Make room while the body waits, until `take_back`; unless it is kept."""
        if not self._kept:
            self.give()

    def take_back(self) -> None:
        """Take the room that was lent meanwhile, even where that is one too many."""
        if not self._kept:
            with self._lock:
                self._free -= 1


class Room(Protocol):
    """What a body needs room in before it runs: a `Limit`, or one side of a `Turnstile`."""

    def take(self, start: Callable[[], object]) -> None:
        """Call `start` as soon as there is room; it must not raise, and `give` must follow."""

    def give(self) -> None:
        """Make room."""

    def lend(self) -> None:
        """Make room while the body waits for others, until `take_back`."""

    def take_back(self) -> None:
        """Take the room that was lent meanwhile, whoever is there."""


class Turnstile:
    """Lets in many at once, or one alone; who waits to be alone goes first."""

    def __init__(self) -> None:
        self.many: Room = _Side(self, alone=False)
        self.alone: Room = _Side(self, alone=True)
        self._lock = threading.Lock()
        self._inside = 0
        self._taken = False
        self._lines: dict[bool, deque[Callable[[], object]]] = {True: deque(), False: deque()}

    def enter(self, start: Callable[[], object], *, alone: bool) -> None:
        """Let one in as soon as that can be."""
        self._lines[alone].append(start)
        self._turn()

    def leave(self, *, alone: bool) -> None:
        """One has left: others may come in."""
        self.count(-1, alone=alone)
        self._turn()

    def count(self, change: int, *, alone: bool) -> None:
        """Count one more, or one less, that is inside."""
        with self._lock:
            if alone:
                self._taken = change > 0
            else:
                self._inside += change

    def _turn(self) -> None:
        while True:
            with self._lock:
                if self._taken:
                    return
                if self._lines[True]:
                    if self._inside:
                        return
                    self._taken = True
                    start = self._lines[True].popleft()
                elif self._lines[False]:
                    self._inside += 1
                    start = self._lines[False].popleft()
                else:
                    return
            start()


class _Side:
    """One side of a turnstile, as room that a body needs."""

    def __init__(self, turnstile: Turnstile, *, alone: bool) -> None:
        self._turnstile = turnstile
        self._alone = alone

    def take(self, start: Callable[[], object]) -> None:
        self._turnstile.enter(start, alone=self._alone)

    def give(self) -> None:
        self._turnstile.leave(alone=self._alone)

    def lend(self) -> None:
        self.give()

    def take_back(self) -> None:
        self._turnstile.count(1, alone=self._alone)


_loop_threads: weakref.WeakSet[LoopThread] = weakref.WeakSet()


def _forget_threads() -> None:
    for thread in tuple(_loop_threads):
        thread.forget()


os.register_at_fork(after_in_child=_forget_threads)


class LoopThread:
    """An event loop on a daemon thread, started when it is first needed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.forget()
        _loop_threads.add(self)

    def forget(self) -> None:
        """Begin anew, in a forked child: a fork copies no thread but its own."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        if self._loop is None:
            with self._lock:
                if self._loop is None:
                    loop = asyncio.new_event_loop()
                    run = functools.partial(_run_on, loop)
                    threading.Thread(target=run, name=self._name, daemon=True).start()
                    self._loop = loop
        return self._loop


def _run_on(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop for good, also past a task that leaves by SystemExit or KeyboardInterrupt.

    asyncio hands those to whoever awaits the task, and raises them out of the loop as well.
    """
    while not loop.is_closed():
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()


class SystemClock:
    """The real clock; its timers are those of an event loop of its own."""

    def __init__(self) -> None:
        # Not the loop of the async steps: a body that blocks it would hold up every timer.
        self._thread = LoopThread("nbdurable-clock")

    def time(self) -> float:
        """Give the time in seconds since the epoch."""
        return time.time()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` on the clock's thread after `seconds`; give what cancels it."""
        loop = self._thread.loop
        due = loop.time() + max(0.0, seconds)
        timers: list[asyncio.TimerHandle] = []
        cancelled = threading.Event()

        def arm() -> None:
            if not cancelled.is_set():
                timers.append(loop.call_at(due, callback))

        def disarm() -> None:
            for timer in timers:
                timer.cancel()

        def cancel() -> None:
            cancelled.set()
            loop.call_soon_threadsafe(disarm)

        loop.call_soon_threadsafe(arm)
        return cancel


class Coroutines:
    """Runs at most `limit` coroutines at once, each on its event loop, first come first served."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: deque[_Coroutine] = deque()
        self._tasks: dict[asyncio.Task[None], asyncio.AbstractEventLoop] = {}
        self._under_way = 0
        self._closed = False

    def submit(
        self, work: _Work, context: Context, loop: asyncio.AbstractEventLoop, name: str
    ) -> None:
        """Run ``work()`` in `context` on `loop` as soon as a slot is free; it must not raise.

        It must keep KeyboardInterrupt to itself; `name` is what its task is called by.
        """
        self._waiting.append((work, context, loop, name))
        self._pump()

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """Give the slot of a coroutine away while it waits for others."""
        if asyncio.current_task() not in self._tasks:
            yield
            return
        self._free_slot()
        try:
            yield
        finally:
            with self._lock:
                self._under_way += 1

    def close(self) -> None:
        """Start nothing more and cancel what runs."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            running = tuple(self._tasks.items())
        for task, loop in running:
            call_in(loop, task.cancel)

    def _free_slot(self) -> None:
        with self._lock:
            self._under_way -= 1
        self._pump()

    def _pump(self) -> None:
        while True:
            with self._lock:
                if self._closed or not self._waiting or self._under_way >= self._limit:
                    return
                self._under_way += 1
                work, context, loop, name = self._waiting.popleft()
            if running_loop() is loop:
                self._start(work, context, loop, name)
            elif not call_in(loop, self._start, work, context, loop, name):
                with self._lock:
                    self._under_way -= 1

    def _start(
        self, work: _Work, context: Context, loop: asyncio.AbstractEventLoop, name: str
    ) -> None:
        with self._lock:
            if self._closed:
                return
            task = loop.create_task(work(), name=f"{STEP_TASK} {name}", context=context)
            self._tasks[task] = loop
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        with self._lock:
            del self._tasks[task]
        self._free_slot()


def call_in(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> bool:
    """Call `callback` in the thread of `loop`; False, and nowhere, if the loop has been closed."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Give the loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
