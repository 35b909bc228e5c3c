"""Whether a cell that ran is worth saving: what saving and restoring cost against running again.

Invariant: what is not saved runs again, which is right and takes its time; so only time is at
stake here.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any, Final

from nbdurable.labels import duration

if TYPE_CHECKING:
    from collections.abc import Iterable

SMALL: Final = 64 * 1024
"""Bytes up to which a result is saved whatever it took."""

_BYTES_A_SECOND: Final = 150e6
"""What saving and restoring take together, of pickled bytes."""

_FIXED: Final = 0.02
"""Seconds that a cell must have taken before anything large is worth a thought."""

_MOST: Final = 20_000
_EACH: Final = 64
_FIGURE: Final = 100_000
"""About what a figure takes, of which an artist is part."""


def size_of(values: Iterable[Any]) -> int:
    """Estimate the bytes that values take when they are saved; quick, and never far too low."""
    todo = list(values)
    seen: set[int] = set()
    total = 0
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, types.ModuleType | types.FunctionType | type):
            continue
        seen.add(id(value))
        total += _own_size(value)
        if type(value).__module__.startswith("matplotlib"):
            total += _FIGURE
            continue
        if len(seen) >= _MOST:
            return total + len(todo) * _EACH * 4
        if isinstance(value, dict):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            if len(value) > _MOST:
                total += len(value) * _EACH
                continue
            todo += value
        elif isinstance(state := getattr(value, "__dict__", None), dict) and not _has_bytes(value):
            todo += state.values()
    return total


def _has_bytes(value: Any) -> bool:
    return hasattr(type(value), "nbytes") or _is_frame(value)


def _is_frame(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in {"pandas", "polars", "pyarrow"}


def _own_size(value: Any) -> int:
    if _is_frame(value):
        if hasattr(value, "memory_usage"):
            used = (
                value.memory_usage(index=True)
                if hasattr(value, "columns")
                else value.memory_usage()
            )
            return int(getattr(used, "sum", lambda: used)())
        return int(getattr(value, "nbytes", 0) or getattr(value, "estimated_size", int)())
    nbytes = getattr(value, "nbytes", None) if hasattr(type(value), "nbytes") else None
    if isinstance(nbytes, int):
        return nbytes
    return sys.getsizeof(value, _EACH)


def not_worth(seconds: float, size: int, least: float) -> str:
    """Say why a cell isn't worth saving; nothing if it is.

    Args:
        seconds: What it took.
        size: About what would be saved, in bytes.
        least: What a cell must take to be saved at all.
    """
    if seconds < least:
        return f"it took {duration(seconds)}, less than {duration(least)}"
    if size <= SMALL:
        return ""
    cost = _FIXED + size / _BYTES_A_SECOND
    if seconds < cost:
        return f"it takes {duration(seconds)}, less than saving and restoring its result would"
    return ""
