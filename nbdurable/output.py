"""Each step's prints and displays, kept apart from everybody else's.

Invariant: a stream replaced here passes through whatever is written outside a
step, untouched. Whose output it is, is told by a ContextVar, so concurrent
bodies don't mix, whatever threads they are on (CONTRACT section 6). Not caught:
what a subprocess writes to file descriptor 1, and plain child threads.
"""

from __future__ import annotations

import contextvars
import io
import json
import sys
import threading
from typing import TYPE_CHECKING, Any, TextIO, cast

from .records import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LIMIT_CHARACTERS = 1_000_000
"""A step's captured output is cut at so many characters, with a mark."""

_current: contextvars.ContextVar[Capture | None] = contextvars.ContextVar(
    "nbdurable_capture", default=None
)


class Capture:
    """One attempt's output, in the order in which it was written."""

    __slots__ = ("_size", "_through", "messages")

    def __init__(self, *, through: bool = False) -> None:
        self.messages: list[Message] = []
        self._size = 0
        self._through = through

    @property
    def through(self) -> bool:
        """Whether what is captured is also shown at once."""
        return self._through

    def write(self, kind: str, data: str) -> None:
        """Add text of a stream, or a display's JSON."""
        if self._size > LIMIT_CHARACTERS or not data:
            return
        self._size += len(data)
        if self._size > LIMIT_CHARACTERS:
            kind, data = "stderr", f"\n... output cut at {LIMIT_CHARACTERS:,} characters\n"
        messages = self.messages
        if messages and kind != "display" and messages[-1].kind == kind:
            messages[-1] = Message(kind, messages[-1].data + data)
        else:
            messages.append(Message(kind, data))

    def finished(self) -> tuple[Message, ...]:
        """Give the messages, lines overwritten by carriage returns at their last state."""
        return tuple(
            Message(message.kind, _last_state(message.data)) if "\r" in message.data else message
            for message in self.messages
        )


def capturing(capture: Capture | None) -> contextvars.Token[Capture | None]:
    """Send this context's output to `capture`; `released` undoes it."""
    return _current.set(capture)


def released(token: contextvars.Token[Capture | None]) -> None:
    """Send this context's output to where it went before."""
    _current.reset(token)


def dumps(messages: Sequence[Message]) -> str:
    """Lay messages out as JSON text; nothing is the empty text."""
    return json.dumps([[one.kind, one.data] for one in messages]) if messages else ""


def loads(text: str) -> tuple[Message, ...]:
    """Take apart what `dumps` laid out."""
    return tuple(Message(kind, data) for kind, data in json.loads(text)) if text else ()


def deliver(messages: Iterable[Message]) -> None:
    """Write messages to where this context's output goes: the cell, or an enclosing step."""
    for message in messages:
        if message.kind == "display":
            _deliver_display(message)
        else:
            stream = sys.stdout if message.kind == "stdout" else sys.stderr
            stream.write(message.data)


# --- displays: the notebook's face installs what shows them ---------------------

_show: Callable[[dict[str, Any]], None] | None = None


def install_display(show: Callable[[dict[str, Any]], None] | None) -> None:
    """Name what shows a display's bundle (``data``, ``metadata``) in the cell."""
    global _show  # noqa: PLW0603 - one front end a process
    _show = show


def capture_display(bundle: dict[str, Any]) -> bool:
    """Take a display if a step's output is being captured; False if it is the cell's own.

    The front end calls it for every display; with True, it shows nothing unless
    the capture also lets output through.
    """
    capture = _current.get()
    if capture is None:
        return False
    capture.write("display", json.dumps(bundle, default=str))
    return not capture.through


def _deliver_display(message: Message) -> None:
    capture = _current.get()
    if capture is not None:
        capture.write("display", message.data)
        if not capture.through:
            return
    bundle = json.loads(message.data)
    if _show is not None:
        _show(bundle)
    else:
        sys.stdout.write(str(bundle["data"].get("text/plain", "")) + "\n")


# --- streams --------------------------------------------------------------------


class _Tee(io.TextIOBase):
    """Stands for ``sys.stdout`` or ``sys.stderr`` while a run is active."""

    def __init__(self, kind: str, stream: TextIO) -> None:
        self.kind = kind
        self.stream = stream

    def write(self, text: str) -> int:
        capture = _current.get()
        if capture is not None:
            capture.write(self.kind, text)
            if not capture.through:
                return len(text)
        return self.stream.write(text)

    def flush(self) -> None:
        if _current.get() is None:
            self.stream.flush()

    def isatty(self) -> bool:
        return _current.get() is None and self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override] # a read-only attribute is enough
        return self.stream.encoding

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_lock = threading.Lock()
_users = 0


def install_streams() -> None:
    """Replace ``sys.stdout`` and ``sys.stderr``; each call wants one `remove_streams`."""
    global _users  # noqa: PLW0603 - the streams are the process's
    with _lock:
        _users += 1
        if _users == 1:
            sys.stdout = cast("TextIO", _Tee("stdout", sys.stdout))
            sys.stderr = cast("TextIO", _Tee("stderr", sys.stderr))


def remove_streams() -> None:
    """Put the streams back when the last user has gone."""
    global _users  # noqa: PLW0603 - the streams are the process's
    with _lock:
        _users -= 1
        if _users == 0:
            if isinstance(sys.stdout, _Tee):
                sys.stdout = sys.stdout.stream
            if isinstance(sys.stderr, _Tee):
                sys.stderr = sys.stderr.stream


def _last_state(text: str) -> str:
    """Keep of each line what a terminal would show after its carriage returns."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(_overwrite(line) if "\r" in line else line for line in lines)


def _overwrite(line: str) -> str:
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    return shown
