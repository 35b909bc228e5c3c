"""Each step's prints and displays, kept apart from everybody else's, shown where they belong.

Invariant: whose output it is, is told by a ContextVar, so concurrent bodies don't
mix, whatever threads they are on (CONTRACT section 6). What a capture holds is its
last state; what of it was shown live is exactly what it holds, piece by piece, in
the same order. What a body redirects, it redirects for itself alone. Not caught: what a
subprocess writes to file descriptor 1.
"""

from __future__ import annotations

import contextvars
import functools
import json
import sys
import threading
import uuid
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

from nbdurable import isolation
from nbdurable.interrupts import uninterrupted
from nbdurable.isolation import Apart
from nbdurable.records import Message

from . import warned
from .pieces import BAR, WHOLE, Piece, Roll, messages_of
from .streaming import Live
from .transcript import Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

LIMIT_CHARACTERS = 1_000_000
"""A step's captured output is cut at so many characters, with a mark."""

_VIEW: Final = "application/vnd.jupyter.widget-view+json"
_OTHER: Final = {"stdout": "stderr", "stderr": "stdout"}
_DIVERTED_BY: Final = {"display": "display_pub", "warning": "stderr", BAR: "stderr"}

HELD: Final = "held "
"""Begins the kind of what was written to a stream itself, past what redirects it."""

_current: contextvars.ContextVar[Capture | None] = contextvars.ContextVar(
    "nbdurable_capture", default=None
)
_screen: contextvars.ContextVar[Screen | None] = contextvars.ContextVar(
    "nbdurable_screen", default=None
)
_source: contextvars.ContextVar[object] = contextvars.ContextVar("nbdurable_source", default=None)


@dataclass(frozen=True, slots=True)
class Face:
    """What shows displays: the notebook's; without one their text is printed.

    ``show`` takes a bundle (``data``, ``metadata``, ``transient``, ``update``);
    ``clear`` empties the cell, at once or when the next output comes, where it
    ``can_clear``; ``settle`` gives the last state of a live display, None if it has
    been closed; ``ended`` tells whether a live display is a progress bar at its end, None if it
    is none; ``move`` shows bars that move in the display of an id; ``raw`` tells whether
    carriage returns are understood where it shows; ``diverted`` whether displays go to code
    that collects them, as ``capture_output`` does; ``direct`` whether the process's streams
    lead to it, and to nobody else.
    """

    show: Callable[[dict[str, Any]], object]
    clear: Callable[[bool], object] | None = None
    can_clear: Callable[[], bool] | None = None
    settle: Callable[[dict[str, Any]], dict[str, Any] | None] | None = None
    raw: Callable[[], bool] | None = None
    diverted: Callable[[], bool] | None = None
    direct: Callable[[], bool] | None = None
    ended: Callable[[dict[str, Any]], bool | None] | None = None
    move: Callable[[str, list[dict[str, Any]]], object] | None = None


_face: Face | None = None


def install_face(face: Face | None) -> None:
    """Name what shows displays in the cell."""
    global _face  # noqa: PLW0603 - one front end a process
    _face = face


# --- one attempt's output -------------------------------------------------------------


class Capture:
    """One attempt's output, in the order in which it was written.

    While it follows somewhere (`follow`), what is written is shown there at once.
    ``redirects`` holds what the body itself has put in the place of ``sys.stdout`` and its
    like, ``recorders`` what records its warnings, the innermost last.
    """

    __slots__ = (
        "_bars", "_closed", "_cut", "_due", "_live", "_lock", "_roll", "destination", "inside",
        "recorders", "redirects", "unsent",
    )  # fmt: skip

    def __init__(self) -> None:
        self.destination: Destination | None = None
        self.unsent: tuple[Message, ...] = ()
        self.inside = False
        self.redirects: dict[str, Any] = {}
        self.recorders: list[Callable[[warnings.WarningMessage], object]] = []
        self._roll = Roll()
        self._bars: list[Piece] = []
        self._live: Live | None = None
        self._closed: tuple[Message, ...] | None = None
        self._cut = False
        self._due = False
        self._lock = threading.RLock()

    @property
    def open(self) -> bool:
        """Tell whether it has not ended; its lock isn't taken."""
        return self._closed is None

    @property
    def messages(self) -> list[Message]:
        """What was captured, as it was written."""
        with self._lock:
            return list(self._closed or messages_of(self._roll.pieces, settled=False))

    def diverts(self, kind: str) -> bool:
        """Tell whether the body itself has redirected this kind of output."""
        if kind == "warning" and self.recorders:
            return True
        return bool(self.redirects) and _DIVERTED_BY.get(kind, kind) in self.redirects

    def write(self, kind: str, data: str, source: object = None) -> bool:
        """Add text of a stream, or JSON of a kind that is data; False if not this capture's.

        After its end a body that is still under way writes into nothing; whatever else
        it has left behind writes past it.
        """
        with self._lock:
            if self._closed is not None:
                return self.inside
            if data or kind == BAR:
                self._clear_if_due()
                self._take(kind, data, source or self)
            return True

    def display(self, bundle: dict[str, Any], text: str = "", source: object = None) -> bool:
        """Add a display, or change one that is here; as `write`."""
        with self._lock:
            if self._closed is not None:
                return self.inside
            named = bundle.get("transient", {}).get("display_id", "")
            if bundle.get("update") and (pieces := self._roll.shows(named)):
                bars = [piece for piece in pieces if piece.bar]
                if not bars:
                    self._change(pieces, bundle)
                    return True
                for one in bars:
                    self._take_out(one)
                bundle = {key: part for key, part in bundle.items() if key != "update"}
            self._clear_if_due()
            if widget := _VIEW in bundle.get("data", ()):
                # To be changed into its last state, and to be taken back alone.
                source = source or object()
                bundle = bundle if named else bundle | {"transient": {"display_id": _new_id()}}
                text = ""
            data = text or _dumps(bundle)
            bar = widget and _moves_apart() and _is_ended(bundle) is not None
            if bar and all(piece.kind != BAR for piece in self._roll.pieces):
                self._take(BAR, "", source)
            piece = self._take("display", data, source or self, bar=bar)
            if piece is not None and not bundle.get("update"):
                piece.display = bundle.get("transient", {}).get("display_id", "")
                piece.widget = widget
            return True

    def clear(self, wait: bool = False) -> bool:  # noqa: FBT001, FBT002 - as IPython has it
        """Take back what was written, with `wait` when more comes; as `write`."""
        with self._lock:
            if self._closed is not None:
                return self.inside
            self._due = wait
            if not wait:
                self._retract({piece.source for piece in self._roll.pieces}, more=False)
            return True

    def flush(self, kind: str) -> None:
        """Flush the stream where this is shown."""
        with self._lock:
            if self._live is not None and self.destination is not None:
                self._live.flush()
                self.destination.flush(kind)

    # --- live -------------------------------------------------------------------------

    def follow(self, destination: Destination) -> None:
        """Show there what was written and was not shown there yet, and from now on the rest."""
        with self._lock:
            if self._closed is not None:
                return
            if self._live is not None and self.destination is destination:
                self._live.go_on()
                return
            self.destination, self._live = destination, Live(destination)
            for piece in self._roll.pieces:
                self._live.send(piece)

    def unfollow(self) -> None:
        """Keep to itself what is written from now on."""
        with self._lock:
            if self._live is not None:
                self._live.pause()

    def move(self, bar: object, state: str) -> None:
        """Show how far a bar is of a step that this one's body waits for; nothing ends that."""
        with self._lock:
            if self._closed is None and self._live is not None:
                self._live.move(bar, state)

    def retract(self, sources: Container[object], *, more: bool) -> None:
        """Take back what came from `sources`, here and where it was shown."""
        with self._lock:
            if self._closed is None:
                self._retract(sources, more=more)

    def finished(self) -> tuple[Message, ...]:
        """End it; give the messages, each at its last state.

        ``unsent`` is then what was not shown at ``destination``.
        """
        with self._lock:
            if self._closed is None:
                self._settle_bars(every=True)
                self._settle_widgets()
                if self._live is not None:
                    self.unsent = self._live.end()
                self._closed = messages_of(self._roll.pieces)
                self._roll = Roll()
            return self._closed

    # --- with the lock held -------------------------------------------------------------

    def _take(self, kind: str, data: str, source: object, *, bar: bool = False) -> Piece | None:
        """Add what there is room for, and the mark of the cut with the first that there is not."""
        if self._bars:
            self._settle_bars()
        if self._cut:
            return None
        if self._roll.size + len(data) > LIMIT_CHARACTERS:
            self._roll.compact()
        left = LIMIT_CHARACTERS - self._roll.size
        if len(data) <= left:
            return self._add(kind, data, source, bar=bar)
        if kind not in WHOLE and left:
            self._add(kind, data[:left], source)
        self._mark_cut(source)
        return None

    def _mark_cut(self, source: object) -> None:
        self._cut = True
        mark = f"\n... output cut at {LIMIT_CHARACTERS:,} characters\n"
        self._add("stderr", mark, source)

    def _add(self, kind: str, data: str, source: object, *, bar: bool = False) -> Piece:
        piece = self._roll.add(kind, data, source)
        if bar:
            piece.bar = True
            self._bars.append(piece)
        if self._live is not None:
            self._live.send(piece, data)
        return piece

    def _change(self, pieces: list[Piece], bundle: dict[str, Any]) -> None:
        """Give displays another content, where there is room for it."""
        data = _dumps({key: part for key, part in bundle.items() if key != "update"})
        for piece in pieces:
            if self._roll.size - piece.size + len(data) > LIMIT_CHARACTERS:
                if not self._cut:
                    self._mark_cut(piece.source)
                return
            self._roll.replace(piece, data)
            piece.widget = _VIEW in bundle.get("data", ())
            if self._live is not None:
                self._live.change(piece, _dumps(bundle))

    def _clear_if_due(self) -> None:
        if self._due:
            self._due = False
            self._retract({piece.source for piece in self._roll.pieces}, more=True)

    def _retract(self, sources: Container[object], *, more: bool) -> None:
        self._bars = [bar for bar in self._bars if bar.source not in sources]
        # Text that can't be taken back where it was shown is recorded as it was shown.
        self._roll.drop(sources, displays_only=self._live is not None and self._live.lasting)
        self._cut = self._cut and self._roll.size > LIMIT_CHARACTERS
        if self._live is not None:
            self._live.retract(sources, more=more)

    def _settle_bars(self, *, every: bool = False) -> None:
        """Put a line in the place of each bar that has ended, behind what was written till then."""
        for piece in tuple(self._bars):
            bundle = json.loads(piece.text)
            if every or _is_ended(bundle):
                self._take_out(piece)
                settled = _settled(bundle)
                text = "" if settled is None else str(settled["data"].get("text/plain", ""))
                if text:
                    self._add(BAR, f"{text}\n", piece.source)

    def _take_out(self, bar: Piece) -> None:
        self._bars.remove(bar)
        self._roll.remove(bar)
        if self._live is not None:
            self._live.forget(bar)

    def _settle_widgets(self) -> None:
        """Change each live display into its last state; take out those that were closed."""
        widgets = [one for one in self._roll.pieces if one.widget]
        if not widgets:
            return
        closed = set()
        sources = Counter(id(piece.source) for piece in self._roll.pieces)
        for piece in widgets:
            bundle = json.loads(piece.text)
            settled = _settled(bundle)
            if settled is None and sources[id(piece.source)] == 1:
                closed.add(piece.source)
                continue
            settled = settled or {"data": {}, "metadata": {}}  # it stands for another display
            self._roll.replace(piece, _dumps(settled))
            if self._live is not None:
                update = settled | {"transient": bundle["transient"], "update": True}
                self._live.change(piece, _dumps(update))
        if closed:
            self._retract(closed, more=False)


def _is_ended(bundle: dict[str, Any]) -> bool | None:
    """Tell whether a live display is a progress bar at its end; None if it is no bar."""
    return None if _face is None or _face.ended is None else _face.ended(bundle)


def _settled(bundle: dict[str, Any]) -> dict[str, Any] | None:
    """Return a live display as it can be shown without its kernel, None if it was closed."""
    if _face is not None and _face.settle is not None:
        settled = _face.settle(bundle)
        if settled is None:
            return None
        bundle = settled
    parts = {kind: part for kind, part in bundle["data"].items() if kind != _VIEW}
    return {"data": parts, "metadata": bundle.get("metadata", {})}


class Capturing:
    """Sends the output of a block, in its context, to `capture`; and figures left open."""

    __slots__ = ("_apart", "_capture", "_token")

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._apart = Apart(show=True)

    def __enter__(self) -> Self:
        self._capture.inside = True
        self._token = _current.set(self._capture)
        self._apart.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            self._apart.__exit__(kind, *error)
        finally:
            self._capture.inside = False
            try:
                _current.reset(self._token)
            except ValueError:
                # A coroutine left to the garbage collector is closed in another context.
                _current.set(None)


def here() -> Callable[[], object]:
    """Return a callable that binds the current thread to this step's output."""
    capture, figures = _current.get(), isolation.here()

    def enter() -> None:
        _current.set(capture)
        figures()

    return enter


def current() -> Capture | None:
    """Return the capture that this context's output goes to; None where it is the cell's own."""
    return _current.get()


def capture_display(bundle: dict[str, Any], show: Callable[[], object]) -> bool:
    """Take a display if a step's output is being captured; else `show` it, as the cell's own.

    The front end calls it for every display.
    """
    capture = _current.get()
    if capture is not None and capture.display(bundle):
        return True
    _pass_display(bundle, show)
    return False


def capture_clear(wait: bool, clear: Callable[[bool], object]) -> bool:  # noqa: FBT001 - likewise
    """Take back a step's output if it is being captured; else `clear` the cell."""
    capture = _current.get()
    if capture is not None and capture.clear(wait):
        return True
    screen = _screen.get()
    if screen is None or diverted():
        clear(wait)
        return False
    with screen.lock:
        screen.forget()
        clear(wait)
    return False


def capture_warning(message: warnings.WarningMessage, show: Callable[..., object]) -> None:
    """Take a warning if a step's output is being captured; else `show` it."""
    capture = _current.get()
    if capture is not None and capture.recorders:
        capture.recorders[-1](message)
        return
    if (
        capture is None
        or capture.diverts("warning")
        or not capture.write("warning", warned.data_of(message))
    ):
        show(message)


# --- messages, kept as text and delivered -----------------------------------------------


def dumps(messages: Sequence[Message]) -> str:
    """Lay messages out as JSON text; nothing is the empty text."""
    return json.dumps([[one.kind, one.data] for one in messages]) if messages else ""


def loads(text: str) -> tuple[Message, ...]:
    """Take apart what `dumps` laid out."""
    return tuple(Message(kind, data) for kind, data in json.loads(text)) if text else ()


def deliver(messages: Iterable[Message]) -> None:
    """Write messages to where this context's output goes: the cell, or an enclosing step."""
    source = object()
    for message in messages:
        _emit(message.kind, message.data, source)


def _emit(kind: str, data: str, source: object) -> None:
    """Show one piece where this context's output goes."""
    capture = _current.get()
    if capture is not None and not capture.diverts(kind):
        if kind == "display":
            capture.display(json.loads(data), data, source)
        else:
            capture.write(kind, data, source)
        return
    token = _source.set(source)
    try:
        if kind == "display":
            bundle = json.loads(data)
            _pass_display(bundle, functools.partial(_show, bundle))
        elif kind == "warning":
            module: Any = warnings
            module._showwarnmsg(warned.message_of(data))  # noqa: SLF001 - what `warn` calls, too
        elif kind == BAR:
            _emit_bar(data)
        else:
            _emit_text(kind, data)
    finally:
        _source.reset(token)


def _emit_text(kind: str, text: str) -> None:
    """Write to the stream as it is redirected here; what was written past that, past that."""
    name = kind.removeprefix(HELD)
    stream = getattr(sys, name)
    if kind != name:
        stream = getattr(vars(sys)[name], "base", stream)
    if getattr(getattr(sys, _OTHER[name]), "unflushed", True):
        _flush(_OTHER[name])
    if stream is not None:
        _write(stream, text)


def _emit_bar(text: str) -> None:
    """Write a bar that has ended: in a notebook to stdout, so that it is one output with others."""
    screen = _screen.get()
    apart = _moves_apart() and not _is_redirected()
    if apart and screen is not None and _understands_returns():
        _anew(screen.reserve, _source.get())
    if text:
        _emit_text(f"{HELD}stdout" if apart else "stderr", text)


def _moves_apart() -> bool:
    """Tell whether bars that move are shown in a display of their own."""
    return _face is not None and _face.move is not None


def _emit_on_screen(kind: str, data: str, source: object) -> None:
    """Show one piece in the cell itself, whatever its streams are redirected to by now."""
    _emit(kind if kind in WHOLE else HELD + kind, data, source)


def _flush(kind: str) -> None:
    """Flush a stream that can be flushed: print asks for no more than a `write`."""
    flush = getattr(getattr(sys, kind), "flush", None)
    if flush is not None:
        flush()


def _show(bundle: dict[str, Any]) -> None:
    if _face is not None:
        _face.show(bundle)
    elif not bundle.get("update"):
        _write(sys.stdout, str(bundle["data"].get("text/plain", "")) + "\n")


def _write(stream: TextIO, text: str) -> None:
    """Write what a step wrote; what the stream's encoding can't hold is escaped, not lost."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


# --- live: from a body to who waits for it -----------------------------------------------


class Destination:
    """Where the output of a step goes while it is waited for, told by who waits.

    What is shown is written in a copy of that context, from whatever thread: so it
    is the waiting cell's, or goes into the capture of the step whose body waits.
    """

    __slots__ = ("_context", "alone", "open")

    def __init__(self, *, alone: bool = True) -> None:
        self._context = contextvars.copy_context()
        self.alone = alone
        self.open = True

    def close(self) -> None:
        """Show nothing more there: the cell has ended."""
        self.open = False

    @property
    def raw(self) -> bool:
        """Tell whether carriage returns may go there as they are."""
        return self._context.copy().run(_understands_returns)

    @property
    def lasting(self) -> bool:
        """Tell whether text that was shown there can't be taken back."""
        return self._context.copy().run(_is_redirected)

    @property
    def bars(self) -> bool:
        """Tell whether bars that move are not written there; where returns do it, they are."""
        return not self.raw or _moves_apart()

    def emit(self, kind: str, data: str, source: object) -> None:
        """Show a piece."""
        self._run(_emit, kind, data, source)

    def move(self, bar: object, state: str) -> None:
        """Show how far a bar is, apart from what is written; nothing ends that."""
        self._run(_move, bar, state)

    def deliver(self, messages: Sequence[Message]) -> None:
        """Show messages."""
        self._run(deliver, messages)

    def retract(self, sources: Container[object], *, more: bool) -> None:
        """Take back what came from `sources`; `more` tells that other output follows."""
        self._run(_retract, sources, more)

    def flush(self, kind: str) -> None:
        """Flush the stream that is written to."""
        self._run(_flush, kind)

    def _run(self, show: Callable[..., object], *arguments: object) -> None:
        """Call `show` in a copy of the context; one that fails must not fail the step."""
        try:
            if self.open:
                self._context.copy().run(show, *arguments)
        except Exception:  # noqa: BLE001 - a stream may be closed, a front end gone
            self.open = False


def _understands_returns() -> bool:
    """Tell whether carriage returns may go as they are to where this context's output goes."""
    if _is_redirected():
        return False
    if _current.get() is not None:
        return True
    if _face is not None and _face.raw is not None:
        return _face.raw()
    return sys.stdout is not None and sys.stdout.isatty()


def _is_redirected() -> bool:
    """Tell whether this context's text goes to some code's stream: to be kept, not looked at."""
    capture = _current.get()
    if capture is not None:
        return any(kind in capture.redirects for kind in _OTHER)
    if any(getattr(vars(sys)[kind], "redirected", False) for kind in _OTHER):
        return True
    return _face is not None and _face.direct is not None and not _face.direct()


def diverted() -> bool:
    """Tell whether this context's displays go to code that collects them."""
    capture = _current.get()
    if capture is not None:
        return capture.diverts("display")
    return _face is not None and _face.diverted is not None and _face.diverted()


def _retract(sources: Container[object], more: bool) -> None:  # noqa: FBT001 - run in a context
    capture, screen = _current.get(), _screen.get()
    if capture is not None:
        capture.retract(sources, more=more)
    elif screen is not None:
        _anew(functools.partial(screen.retract, more=more), sources)


def _move(bar: object, state: str) -> None:
    capture, screen = _current.get(), _screen.get()
    if capture is not None:
        capture.move(bar, state)
    elif screen is not None and not diverted():
        _anew(screen.move, bar, state)


def enter_screen() -> contextvars.Token[Screen | None]:
    """Remember from now on what this context's cell shows, where that can be of use."""
    if _face is None or _face.clear is None or not (_face.can_clear and _face.can_clear()):
        return _screen.set(None)
    if _is_redirected():
        return _screen.set(None)
    return _screen.set(Screen(_face.clear, _emit_on_screen, _face.move))


def leave_screen(token: contextvars.Token[Screen | None]) -> None:
    """Remember no more."""
    try:
        _screen.reset(token)
    except ValueError:
        # An async generator's cleanup may run in another context.
        _screen.set(None)


def from_step() -> bool:
    """Tell whether what is being written came from a step, and not from the cell's own code."""
    return _source.get() is not None


def pass_text(kind: str, text: str, write: Callable[[str], int]) -> int:
    """Write text to the cell's stream, and remember it."""
    screen = _screen.get()
    if screen is None:
        return write(text)
    with screen.lock:
        screen.note(kind, text, _source.get())
        return write(text)


def _pass_display(bundle: dict[str, Any], show: Callable[[], object]) -> None:
    """Show a display in the cell, and remember it."""
    screen, source = _screen.get(), _source.get()
    if screen is None or diverted():
        show()
        return
    named = bundle.get("transient", {}).get("display_id", "")
    update = bundle.get("update")
    data = _dumps({key: part for key, part in bundle.items() if key != "update"})
    with screen.lock:
        if source is None and not update and _goes_on(screen.open_line()):
            _anew(screen.insert, data, named)
            return
        if not (update and screen.change(named, data)):
            screen.note("display", _dumps(bundle) if update else data, source, named)
        show()


def _goes_on(source: object) -> bool:
    """Tell whether `source` is a step that still writes."""
    return isinstance(source, Capture) and source.open


def _anew(change: Callable[..., object], *arguments: object) -> None:
    """Change what the screen shows; what is shown anew by that is remembered, and the cell's."""
    context = contextvars.copy_context()
    context.run(_screen.set, None)
    context.run(_current.set, None)
    with uninterrupted():
        context.run(change, *arguments)


# --- text ---------------------------------------------------------------------------------


def _dumps(bundle: dict[str, Any]) -> str:
    return json.dumps(bundle, default=str)


def _new_id() -> str:
    return uuid.uuid4().hex
