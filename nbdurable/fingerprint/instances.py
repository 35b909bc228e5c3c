"""Instances of any class to canonical bytes: by class and by the state that pickle would see.

Invariant: user code that runs here (``__reduce_ex__``, ``__getstate__``) never crashes a
fingerprint; what it refuses is left out and noted. Inside a library's instance one leaf that
can't be compared makes the whole instance one: nobody knows its attributes by name.
"""

from __future__ import annotations

import copyreg
import functools
import struct
import types
from typing import Any
from weakref import WeakKeyDictionary

from nbdurable.errors import DurableError
from nbdurable.fingerprint.held import held_by
from nbdurable.fingerprint.plain import is_iterator, name_of, refuse_once
from nbdurable.fingerprint.prints import OTHER, STATE, state_of
from nbdurable.fingerprint.values import (
    EXACT,
    OpaqueError,
    Walk,
    encoder_for,
    mapping,
    qualified,
    sequence,
    text_of,
)

_PROTOCOL = 4
_NEWOBJ = (copyreg.__newobj__, copyreg.__newobj_ex__)  # type: ignore[attr-defined]
_LIVE = frozenset(  # what coordinates threads, tasks and processes: its state is the moment's
    {"threading", "_thread", "asyncio", "_asyncio", "multiprocessing", "concurrent", "queue",
     "_queue", "socket", "_socket", "ssl", "_ssl", "select", "selectors", "sched", "subprocess",
     "contextvars", "_contextvars", "weakref", "_weakref", "mmap", "_io", "io"}
)  # fmt: skip
_RANDOM = {"Styler": ("uuid", "cell_ids_")}
_ADDRESSES = {
    "matplotlib": ("_parents", "_cid_gen"),
    "sqlalchemy": ("_anon_map_key", "_orig", "_identifying_key"),
}
"""What a package's instances hold that says nothing of them: by address, or how often looked at."""
_READING = ("__reduce_ex__", "__reduce__", "__getstate__")
_BARE = object.__basicsize__ + 2 * struct.calcsize("P")
_SET_BY_USE = frozenset({"__pydantic_fields_set__"})


def instance(walk: Walk, value: Any) -> bytes:
    """Encode an instance of a class that has no encoding of its own."""
    cls = type(value)
    if not _frozen(cls):
        walk.mutable = True
    if is_iterator(cls):
        walk.used = True
        if walk.settled:
            return text_of(qualified(cls))
    elif issubclass(cls, types.GeneratorType | types.AsyncGeneratorType):
        refuse_once(walk, value)
    if cls.__module__.partition(".")[0] in _LIVE and not issubclass(cls, BaseException):
        held = b"" if cls.__module__.endswith("weakref") else held_by(walk, value)
        return walk.opaque(value) + held
    walk.changing = True
    if walk.owner.is_project_class(cls):
        walk.inside += 1
        try:
            return walk.apart(value, _ours) if walk.pieces else walk.node(value, _ours)
        finally:
            walk.inside -= 1
    wrapped = (
        vars(value).get("__wrapped__") if callable(value) and hasattr(value, "__dict__") else None
    )
    if isinstance(wrapped, types.FunctionType):
        return walk.within(lambda: b"W" + text_of(qualified(cls)) + walk.encode(wrapped))
    depth = len(walk.path)
    walk.library += 1
    walk.inside += 1
    try:
        return walk.apart(value, _library) if walk.pieces else walk.node(value, _library)
    except OpaqueError:
        if walk.library > 1:
            raise
    finally:
        walk.library -= 1
        walk.inside -= 1
    del walk.path[depth:]
    refuse_once(walk, value)
    return walk.opaque(value) + held_by(walk, value)


def _frozen(cls: type) -> bool:
    """Whether instances of ``cls`` say that they don't change."""
    params = getattr(cls, "__dataclass_params__", None)
    if params is not None:
        return bool(params.frozen)
    config = getattr(cls, "model_config", None)
    return isinstance(config, dict) and bool(config.get("frozen"))


def _ours(walk: Walk, value: Any) -> bytes:
    text = b"I" + walk.class_of(value) + _state(walk, value)
    if not state_of(value) and not isinstance(value, BaseException) and _is_bare(type(value)):
        name = name_of(walk, value)
        text += text_of(name) if name else b""
    return text


def _is_bare(cls: type) -> bool:
    """Whether instances have no other state than a dictionary, and no say in how it is read."""
    return cls.__basicsize__ <= _BARE and all(
        getattr(cls, n, None) is getattr(object, n, None) for n in _READING
    )


def _library(walk: Walk, value: Any) -> bytes:
    return b"J" + walk.class_of(value) + _state(walk, value)


def _state(walk: Walk, value: Any) -> bytes:
    """Encode what ``__reduce_ex__`` gives."""
    try:
        reduced = _reduce(value)
    except (DurableError, RecursionError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - user code
        return walk.opaque(value, _reason(error))
    if isinstance(reduced, str):
        return b"g" + text_of(reduced)
    if isinstance(value, BaseException):
        return _reduced(walk, value, reduced) + _origin(walk, value)
    return _reduced(walk, value, reduced)


def _origin(walk: Walk, error: BaseException) -> bytes:
    """Encode where an error came from: its cause and context, without tracebacks."""
    cause, context = error.__cause__, error.__context__
    if cause is None and context is None:
        return b""
    fields = (cause, None if error.__suppress_context__ else context, error.__suppress_context__)
    return b"w" + sequence(walk, b"t", fields)


def _reduced(walk: Walk, value: Any, reduced: tuple[Any, ...]) -> bytes:
    make, args, state, items, pairs = (*reduced, None, None, None)[:5]
    if make in _NEWOBJ:
        args = args[1:]
        head = b""
    else:
        head = walk.encode(make)
    cls = type(value)
    if walk.left and walk.leaves_out(cls, OTHER):
        return b"r~" + _attributes(walk, cls, state)
    head = b"r" + head + _elements(walk, cls, tuple(args), "argument")
    attributes = _attributes(walk, cls, state)
    outer, walk.held_as = walk.held_as, OTHER
    items_text = b"0" if items is None else sequence(walk, b"l", list(items))
    pairs_text = b"0" if pairs is None else mapping(walk, b"d", dict(pairs))
    walk.held_as = outer
    walk.keep(OTHER, head + items_text + pairs_text)
    return head + attributes + items_text + pairs_text


def _reduce(value: Any) -> Any:
    registered = copyreg.dispatch_table.get(type(value))
    return registered(value) if registered else value.__reduce_ex__(_PROTOCOL)


def _reason(error: Exception) -> str:
    """Say why there is no state; nothing for what pickle refuses in its own words."""
    usual = isinstance(error, TypeError) and "pickle" in str(error)
    return "" if usual else type(error).__name__


def _unasked(cls: type) -> frozenset[str]:
    """Names in a library's state that say nothing of the value: its version, a random id."""
    top = cls.__module__.partition(".")[0]
    return frozenset(
        {f"_{top}_version", "__version__", *_RANDOM.get(cls.__name__, ()), *_ADDRESSES.get(top, ())}
    )


_COMPUTED: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()


def _computed(cls: type) -> frozenset[str]:
    """Names of a class's cached properties."""
    found = _COMPUTED.get(cls)
    if found is None:
        members = [pair for base in cls.__mro__ for pair in vars(base).items()]
        names = {name for name, one in members if isinstance(one, functools.cached_property)}
        found = _COMPUTED[cls] = frozenset(names)
    return found


def _attributes(walk: Walk, cls: type, state: Any) -> bytes:
    """Encode an instance's state, attribute by attribute where it is made of them."""
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):  # noqa: PLR2004
        first = state[0] or {}
        if isinstance(first, dict) and not first.keys() & state[1].keys():
            state = {**first, **state[1]}
    if state is None:
        state = {}
    if type(state) is not dict or not all(type(k) is str for k in state):
        return _whole(walk, cls, state)
    if not _SET_BY_USE.isdisjoint(state):
        flat = dict(state.get("__dict__") or {})
        rest = {k: v for k, v in state.items() if k not in _SET_BY_USE and k != "__dict__"}
        state = {**rest, **flat}
    texts = []
    unasked = _unasked(cls)
    computed = _computed(cls)
    # What was computed is no state; what somebody assigned in its place is.
    kept = {name for name in computed if walk.owner.places.assigned(name)} if computed else ()
    if kept:
        walk.used = True
        kept = () if walk.settled else kept
    for name in sorted(state):
        if name in unasked:
            continue
        if name in computed and name not in kept:
            continue
        if walk.left and walk.leaves_out(cls, name):
            continue
        walk.path.append(name)
        held = state[name]
        outer, walk.held_as = walk.held_as, name
        encode = EXACT.get(type(held)) or encoder_for(type(held))
        text = encode(walk, held)
        texts.append(text_of(name) + text)
        walk.held_as = outer
        walk.path.pop()
        if walk.pieces is not None:
            walk.keep(name, text)
    return b"a%x:" % len(texts) + b"".join(texts)


def _elements(walk: Walk, cls: type, items: tuple[Any, ...], kind: str) -> bytes:
    """Encode what an instance is made of by places, each as if it were an attribute."""
    if walk.pieces is None and not walk.left:
        return sequence(walk, b"t", items)
    kept = []
    for at, item in enumerate(items):
        name = f"{kind} {at}"
        if walk.left and walk.leaves_out(cls, name):
            kept.append(b"~")
        elif walk.pieces is not None:
            outer, walk.held_as = walk.held_as, name
            walk.keep(name, walk.encode(item))
            walk.held_as = outer
        else:
            kept.append(item)
    return sequence(walk, b"t", tuple(kept))


def _whole(walk: Walk, cls: type, state: Any) -> bytes:
    """Encode a state that is not made of attributes."""
    if type(state) is tuple:
        return _elements(walk, cls, state, "element")
    if walk.left and walk.leaves_out(cls, STATE):
        return b"~"
    outer, walk.held_as = walk.held_as, STATE
    text = walk.encode(state)
    walk.held_as = outer
    walk.keep(STATE, text)
    return text


def resolve(_: type) -> Any:
    """Take any class: the last resort of the table."""
    return instance
