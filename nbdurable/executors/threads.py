"""Where callables run: daemon threads, event loops, a clock. Knows no steps.

Invariant: nothing here keeps a process alive. Every thread is a daemon, so a
kernel's restart never waits for a body; that is why `concurrent.futures`, whose
threads are joined at exit, does not do.
"""

from __future__ import annotations

import contextlib
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
        """Yield this thread's slot away while it waits (nothing outside our threads)."""
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
