"""The audit hook: files that bodies open, list, rename and remove, processes and connections.

Invariant: for any other event the hook costs one look into a dictionary; it raises nothing
into the user's program, and it is installed once, for no hook can be taken out again.
"""

from __future__ import annotations

import linecache
import os
import sys
import tokenize
from typing import TYPE_CHECKING, Any

from .recorder import APPEND, LIST, READ, WRITE, Recorder, claimants

if TYPE_CHECKING:
    from collections.abc import Callable

_READING = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


def _opened(args: tuple[Any, ...]) -> None:
    path, _, flags = args
    if type(path) is not int and (found := claimants()):
        access = flags & _READING
        use = READ if access == os.O_RDONLY else WRITE
        if access == os.O_RDWR and not flags & os.O_TRUNC:
            use = READ | WRITE
        if flags & os.O_APPEND:
            use |= APPEND
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


def _spawned(args: tuple[Any, ...]) -> None:
    for one in claimants():
        one.spawned = one.spawned or _program(args)


def _program(args: tuple[Any, ...]) -> str:
    """Return the name of the program that is started, as far as it is told."""
    told = args[0] if args else None
    told = told.decode(errors="replace") if isinstance(told, bytes) else told
    return told.split(maxsplit=1)[0] if isinstance(told, str) and told.split() else "a fork"


def _reached(args: tuple[Any, ...]) -> None:
    for one in claimants():
        one.reached = one.reached or str(args[1])


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
    """Tell whether it is Python that opens or lists, to import, find packages or show a line."""
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
    os.path.join(os.path.dirname(os.__file__), "importlib", "metadata"),  # noqa: PTH118, PTH120
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
    "subprocess.Popen": _spawned,
    "os.system": _spawned,
    "os.exec": _spawned,
    "os.posix_spawn": _spawned,
    "os.spawn": _spawned,
    "os.fork": _spawned,
    "os.forkpty": _spawned,
    "socket.connect": _reached,
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
