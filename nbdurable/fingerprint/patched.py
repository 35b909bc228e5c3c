"""Project code that was put into installed classes: patched methods, accessors of frames.

Invariant: a class is only looked at, and only where a module or class that is at hand leads
to it.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Protocol

from nbdurable.fingerprint.prints import state_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class Ours(Protocol):
    """Tells what is the project's own; `Places` does."""

    def module(self, module: types.ModuleType) -> bool:
        """Tell whether a module is."""

    def function(self, function: types.FunctionType) -> bool:
        """Tell whether a function is."""

    def klass(self, cls: type) -> bool:
        """Tell whether a class is."""


_COMMON = frozenset(
    {types.BuiltinFunctionType, types.MemberDescriptorType, types.GetSetDescriptorType,
     types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
     str, int, bool, float, tuple, type(None), dict, list, frozenset, set}
)  # fmt: skip


class Patched:
    """What is patched in the installed classes that namespaces lead to; looked at once each."""

    def __init__(self, places: Ours) -> None:
        self._places = places
        self._spaces: dict[int, tuple[int, dict[str, list[type]]]] = {}
        self._classes: dict[int, tuple[type, tuple[str, ...]]] = {}

    def names(self, space: Mapping[str, Any]) -> Mapping[str, list[type]]:
        """Return the classes in which each attribute name stands for the project's code."""
        known = self._spaces.get(id(space))
        if known is not None and known[0] == len(space):
            return known[1]
        found: dict[str, list[type]] = {}
        for value in [*space.values()]:
            inner: list[Any] = [value]
            if type(value) is types.ModuleType:
                inner = [] if self._places.module(value) else [*vars(value).values()]
            for cls in inner:
                if isinstance(cls, type):
                    for name in self._of(cls):
                        found.setdefault(name, []).append(cls)
        self._spaces[id(space)] = (len(space), found)
        return found

    def _of(self, cls: type) -> tuple[str, ...]:
        known = self._classes.get(id(cls))
        if known is None:
            names: tuple[str, ...] = ()
            if not self._places.klass(cls):
                names = tuple(n for n, v in [*vars(cls).items()] if self._is_ours(v))
            known = self._classes[id(cls)] = (cls, names)
        return known[1]

    def _is_ours(self, value: Any) -> bool:
        kind = type(value)
        if kind is types.FunctionType:
            return self._places.function(value)
        if kind in _COMMON:
            return False
        if kind is property:
            return self._is_ours(value.fget)
        if kind in {classmethod, staticmethod}:
            return self._is_ours(value.__func__)
        if isinstance(value, type):
            return False
        return any(map(self._is_held, [*state_of(value).values()]))

    def _is_held(self, value: Any) -> bool:
        if type(value) is types.FunctionType:
            return self._places.function(value)
        return isinstance(value, type) and self._places.klass(value)
