"""The stop button: SIGINT while a durable cell runs."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING, Self

from nbdurable.interrupts import STEP_TASK

if TYPE_CHECKING:
    from types import FrameType


class Interrupt:
    """Ctrl-C and the stop button, while an awaiting cell runs.

    Where the cell's own code is running, the signal raises KeyboardInterrupt in
    it, as in a cell that doesn't await. While it waits, the signal cancels its
    task and wakes the loop, which would else sleep until its next timer. A task
    whose name starts with `STEP_TASK` is interrupted too when it blocks the loop.

    Raising anywhere else would end the kernel's loop, or leave a terminal's
    coroutine suspended for good. ``fired`` tells a cancellation of ours from
    any other.
    """

    def __init__(self) -> None:
        self.fired = False
        self._task: asyncio.Task[object] | None = None
        self._taken = False

    def __enter__(self) -> Self:
        """Take the signal over, in the main thread; elsewhere it can't arrive."""
        self._task = asyncio.current_task()
        if threading.current_thread() is threading.main_thread():
            self._loop = asyncio.get_running_loop()
            self._before = signal.signal(signal.SIGINT, self._arrived)
            self._taken = True
        return self

    def __exit__(self, *error: object) -> None:
        """Restore the handler of the signal; what is under way cancels nothing any more."""
        if self._taken:
            # None is a handler that Python can't name, and so can't put back.
            signal.signal(signal.SIGINT, self._before or signal.default_int_handler)
            self._taken = False
        self._task = None

    def _arrived(self, _number: int, _frame: FrameType | None) -> None:
        __tracebackhide__ = True
        self.fired = True
        running = asyncio.current_task(self._loop)
        if running is not None and running is self._task:
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(self._cancel)
        if running is not None and running.get_name().startswith(STEP_TASK):
            raise KeyboardInterrupt

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel("interrupted")
