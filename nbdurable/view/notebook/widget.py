"""A run's live view in the notebook's page, and the static summary that it leaves.

Invariant: the widget reads neither store nor run: it shows what the timeline says,
and hands on what a person asks for. Its messages are news on top of what was told;
a page that was reloaded, or missed some, is told everything that was told so far.
Its handlers may run in any thread, while the cell blocks.
"""

from __future__ import annotations

import functools
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from IPython.display import display, update_display
from zmq import ZMQError

from nbdurable.view import summary, words
from nbdurable.view.live import ScreenClosedError
from nbdurable.view.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbdurable.view.progress import RunView

_VIEW: Final = "application/vnd.jupyter.widget-view+json"

SO_FAR_SECONDS: Final = 3.0
"""Seconds between two texts of how far the run is, which stay if the kernel dies."""

_RESERVED: Final[dict[str, Any]] = {}
"""What a display holds before and after: nothing, so that a saved notebook stays the same."""


class Controls(Protocol):
    """What the person at the screen can ask of the execution; each call returns at once."""

    @property
    def stopped(self) -> bool:
        """Whether `suspend` was called."""

    @property
    def redos(self) -> list[str]:
        """Labels of what `redo` was called for."""

    def detail(self, place: int) -> dict[str, Any]:
        """Return what is known of one step."""

    def cancel(self, place: int) -> str:
        """Cancel a step; say in a sentence what became of that."""

    def retry_now(self, place: int) -> str:
        """End a step's wait for its next attempt; likewise."""

    def redo(self, place: int | None) -> str:
        """Let the next pass try a failed step again, or each that failed; likewise."""

    def suspend(self) -> str:
        """Stop the execution, so that it can be resumed; likewise."""


class NotebookScreen:
    """The output area of the cell, in JupyterLab and whatever else shows widgets.

    The live view is displayed with the widget's MIME type alone and emptied at
    the end, so a saved notebook holds the summary and no dead widget. Below it is a second
    display, which the live view hides: it says in HTML and text how far the run is, and is
    all that is to see where the kernel died. It begins and ends empty, and so is no
    difference between two passes. ``times``
    puts durations and what was replayed into the summary's HTML; without, the
    saved notebook's output is the same on every replay. ``deaf`` says that the kernel
    answers nothing while the cell runs. ``announce_busy`` is called now and then: a front
    end takes a kernel for idle that has answered a question.
    """

    def __init__(
        self,
        name: str,
        *,
        times: bool = True,
        deaf: bool = False,
        announce_busy: Callable[[], None] = lambda: None,
    ) -> None:
        self.controls: Controls | None = None
        self.asked = False
        self._name = name
        self._times = times
        self._deaf = deaf
        self._announce_busy = announce_busy
        self._announced = 0.0
        self._id = uuid.uuid4().hex
        self._below = uuid.uuid4().hex
        self._summary = ""
        self._reserved = False
        self._so_far_at = 0.0
        self._so_far_of = -1
        self._elsewhere: list[str] = []
        self._over = False
        self._model: Any = None
        self._timeline: Timeline | None = None
        self._lock = threading.Lock()

    def reserve(self) -> None:
        """Display nothing where the live view is to be, and what stays of it."""
        if not self._reserved:
            self._reserved = True
            for place in (self._id, self._below):
                with _closed():
                    display(_RESERVED, raw=True, display_id=place)  # type: ignore[no-untyped-call, unused-ignore]

    def prepare(self) -> None:
        """Import the widget library and read the front end's files, once a kernel."""
        _model_class()

    def open(self, view: RunView, now: float) -> None:
        """Display the widget in the cell; it goes on in `again`."""
        self._make(view, now)
        self.reserve()
        self._display(self._id, reserved=True)
        self._say_so_far(view, now)

    def again(self) -> bool:
        """Display the run where this is called, too, if it goes on; tell whether it does."""
        with self._lock:
            if self._over:
                return False  # nobody would put the summary in that display's place
            self._elsewhere.append(uuid.uuid4().hex)
            self._display(self._elsewhere[-1])
        return True

    def _make(self, view: RunView, now: float) -> None:
        """Make the model, and drop the one that this name's last run left."""
        self._timeline = Timeline(view, deaf=self._deaf)
        self._timeline.news(now)
        self._model = _model_class()(state=self._told())
        self._model.fresh = self._told
        self._model.on_msg(self._heard)
        _answer_where_asked(self._model)
        self._be_last()

    def _be_last(self) -> None:
        if (before := _LAST.pop(self._name, None)) is not None and before is not self:
            before.drop()
        if self._model is not None:
            _LAST[self._name] = self

    @property
    def _mark(self) -> str:
        """The class of what the live view hides."""
        return f"nbd-so-far-{self._below}"

    def _say_so_far(self, view: RunView, now: float) -> None:
        """Say how far the run is, now and then, in what stays if the kernel dies."""
        if view.revision == self._so_far_of or abs(now - self._so_far_at) < SO_FAR_SECONDS:
            return
        self._so_far_of, self._so_far_at = view.revision, now
        html = summary.so_far(view, now, self._mark)
        bundle = {"text/html": html, "text/plain": words.so_far(view, now)}
        with _closed():
            update_display(bundle, raw=True, display_id=self._below)  # type: ignore[no-untyped-call, unused-ignore]

    def _display(self, display_id: str, *, reserved: bool = False) -> None:
        bundle = {_VIEW: {"version_major": 2, "version_minor": 0, "model_id": self._model.model_id}}
        show = update_display if reserved else display
        with _closed():
            show(bundle, raw=True, display_id=display_id)  # type: ignore[no-untyped-call, unused-ignore]

    def send(self, view: RunView, now: float) -> None:
        """Send what is new."""
        assert self._timeline is not None
        with self._lock:
            self.asked = False
            news = self._timeline.news(now)
        self._send({"news": news})
        self._still_busy(now)
        if view.live:
            self._say_so_far(view, now)

    def beat(self, now: float) -> None:
        """Send the time."""
        assert self._timeline is not None
        self._say_so_far(self._timeline.view, now)
        self._send({"beat": now})
        self._still_busy(now)

    def _still_busy(self, now: float) -> None:
        """Say that the cell runs, at most once a second."""
        if abs(now - self._announced) >= 1.0:
            self._announced = now
            with _closed():
                self._announce_busy()

    def clear(self) -> None:
        """Empty the live view's display, and what stood below it."""
        for place in (self._id, self._below):
            with _closed():
                update_display(_RESERVED, raw=True, display_id=place)  # type: ignore[no-untyped-call, unused-ignore]

    def summarise(self, view: RunView) -> None:
        """Display the summary on its own, and where else the live view was shown."""
        self._be_last()
        with self._lock:
            self._over = True
        html = self._summary = summary.html(view, times=self._times)
        bundle = {"text/html": html, "text/plain": words.text(view)}
        if self._model is not None:
            # A page that was reloaded in mid-run hears the widget, and nothing else of the cell.
            self._send({"summary": html})
        with _closed():
            for display_id in self._elsewhere:
                update_display(bundle, raw=True, display_id=display_id)  # type: ignore[no-untyped-call, unused-ignore]
            display(bundle, raw=True)  # type: ignore[no-untyped-call, unused-ignore]

    def drop(self) -> None:
        """Take the widget off every page: a later run has its name."""
        if self._model is not None:
            self._model.layout.close()
            self._model.close()

    # --- what a person asks for -------------------------------------------------------

    def _told(self) -> dict[str, Any]:
        assert self._timeline is not None
        with self._lock:
            return self._timeline.told() | {"mark": self._mark, "summary": self._summary}

    def _heard(self, _model: object, content: dict[str, Any], _buffers: object) -> None:
        """Do what the front end asks for; called in the cell's thread or in another one."""
        asked, place = content.get("do"), content.get("place")
        answer: dict[str, Any] = {"answer": asked}
        if asked == "state":
            answer["state"] = self._told()
        elif asked in {"open", "close"}:
            self._look(str(content.get("key")), opened=asked == "open")
        elif self.controls is None:
            answer["said"] = "this run can't be asked"
        elif asked == "suspend":
            answer["said"] = self.controls.suspend()
        elif asked == "redo":
            answer["said"] = self.controls.redo(place if isinstance(place, int) else None)
        elif isinstance(place, int):
            if asked == "detail":
                answer |= {"place": place, "detail": self.controls.detail(place)}
            elif asked == "cancel":
                answer["said"] = self.controls.cancel(place)
            elif asked == "retry":
                answer["said"] = self.controls.retry_now(place)
        self._send(answer)

    def _look(self, key: str, *, opened: bool) -> None:
        """Show more or less of the run: the publisher sends it, if there still is one."""
        assert self._timeline is not None
        with self._lock:
            (self._timeline.open if opened else self._timeline.close)(key)
            self.asked = True
            if self._timeline.view.live:
                return
            news = self._timeline.news(time.time())
        self._send({"news": news})

    def _send(self, content: dict[str, Any]) -> None:
        with _closed():
            self._model.send(content)


class _closed:  # noqa: N801 - reads as what it is about
    """Says in the screen's words that the kernel's channel is closed."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ZMQError):
            raise ScreenClosedError from error


def show_again(name: str) -> bool:
    """Display the run of that name that goes on where this is called, too.

    False if there is none, or it has no view. Another cell's turn comes only when the run's
    cell has ended; this is for that cell itself, and for who asks on a subshell.
    """
    screen = _LAST.get(name)
    return screen is not None and screen.again()


# Where each name's last run was shown. Its model stays open after the run, for a page
# reloaded in mid-run still shows it, and is closed by the next run of that name.
_LAST: Final[dict[str, NotebookScreen]] = {}


def _answer_where_asked(model: Any) -> None:
    """Let messages be handled in the subshell that the front end sends them to.

    ipykernel 7.4 routes them to the shell that last published on the widget: the
    cell's, which blocks (`ipykernel.comm.comm.BaseComm._reply_subshell_for`).
    """
    comm = model.comm
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _data, default: default  # noqa: SLF001


def _joined(folder: Path, *names: str) -> str:
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


@functools.cache
def _model_class() -> Callable[..., Any]:
    """Make the widget's class. Late, for anywidget takes a quarter second to import."""
    import anywidget  # noqa: PLC0415
    import traitlets  # noqa: PLC0415

    folder = Path(__file__).parent

    class LiveModel(anywidget.AnyWidget):  # type: ignore[misc, no-any-unimported, unused-ignore]
        """One synchronised state: the first, and for who comes later all that was told."""

        _esm = _joined(folder, "view.js", "detail.js")
        _css = _joined(folder, "view.css", "detail.css")
        state = traitlets.Dict().tag(sync=True)
        fresh: Callable[[], dict[str, Any]] | None = None

        def get_state(self, *given: Any, **named: Any) -> Any:
            """Return the state as it is now; a page that was reloaded asks for it."""
            said = super().get_state(*given, **named)
            if "state" in said and self.fresh is not None:
                said["state"] = self.fresh()
            return said

    return LiveModel
