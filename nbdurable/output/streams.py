"""``sys.stdout`` and ``sys.stderr`` while steps run: each write goes to whose it is.

Invariant: what no step writes passes through, untouched and at once. The streams
that were there are covered too, for whoever took hold of one earlier, as logging
does; a thread that a body starts is the body's. What the cell assigns to ``sys.stdout``
is covered likewise, so a step that is called inside ``redirect_stdout`` is captured, and
shown there; what a body assigns holds for that body alone. All is as it was when the
last user has gone.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import sys
import threading
import types
import warnings
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from nbdurable import isolation

from . import capture as output

if TYPE_CHECKING:
    from collections.abc import Callable


class _Tee(io.TextIOBase):
    """Stands for a stream that is, or was, ``sys.stdout`` or ``sys.stderr``.

    ``redirected`` tells that the cell has put the stream there while steps ran;
    ``retired`` that steps run no more, or others in another time.
    """

    def __init__(self, kind: str, stream: TextIO | None, *, redirected: bool = False) -> None:
        self.kind = kind
        self.stream: Any = stream
        self.redirected = redirected
        self.retired = False
        self.other: _Tee | None = None
        self.unflushed = False
        self.owed = False  # what a step has written stays before what follows on the other stream
        self._write: Callable[[str], int] = len if stream is None else stream.write
        self._before = getattr(stream, "__dict__", {}).get("write")
        # A stream that takes no attribute can't be covered: who holds it bypasses this.
        with contextlib.suppress(AttributeError, TypeError):
            cast("Any", stream).write = self._write_held

    def __del__(self) -> None:
        """Leave the stream alone: io's own finalizer flushes.

        The garbage collector may come by where the stream's lock is held, and a flush
        that waits for another thread waits for that lock.
        """

    def uncover(self) -> None:
        """Let the stream be as it was."""
        self.retired = True
        covered = self.stream
        if getattr(covered, "__dict__", {}).get("write") != self._write_held:
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
        return self.write_past(text)

    def _write_held(self, text: str) -> int:
        """Write for who took hold of the stream itself, whatever redirects it by now."""
        past = not self.retired and not self.redirected and len(_chains[self.kind]) > 1
        capture = output.current()
        if capture is not None and capture.write(output.HELD * past + self.kind, text):
            return len(text)
        return self._write(text) if self.retired else self.write_past(text)

    def write_past(self, text: str) -> int:
        """Write what is no step's."""
        if self.retired and self.stream is not None:
            # Who stands for the stream by now remembers what it shows.
            return cast("int", self.stream.write(text))
        write = self._write
        if self.redirected:
            return write(text)
        other = self.other
        if other is not None and other.owed:
            other.flush()
        self.owed, self.unflushed = output.from_step(), True
        if _around is not None and self.stream is not None and self.stream.isatty():
            write = functools.partial(_around, self.stream, write)
        return output.pass_text(self.kind, text, write)

    def write_bare(self, text: str) -> int:
        """Write to the stream itself, past everybody."""
        return self._write(text)

    def flush(self) -> None:
        capture = output.current()
        if capture is None:
            self.unflushed = self.owed = False
            if self.stream is not None:
                self.stream.flush()
        else:
            capture.flush(self.kind)

    def isatty(self) -> bool:
        if output.current() is not None or self.stream is None:
            return False
        return bool(self.stream.isatty())

    def fileno(self) -> int:
        return cast("int", self.stream.fileno())

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override] # a read-only attribute is enough
        return "utf-8" if self.stream is None else self.stream.encoding

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Front:
    """What Python itself finds as ``sys.stdout`` or ``sys.stderr``: print, for one.

    It leads to what the code that prints would find there.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._chain = _chains[kind]

    @property
    def redirected(self) -> bool:
        """Tell whether the cell has redirected the stream."""
        return len(self._chain) > 1

    @property
    def base(self) -> _Tee:
        """The stream itself, past what redirects it."""
        return self._chain[0]

    def write(self, text: str) -> int:
        capture, shown = output.current(), self._chain[-1]
        if capture is None:
            return shown.write_past(text)
        stream = capture.redirects.get(self._kind, shown)
        return len(text) if stream is None else cast("int", stream.write(text))

    def flush(self) -> None:
        stream = _found(self._kind, self._chain)
        if stream is not None:
            stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(_found(self._kind, self._chain), name)


def _found(kind: str, chain: list[_Tee]) -> Any:
    """Return what code that stands here finds as ``sys.stdout`` or ``sys.stderr``."""
    capture = output.current()
    shown = chain[-1]
    if capture is not None:
        return capture.redirects.get(kind, shown) if capture.redirects else shown
    return shown.stream if shown.redirected else shown


def _redirect(kind: str, stream: Any) -> None:
    """Put a stream in the place: for a body alone, or for the cell and whatever else runs."""
    capture = output.current()
    stood_for = isinstance(stream, _Front) or (isinstance(stream, _Tee) and stream.kind == kind)
    if capture is not None and stood_for:
        capture.redirects.pop(kind, None)
    elif capture is not None:
        capture.redirects[kind] = stream
    else:
        with _lock:
            _redirect_cell(kind, stream)


def _redirect_cell(kind: str, stream: Any) -> None:
    chain = _chains[kind]
    # `mock.patch` puts back what Python itself has found: it redirects no more.
    at = max(len(chain) - 2, 0) if isinstance(stream, _Front) else _place_in(chain, stream)
    if at is None:
        chain.append(stream if isinstance(stream, _Tee) else _Tee(kind, stream, redirected=True))
        return
    for tee in chain[at + 1 :]:
        if tee.redirected:
            tee.uncover()
    del chain[at + 1 :]


def _place_in(chain: list[_Tee], stream: Any) -> int | None:
    """Return where in a chain a stream is, or what stands for it; None if nowhere."""
    below = _below(stream)
    return next((at for at, tee in enumerate(chain) if _below(tee) is below), None)


def _below(stream: Any) -> Any:
    """Return the stream below all that stands for it."""
    while isinstance(stream, _Tee | _Front):
        stream = stream.base if isinstance(stream, _Front) else stream.stream
    return stream


class _Redirectable:
    """An attribute of `sys` that what a body assigns to it doesn't change for others."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, module: types.ModuleType | None, owner: type) -> Any:
        if module is not sys:
            return self._of_another(module)
        if self._name in _chains:
            return _found(self._name, _chains[self._name])
        capture = output.current()
        everybodys = vars(sys)[self._name]
        return everybodys if capture is None else capture.redirects.get(self._name, everybodys)

    def __set__(self, module: types.ModuleType, value: Any) -> None:
        capture = output.current()
        if module is not sys:
            vars(module)[self._name] = value
        elif self._name in _chains:
            _redirect(self._name, value)
        elif capture is None:
            vars(sys)[self._name] = value
        elif value is vars(sys)[self._name]:
            capture.redirects.pop(self._name, None)
        else:
            capture.redirects[self._name] = value

    def _of_another(self, module: types.ModuleType | None) -> Any:
        """Return what a module has that somebody has made by calling `type(sys)`."""
        if module is None:
            return self
        try:
            return vars(module)[self._name]
        except KeyError:
            raise AttributeError(self._name) from None


class _Sys(types.ModuleType):
    """The class of `sys` while steps run."""

    stdout = _Redirectable("stdout")
    stderr = _Redirectable("stderr")
    displayhook = _Redirectable("displayhook")

    def __new__(cls, *given: Any, **named: Any) -> Any:
        """Return a plain module: Python makes those that it imports by calling `sys`'s class."""
        return types.ModuleType(*given, **named)

    def __reduce__(self) -> tuple[Any, ...]:
        """Be pickled as any module is by who looks at its class: by its name."""
        return importlib.import_module, (self.__name__,)


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


# --- warnings ---------------------------------------------------------------------

_warnings: Any = warnings
_plain_show = _warnings._showwarnmsg  # noqa: SLF001 - what `warn` calls
_plain_enter = warnings.catch_warnings.__enter__
_plain_exit = warnings.catch_warnings.__exit__
_RECORDED: str = "_nbdurable_recorded"


def _show_warning(message: warnings.WarningMessage) -> None:
    output.capture_warning(message, _plain_show)


def _enter_catching(catching: Any) -> Any:
    """Enter ``catch_warnings``; what a body records so is its own, and no other's."""
    log = _plain_enter(catching)
    capture, kept = output.current(), vars(catching)
    if capture is not None and log is not None and "_showwarnmsg_impl" in kept:
        _warnings.showwarning = kept["_showwarning"]
        _warnings._showwarnmsg_impl = kept["_showwarnmsg_impl"]  # noqa: SLF001 - as it does
        kept[_RECORDED] = capture, log.append
        capture.recorders.append(log.append)
    return log


def _exit_catching(catching: Any, *error: Any) -> None:
    kept = vars(catching)
    if _RECORDED in kept:
        capture, record = kept.pop(_RECORDED)
        capture.recorders.remove(record)
        # Another thread may have entered or left one meanwhile: that is not this one's.
        kept["_showwarning"] = _warnings.showwarning
        kept["_showwarnmsg_impl"] = _warnings._showwarnmsg_impl  # noqa: SLF001 - as it does
    _plain_exit(catching, *error)


def _catch(*, own: bool) -> None:
    """Let a body's warnings be its output, or let them be as they were."""
    caught: Any = warnings.catch_warnings
    _warnings._showwarnmsg = _show_warning if own else _plain_show  # noqa: SLF001 - see there
    caught.__enter__ = _enter_catching if own else _plain_enter
    caught.__exit__ = _exit_catching if own else _plain_exit


# --- in use -----------------------------------------------------------------------

_lock = threading.RLock()
_users = 0
_tees: list[_Tee] = []
_chains: dict[str, list[_Tee]] = {"stdout": [], "stderr": []}
_around: Callable[[TextIO, Callable[[str], int], str], int] | None = None


def interpose(around: Callable[[TextIO, Callable[[str], int], str], int] | None) -> None:
    """Let ``around(stream, write, text)`` write what goes to a terminal; None ends that."""
    global _around  # noqa: PLW0603 - the streams are the process's
    _around = around


def uncovered(kind: str) -> TextIO | None:
    """Return the stream of this kind itself; None where the process has none."""
    chain = _chains[kind]
    return cast("TextIO | None", _below(chain[0] if chain else vars(sys)[kind]))


def bare(stream: TextIO) -> Callable[[str], int]:
    """Return what writes to a stream past its stand-in, if it has one."""
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
            isolation.fit()
            _threads.start = _start
            for kind, chain in _chains.items():
                # A stand-in may have been put back by who had replaced it meanwhile.
                chain.append(_Tee(kind, uncovered(kind)))
                _tees.append(chain[0])
                vars(sys)[kind] = _Front(kind)
            _tees[0].other, _tees[1].other = _tees[1], _tees[0]
            sys.__class__ = _Sys
            _catch(own=True)


def remove() -> None:
    """Put the streams back when the last user has gone; what replaced them meanwhile stays."""
    global _users  # noqa: PLW0603 - the streams are the process's
    with _lock:
        _users -= 1
        if _users == 0:
            isolation.unfit()
            if _threads.start is _start:
                _threads.start = _plain_start
            _catch(own=False)
            sys.__class__ = types.ModuleType
            for kind, chain in tuple(_chains.items()):
                vars(sys)[kind] = _below(chain[-1])
                for tee in reversed(chain):
                    tee.uncover()
                del chain[1:]  # for who still holds what stood for it
                _chains[kind] = []
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
