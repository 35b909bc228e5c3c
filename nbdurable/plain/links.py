"""The objects that a name leads to, as far as two names can see each other's changes through them.

Invariant: the order in which objects are met depends on content alone, so that it is the same in
every process; nobody's code is called. What can't change, and what re-executing the notebook
makes again (its functions and classes, modules), is passed over.
"""

from __future__ import annotations

import collections
import enum
import functools
import io
import logging
import pathlib
import sys
import types
import weakref
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nbdurable.fingerprint.prints import state_of
from nbdurable.fingerprint.values import shape

from . import libraries
from .definitions import class_state, function_state, is_definition, is_own, module_state
from .looking import STILL, attributes, inside, referents
from .memory import Memory, Mode, bounds_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHAPED = 4  # steps from a set's member by which members are put in order
_MOST = 4096


class Links:
    """What the names of one namespace lead to.

    ``met`` numbers the objects that can change, in the order of meeting; ``again`` are those
    that were met a second time, each as how many had been met and which; ``fresh`` are the
    keys of ``met`` in their order; ``uses`` are names of the notebook's own definitions that
    were met inside of something; ``details`` are what else tells two links apart; ``bases``
    are the ids of objects of libraries whose memory an array gives to see, and its number;
    ``classes`` are the notebook's classes of the instances.

    Args:
        namespace: The notebook's.
        ordered: Whether members of sets are met in one order in every process.
    """

    def __init__(self, namespace: Mapping[str, Any], *, ordered: bool = False) -> None:
        self.space = namespace
        self.ordered = ordered
        self.memory = Memory()
        self.met: dict[int, int] = {}
        self.again: list[tuple[int, int]] = []
        self.fresh: list[int] = []
        self.count = 0
        self.uses: dict[str, Any] = {}
        self.held: list[Any] = []  # made while looking: kept, so that their ids stay their own
        self.details: list[tuple[int, str]] = []
        self.bases: list[tuple[int, int]] = []
        self.classes: set[type] = set()

    def follow(self, value: Any) -> None:
        """Meet what the value of a name leads to; a definition is met with its state."""
        passed: set[int] = set()
        todo = self._definition(value) if is_definition(self.space, value) else [value]
        met = self.met
        while todo:
            one = todo.pop()
            cls = type(one)
            if cls in STILL:
                continue
            look = _LOOKS.get(cls) or _look_for(cls)
            key = id(one)
            if (number := met.get(key)) is not None:
                self.again.append((self.count, number))
            elif look in libraries.UNLINKED:
                if key not in passed:
                    passed.add(key)
                    # It has a number for its memory, but nobody meets it again.
                    look(self, one, self._number(-self.count - 1))
            elif look in _PASSING or cls in _UNLINKED:
                if key not in passed:
                    passed.add(key)
                    todo.extend(reversed(look(self, one, -1)))
            else:
                number = met[key] = self.count
                self.count = number + 1
                self.fresh.append(key)
                if found := look(self, one, number):
                    todo.extend(reversed(found))

    def start(self) -> None:
        """Turn to the next name: what was met stays met."""
        if self.memory.extents:
            self.memory.extents = []
        if self.uses:
            self.uses = {}
        for one in (self.fresh, self.again, self.held, self.details, self.bases):
            one.clear()

    def meet(self, value: Any) -> bool:
        """Meet an object that is a link by its identity; tell whether it is the first time."""
        return self._meet(id(value))

    def _meet(self, key: int) -> bool:
        number = self.met.get(key)
        if number is not None:
            self.again.append((self.count, number))
            return False
        self._number(key)
        return True

    def _number(self, key: int) -> int:
        number = self.met[key] = self.count
        self.count += 1
        self.fresh.append(key)
        return number

    def _definition(self, value: Any) -> list[Any]:
        """Return what a definition of the notebook keeps, what is to be met first at the end.

        Two names for it share that; what only holds the definition does not.
        """
        self._meet(~id(value))
        if isinstance(value, type | types.ModuleType):
            state = class_state(value) if isinstance(value, type) else module_state(value)
            return [one for _, one in sorted(state.items(), reverse=True)]
        return [part for part in function_state(value) if part]

    def use(self, value: Any) -> None:
        """Note that a definition of the notebook is used."""
        self.uses[value.__qualname__.partition(".")[0]] = value

    def of_class(self, cls: type) -> list[type]:
        """Note that the notebook's classes of an instance are used; return one without a name.

        A class that no name of the notebook leads to is made by nothing again: it goes with
        its instances.
        """
        if cls.__module__ != self.space.get("__name__", "__main__"):
            return []
        self.classes.add(cls)
        for one in cls.__mro__:
            if one is not object and is_own(self.space, one):
                self.use(one)
        return [] if is_own(self.space, cls) else [cls]


Look = Callable[[Links, Any, int], Sequence[Any]]


def _nothing(_: Links, __: Any, ___: int) -> Sequence[Any]:
    return ()


def _still(_: Links, __: Any, ___: int) -> Sequence[Any]:
    return ()


def _list(_: Links, value: Any, __: int) -> Sequence[Any]:
    return inside(value)


def _many(_: Links, value: Any, __: int) -> Sequence[Any]:
    return inside(list(value))


def _dict(_: Links, value: dict[Any, Any], __: int) -> Sequence[Any]:
    found = inside(list(dict.values(value)))
    keys = inside(list(dict.keys(value)))
    return [*keys, *found] if keys else found


def _default(links: Links, value: Any, number: int) -> Sequence[Any]:
    return [value.default_factory, *_dict(links, value, number)]


def _set(links: Links, value: Any, _: int) -> Sequence[Any]:
    found = list(inside(list(value)))
    if links.ordered and len(found) > 1:
        found.sort(key=lambda one: shape(one, _SHAPED))
    return found


def _bytes(links: Links, value: Any, number: int) -> Sequence[Any]:
    low, high, _ = bounds_of(value)
    links.memory.add(low, high, Mode.WRITTEN, value, number)
    return ()


def _memoryview(links: Links, value: memoryview, number: int) -> Sequence[Any]:
    low, high, _ = bounds_of(value)
    links.memory.add(low, high, Mode.READ if value.readonly else Mode.WRITTEN, value, number)
    return ()


def _method(_: Links, value: Any, __: int) -> Sequence[Any]:
    return [value.__self__, value.__func__]


def _builtin(_: Links, value: Any, __: int) -> Sequence[Any]:
    return [value.__self__]


def _function(links: Links, value: types.FunctionType, _: int) -> Sequence[Any]:
    """Look into a function that no definition makes again: its cells, and what it keeps."""
    if is_own(links.space, value):
        links.use(value)
        return ()
    if value.__globals__ is not links.space and _is_named(value):
        return ()
    if not links.meet(value):
        return ()
    found: list[Any] = [*(value.__closure__ or ())]
    for part in function_state(value):
        found += part.values() if isinstance(part, dict) else part or ()
    return inside(found)


def _is_named(value: Any) -> bool:
    """Tell whether a function is what its module and name lead to."""
    found: Any = sys.modules.get(value.__module__ or "")
    for part in value.__qualname__.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return found is value


def _cell(_: Links, value: types.CellType, __: int) -> Sequence[Any]:
    try:
        return [value.cell_contents]
    except ValueError:
        return ()


def _class(links: Links, value: type, _: int) -> Sequence[Any]:
    """Look into a class that a function of the notebook made: no definition makes it again."""
    if is_own(links.space, value):
        links.use(value)
    elif value.__module__ == links.space.get("__name__", "__main__") and links.meet(value):
        return inside([one for _, one in sorted(class_state(value).items())])
    return ()


def _partial(_: Links, value: Any, __: int) -> Sequence[Any]:
    return [value.func, *value.args, *value.keywords.values(), *state_of(value).values()]


def _wrapper(links: Links, value: Any, _: int) -> Sequence[Any]:
    return [state_of(value).get("__wrapped__")] if links.meet(value) else ()


def _error(links: Links, value: BaseException, _: int) -> Sequence[Any]:
    found = [
        *links.of_class(type(value)),
        *value.args,
        *attributes(value),
        value.__cause__,
        value.__context__,
    ]
    if isinstance(value, BaseExceptionGroup):
        found += value.exceptions
    return inside(found)


def _weak(_: Links, value: Any, __: int) -> Sequence[Any]:
    return [value()]


def _generator(_: Links, value: Any, __: int) -> Sequence[Any]:
    frame = getattr(value, "gi_frame", None)
    return list(frame.f_locals.values()) if frame is not None else ()


def _referents(_: Links, value: Any, __: int) -> Sequence[Any]:
    return inside(referents(value))


def _instance(links: Links, value: Any, _: int) -> Sequence[Any]:
    found = [*links.of_class(type(value)), *attributes(value)]
    if not found and not type(value).__dictoffset__:
        return inside(referents(value))
    return inside(found)


def _container(content: Look) -> Look:
    """Return how to look into a subclass of a container: its content, then its attributes."""

    def look(links: Links, value: Any, number: int) -> Sequence[Any]:
        made = links.of_class(type(value))
        return [*content(links, value, number), *inside(attributes(value)), *made]

    return look


_EMPTY: dict[Any, Any] = {}
_LOOKS: dict[type, Look] = {
    list: _list,
    tuple: _list,
    collections.deque: _many,
    dict: _dict,
    collections.OrderedDict: _dict,
    collections.Counter: _dict,
    collections.defaultdict: _default,
    set: _set,
    frozenset: _set,
    slice: lambda _, v, __: [v.start, v.stop, v.step],
    bytearray: _bytes,
    array: _bytes,
    memoryview: _memoryview,
    types.MethodType: _method,
    types.BuiltinFunctionType: _builtin,
    types.MethodWrapperType: _builtin,
    types.FunctionType: _function,
    types.CellType: _cell,
    types.MappingProxyType: _referents,
    functools.partial: _partial,
    type(functools.lru_cache(print)): _wrapper,
    weakref.ref: _weak,
    types.GeneratorType: _generator,
    io.StringIO: _nothing,
    io.BytesIO: _nothing,
    type(_EMPTY.keys()): _referents,
    type(_EMPTY.values()): _referents,
    type(_EMPTY.items()): _referents,
    property: lambda _, v, __: [v.fget, v.fset, v.fdel],
    staticmethod: lambda _, v, __: [v.__func__],
    classmethod: lambda _, v, __: [v.__func__],
}
_PASSING = frozenset({_function, _class, _wrapper, _still})
"""Looks that meet their object themselves, if it is a link."""

_UNLINKED = frozenset(
    {tuple, frozenset, slice, types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType,
     types.MappingProxyType, property, staticmethod, classmethod, weakref.ref,
     type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items())}
)  # fmt: skip
"""Types whose values can't change: what they lead to links."""

_CONTAINERS: tuple[tuple[type, Look], ...] = (
    (collections.defaultdict, _default),
    (dict, _dict),
    (list, lambda _, v, __: inside(list(list.__iter__(v)))),
    (tuple, lambda _, v, __: inside(list(tuple.__iter__(v)))),
    (set, lambda links, v, number: _set(links, set(set.__iter__(v)), number)),
    (frozenset, lambda links, v, number: _set(links, set(frozenset.__iter__(v)), number)),
    (collections.deque, lambda _, v, __: inside(list(collections.deque.__iter__(v)))),
)
_FOUND: weakref.WeakKeyDictionary[type, Look] = weakref.WeakKeyDictionary()


def _look_for(cls: type) -> Look:
    """Return how to look into a class's instances; remembered per class."""
    found = _FOUND.get(cls)
    if found is None:
        found = _FOUND[cls] = _resolved(cls)
    return found


def _resolved(cls: type) -> Look:
    if issubclass(cls, type):
        return _class
    if issubclass(cls, enum.Enum | logging.Logger | pathlib.PurePath | types.ModuleType):
        return _still  # found by name, or by what they are
    if issubclass(cls, BaseException):
        return _error
    if issubclass(cls, weakref.ref):
        return _weak
    found = libraries.look_for(cls)
    if found is not None:
        return found
    for base, content in _CONTAINERS:
        if issubclass(cls, base):
            return _container(content)
    for leaf in (int, float, complex, str, bytes):
        if issubclass(cls, leaf) and not cls.__dictoffset__:
            return _nothing
    return _instance
