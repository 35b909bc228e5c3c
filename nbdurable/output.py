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

    __slots__ = ("_pieces", "_size", "_through")

    def __init__(self, *, through: bool = False) -> None:
        self._pieces: list[tuple[str, list[str]]] = []
        self._size = 0
        self._through = through

    @property
    def through(self) -> bool:
        """Whether what is captured is also shown at once."""
        return self._through

    @property
    def messages(self) -> list[Message]:
        """What was captured, as it was written."""
        return [Message(kind, "".join(texts)) for kind, texts in self._pieces]

    def write(self, kind: str, data: str) -> None:
        """Add text of a stream, or a display's JSON."""
        if self._size > LIMIT_CHARACTERS or not data:
            return
        if self._size + len(data) > LIMIT_CHARACTERS:
            self._compact()
        left = LIMIT_CHARACTERS - self._size
        self._size += len(data)
        if len(data) > left:
            if kind != "display" and left:
                self._add(kind, data[:left])
            kind, data = "stderr", f"\n... output cut at {LIMIT_CHARACTERS:,} characters\n"
        self._add(kind, data)

    def finished(self) -> tuple[Message, ...]:
        """Give the messages, lines overwritten by carriage returns at their last state."""
        return tuple(
            Message(message.kind, _last_state(message.data)) if "\r" in message.data else message
            for message in self.messages
        )

    def _add(self, kind: str, data: str) -> None:
        pieces = self._pieces
        if pieces and kind != "display" and pieces[-1][0] == kind:
            pieces[-1][1].append(data)
        else:
            pieces.append((kind, [data]))

    def _compact(self) -> None:
        """Make room: drop what carriage returns have overwritten, as progress bars do."""
        self._pieces = [(one.kind, [_so_far(one.data)]) for one in self.messages]
        self._size = sum(len(texts[0]) for _, texts in self._pieces)


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
            _write(sys.stdout if message.kind == "stdout" else sys.stderr, message.data)


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
        _write(sys.stdout, str(bundle["data"].get("text/plain", "")) + "\n")


# --- streams --------------------------------------------------------------------


class _Tee(io.TextIOBase):
    """Stands for ``sys.stdout`` or ``sys.stderr`` while a run is active."""

    def __init__(self, kind: str, stream: TextIO) -> None:
        self.kind = kind
        self.stream = stream

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        capture = _current.get()
        if capture is None:
            return self.stream.write(text)
        capture.write(self.kind, text)
        if capture.through:
            _write(self.stream, text)
        return len(text)

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


def _write(stream: TextIO, text: str) -> None:
    """Write what a step wrote; what the stream's encoding can't hold is escaped, not lost."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _last_state(text: str) -> str:
    """Keep of each line what a terminal would show after its carriage returns."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(_overwrite(line) if "\r" in line else line for line in lines)


def _overwrite(line: str) -> str:
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    return shown


def _so_far(text: str) -> str:
    """As `_last_state`, but the last line can go on: its cursor stays where it is."""
    if "\r" not in text:
        return text
    done, newline, line = text.rpartition("\n")
    overwritten, back, rest = line.rpartition("\r")
    return _last_state(done) + newline + _overwrite(overwritten) + back + rest
