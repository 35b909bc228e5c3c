"""The project's functions, classes and instances that an installed object holds.

Invariant: looks at a bounded number of objects, in an order that is the same in every process,
and calls nobody's code.
"""

from __future__ import annotations

import functools
import gc
import types
from collections import deque
from typing import TYPE_CHECKING, Any

from nbdurable.fingerprint.prints import state_of
from nbdurable.fingerprint.values import LEAVES, sequence

if TYPE_CHECKING:
    from nbdurable.fingerprint.values import Walk

_MOST = 500
_DEEPEST = 8
_SIMPLE = (list, tuple, set, frozenset, deque)
_LEFT = frozenset({"statistics", "__wrapped__"})


def held_by(walk: Walk, value: object) -> bytes:
    """Encode what the project gave to an installed object to hold; nothing if there is none."""
    parts = _found(walk, value)
    return b"h" + sequence(walk, b"t", parts) if parts else b""


def _found(walk: Walk, value: object) -> list[Any]:
    owner = walk.owner
    parts: list[Any] = []
    seen = {id(value)}
    todo: deque[tuple[Any, int]] = deque((one, 0) for one in _inside(value))
    while todo and len(seen) < _MOST:
        one, depth = todo.popleft()
        if id(one) in seen or type(one) in LEAVES:
            continue
        seen.add(id(one))
        if isinstance(one, type):
            if owner.is_project_class(one):
                parts.append(one)
        elif type(one) is types.FunctionType and owner.is_project_function(one):  # noqa: SIM114
            parts.append(one)
        elif owner.is_project_class(type(one)):
            parts.append(one)
        elif depth < _DEEPEST and not isinstance(one, types.ModuleType):
            todo.extend((inner, depth + 1) for inner in _inside(one))
    return parts


def _inside(value: Any) -> list[Any]:
    """Return the objects that one holds directly."""
    if isinstance(value, types.FunctionType):
        found = [cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)]
        found += value.__defaults__ or ()
        return found + [v for k, v in state_of(value).items() if k not in _LEFT]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, dict):
        return list(dict.values(value))
    if isinstance(value, _SIMPLE):
        return list(value)
    state = state_of(value)
    if state:
        return [v for k, v in state.items() if k not in _LEFT]
    if isinstance(value, (types.ModuleType, types.FrameType, type)):
        return []
    return [one for one in gc.get_referents(value) if not isinstance(one, (type, types.ModuleType))]


def _is_full(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
