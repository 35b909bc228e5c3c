"""Registries that code reached: what was in them when a body ended, and what has come since.

A plug-in that would win now did not run then, so the code that ran can't tell of it.

Invariant: nothing of the user's is called; a module that is not imported yet is no change.
"""

from __future__ import annotations

import dis
import functools
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from nbdurable.fingerprint import nested
from nbdurable.fingerprint.prints import digest8
from nbdurable.records import Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType

    from .recorder import Ran

REGISTRY: Final = "registry"
"""Kind of a part: a container of callables that code reached by a global name."""

_MOST = 10_000
_SIZE = 8
_SUBCLASSES = "__subclasses__"
_CONTAINERS: tuple[Any, ...] = (dict, list, set, frozenset, tuple)
_KEYS = frozenset({str, int, bytes, bool, float, type(None)})
_NAMED = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)
_WRITING = frozenset({"STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE", "STORE_GLOBAL"})
_MUTATING = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem",
     "register", "remove", "setdefault", "update"}
)  # fmt: skip


def registry_parts(ran: Iterable[Ran]) -> list[Part]:
    """Return the registries that code objects reached which ran, each with what is in it.

    What such a code may have put in itself is none: a memo is filled by use.
    """
    found: dict[str, Part] = {}
    written: set[str] = set()
    for one in ran:
        module = str(one.space.get("__name__", ""))
        writes = _writes(one.code)
        for name in _names(one.code, one.space):
            label = f"{module}:{name}"
            if writes:
                written.add(label)
            elif label not in found:
                entries = _entries(module, name)
                if entries is not None:
                    found[label] = Part(REGISTRY, label, b"".join(sorted(entries)))
    return [part for label, part in found.items() if label not in written]


def has_more(part: Part) -> bool:
    """Tell whether something is in a registry now that was not in it then."""
    return bool(_new(part))


def state_now(part: Part) -> bytes:
    """Return a digest of what is in a registry now that was not in it then."""
    return b"".join(sorted(_new(part)))


def _new(part: Part) -> set[bytes]:
    module, _, name = part.name.partition(":")
    now = _entries(module, name)
    if not now:
        return set()
    return now - {part.state[at : at + _SIZE] for at in range(0, len(part.state), _SIZE)}


@functools.lru_cache(maxsize=1024)
def _writes(code: CodeType) -> bool:
    """Tell whether code may change a container in place."""
    return any(
        not _MUTATING.isdisjoint(one.co_names)
        or any(instruction.opname in _WRITING for instruction in dis.get_instructions(one))
        for one in nested(code)
    )


def _names(code: CodeType, space: dict[str, Any]) -> Iterator[str]:
    """Yield the names of containers that code can reach: a global, or an attribute of a class."""
    names = {name for one in nested(code) for name in one.co_names}
    for name in sorted(names):
        value = space.get(name)
        if _kind_of(value) is not None:
            yield name
        elif issubclass(type(value), type):
            held = type.__dict__["__dict__"].__get__(value)
            for attribute in sorted(names):
                if _kind_of(held.get(attribute)) is not None:
                    yield f"{name}.{attribute}"
            if _SUBCLASSES in names:
                yield f"{name}.{_SUBCLASSES}"


def _kind_of(value: Any) -> Any:
    """Return which kind of container a value is; None if it is none."""
    return next((kind for kind in _CONTAINERS if issubclass(type(value), kind)), None)


def _entries(module: str, name: str) -> set[bytes] | None:
    """Return a digest for each callable in a registry; None if it is none, or is not there."""
    space = sys.modules.get(module)
    first, _, attribute = name.partition(".")
    value = vars(space).get(first) if space is not None else None
    if attribute:
        if not issubclass(type(value), type):
            return None
        if attribute == _SUBCLASSES:
            return {_entry(one) for one in _below(value)}
        value = type.__dict__["__dict__"].__get__(value).get(attribute)
    kind = _kind_of(value)
    if kind is None or kind.__len__(value) > _MOST:
        return None
    found = {_entry(one, key) for one, key in _pairs(kind, value)}
    return found if found or not kind.__len__(value) else None


def _pairs(kind: Any, container: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the callables in a container, with their keys; also of tuples and lists in it."""
    # A place in a list says nothing: it is no key. No method of a user's class is called.
    items = dict.items(container) if kind is dict else [(None, x) for x in kind.__iter__(container)]
    for key, value in list(items):
        for one in value if type(value) in {tuple, list} else (value,):
            if callable(one):
                yield one, key


def _below(cls: Any) -> Iterator[Any]:
    """Yield the classes that are derived from a class."""
    for one in type.__subclasses__(cls):
        yield one
        yield from _below(one)


def _entry(value: Any, key: Any = None) -> bytes:
    while isinstance(value, functools.partial):
        value = value.func
    named = value if isinstance(value, _NAMED) else type(value)
    shown = repr(key) if type(key) in _KEYS else type(key).__qualname__
    text = f"{shown}={named.__module__}.{named.__qualname__}"
    return digest8(text.encode("utf-8", "surrogatepass"))
