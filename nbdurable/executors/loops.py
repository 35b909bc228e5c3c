"""Event loops: one on a thread of its own, and coroutines that run on a given one.

Invariant: every thread is a daemon; a fork forgets them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from nbdurable.interrupts import STEP_TASK

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextvars import Context

    _Work = Callable[[], Coroutine[Any, Any, None]]
    _Coroutine = tuple[_Work, Context, asyncio.AbstractEventLoop, str]


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
        """Yield the slot of a coroutine away while it waits for others."""
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
    """Return the loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
