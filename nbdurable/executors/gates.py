"""What a waiting thread or task is woken through."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import threading
from typing import Final

from .loops import call_in

SIGNAL_SECONDS: Final = 0.1
"""How long a signal of the main thread may wait for its handler."""


class Gate:
    """Opened by others, in any thread and as often as they like; one waits for it."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let the one who waits go on, now or when they come."""
        with contextlib.suppress(RuntimeError):  # it is open
            self._lock.release()

    def wait(self, seconds: float = -1) -> bool:
        """Block until it is opened, and close it; False if it was not opened in time."""
        if seconds >= 0 or threading.current_thread() is not threading.main_thread():
            return self._lock.acquire(timeout=seconds)
        # A signal that arrives while a wait is about to begin does not end it, and its handler
        # runs only in this thread: so no wait here is a long one.
        while not self._lock.acquire(timeout=SIGNAL_SECONDS):
            pass
        return True


class LoopGate:
    """As `Gate`, for one who awaits on the running loop."""

    __slots__ = ("_loop", "_opened")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.create_future()

    def open(self) -> None:
        """Let the one who awaits go on, now or when they come."""
        call_in(self._loop, self._open)

    async def wait(self, seconds: float | None = None) -> None:
        """Await until it is opened or the time is over, and close it."""
        timer = None if seconds is None else self._loop.call_later(seconds, self._open)
        try:
            await self._opened
        finally:
            if timer is not None:
                timer.cancel()
        self._opened = self._loop.create_future()

    def _open(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)
