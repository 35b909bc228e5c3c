"""SIGINT held back while something must not be left half done.

Invariant: an interrupt is never lost: one that arrives inside a block that holds
it back is handed to its handler at the block's end. The handler is replaced once
for a run, since replacing it takes longer than starting a step.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

STEP_TASK: Final = "nbdurable.step"
"""Begins the name of an async step's task, whose coroutine keeps KeyboardInterrupt to itself."""


class SuspendedError(UsageError):
    """An execution stops here until its user has decided; no outcome, whoever's code it ends."""


class _Guard:
    """Stands for the main thread's SIGINT handler while a run of that thread is active."""

    def __init__(self) -> None:
        self.count = 0
        self._before: Any = None
        self._depth = 0
        self._arrived: tuple[int, FrameType | None] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Hand the signal on, or keep it."""
        self.count += 1
        if self._depth:
            self._arrived = number, frame
        else:
            self._before(number, frame)

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth and self._arrived is not None:
            arrived, self._arrived = self._arrived, None
            self._before(*arrived)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Take the signal over, where Python has a handler for it."""
        before = signal.getsignal(signal.SIGINT)
        if before is self or not callable(before):
            yield
            return
        self._before = before
        signal.signal(signal.SIGINT, self)
        try:
            yield
        finally:
            # The cell may have put a handler of its own in this one's place.
            if signal.getsignal(signal.SIGINT) is self:
                signal.signal(signal.SIGINT, before)


_guard = _Guard()
_nothing = contextlib.nullcontext()


def uninterrupted() -> contextlib.AbstractContextManager[None]:
    """Hold back, in the main thread, a SIGINT that arrives inside the block."""
    return _guard if threading.current_thread() is threading.main_thread() else _nothing


def arrived() -> int:
    """Return how many interrupts have arrived while a run was active."""
    return _guard.count


def may_be_from_outside(count: int) -> bool:
    """Tell whether a KeyboardInterrupt in this thread may be a person's, and not of its own code.

    Python raises a person's interrupt in the main thread only. There it is one if more than
    `count` have arrived, or if another handler has taken the guard's place and nobody knows.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    return _guard.count != count or signal.getsignal(signal.SIGINT) is not _guard


def guarded() -> contextlib.AbstractContextManager[None]:
    """Make `uninterrupted` work inside the block, if this is the main thread."""
    if threading.current_thread() is threading.main_thread():
        return _guard.installed()
    return _nothing
