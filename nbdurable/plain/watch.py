"""What a cell did beside its values: processes, connections, live threads and tasks, files.

Invariant: what is seen here is a reason not to save; nothing is stopped or changed.
"""

from __future__ import annotations

import ast
import asyncio
import os
import re
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from nbdurable.evidence import may_name_file
from nbdurable.fingerprint import Places

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nbdurable.evidence import Recorder

    from .cell_text import CellText
    from .reads import Reached

_PLACES: Final = Places()
_MOST_TEXTS: Final = 500
_OURS: Final = __name__.partition(".")[0]


def live_threads() -> frozenset[threading.Thread]:
    """Return the threads that are alive now."""
    return frozenset(threading.enumerate())


def unkept(recorder: Recorder, before: frozenset[threading.Thread]) -> str:
    """Say what a cell that has ended did that no record can hold; nothing if it did nothing such.

    Args:
        recorder: What it was seen to do.
        before: The threads that were there before any cell.
    """
    if recorder.spawned:
        return f"it started a process ({recorder.spawned})"
    for one in threading.enumerate():
        if one not in before and _is_users(one):
            return f"the thread {one.name} is still running"
    if task := _live_task():
        return f"the task {task} is still running"
    return ""


def _is_users(thread: threading.Thread) -> bool:
    if not thread.is_alive() or thread is threading.current_thread():
        return False
    if thread.name.startswith(_OURS):
        return False
    target = getattr(thread, "_target", None)
    runs = target if target is not None else type(thread).run
    code = getattr(getattr(runs, "__func__", runs), "__code__", None)
    if code is None:
        return True
    if _PLACES.file(code.co_filename):
        return True
    # A pool's thread runs what it is given: as long as that goes on, somebody waits for it.
    return code.co_name == "_worker" and _is_busy(thread)


def _is_busy(thread: threading.Thread) -> bool:
    """Tell whether a pool's thread runs code of the user's."""
    frame: Any = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - there is no other way
    while frame is not None:
        if _PLACES.file(frame.f_code.co_filename):
            return True
        frame = frame.f_back
    return False


def _live_task() -> str:
    """Return the name of a task of the user's that the running loop still has to run."""
    try:
        tasks, current = asyncio.all_tasks(), asyncio.current_task()
    except RuntimeError:
        return ""  # no loop runs here
    for one in tasks:
        code = getattr(one.get_coro(), "cr_code", None)
        if one is not current and code is not None and _PLACES.file(code.co_filename):
            return one.get_name()
    return ""


def file_names(text: CellText, reached: Reached, namespace: Mapping[str, Any]) -> list[str]:
    """Return what may name files in a cell's text, and in the values that it reads by name."""
    found = [one for one in _texts(text, reached, namespace) if may_name_file(one)]
    return [one for one in dict.fromkeys(found) if os.path.isfile(one)][:_MOST_TEXTS]  # noqa: PTH113


_TESTING: Final = frozenset(
    {"exists", "lexists", "isfile", "isdir", "is_file", "is_dir", "access", "stat", "getmtime"}
)


def tested_names(text: CellText, reached: Reached, namespace: Mapping[str, Any]) -> list[str]:
    """Return the files that aren't there, of those that a cell may look for."""
    if not any(
        getattr(node, "attr", None) in _TESTING or getattr(node, "id", None) in _TESTING
        for tree in (*text.body, *reached.trees)
        for node in ast.walk(tree)
    ):
        return []
    found = [one for one in _texts(text, reached, namespace) if may_name_file(one)]
    return [one for one in dict.fromkeys(found) if not os.path.lexists(one)][:_MOST_TEXTS]


def _texts(text: CellText, reached: Reached, namespace: Mapping[str, Any]) -> Iterator[str]:
    for statement in (*text.body, *reached.trees):
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    for name in reached.names:
        value: Any = namespace.get(name)
        if isinstance(value, str):
            yield value
        elif isinstance(value, os.PathLike):
            yield os.fsdecode(value)
        elif type(value).__name__ == "LazyFrame" and type(value).__module__.startswith("polars"):
            for found in _SCANS.findall(value.explain(optimized=False)):
                yield from found.split(", ")


_SCANS: Final = re.compile(r"SCAN \[([^\]]+)\]")
_BLIND: Final = frozenset({"polars", "pyarrow", "duckdb", "h5py"})


def blind_reader(text: CellText, reached: Reached, namespace: Mapping[str, Any]) -> str:
    """Say which call may read a file that nobody sees; none from Python 3.12 on."""
    if sys.version_info >= (3, 12):
        return ""
    for tree in (*text.body, *reached.trees):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = namespace.get(getattr(node.func.value, "id", ""))
            library = getattr(owner, "__name__", "").partition(".")[0]
            if library in _BLIND and node.func.attr.startswith(("read_", "scan_", "dataset")):
                return (
                    f"which file {ast.unparse(node.func)}() reads can't be seen before Python "
                    f"3.12: give its name as a text"
                )
    return ""
