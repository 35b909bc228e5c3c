"""Project code that starts while bodies run, seen by `sys.monitoring`, Python 3.12 and later.

Invariant: code is no longer looked at only when every body that runs knows that it runs; a
body that begins later and does not know it has it looked at again. Between the last look at
which bodies run and the disabling there is no instruction at which Python changes threads.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from nbdurable.fingerprint import Places

from . import native, readers
from .recorder import Recorder, claims, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

LOOKS = 256
"""How many starts of one code object are looked at before it may be left alone."""

MOST = 10_000
"""After so many it counts as run by every body that runs, so that it need not be looked at."""

_TOOLS = (4, 3, 5, 2, 1, 0)
_disabled: dict[int, CodeType] = {}
_counts: dict[int, int] = {}
_generation = [0]
_state: dict[str, str] = {}


def install() -> str:
    """See code that starts from now on; return why that can't be, or nothing."""
    if "why" not in _state:
        _state["why"] = _install()
    return _state["why"]


def _install() -> str:
    if sys.version_info < (3, 12):
        return (
            f"on Python {sys.version_info[0]}.{sys.version_info[1]} an edit makes a step run again "
            f"only where reading the source finds that the step uses it; from Python 3.12 on, also "
            f"where the step's body ran it"
        )
    monitoring: Any = vars(sys)["monitoring"]
    free = [tool for tool in _TOOLS if monitoring.get_tool(tool) is None]
    if not free:
        return (
            "debuggers or profilers have all tool ids of sys.monitoring, so which code runs can't "
            "be seen: an edit makes a step run again only where reading the source finds that the "
            "step uses it; end them and restart the kernel to see more"
        )
    monitoring.use_tool_id(free[0], "nbdurable")
    events = monitoring.events
    for event in (events.PY_START, events.PY_RESUME):
        monitoring.register_callback(free[0], event, _callback(free[0]))
    monitoring.register_callback(free[0], events.CALL, native.called)
    monitoring.set_events(free[0], events.PY_START | events.PY_RESUME)
    _state["on"] = "on"
    return ""


def begin(recorder: Recorder) -> None:
    """Let a body's recorder have all code that starts from now on.

    It is among those that run already.
    """
    _generation[0] += 1
    if _disabled and not _disabled.keys() <= recorder.known:
        _disabled.clear()
        _counts.clear()
        monitoring: Any = vars(sys)["monitoring"]
        monitoring.restart_events()


def _callback(tool: int) -> Callable[[CodeType, int], Any]:
    """Return what is called when code starts; it holds all it needs, for Python's end."""
    monitoring: Any = vars(sys)["monitoring"]
    disable, calls = monitoring.DISABLE, monitoring.events.CALL
    look_at, may_read = monitoring.set_local_events, native.may_read
    project = _Project()
    is_project, places_of = project.known, project.judge
    counts, disabled, generation = _counts, _disabled, _generation
    current, recording, bodies, frame_at = claims(), Recorder, running, sys._getframe  # noqa: SLF001
    looks, most, libraries = LOOKS, MOST, project.readers
    meet_files = readers.meet

    def reader_started(code: CodeType, frame: Any) -> Any:
        if not code.co_qualname.startswith(libraries[code.co_filename]):
            return disable
        now = current()
        if found := (now,) if type(now) is recording else () if now else (*bodies.values(),):
            meet_files(found, code, frame)
        return None  # it stays looked at: it may be given another file

    def started(code: CodeType, _: int) -> Any:
        try:
            ours = is_project[code.co_filename]
        except KeyError:
            ours = places_of(code, frame_at(1))
        if not ours:
            return disable if ours is False else reader_started(code, frame_at(1))
        key = id(code)
        now = current()
        for one in (now,) if type(now) is recording else () if now else (*bodies.values(),):
            if key not in one.codes and key not in one.covered:
                one.see(code, frame_at(1))
        count = counts[key] = counts.get(key, 0) + 1
        if count == 1 and may_read(code, frame_at(1)):
            look_at(tool, code, calls)
        if count < looks:
            return None
        before = generation[0]
        known = True
        for one in tuple(bodies.values()):
            if key not in one.codes and key not in one.covered:
                if count < most:
                    known = False
                    break
                one.see(code, frame_at(1))
        if known and generation[0] == before:
            disabled[key] = code
            return disable
        return None

    return started


class _Project:
    """Which files hold the user's own code, by the names in code objects.

    ``known`` is None for a library's file that has readers, whose names are in ``readers``.
    """

    def __init__(self) -> None:
        self.known: dict[str, bool | None] = {}
        self.readers: dict[str, tuple[str, ...]] = {}
        self._places = Places()
        self._root = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120

    def judge(self, code: CodeType, frame: Any) -> bool | None:
        """Tell whether code is the user's; remembered by file, where it has one; see ``known``."""
        if code.co_name == "__del__":
            return False  # the garbage collector runs it in whatever body is at hand
        path = code.co_filename
        if path[:1] == "<":
            if path.startswith("<frozen"):
                return False
            space = frame.f_globals
            name = str(space.get("__name__", ""))
            # What runs in a namespace of no module was put together by code that is seen.
            return name in sys.modules and self._places.named(name, space.get("__file__"))
        if len(self.known) > 100_000:  # noqa: PLR2004
            self.known.clear()
        ours: bool | None = self._places.file(path) and not path.startswith(self._root)
        if not ours and (names := readers.readers_in(path)):
            self.readers[path], ours = names, None
        self.known[path] = ours
        return ours
