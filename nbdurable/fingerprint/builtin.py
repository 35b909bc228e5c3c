"""Standard library values to canonical bytes.

Invariant: a type here is encoded by what makes two of its values equal, never by an address,
a cache or the order of a hash table.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import functools
import os
import pathlib
import random
import re
import sys
import types
import typing
import uuid
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

from nbdurable.fingerprint.held import held_by
from nbdurable.fingerprint.values import (
    EXACT,
    LEAVES,
    Encoder,
    Walk,
    bytes_of,
    mapping,
    qualified,
    sequence,
    text_of,
    unordered,
)

STEP = "__nbdurable_step__"
_GENERIC_ALIAS = type(typing.List[int])  # noqa: UP006
_OURS = __name__.partition(".")[0]
_CALLING = frozenset({"functools", "contextlib", "tenacity", "nbdurable", "joblib"})
"""Packages whose wrappers only call what they wrap, and never look at its docstring."""
_HEAP = 1 << 9
_LABELLED = re.compile(r"%\(-?\d+ ")  # the address in a name that SQLAlchemy makes up
LOOKED_UP = "keys without a value of their own"
_EMPTIES = frozenset({int, float, str, list, dict, set, tuple, defaultdict, deque, Counter})
_UNTOLD = frozenset({"__doc__", "__module__", "__qualname__", "__firstlineno__"})
_SHELLS = ("IPython.", "ipykernel.")
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial, type)


def is_step(value: object) -> bool:
    """Whether ``value`` is a decorated step of ours."""
    if hasattr(type(value), STEP):
        return True
    state = getattr(value, "__dict__", None) if type(value) is types.FunctionType else None
    return bool(state) and STEP in typing.cast("dict[str, object]", state)


def tagged(walk: Walk, name: str, *fields: object) -> bytes:
    """Encode a value by the name of its type and the fields that make it."""
    return b"o" + text_of(name) + sequence(walk, b"t", fields)


def _fields(name: str, read: typing.Callable[[Any], tuple[object, ...]]) -> Encoder:
    """Make an encoder for an immutable type."""
    return lambda walk, v: walk.within(lambda: tagged(walk, name, *read(v)))


def _clock(v: Any) -> tuple[object, ...]:
    return (v.hour, v.minute, v.second, v.microsecond, v.fold, v.tzinfo)


def _partial(walk: Walk, v: functools.partial[Any]) -> bytes:
    walk.mutable = True
    return walk.within(
        lambda: walk.node(
            v, lambda w, p: tagged(w, "functools.partial", p.func, p.args, dict(p.keywords))
        )
    )


def _deque(walk: Walk, v: deque[Any]) -> bytes:
    walk.mutable = True
    return walk.within(
        lambda: walk.node(v, lambda w, d: b"q" + w.encode(d.maxlen) + sequence(w, b"l", list(d)))
    )


def _ordered(walk: Walk, v: OrderedDict[Any, Any]) -> bytes:
    walk.mutable = True
    return walk.within(
        lambda: walk.node(v, lambda w, d: sequence(w, b"O", [x for kv in d.items() for x in kv]))
    )


def _default(walk: Walk, v: defaultdict[Any, Any]) -> bytes:
    walk.mutable = walk.changing = True
    if walk.pieces is None:
        return walk.within(lambda: walk.node(v, _default_body))
    kept = {key: one for key, one in v.items() if not _is_default(one)}
    text = walk.within(lambda: walk.encode(v.default_factory) + mapping(walk, b"d", kept))
    return text + walk.apart(v, _looked_up)


def _looked_up(walk: Walk, v: defaultdict[Any, Any]) -> bytes:
    """Keep apart what looking up a missing key alone has put in."""
    keys = [key for key, one in v.items() if _is_default(one)]
    outer, walk.held_as = walk.held_as, LOOKED_UP
    walk.keep(LOOKED_UP, walk.within(lambda: unordered(walk, b"S", keys)))
    walk.held_as = outer
    return b""


def _default_body(walk: Walk, v: defaultdict[Any, Any]) -> bytes:
    head = b"D" + walk.encode(v.default_factory)
    if walk.left and walk.leaves_out(defaultdict, LOOKED_UP):
        return head + mapping(walk, b"d", {k: one for k, one in v.items() if not _is_default(one)})
    return head + mapping(walk, b"d", dict(v))


def _is_default(value: Any) -> bool:
    """Tell whether a value is what looking up a missing key puts in: it is empty."""
    return type(value) in _EMPTIES and not value


def _proxy(walk: Walk, v: types.MappingProxyType[Any, Any]) -> bytes:
    walk.mutable = True
    return walk.within(lambda: walk.node(v, lambda w, d: mapping(w, b"P", dict(d))))


def _memoryview(walk: Walk, v: memoryview) -> bytes:
    walk.mutable = walk.mutable or not v.readonly
    return tagged(walk, "memoryview", v.format, v.shape, v.tobytes())


def _array(walk: Walk, v: array[Any]) -> bytes:
    walk.mutable = True
    return tagged(walk, "array", v.typecode, v.tobytes())


def _random(walk: Walk, v: random.Random) -> bytes:
    return walk.generator(v, lambda w: _random_state(w, v))


def _own_random(walk: Walk, v: random.Random) -> bytes:
    return walk.generator(v, lambda w: b"u" + w.class_of(v) + _random_state(w, v))


def _random_state(walk: Walk, v: random.Random) -> bytes:
    return tagged(walk, "random.Random", v.getstate())


def _exported(v: Any) -> bool:
    """Whether a bound method is a module's function, as `random.choice` is."""
    kind = type(v.__self__).__module__
    homes = {str(v.__module__ or ""), kind, kind.rpartition(".")[0]}
    modules = [sys.modules[home] for home in homes if home in sys.modules]
    name = v.__name__
    return kind.startswith(_SHELLS) or any(vars(m).get(name) is v for m in modules)


def _method(walk: Walk, v: types.MethodType) -> bytes:
    if _exported(v):
        return b"x" + text_of(qualified(v))
    return walk.within(lambda: tagged(walk, "method", v.__func__, v.__self__))


def _builtin(walk: Walk, v: Any) -> bytes:
    bound = getattr(v, "__self__", None)
    if bound is None or isinstance(bound, types.ModuleType) or _exported(v):
        return b"x" + text_of(qualified(v))
    return walk.within(lambda: tagged(walk, "builtin", v.__name__, bound))


def named(_: Walk, v: Any) -> bytes:
    """Encode what counts by its qualified name only."""
    return b"x" + text_of(qualified(v))


def _descriptor(_: Walk, v: Any) -> bytes:
    owner = getattr(v, "__objclass__", None)
    return b"x" + text_of(f"{qualified(owner) if owner else ''}.{getattr(v, '__name__', '')}")


def function(walk: Walk, v: types.FunctionType) -> bytes:
    """Encode a function: the project's by code, others by name and what they wrap."""
    if is_step(v):
        return walk.encode(v.__wrapped__)  # type: ignore[attr-defined]
    if walk.owner.is_project_function(v):
        return walk.unit(v)
    return walk.within(lambda: walk.node(v, _installed))


def public_name(value: Any, name: str) -> str:
    """Return the name under which an installed package offers what it has by this name.

    Of ours that is the name in the package, wherever in it the code stands.
    """
    top, _, rest = name.partition(".")
    if top != _OURS:
        return name
    public = rest.rpartition(".")[2] if value is None else str(getattr(value, "__qualname__", rest))
    return f"{top}.{public}"


def _installed(walk: Walk, v: types.FunctionType) -> bytes:
    """Encode an installed package's function, and what the project gave it to hold."""
    home = str(v.__globals__.get("__name__", ""))
    code = v.__code__
    name = public_name(v, f"{home}.{getattr(code, 'co_qualname', code.co_name)}")
    parts: list[object] = [name]
    wrapped = v.__dict__.get("__wrapped__")
    outer, walk.as_data = walk.as_data, walk.as_data or home.partition(".")[0] not in _CALLING
    try:
        if wrapped is not None:
            parts.append(wrapped)
        registry = v.__dict__.get("registry")
        if isinstance(registry, types.MappingProxyType):
            pairs = [(qualified(cls), cls, fn) for cls, fn in registry.items()]
            parts += [(cls, fn) for _, cls, fn in sorted(pairs, key=lambda p: p[0])]
        for cell in v.__closure__ or ():
            try:
                held = cell.cell_contents
            except ValueError:
                continue
            if isinstance(held, _FUNCTIONS) or type(held) in LEAVES:
                parts.append(held)
        return b"x" + sequence(walk, b"t", parts) + held_by(walk, v)
    finally:
        walk.as_data = outer


def module(walk: Walk, v: types.ModuleType) -> bytes:
    """Encode a module: the project's by all that it holds, others by name."""
    if v.__name__ != "__main__" and walk.owner.is_project_module(v):
        return walk.unit(v)
    return b"m" + text_of(v.__name__)


def klass(walk: Walk, v: type) -> bytes:
    """Encode a class: the project's by code, others by name."""
    if walk.owner.is_project_class(v):
        return walk.unit(v)
    return b"x" + text_of(public_name(v, qualified(v))) + made_late(walk, v)


def made_late(walk: Walk, cls: type) -> bytes:
    """Encode what tells a class apart that a library made at run time: its name does not."""
    ours = cls.__module__.partition(".")[0] == _OURS
    if ours or not cls.__flags__ & _HEAP or found_by_name(cls):
        return b""
    kept = [
        (name, value)
        for name, value in sorted(vars(cls).items())
        if name not in _UNTOLD and (type(value) in LEAVES or _is_flat(value))
    ]
    return walk.within(lambda: b"l" + sequence(walk, b"t", kept)) + held_by(walk, dict(vars(cls)))


def found_by_name(cls: type) -> bool:
    """Tell whether a class is what its module and name lead to."""
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return found is cls


def _is_flat(value: object) -> bool:
    if type(value) is dict:
        return _is_flat(tuple(value)) and _is_flat(tuple(value.values()))
    return type(value) is tuple and all(type(one) in LEAVES for one in value)


def _alias(walk: Walk, v: Any) -> bytes:
    return walk.within(
        lambda: walk.node(
            v,
            lambda w, a: tagged(
                w,
                "alias",
                getattr(a, "__origin__", None),
                getattr(a, "__args__", ()),
                getattr(a, "__metadata__", ()),
            ),
        )
    )


def _wrapper(name: str, *attributes: str) -> Encoder:
    """Make an encoder for a descriptor that holds functions."""

    def encode(walk: Walk, v: Any) -> bytes:
        held = [getattr(v, a, None) for a in attributes]
        return walk.within(lambda: walk.node(v, lambda w, _: tagged(w, name, *held)))

    return encode


def _path(walk: Walk, v: pathlib.PurePath) -> bytes:
    return tagged(walk, type(v).__name__, os.fspath(v))


def _member(walk: Walk, v: enum.Enum) -> bytes:
    def body() -> bytes:
        return b"E" + walk.class_of(v) + walk.encode(v._name_) + walk.encode(v._value_)

    return walk.within(body)


EXACT.update(
    {
        range: _fields("range", lambda v: (v.start, v.stop, v.step)),
        slice: _fields("slice", lambda v: (v.start, v.stop, v.step)),
        decimal.Decimal: _fields("Decimal", lambda v: (str(v),)),
        fractions.Fraction: _fields("Fraction", lambda v: (v.numerator, v.denominator)),
        uuid.UUID: _fields("UUID", lambda v: (v.int,)),
        dt.datetime: _fields("datetime", lambda v: (v.toordinal(), *_clock(v))),
        dt.date: _fields("date", lambda v: (v.toordinal(),)),
        dt.time: _fields("time", _clock),
        dt.timedelta: _fields("timedelta", lambda v: (v.days, v.seconds, v.microseconds)),
        dt.timezone: _fields("timezone", lambda v: (v.utcoffset(None), v.tzname(None))),
        re.Pattern: _fields("Pattern", lambda v: (v.pattern, v.flags)),
        functools.partial: _partial,
        deque: _deque,
        OrderedDict: _ordered,
        defaultdict: _default,
        types.MappingProxyType: _proxy,
        memoryview: _memoryview,
        array: _array,
        random.Random: _random,
        types.ModuleType: module,
        types.MethodType: _method,
        types.BuiltinFunctionType: _builtin,
        types.FunctionType: function,
        types.MethodWrapperType: _builtin,
        types.WrapperDescriptorType: _descriptor,
        types.MethodDescriptorType: _descriptor,
        types.ClassMethodDescriptorType: _descriptor,
        types.GetSetDescriptorType: _descriptor,
        types.MemberDescriptorType: _descriptor,
        types.GenericAlias: _alias,
        types.UnionType: _alias,
        _GENERIC_ALIAS: _alias,
        type(typing.Optional[int]): _alias,  # noqa: UP045 - its own class before Python 3.14
        type(typing.Annotated[int, 1]): _alias,
        type(typing.Callable[[], int]): _alias,
        type(typing.Literal[1]): _alias,
        property: _wrapper("property", "fget", "fset", "fdel"),
        staticmethod: _wrapper("staticmethod", "__func__"),
        classmethod: _wrapper("classmethod", "__func__"),
        functools.cached_property: _wrapper("cached_property", "func"),
        type(functools.lru_cache(print)): _wrapper("lru_cache", "__wrapped__"),
    }
)


def _builtin_subclass(walk: Walk, v: Any) -> bytes:
    """Encode a subclass of a builtin container or leaf: class, content, own attributes."""
    base = next(b for b in _BASES if isinstance(v, b))

    def body(w: Walk, v: Any) -> bytes:
        content = _CONTENT[base](w, v)
        state = getattr(v, "__dict__", None)
        return (
            b"u"
            + w.class_of(v)
            + content
            + (w.encode(dict(sorted(state.items()))) if state else b"0")
        )

    text = walk.within(lambda: walk.node(v, body))
    walk.mutable = walk.mutable or base in _CHANGEABLE
    return text


_CONTENT: dict[type, Encoder] = {
    OrderedDict: lambda w, v: sequence(w, b"O", [x for kv in v.items() for x in kv]),
    defaultdict: lambda w, v: w.encode(v.default_factory) + mapping(w, b"d", dict(dict.items(v))),
    dict: lambda w, v: mapping(w, b"d", dict(dict.items(v))),
    list: lambda w, v: sequence(w, b"l", list(list.__iter__(v))),
    tuple: lambda w, v: sequence(w, b"t", list(tuple.__iter__(v))),
    set: lambda w, v: unordered(w, b"S", set.__iter__(v)),
    frozenset: lambda w, v: unordered(w, b"Z", frozenset.__iter__(v)),
    deque: lambda w, v: w.encode(v.maxlen) + sequence(w, b"l", list(deque.__iter__(v))),
    str: lambda _, v: text_of(str.__str__(v)),
    bytes: lambda _, v: bytes_of(b"b", bytes.__getitem__(v, slice(None))),
    bytearray: lambda _, v: bytes_of(b"y", bytes(bytearray.__getitem__(v, slice(None)))),
    int: lambda w, v: LEAVES[int](w, int.__int__(v)),
    float: lambda w, v: LEAVES[float](w, float.__float__(v)),
    complex: lambda w, v: LEAVES[complex](w, complex.__add__(v, 0j)),
}
_BASES = tuple(_CONTENT)
_CHANGEABLE = frozenset({OrderedDict, defaultdict, dict, list, set, deque, bytearray})


def resolve(cls: type) -> Encoder | None:
    """Find the encoder for a class by what it is derived from."""
    if issubclass(cls, type):
        return klass
    if hasattr(cls, STEP):
        return lambda walk, v: walk.encode(v.__wrapped__)
    if issubclass(cls, enum.Enum):
        return _member
    if issubclass(cls, random.Random) and not issubclass(cls, random.SystemRandom):
        return _own_random
    if issubclass(cls, pathlib.PurePath):
        return _path if cls.__module__.startswith("pathlib") else None
    if cls.__name__ == "_anonymous_label" and cls.__module__.startswith("sqlalchemy."):
        return lambda _, v: b"o" + text_of(_LABELLED.sub("%(", str.__str__(v)))
    if issubclass(cls, _BASES) and not _reduces(cls):
        return _builtin_subclass
    if issubclass(cls, (types.ModuleType, types.FunctionType)):
        return EXACT[types.ModuleType]
    if cls.__name__ in {"cython_function_or_method", "fused_cython_function"}:
        return named
    if cls.__module__ == "typing" or issubclass(cls, typing.TypeVar):
        return _typing
    return None


def _reduces(cls: type) -> bool:
    """Whether the class says itself how it is pickled."""
    base = next(b for b in _BASES if issubclass(cls, b))
    return cls.__reduce_ex__ is not base.__reduce_ex__ or cls.__reduce__ is not base.__reduce__


def _typing(walk: Walk, v: object) -> bytes:
    supertype = getattr(v, "__supertype__", None)
    return b"x" + text_of(repr(v)) + (walk.encode(supertype) if supertype is not None else b"")
