"""Whether an object is part of a result, by identity.

Invariant: looks at a bounded number of objects and never calls user code.
"""

from __future__ import annotations

import types
from collections import deque

_MOST = 200_000
_LEAVES = frozenset({int, float, str, bytes, bool, complex, type(None)})


def contains(result: object, wanted: object) -> bool:
    """Whether ``wanted`` itself, not an equal, is ``result`` or somewhere within it.

    Looks through lists, tuples, dicts, sets, deques, the attributes of instances (dataclasses
    included) and their slots.
    """
    seen: set[int] = set()
    todo: deque[object] = deque((result,))
    while todo:
        item = todo.popleft()
        if item is wanted:
            return True
        if type(item) in _LEAVES or id(item) in seen:
            continue
        if len(seen) >= _MOST:
            return False
        seen.add(id(item))
        todo.extend(_inside(item))
    return False


def _inside(item: object) -> list[object]:
    """Return the objects that ``item`` holds directly."""
    if isinstance(item, (types.ModuleType, types.FunctionType, type)):
        return []
    found: list[object] = []
    if isinstance(item, dict):
        found += [*dict.keys(item), *dict.values(item)]
    elif isinstance(item, (list, tuple, set, frozenset, deque)):
        found += list(item)
    state = _attributes(item)
    found += state.values()
    for cls in type(item).__mro__:
        for name, slot in vars(cls).items():
            if isinstance(slot, types.MemberDescriptorType) and cls.__module__ != "builtins":
                try:
                    found.append(slot.__get__(item))
                except (AttributeError, TypeError):
                    del name
    return found


def _attributes(item: object) -> dict[str, object]:
    """Return the instance's own ``__dict__``, or nothing."""
    try:
        state = object.__getattribute__(item, "__dict__")
    except AttributeError:
        return {}
    return dict(state) if isinstance(state, dict) else {}
