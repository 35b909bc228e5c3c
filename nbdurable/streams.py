"""``sys.stdout`` and ``sys.stderr`` while steps run: each write goes to whose it is.

Invariant: what no step writes passes through, untouched and at once. The streams
that were there are covered too, for whoever took hold of one earlier, as logging
does; a thread that a body starts is the body's. All is as it was when the last user
has gone.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import threading
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from . import libraries, output

if TYPE_CHECKING:
    from collections.abc import Callable


class _Nowhere(io.TextIOBase):
    """Stands where a process has no stream, as a service may: what steps print is saved."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)


class _Tee(io.TextIOBase):
    """Stands for ``sys.stdout`` or ``sys.stderr``."""

    def __init__(self, kind: str, stream: TextIO) -> None:
        self.kind = kind
        self.stream = stream
        self.other: _Tee | None = None
        self.unflushed = False
        self.owed = False  # what a step has written stays before what follows on the other stream
        self._write: Callable[[str], int] = stream.write
        self._before = getattr(stream, "__dict__", {}).get("write")
        # A stream that takes no attribute can't be covered: who holds it bypasses this.
        with contextlib.suppress(AttributeError, TypeError):
            cast("Any", stream).write = self.write

    def __del__(self) -> None:
        """Leave the stream alone: io's own finalizer flushes.

        The garbage collector may come by where the stream's lock is held, and a flush
        that waits for another thread waits for that lock.
        """

    def uncover(self) -> None:
        """Let the stream be as it was."""
        covered: Any = self.stream
        if getattr(covered, "__dict__", {}).get("write") != self.write:
            return
        if self._before is None:
            del covered.write
        else:
            covered.write = self._before

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        capture = output.current()
        if capture is not None and capture.write(self.kind, text):
            return len(text)
        other = self.other
        if other is not None and other.owed:
            other.flush()
        self.owed, self.unflushed = output.from_step(), True
        write = self._write
        if _around is not None and self.stream.isatty():
            write = functools.partial(_around, self.stream, write)
        return output.pass_text(self.kind, text, write)

    def write_bare(self, text: str) -> int:
        """Write to the stream itself, past everybody."""
        return self._write(text)

    def flush(self) -> None:
        capture = output.current()
        if capture is None:
            self.unflushed = self.owed = False
            self.stream.flush()
        else:
            capture.flush(self.kind)

    def isatty(self) -> bool:
        return output.current() is None and self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override] # a read-only attribute is enough
        return self.stream.encoding

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_threads: Any = threading.Thread
_plain_start = threading.Thread.start


def _start(thread: threading.Thread) -> None:
    """Start a thread; one that a body starts writes for that body, too."""
    if output.current() is not None and not thread.name.startswith("nbdurable"):
        enter, run = output.here(), thread.run

        def run_entered() -> None:
            del thread.run
            enter()
            run()

        thread.run = run_entered  # type: ignore[method-assign]
    _plain_start(thread)


_lock = threading.Lock()
_users = 0
_tees: list[_Tee] = []
_around: Callable[[TextIO, Callable[[str], int], str], int] | None = None


def interpose(around: Callable[[TextIO, Callable[[str], int], str], int] | None) -> None:
    """Let ``around(stream, write, text)`` write what goes to a terminal; None ends that."""
    global _around  # noqa: PLW0603 - the streams are the process's
    _around = around


def uncovered(kind: str) -> TextIO | None:
    """Give the stream of this kind itself; None where the process has none."""
    stream = getattr(sys, kind)
    while isinstance(stream, _Tee):
        stream = stream.stream
    return None if isinstance(stream, _Nowhere) else cast("TextIO | None", stream)


def bare(stream: TextIO) -> Callable[[str], int]:
    """Give what writes to a stream past its stand-in, if it has one."""
    for tee in tuple(_tees):
        if tee.stream is stream:
            return tee.write_bare
    return stream.write


def install() -> None:
    """Replace ``sys.stdout`` and ``sys.stderr``; each call wants one `remove`."""
    global _users  # noqa: PLW0603 - the streams are the process's
    with _lock:
        _users += 1
        if _users == 1:
            libraries.fit()
            _threads.start = _start
            for kind in ("stdout", "stderr"):
                # A stand-in may have been put back by who had replaced it meanwhile.
                _tees.append(_Tee(kind, uncovered(kind) or cast("TextIO", _Nowhere())))
                setattr(sys, kind, _tees[-1])
            _tees[0].other, _tees[1].other = _tees[1], _tees[0]


def remove() -> None:
    """Put the streams back when the last user has gone; what replaced them meanwhile stays."""
    global _users  # noqa: PLW0603 - the streams are the process's
    with _lock:
        _users -= 1
        if _users == 0:
            libraries.unfit()
            if _threads.start is _start:
                _threads.start = _plain_start
            for tee in _tees:
                tee.uncover()
                if getattr(sys, tee.kind) is tee:
                    gone = isinstance(tee.stream, _Nowhere)
                    setattr(sys, tee.kind, None if gone else tee.stream)
            _tees.clear()


class Capturing(output.Capturing):
    """Sends the output of a body to its capture, through streams that are in use until its end."""

    __slots__ = ()

    def __enter__(self) -> Self:
        install()
        return super().__enter__()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            super().__exit__(kind, *error)
        finally:
            remove()
