"""A run's live view in the notebook, and the static summary that it leaves.

Invariant: the engine is never slowed down or disturbed. An event costs it one
append; one daemon thread folds them and publishes at most five times a second
(the server drops everything above its message limit, the final state included).
A run that ends sooner than the delay shows the summary alone and imports no
widget library. The widget reads neither store nor run.
"""

from __future__ import annotations

import contextvars
import functools
import threading
import time
import uuid
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from IPython import get_ipython
from IPython.display import display, update_display
from zmq import ZMQError

from nbdurable import progress, summary, timeline, words

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbdurable.records import Event

DELAY: Final = 0.3
"""Seconds before a live view shows: a run that ends sooner need not flash one."""

PERIOD: Final = 0.2
"""Seconds between two states; twice as many while a state is large."""

BEAT: Final = 2.0
"""Seconds after which a view without news hears that the kernel lives."""

_LARGE: Final = 100
_VIEW: Final = "application/vnd.jupyter.widget-view+json"


class Screen(Protocol):
    """Where a live view is shown. Called by one thread at a time, under a lock.

    Each method may raise ``ZMQError`` when the kernel's channel is closed.
    """

    def prepare(self) -> None:
        """Load what showing needs. Slow, so called without the lock."""

    def open(self, view: progress.RunView, now: float) -> None:
        """Show the live view for the first time."""

    def send(self, view: progress.RunView, now: float) -> None:
        """Show the run as it is now."""

    def beat(self, now: float) -> None:
        """Tell the live view that the kernel lives, and its time."""

    def clear(self) -> None:
        """Take the live view off the screen."""

    def summarise(self, view: progress.RunView) -> None:
        """Show the static summary."""


class LiveView:
    """Shows one execution while it happens; an observer to call with each event.

    ``times`` puts durations and what was replayed into the summary's HTML;
    without, the saved notebook's output is the same on every replay.

    Example::

        view = LiveView("quotes")
        view.show()
        try: ...  # the engine calls view(event), from any thread
        finally:
            view.finish()
    """

    def __init__(
        self,
        name: str,
        *,
        times: bool = True,
        screen: Screen | None = None,
        delay: float = DELAY,
        period: float = PERIOD,
        beat: float = BEAT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.run = progress.RunView(name)
        self.lost: ZMQError | None = None
        self._name = name
        self._times = times
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
        """Show the run live, once it lasts; where there is no front end, do nothing.

        To be called by the cell: what is published belongs to the cell whose
        context calls this, and a plain thread's messages would land elsewhere.
        """
        if self._publisher is not None or self._ended.is_set():
            return
        if self._screen is None:
            if getattr(get_ipython(), "kernel", None) is None:
                return
            self._screen = NotebookScreen(self._name, times=self._times)
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
            with suppress(ZMQError):  # the kernel is shutting down: nobody is left to see it
                if self._shown:
                    # A page that was reloaded keeps a view that clear() can't reach.
                    self._screen.send(self.run, self._clock())
                    self._screen.clear()
                self._screen.summarise(self.run)

    def _publish(self, screen: Screen) -> None:
        """Show the view after the delay, then tell it the news until the end."""
        if self._ended.wait(self._delay):
            return
        screen.prepare()
        try:
            if self._open(screen):
                self._keep_up(screen)
        except ZMQError as error:
            # The kernel's channel is closed: it is shutting down, and the run is
            # the engine's to end. Remembered, so that a test can tell.
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
        """Send the state whenever it changed, and a sign of life when it didn't."""
        told, at = self.run.revision, time.monotonic()
        while not self._ended.wait(self._pause()):
            with self._lock:
                if self._ended.is_set():
                    return
                self._drain()
                if self.run.revision != told:
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
        for _ in range(len(self._inbox)):
            progress.fold(self.run, self._inbox.popleft())


class NotebookScreen:
    """The output area of the cell, in JupyterLab and whatever else shows widgets.

    The live view is displayed with the widget's MIME type alone and emptied at
    the end, so a saved notebook holds the summary and no dead widget.
    """

    def __init__(self, name: str, *, times: bool = True) -> None:
        self._name = name
        self._times = times
        self._id = uuid.uuid4().hex
        self._model: Any = None

    def prepare(self) -> None:
        """Import the widget library and read the front end's files, once a kernel."""
        _model_class()

    def open(self, view: progress.RunView, now: float) -> None:
        """Display the widget, and drop the one that this name's last run left."""
        self._model = _model_class()(state=timeline.snapshot(view, now=now))
        if (before := _LAST.pop(self._name, None)) is not None:
            before.layout.close()
            before.close()
        _LAST[self._name] = self._model
        bundle = {_VIEW: {"version_major": 2, "version_minor": 0, "model_id": self._model.model_id}}
        display(bundle, raw=True, display_id=self._id)  # type: ignore[no-untyped-call, unused-ignore]

    def send(self, view: progress.RunView, now: float) -> None:
        """Set the one synchronised trait."""
        self._model.state = timeline.snapshot(view, now=now)

    def beat(self, now: float) -> None:
        """Set the other one."""
        self._model.beat = now

    def clear(self) -> None:
        """Empty the live view's display."""
        update_display({}, raw=True, display_id=self._id)  # type: ignore[no-untyped-call, unused-ignore]

    def summarise(self, view: progress.RunView) -> None:
        """Display the summary on its own."""
        html = summary.html(view, times=self._times)
        display({"text/html": html, "text/plain": words.text(view)}, raw=True)  # type: ignore[no-untyped-call, unused-ignore]


# The model of each name's last live view. It stays open after its run, for a page
# reloaded in mid-run still shows it, and is closed by the next run of that name.
_LAST: Final[dict[str, Any]] = {}


@functools.cache
def _model_class() -> Callable[..., Any]:
    """Make the widget's class. Late, for anywidget takes a quarter second to import."""
    import anywidget  # noqa: PLC0415
    import traitlets  # noqa: PLC0415

    folder = Path(__file__).parent

    class LiveModel(anywidget.AnyWidget):  # type: ignore[misc, no-any-unimported, unused-ignore]
        """One synchronised state, and the time at which the kernel last said it lives."""

        _esm = (folder / "view.js").read_text(encoding="utf-8")
        _css = (folder / "view.css").read_text(encoding="utf-8")
        state = traitlets.Dict().tag(sync=True)
        beat = traitlets.Float().tag(sync=True)

    return LiveModel
