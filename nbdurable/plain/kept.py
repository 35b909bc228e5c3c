"""A group of names as one value that the store can keep, and back into the notebook.

Invariant: what comes back has the content and the links of what was kept, or an error says
which path can't be kept. Classes and functions that the notebook defines are never made anew
where they live: the live ones get the state that was kept of them.
"""

from __future__ import annotations

import sys
import types
from array import array
from time import monotonic
from typing import TYPE_CHECKING, Any

from nbdurable.codec.linked import (
    Defined,
    Kept,
    Objects,
    Region,
    View,
    dump_linked,
    is_raw,
    load_linked,
)
from nbdurable.errors import CodecError, EncodeError
from nbdurable.fingerprint.prints import state_of

from .definitions import (
    class_state,
    copying_acts,
    function_state,
    has_state,
    is_definition,
    is_own,
    module_state,
)
from .groups import NotComparable, kind_of, mark, text_alone
from .links import Links
from .memory import Extent, bounds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Kept", "NotKept", "decode", "encode", "fault"]

_MOST = 100
_STATE = "state of definition"
_DEEPEST = 12
_LONGEST = 0.3  # seconds for finding out which part can't be kept


class NotKept(Exception):  # noqa: N818 - it says what a value is
    """A value can't be kept; the text names its path and says what to do."""


def encode(namespace: Mapping[str, object], group: Iterable[str]) -> Kept:
    """Return a group of names as one value to save; names that aren't there are left out.

    Raises:
        NotKept: Something can't be kept, or not with its links: says which path, and the cure.
    """
    space: dict[str, Any] = namespace  # type: ignore[assignment] # it is the notebook's own
    names = tuple(sorted(name for name in set(group) if name in space))
    links = Links(space)
    owners: list[str] = []
    for name in names:
        links.follow(space[name])
        owners += [name] * (len(links.met) - len(owners))
    for key, number in links.bases:
        if key in links.met:
            raise NotKept(
                f"`{owners[number]}` is an array in the memory of an object that is kept, too; "
                f"keep a .copy()"
            )
    for cls in links.classes:
        if fault := copying_acts(space, cls):
            raise NotKept(f"`{'`, `'.join(names[:3])}`: {fault}; the cell that makes it runs again")
    views: dict[int, View] = {}
    for together in links.memory.shared():
        views |= _views_of(together, owners)
    definitions = [space[name] for name in names if is_definition(space, space[name])]
    made = {
        id(one): Defined(one, frozenset(class_state(one)))
        for one in definitions
        if issubclass(type(one), type)
    }
    classes = tuple(one.kind.__qualname__ for one in made.values())
    values = {name: made.get(id(space[name]), space[name]) for name in names}
    states = [
        (made.get(id(one), one), _state_of(space, one)) for one in definitions if has_state(one)
    ]

    def own(value: Any) -> bool:
        return is_own(space, value)

    try:
        data, buffers = dump_linked((values, states), space, views, own, made)
        return Kept(data, names, classes, buffers, live=True)
    except CodecError as error:
        for name in names:
            value = space[name]
            reason = _fault(value, space, own)
            if reason is not None:
                raise _named(name, value, space, own, reason) from error
        raise _said("`, `".join(names), None, error) from error


def decode(
    kept: Kept, namespace: dict[str, Any], say: Callable[[str], object] | None = None
) -> dict[str, object]:
    """Return the values of a group by name, and give the notebook's definitions their state.

    The names aren't bound: that is the caller's. A group that came from a store is decoded
    once: its buffers become the memory of the values.

    Args:
        kept: What `encode` gave, directly or through a store.
        namespace: The notebook's, in which classes and functions are looked up.
        say: Is told of a class that had to be made anew.

    Raises:
        DecodeError: A definition is gone, or a library can't load its value.
    """
    values, states = load_linked(kept, namespace, say)
    found: dict[str, object] = values
    for definition, state in states:
        _set_state(definition, state)
    return found


def fault(kept: Kept, namespace: Mapping[str, object]) -> str:
    """Say how a group would come back as another; nothing if it comes back as it is.

    It is decoded into nothing and compared with the live one, so it must come from `encode`
    directly. Nothing live is changed.
    """
    live = {name: namespace[name] for name in kept.names if name in namespace}
    try:
        back, states = load_linked(kept, dict(namespace))
        for at, (definition, state) in enumerate(states):
            live[f"{_STATE} {at}"] = _state_of(namespace, definition)
            back[f"{_STATE} {at}"] = state
        named = {name for name in live if not is_definition(namespace, live[name])}
        before = mark({**namespace, **live}, named)
        after = mark({**namespace, **back}, named)
    except (CodecError, NotComparable) as error:
        return str(error)
    return "" if before == after else "it comes back with another content or other links"


def _state_of(space: Mapping[str, Any], definition: Any) -> Any:
    if isinstance(definition, types.ModuleType):
        state = module_state(definition)
        return {n: one for n, one in state.items() if text_alone(space, n, one) is not None}
    return class_state(definition) if isinstance(definition, type) else function_state(definition)


def _set_state(definition: Any, state: Any) -> None:
    """Give a live class or function the state that was kept of it."""
    if isinstance(definition, type):
        for name in class_state(definition).keys() - state.keys():
            type.__delattr__(definition, name)
        for name, value in state.items():
            if vars(definition).get(name, state) is not value:
                type.__setattr__(definition, name, value)
        return
    if isinstance(definition, types.ModuleType):
        vars(definition).update(state)
        return
    definition.__defaults__, definition.__kwdefaults__, attributes = state
    vars(definition).clear()
    vars(definition).update(attributes)


# --- what shares memory -----------------------------------------------------------------


def _views_of(together: list[Extent], owners: list[str]) -> dict[int, View]:
    """Return how each of some values that lie in one piece of memory is a view of it.

    Raises:
        NotKept: One of them can't be made again as a view.
    """
    holders = {id(one.holder): one.holder for one in together}
    names = ", ".join(f"`{one}`" for one in dict.fromkeys(owners[one.number] for one in together))
    for holder in holders.values():
        if type(holder).__module__.partition(".")[0] in {"pyarrow", "torch"} and len(holders) > 1:
            raise NotKept(
                f"{names} share memory that a {kind_of(holder)} lies in; keep a copy instead"
            )
    low = min(one.low for one in together)
    exporters = [one for one in holders.values() if isinstance(one, bytearray | array)]
    viewing = [one for one in holders.values() if _is_view(one)]
    if not viewing:
        return {}  # they share an object, which is pickled once
    source: Any
    if exporters:
        source, low = exporters[0], bounds_of(exporters[0])[0]
    elif not all(_is_raw(one) for one in viewing):
        source = _objects(viewing, names)
    else:
        source = Region(low, max(one.high for one in together), viewing)
    return {id(one): View(source, low) for one in viewing}


def _is_view(value: Any) -> bool:
    return isinstance(value, memoryview) or hasattr(value, "__array_interface__")


def _is_raw(value: Any) -> bool:
    return isinstance(value, memoryview) or is_raw(value.dtype)


def _objects(viewing: list[Any], names: str) -> Objects:
    """Return the array of objects that some arrays are views of."""
    root = viewing[0]
    while getattr(root, "base", None) is not None and hasattr(root.base, "dtype"):
        root = root.base
    plain = all(getattr(one, "dtype", None) == root.dtype for one in viewing)
    if not plain or root.dtype != object or not root.flags.forc:
        raise NotKept(f"{names} are views of one array of objects and other things; keep copies")
    return Objects(root, root.__array_interface__["data"][0])


# --- which path can't be kept -------------------------------------------------------------


def _fault(value: Any, space: dict[str, Any], own: Callable[[Any], bool]) -> CodecError | None:
    """Return why a value alone can't be kept; None if it can."""
    try:
        dump_linked(value, space, {}, own)
    except CodecError as error:
        return error
    return None


def _named(
    path: str, value: Any, space: dict[str, Any], own: Callable[[Any], bool], reason: CodecError
) -> NotKept:
    """Return an error that names the innermost part that can't be kept, as far as there is time."""
    end = monotonic() + _LONGEST
    for _ in range(_DEEPEST):
        for label, inner in _inside(value):
            found = _fault(inner, space, own) if monotonic() < end else None
            if found is not None:
                path, value, reason = path + label, inner, found
                break
        else:
            break
    return _said(path, value, reason)


def _inside(value: Any) -> list[tuple[str, Any]]:
    """Return some of what a value holds, with the text that leads there."""
    if isinstance(value, dict):
        return [(f"[{key!r:.40}]", one) for key, one in list(value.items())[:_MOST]]
    if isinstance(value, list | tuple):
        return [(f"[{at}]", one) for at, one in enumerate(value[:_MOST])]
    if isinstance(value, types.MethodType):
        return [(".__self__", value.__self__)]
    if isinstance(value, types.FunctionType):
        names = value.__code__.co_freevars
        return [
            (f".{name}", cell.cell_contents)
            for name, cell in zip(names, value.__closure__ or (), strict=True)
        ]
    if isinstance(value, type | types.ModuleType):
        return []
    if type(value).__module__.partition(".")[0] in sys.stdlib_module_names | {"numpy"}:
        return []  # a thread is named, and not the lock in it
    try:
        state = state_of(value)
    except Exception:  # noqa: BLE001 - a `__dict__` of the user's own making
        return []
    return [(f".{name}", one) for name, one in list(state.items())[:_MOST]]


def _said(path: str, value: Any, reason: CodecError) -> NotKept:
    cure = reason.cure if isinstance(reason, EncodeError) else ""
    if not cure.startswith("keep "):
        cure = "the cell that makes it runs again"  # the codec speaks to steps, which return
    why = str(reason.args[0]) if reason.args else type(reason).__name__
    what = f"`{path}`" if value is None else f"`{path}` ({kind_of(value)})"
    return NotKept(f"{what} can't be kept: {why}; {cure}")
