"""A run, shown while it happens, on whatever screen there is.

Invariant: the engine is never slowed down or disturbed. An event costs it one
append; one daemon thread folds them and publishes at most five times a second
(a notebook's server drops everything above its message limit, the final state
included). A run that ends sooner than the delay shows the summary alone.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from . import progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbdurable.events import Event

    from .progress import RunView

DELAY: Final = 0.3
"""Seconds before a live view shows: a run that ends sooner need not flash one."""

PERIOD: Final = 0.2
"""Seconds between two states; twice as many while a state is large."""

BEAT: Final = 2.0
"""Seconds after which a view without news hears that the kernel lives."""

_LARGE: Final = 100


class ScreenClosedError(Exception):
    """Nobody can be shown anything any more; the run goes on."""


class Screen(Protocol):
    """Where a live view is shown. Called by one thread at a time, under a lock.

    What shows may raise `ScreenClosedError`. ``now`` is the time by the clock that
    stamped the events.
    """

    @property
    def asked(self) -> bool:
        """Whether the person at the screen wants to see something else of the same run."""

    def reserve(self) -> None:
        """Keep the place of the live view, above what is shown before it opens."""

    def prepare(self) -> None:
        """Load what showing needs. Slow, so called without the lock."""

    def open(self, view: RunView, now: float) -> None:
        """Show the run for the first time."""

    def send(self, view: RunView, now: float) -> None:
        """Show what is new."""

    def beat(self, now: float) -> None:
        """Tell that the kernel lives, and its time."""

    def clear(self) -> None:
        """Take the live view off the screen."""

    def summarise(self, view: RunView) -> None:
        """Leave the static summary."""


class LiveView:
    """Shows one execution while it happens; an observer to call with each event.

    Example::

        view = LiveView("quotes", screen)
        view.show()
        try: ...  # the engine calls view(event), from any thread
        finally:
            view.finish()
    """

    def __init__(
        self,
        name: str,
        screen: Screen | None,
        *,
        delay: float = DELAY,
        period: float = PERIOD,
        beat: float = BEAT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.run = progress.RunView(name)
        self.lost: ScreenClosedError | None = None
        self._name = name
        self._screen = screen
        self._delay, self._period, self._beat = delay, period, beat
        self._clock = clock
        self._inbox: deque[Event] = deque()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._shown = False
        self._publisher: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        """Take an event: one append, from any thread, at any rate."""
        self._inbox.append(event)

    def show(self) -> None:
        """Show the run live, once it lasts; where there is no screen, do nothing.

        It stands above all that the cell shows meanwhile. Its place is kept on every pass, so
        that one which lasts and one which doesn't leave the same outputs.

        To be called by the cell: what is published belongs to the cell whose
        context calls this, and a plain thread's messages would land elsewhere.
        """
        if self._screen is None or self._publisher is not None or self._ended.is_set():
            return
        with self._lock:
            try:
                self._screen.reserve()
            except ScreenClosedError as error:
                self.lost = error
                return
        self._publisher = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._publish, self._screen),
            name=f"nbdurable live view of {self._name}",
            daemon=True,
        )
        self._publisher.start()

    def finish(self) -> None:
        """Put the static summary in the live view's place. To be called by the cell.

        Waits for no thread: the publisher is either between two messages or
        has at most one to hand over.
        """
        if self._ended.is_set():
            return
        self._ended.set()
        with self._lock:
            self._drain()
            if self._screen is None:
                return
            try:
                if self._shown:
                    # A page that was reloaded keeps a view that clear() can't reach.
                    self._screen.send(self.run, self._clock())
                    self._screen.clear()
                self._screen.summarise(self.run)
            except ScreenClosedError as error:
                self.lost = error

    def _publish(self, screen: Screen) -> None:
        """Show the view after the delay, then tell it the news until the end."""
        if self._ended.wait(self._delay):
            return
        screen.prepare()
        try:
            if self._open(screen):
                self._keep_up(screen)
        except ScreenClosedError as error:
            # The kernel is shutting down, and the run is the engine's to end.
            # Remembered, so that a test can tell.
            self.lost = error

    def _open(self, screen: Screen) -> bool:
        with self._lock:
            if self._ended.is_set():
                return False
            self._drain()
            screen.open(self.run, self._clock())
            self._shown = True
            return True

    def _keep_up(self, screen: Screen) -> None:
        """Send the news whenever there are any, and a sign of life when there are none."""
        told, at = self.run.revision, time.monotonic()
        while not self._ended.wait(self._pause()):
            with self._lock:
                if self._ended.is_set():
                    return
                self._drain()
                if self.run.revision != told or screen.asked:
                    screen.send(self.run, self._clock())
                elif time.monotonic() - at >= self._beat:
                    screen.beat(self._clock())
                else:
                    continue
                told, at = self.run.revision, time.monotonic()

    def _pause(self) -> float:
        return self._period * (2 if len(self.run.steps) > _LARGE else 1)

    def _drain(self) -> None:
        """Fold what has come so far; what comes meanwhile is the next round's."""
        inbox = self._inbox
        self.run.apply_all([inbox.popleft() for _ in range(len(inbox))])
