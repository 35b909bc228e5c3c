"""One attempt's evidence, and which attempt the code that runs belongs to.

Invariant: the context tells whose body runs; what runs in a context that nobody claims
counts for every body that runs then. Too much evidence costs a needless run, too little
a wrong answer.
"""

from __future__ import annotations

import contextvars
import os
from typing import TYPE_CHECKING, Any

from . import digests
from .patterns import files_of
from .settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType

    from nbdurable.fingerprint import Covered

READ, WRITE, LIST, APPEND = 1, 2, 4, 8


class Met:
    """One file or folder that a body met: how it was used, and its stat at the first meeting."""

    __slots__ = ("before", "first", "named", "path", "use")

    def __init__(self, path: str, first: digests.Stat | None, *, named: bool) -> None:
        self.path = path
        self.first = first
        self.before: digests.State | None = None  # its content, where the body changes it
        self.named = named
        self.use = 0


class Ran:
    """One code object that ran: the namespace of its globals, and the class it was made for."""

    __slots__ = ("code", "owner", "space")

    def __init__(self, code: CodeType, space: dict[str, Any], owner: type | None = None) -> None:
        self.code = code
        self.space = space
        self.owner = owner


def _owner_of(code: CodeType, frame: Any) -> type | None:
    """Return the class that a generated method, such as a dataclass's, belongs to."""
    if not code.co_argcount:
        return None
    first = frame.f_locals.get(code.co_varnames[0])
    for cls in type.mro(first if isinstance(first, type) else type(first)):
        method = vars(cls).get(code.co_name)
        if getattr(method, "__code__", None) is code:
            return cls
    return None


class Recorder:
    """What one attempt of a step was seen to do.

    ``files`` by the names that it used; ``codes`` by their identities, without those that are
    ``covered``, for the step's code fingerprint is of them.
    """

    __slots__ = (
        "_code", "codes", "covered", "files", "named", "quiet", "reached", "settings", "spawned",
    )  # fmt: skip

    def __init__(self, *, quiet: bool = False, code: Covered | None = None) -> None:
        self.codes: dict[int, Ran] = {}
        self._code = code
        self.covered = code.ids if code is not None else frozenset[int]()
        self.settings = settings_of(code)
        self.files: dict[str, Met] = {}
        self.named: frozenset[str] = frozenset()
        self.quiet = quiet  # nothing about files is asked for
        self.spawned = ""  # the first program that it started
        self.reached = ""  # the first address that it connected to

    @property
    def known(self) -> frozenset[int]:
        """The identities of the code objects that need not be seen."""
        return self.covered

    def covers(self, place: tuple[str, str, int]) -> bool:
        """Tell whether code of another process, by where it stands, need not be seen."""
        return self._code is not None and place in self._code.places

    def see(self, code: CodeType, frame: Any) -> None:
        """Take note of a code object that runs, and hold it: another may get its address."""
        owner = _owner_of(code, frame) if code.co_filename[:1] == "<" else None
        self.codes[id(code)] = Ran(code, frame.f_globals, owner)

    def meet(self, name: str, use: int) -> None:
        """Take note that a file or folder is used, and of its stat before that."""
        met = self.files.get(name)
        if met is None:
            path = os.path.join(os.getcwd(), name)  # noqa: PTH109, PTH118
            met = self.files[name] = Met(path, digests.stat_of(path), named=False)
        takes = (use | met.use) & (READ | APPEND)
        if use & WRITE and takes and met.before is None and not met.use & WRITE:
            met.before = digests.state_of(met.path)  # this is told before it is opened
        met.use |= use

    def name(self, names: Iterable[str]) -> None:
        """Take note of existing files that the user named, and of names of files to be."""
        if self.quiet:
            return
        given = frozenset(names)
        matching = [one for name in given if "*" in name for one in files_of(name)]
        self.named = given.union(name for name, is_folder in matching if not is_folder)
        for name, is_folder in matching:
            if is_folder:
                self.meet(name, LIST)
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
running: dict[int, Recorder] = {}
"""The recorders of the bodies that run now."""


def claimants() -> tuple[Recorder, ...]:
    """Return the recorders of the bodies that what runs here and now may belong to."""
    found = _current.get()
    if found is None:
        return tuple(running.values()) if running else ()
    return (found,) if isinstance(found, Recorder) else ()


def claims() -> Callable[[], Recorder | object | None]:
    """Return what gives whose code runs: a recorder, something else for the cell, None."""
    return _current.get


def begin_cell() -> contextvars.Token[Any]:
    """Let what runs in this context outside steps be the cell's; `leave` ends that."""
    return _current.set(_CELL)


def enter(recorder: Recorder) -> contextvars.Token[Any]:
    """Let what runs in this context be of a recorder's body; `leave` ends that."""
    return _current.set(recorder)


def leave(token: contextvars.Token[Any]) -> None:
    """End what `begin_cell` or `enter` began, where it can still be ended."""
    try:
        _current.reset(token)
    except ValueError:
        _current.set(None)  # what was left to the garbage collector ends in another context
