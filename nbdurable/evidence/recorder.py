"""One attempt's evidence, and which attempt the code that runs belongs to.

Invariant: the context tells whose body runs; what runs in a context that nobody claims
counts for every body that runs then. Too much evidence costs a needless run, too little
a wrong answer.
"""

from __future__ import annotations

import contextvars
import linecache
import os
import sys
import tokenize
from typing import TYPE_CHECKING, Any

from . import digests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

READ, WRITE, LIST = 1, 2, 4


class Met:
    """One file or folder that a body met: how it was used, and its stat at the first meeting."""

    __slots__ = ("before", "first", "named", "path", "use")

    def __init__(self, path: str, first: digests.Stat | None, *, named: bool) -> None:
        self.path = path
        self.first = first
        self.before: digests.State | None = None  # its content, where the body changes it
        self.named = named
        self.use = 0


class Recorder:
    """What one attempt of a step was seen to do; ``files`` by the names that it used."""

    __slots__ = ("files", "named", "quiet")

    def __init__(self, *, quiet: bool = False) -> None:
        self.files: dict[str, Met] = {}
        self.named: frozenset[str] = frozenset()
        self.quiet = quiet  # nothing about files is asked for

    def meet(self, name: str, use: int) -> None:
        """Take note that a file or folder is used, and of its stat before that."""
        met = self.files.get(name)
        if met is None:
            path = os.path.join(os.getcwd(), name)  # noqa: PTH109, PTH118
            met = self.files[name] = Met(path, digests.stat_of(path), named=False)
        if use & WRITE and (use | met.use) & READ and met.before is None and not met.use & WRITE:
            met.before = digests.state_of(met.path)  # this is told before it is opened
        met.use |= use

    def name(self, names: Iterable[str]) -> None:
        """Take note of existing files that the user named, and of names of files to be."""
        if self.quiet:
            return
        self.named = frozenset(names)
        for name in self.named:
            stat = digests.stat_of(name)
            if stat is not None:
                path = os.path.join(os.getcwd(), name)  # noqa: PTH109, PTH118
                self.files[name] = Met(path, stat, named=True)


class _Cell:
    """Stands for code of a cell outside all steps."""


_CELL = _Cell()
_current: contextvars.ContextVar[Recorder | _Cell | None] = contextvars.ContextVar(
    "nbdurable_evidence", default=None
)
_running: dict[int, Recorder] = {}


def claimants() -> tuple[Recorder, ...]:
    """Return the recorders of the bodies that what runs here and now may belong to."""
    found = _current.get()
    if found is None:
        return tuple(_running.values()) if _running else ()
    return (found,) if isinstance(found, Recorder) else ()


def begin_cell() -> contextvars.Token[Any]:
    """Let what runs in this context outside steps be the cell's; `end_cell` ends that."""
    return _current.set(_CELL)


def end_cell(token: contextvars.Token[Any]) -> None:
    """End what `begin_cell` began, where it can still be ended."""
    try:
        _current.reset(token)
    except ValueError:
        _current.set(None)  # an async generator's cleanup may run in another context


class Seeing:
    """A block, in its context, whose evidence a recorder takes."""

    __slots__ = ("_recorder", "_token")

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __enter__(self) -> None:
        self._token = _current.set(self._recorder)
        _running[id(self._recorder)] = self._recorder

    def __exit__(self, *_: object) -> None:
        _running.pop(id(self._recorder), None)
        try:
            _current.reset(self._token)
        except ValueError:
            _current.set(None)  # a coroutine that was left is closed in another context


# --- the audit hook -------------------------------------------------------------------

_READING = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


def _opened(args: tuple[Any, ...]) -> None:
    path, _, flags = args
    if type(path) is not int and (found := claimants()):
        access = flags & _READING
        use = READ if access == os.O_RDONLY else WRITE
        if access == os.O_RDWR and not flags & os.O_TRUNC:
            use = READ | WRITE
        _meet(found, path, use)


def _listed(args: tuple[Any, ...]) -> None:
    if found := claimants():
        _meet(found, "." if args[0] is None else args[0], LIST)


def _connected(args: tuple[Any, ...]) -> None:
    if found := claimants():
        _meet(found, args[0], READ | WRITE)


def _removed(args: tuple[Any, ...]) -> None:
    if found := claimants():
        _meet(found, args[0], WRITE)


def _renamed(args: tuple[Any, ...]) -> None:
    if found := claimants():
        _meet(found, args[0], WRITE)
        _meet(found, args[1], WRITE)


def _meet(recorders: tuple[Recorder, ...], path: Any, use: int) -> None:
    try:
        name = os.fsdecode(path)
    except TypeError:
        return  # a descriptor
    if not name or name[:1] == ":" or _is_machinery():
        return
    for recorder in recorders:
        if not recorder.quiet:
            recorder.meet(name, use)


def _is_machinery() -> bool:
    """Tell whether it is Python that opens a file, to import it or to show a line of it."""
    frame: Any = sys._getframe(4)  # noqa: SLF001 - there is no public word for it
    while frame is not None and frame.f_code.co_filename in _PLUMBING:
        frame = frame.f_back
    if frame is None:
        return True
    file = frame.f_code.co_filename
    # A step can be a function of C, called by what runs attempts.
    return file.startswith(_IMPORTING) and not file.endswith(_RUNNING)


_IMPORTING = (
    "<frozen importlib",
    os.path.dirname(os.path.dirname(__file__)),  # noqa: PTH120
    linecache.__file__,
    tokenize.__file__,
)
_RUNNING = os.path.join("nbdurable", "steps", "attempts.py")  # noqa: PTH118
_PLUMBING = frozenset({os.__file__, "<frozen os>", "<frozen codecs>"})

_EVENTS: dict[str, Callable[[tuple[Any, ...]], None]] = {
    "open": _opened,
    "os.listdir": _listed,
    "os.scandir": _listed,
    "sqlite3.connect": _connected,
    "os.remove": _removed,
    "os.rename": _renamed,
}


def _hook(
    event: str,
    args: tuple[Any, ...],
    # Defaults, for at the interpreter's end the module's names are gone before the hook is.
    events: dict[str, Callable[[tuple[Any, ...]], None]] = _EVENTS,
    ending: Callable[[], bool] = sys.is_finalizing,
) -> None:
    if event in events and not ending():
        events[event](args)


_installed: list[bool] = []


def install() -> None:
    """See what bodies open from now on; once in a process, for no hook can be taken out."""
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_hook)
