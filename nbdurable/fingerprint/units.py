"""Functions and classes of the project, each as a text and the slots that fill it.

Invariant: a unit says what runs now (code in memory, a class's dictionary as it is), and each
slot says where to look for the value that it had, so that both can be looked at again.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
import types
import weakref
from collections.abc import Callable, Iterator, Mapping  # noqa: TC003 - as Places below
from typing import Any, NamedTuple

from .builtin import is_step
from .places import Places  # noqa: TC001 - a NamedTuple's fields are read at run time
from .reads import Reads, reads_of
from .source import instructions, syntax_of
from .syntax import decorators, normalised
from .values import qualified, text_of
from .writes import Write, writes_of

MISSING: Any = type("Missing", (), {"__repr__": lambda _: "<missing>"})()


class Slot(NamedTuple):
    """Where a value that code depends on is found."""

    kind: str  # "global", "cell", "default", "kwdefault", "member", "field", "base", "wrapped"
    holder: Any  # a namespace; for what a function holds, a weak reference to it
    key: Any
    name: str
    owner: int = 0  # the class's identity, for a member: its namespace is made anew on each look

    def get(self) -> Any:
        """Give the value that is there now, or MISSING."""
        if self.kind in {"global", "member"}:
            return self.holder.get(self.key, MISSING)
        owner = self.holder()
        if owner is None:
            return MISSING
        try:
            return _HELD[self.kind](owner, self.key)
        except (LookupError, ValueError, AttributeError, TypeError):
            return MISSING

    def identity(self) -> tuple[str, int, Any]:
        """Name the place itself, the same for every unit that looks there."""
        if self.kind == "cell":
            owner = self.holder()
            return ("cell", id(owner.__closure__[self.key]) if owner else 0, None)
        if self.kind in {"global", "member"}:
            space = self.holder
            return ("global", self.owner or id(space), self.key)
        return (self.kind, id(self.holder()), self.key)


_HELD: dict[str, Any] = {
    "cell": lambda f, k: f.__closure__[k].cell_contents,
    "default": lambda f, k: f.__defaults__[k],
    "kwdefault": lambda f, k: f.__kwdefaults__[k],
    "wrapped": lambda f, _: f.__dict__["__wrapped__"],
    "base": lambda c, k: c.__bases__[k],
    "metaclass": lambda c, _: type(c),
    "field": lambda c, k: field_of(c, k),  # noqa: PLW0108 - field_of is defined below
}


class Unit(NamedTuple):
    """One function or class of the project."""

    ref: weakref.ref[Any]
    label: str
    text: bytes
    code: types.CodeType | None
    slots: tuple[Slot, ...]  # what it holds itself
    globals: tuple[Slot, ...]  # what it reads by name
    external: tuple[str, ...]  # modules' real names behind the names it uses
    sourced: bool
    writes: frozenset[Write]


def reference(value: Any) -> Callable[[], Any]:
    """Refer to an object without keeping it, if it can be done."""
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: value


class _Text(NamedTuple):
    """What is known of a code object for good."""

    node: Any
    decorators: frozenset[str]
    reads: Reads
    writes: frozenset[Write]
    digests: dict[frozenset[str], bytes]


_TEXTS: dict[int, tuple[weakref.ref[types.CodeType], _Text]] = {}


def text_of_code(fn: types.FunctionType) -> _Text:
    """Read a function's code once per process: what was loaded stays what it was."""
    code = fn.__code__
    key = id(code)
    known = _TEXTS.get(key)
    if known is not None and known[0]() is code:
        return known[1]
    node = syntax_of(code, fn.__globals__)
    names = frozenset(decorators(node)) if node is not None else frozenset()
    found = _Text(node, names, reads_of(code), writes_of(node, code), {})
    _TEXTS[key] = (weakref.ref(code, lambda _: _TEXTS.pop(key, None)), found)
    return found


def written_parameters(fn: types.FunctionType) -> frozenset[str]:
    """Names of the parameters whose objects the function changes."""
    return frozenset(w.root for w in text_of_code(fn).writes if w.scope == "param")


def label_of(value: Any) -> str:
    """Name a function or class as a user would."""
    module = value.__module__ if isinstance(value, type) else value.__globals__.get("__name__")
    name = str(getattr(value, "__qualname__", "?"))
    if isinstance(value, types.FunctionType):
        name = value.__code__.co_qualname
    return in_module(str(module or "__main__"), name.replace("<locals>.", ""))


def in_module(module: str, name: str) -> str:
    """Prefix a name with its module, unless that is the notebook itself."""
    return name if module in {"__main__", "None"} else f"{module}.{name}"


def function_unit(fn: types.FunctionType, places: Places) -> Unit:
    """Describe a function."""
    text = text_of_code(fn)
    ref = weakref.ref(fn)
    ours = frozenset(d for d in text.decorators if _is_ours(d, fn))
    digest = text.digests.get(ours)
    if digest is None:
        plain = normalised(text.node, ours) if text.node is not None else instructions(fn.__code__)
        digest = text.digests[ours] = text_of(fn.__code__.co_name) + plain
    names = fn.__code__.co_varnames
    count = fn.__code__.co_argcount
    slots = [
        Slot("default", ref, at, names[count - len(fn.__defaults__ or ()) + at])
        for at in range(len(fn.__defaults__ or ()))
    ]
    slots += [Slot("kwdefault", ref, name, name) for name in sorted(fn.__kwdefaults__ or ())]
    slots += [Slot("cell", ref, at, n) for at, n in enumerate(fn.__code__.co_freevars)]
    if "__wrapped__" in fn.__dict__:
        slots.append(Slot("wrapped", ref, None, "__wrapped__"))
    found, external = _globals(fn, text.reads, places)
    return Unit(
        ref, label_of(fn), digest, fn.__code__, tuple(slots), found, external,
        text.node is not None, text.writes,
    )  # fmt: skip


def _is_ours(dotted: str, fn: types.FunctionType) -> bool:
    """Whether a decorator is nbdurable's own, whose options are in no fingerprint."""
    root, *rest = dotted.split(".")
    value = fn.__globals__.get(root, MISSING)
    if value is MISSING and root in fn.__code__.co_freevars:
        value = _HELD["cell"](fn, fn.__code__.co_freevars.index(root))
    for name in rest:
        if is_step(value):
            break
        value = vars(value).get(name, MISSING) if hasattr(value, "__dict__") else MISSING
    if value is MISSING:
        return False
    module = str(getattr(value, "__module__", None) or getattr(value, "__name__", ""))
    return is_step(value) or module.partition(".")[0] == __name__.partition(".")[0]


def _globals(
    fn: types.FunctionType, reads: Reads, places: Places
) -> tuple[tuple[Slot, ...], tuple[str, ...]]:
    """Resolve names and attribute chains to the places where their values are."""
    found: dict[tuple[int, str], Slot] = {}
    external: set[str] = set()
    for root, *chain in reads.names:
        _follow(fn.__globals__, root, chain, places, found, external)
    for module, level, attribute in reads.imported:
        loaded = _import(module, level, fn.__globals__, places)
        if loaded is None:
            continue
        if attribute:
            root, *chain = attribute.split(".")
            _follow(vars(loaded), root, chain, places, found, external)
    return tuple(found.values()), tuple(sorted(external))


def _follow(  # noqa: PLR0917 - one step of a walk, with all that it carries
    space: dict[str, Any],
    name: str,
    chain: list[str],
    places: Places,
    found: dict[tuple[int, str], Slot],
    external: set[str],
) -> None:
    """Walk from a name through project modules to the first thing that is not one."""
    while True:
        if name.startswith("__") and name != "__name__":
            return
        label = in_module(str(space.get("__name__", "__main__")), name)
        found.setdefault((id(space), name), Slot("global", space, name, label))
        value = space.get(name, MISSING)
        if not isinstance(value, types.ModuleType):
            return
        if not places.module(value):
            external.add(f"{name}={value.__name__}")
            return
        if not chain:
            return
        space, name, chain = vars(value), chain[0], chain[1:]


def _import(name: str, level: int, space: dict[str, Any], places: Places) -> Any:
    """Give the project module that an import inside a function means; None for others.

    The body would import it; doing so here keeps the fingerprint the same before and after.
    """
    try:
        if level:
            package = str(space.get("__package__") or space.get("__name__", ""))
            name = importlib.util.resolve_name("." * level + name, package)
        loaded = sys.modules.get(name)
        if loaded is None:
            spec = importlib.util.find_spec(name)
            if spec is None or not spec.origin or not places.named(name, spec.origin):
                return None
            loaded = importlib.import_module(name)
    except Exception:  # noqa: BLE001 - the body will raise it
        return None
    return loaded if places.module(loaded) else None


_SKIPPED = frozenset(
    {"__module__", "__qualname__", "__dict__", "__weakref__", "__firstlineno__", "__doc__",
     "__static_attributes__", "__abstractmethods__", "__annotations__", "__annotate__",
     "__annotate_func__", "__annotations_cache__", "__parameters__", "__orig_bases__",
     "__dataclass_fields__", "__dataclass_params__", "__match_args__", "__signature__",
     "__hash__", "_abc_impl", "__type_params__", "__classdictcell__", "_field_defaults",
     "__replace__", "__protocol_attrs__", "__non_callable_proto_members__"}
)  # fmt: skip
_ENUM = frozenset(
    {"_generate_next_value_", "_new_member_", "_use_args_", "_member_names_", "_value2member_map_",
     "_unhashable_values_", "_member_type_", "_value_repr_", "_member_map_", "_hashable_values_",
     "_unhashable_values_map_", "_flag_mask_", "_all_bits_", "_boundary_", "_singles_mask_",
     "_inverted_", "__new_member__", "__new__"}
)  # fmt: skip
_IGNORED = (
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    types.BuiltinFunctionType,
    type(vars(__import__("collections").namedtuple("_T", "a"))["a"]),
)
_ATOMS = (str, int, float, bool, bytes, type(None), tuple)


def class_unit(cls: type, _: Places) -> Unit:
    """Describe a class by what its dictionary holds now."""
    ref = weakref.ref(cls)
    space = vars(cls)
    doc = space.get("__doc__")
    text = text_of(qualified(cls)) + text_of(inspect.cleandoc(doc) if isinstance(doc, str) else "")
    text += text_of(repr(space.get("__dataclass_params__")))
    label = label_of(cls)
    slots = [Slot("base", ref, at, "base") for at in range(len(cls.__bases__))]
    if type(cls) is not type:
        slots.append(Slot("metaclass", ref, None, "metaclass"))
    slots += [
        Slot("field", ref, name, f"{label}.{name}")
        for name in ("__annotations__", "__dataclass_fields__", "_member_map_",
                     "__pydantic_fields__")
        if field_of(cls, name) is not MISSING
    ]  # fmt: skip
    slots += [
        Slot("member", space, name, f"{label}.{name}", id(cls))
        for name in sorted(_members(cls, space))
    ]
    writes = frozenset(_member_writes(cls))
    return Unit(ref, label, text, None, tuple(slots), (), (), True, writes)


def _member_writes(cls: type) -> Iterator[Write]:
    """Data of the class that its own methods change through ``self`` or ``cls``."""
    for value in vars(cls).values():
        fn = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        fn = fn.fget if isinstance(fn, property) else fn
        if not isinstance(fn, types.FunctionType) or not fn.__code__.co_argcount:
            continue
        for write in text_of_code(fn).writes:
            if write.scope != "param" or write.root != fn.__code__.co_varnames[0]:
                continue
            if write.attribute and (isinstance(value, classmethod) or not write.plain):
                yield write._replace(scope="member")


def _members(cls: type, space: Mapping[str, Any]) -> list[str]:
    """Names in a class's dictionary that its author, not its machinery, put there."""
    members = space.get("_member_map_")
    skipped = _SKIPPED | _ENUM | set(members) if isinstance(members, dict) else _SKIPPED
    return [
        name
        for name, value in space.items()
        if name not in skipped
        and not name.startswith(("__pydantic_", "__attrs_"))
        and not isinstance(value, _IGNORED)
        and not _generated(cls, value)
        and not (name.startswith("__") and name.endswith("__") and not _written(value))
    ]


def _written(value: Any) -> bool:
    """Whether the value of a dunder name is a method or plain data, not machinery."""
    code = (types.FunctionType, classmethod, staticmethod, property, functools.partialmethod)
    return isinstance(value, code) or type(value) in _ATOMS or is_step(value)


def _generated(cls: type, value: Any) -> bool:
    """Whether a method was made by dataclass, namedtuple or attrs: its fields say all."""
    fn = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
    if not isinstance(fn, types.FunctionType):
        return False
    while isinstance(inner := fn.__dict__.get("__wrapped__"), types.FunctionType):
        fn = inner
    made = fn.__code__.co_filename.startswith(("<string>", "<attrs generated"))
    space = vars(cls)
    return made and any(n in space for n in ("__dataclass_fields__", "_fields", "__attrs_attrs__"))


def field_of(cls: type, name: str) -> Any:
    """Give what a class says about its fields, in a form that is only data and code."""
    space = vars(cls)
    if name == "__annotations__":
        if sys.version_info >= (3, 14):
            annotationlib = importlib.import_module("annotationlib")
            notes = annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
        else:
            notes = space.get(name)
        return dict(notes) if notes else MISSING
    value = space.get(name)
    if not value:
        return MISSING
    if name == "_member_map_":
        return tuple((key, member._value_) for key, member in value.items())
    if name == "__dataclass_fields__":
        shown = ("default", "default_factory", "init", "repr", "hash", "compare", "kw_only")
        return tuple((key, *(getattr(f, a, None) for a in shown)) for key, f in value.items())
    return dict(value)


def unit_of(value: Any, places: Places) -> Unit:
    """Describe a project function or class."""
    if isinstance(value, type):
        return class_unit(value, places)
    return function_unit(value, places)
