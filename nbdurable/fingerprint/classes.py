"""Classes of the project, each as a text and the slots that fill it.

Invariant: a class is what its dictionary holds now. What its machinery made out of fields
(generated methods, tables) is left out where the fields say it all.
"""

from __future__ import annotations

import abc
import functools
import importlib
import inspect
import sys
import types
import weakref
from collections.abc import Iterator, Mapping  # noqa: TC003 - as Places below
from typing import TYPE_CHECKING, Any

from nbdurable.fingerprint.builtin import is_step
from nbdurable.fingerprint.following import HELD, MISSING, Following, Slot
from nbdurable.fingerprint.reads import facts_in
from nbdurable.fingerprint.source import class_syntax
from nbdurable.fingerprint.syntax import normalised
from nbdurable.fingerprint.units import Unit, label_of, text_of_code
from nbdurable.fingerprint.values import EXACT, qualified, text_of

if TYPE_CHECKING:
    from nbdurable.fingerprint.places import Places
    from nbdurable.fingerprint.writes import Write

_SKIPPED = frozenset(
    {"__module__", "__qualname__", "__dict__", "__weakref__", "__firstlineno__", "__doc__",
     "__static_attributes__", "__abstractmethods__", "__annotations__", "__annotate__",
     "__annotate_func__", "__annotations_cache__", "__parameters__", "__orig_bases__",
     "__dataclass_fields__", "__dataclass_params__", "__signature__", "__slotnames__",
     "_abc_impl", "__type_params__", "__classdictcell__", "_field_defaults",
     "__replace__", "__protocol_attrs__", "__non_callable_proto_members__",
     "__private_attributes__",
     "__class_vars__", "__fields_set__", "__subclasshook__"}
)  # fmt: skip
_ENUM = frozenset(
    {"_generate_next_value_", "_new_member_", "_use_args_", "_member_names_", "_value2member_map_",
     "_unhashable_values_", "_member_type_", "_value_repr_", "_member_map_", "_hashable_values_",
     "_unhashable_values_map_", "_flag_mask_", "_all_bits_", "_boundary_", "_singles_mask_",
     "_inverted_", "__new_member__", "__new__"}
)  # fmt: skip
_MEMBERS_OWN = frozenset({"_value_", "_name_", "_sort_order_", "__objclass__", "_hash_"})
_DESCRIPTORS = (
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    type(vars(__import__("collections").namedtuple("_T", "a"))["a"]),
)
_CODE = (types.FunctionType, classmethod, staticmethod, property, functools.partialmethod,
         functools.cached_property)  # fmt: skip
_FIELDS = ("__annotations__", "__dataclass_fields__", "_member_map_", "__pydantic_fields__",
           "__attrs_attrs__", "_field_defaults", "__private_attributes__", "__new_member__",
           "_generate_next_value_", "__orig_bases__", "_abc_impl")  # fmt: skip
_FIELD_PARTS = ("default", "default_factory", "init", "repr", "hash", "compare", "kw_only",
                "metadata")  # fmt: skip
_ATTRS_PARTS = ("name", "default", "validator", "converter", "repr", "eq", "order", "hash", "init",
                "kw_only", "metadata", "on_setattr", "alias", "type")  # fmt: skip
_BINDING = (classmethod, staticmethod)
_MACHINES = ("__pydantic_", "__attrs_", "_sa_")
_CREATING = frozenset({"__init_subclass__", "__set_name__", "__class_getitem__"})


def class_unit(cls: type, places: Places) -> Unit:
    """Describe a class by what its dictionary holds now."""
    ref = weakref.ref(cls)
    space = vars(cls)
    text = text_of(qualified(cls)) + text_of(repr(space.get("__dataclass_params__")))
    label = label_of(cls)
    slots = [Slot("base", ref, at, "base") for at in range(len(cls.__bases__))]
    if type(cls) is not type:
        slots.append(Slot("metaclass", ref, None, "metaclass"))
    slots += [
        Slot("field", ref, name, f"{label}.{name}")
        for name in _FIELDS
        if field_of(cls, name) is not MISSING
    ]
    slots += [
        Slot("member", space, name, f"{label}.{name}", id(cls))
        for name in sorted(_members(cls, space, places))
    ]
    for value in space.values():
        fn = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if isinstance(fn, types.FunctionType):
            slots += attributes_of(fn, label)
    if _asks_for_subclasses(cls):
        slots.append(Slot("field", ref, "__subclasses__", f"{label}.__subclasses__"))
    read: tuple[Slot, ...] = ()
    external: tuple[str, ...] = ()
    if any(_replaced(cls, value, places) for value in space.values()):
        written, read, external = _as_written(cls, places)
        text += written
    writes = frozenset(_member_writes(cls))
    return Unit(ref, label, text, None, tuple(slots), read, external, sourced=True, writes=writes)


def attributes_of(fn: types.FunctionType, label: str) -> list[Slot]:
    """Return the places of the attributes that somebody gave to a function."""
    return [
        Slot("attribute", weakref.ref(fn), name, f"{label}.{fn.__name__}.{name}")
        for name in sorted(vars(fn))
        if name not in {"__wrapped__", "__isabstractmethod__", "__override__"}
    ]


def _member_writes(cls: type) -> Iterator[Write]:
    """Data of the class that its own methods change through ``self`` or ``cls``.

    What is changed while classes are made is what they are, and no change of a run.
    """
    for value in vars(cls).values():
        fn = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        fn = fn.fget if isinstance(fn, property) else fn
        if not isinstance(fn, types.FunctionType) or not fn.__code__.co_argcount:
            continue
        if creates(fn, cls):
            continue
        for write in text_of_code(fn).writes:
            if write.scope != "param" or write.root != fn.__code__.co_varnames[0]:
                continue
            if write.attribute and (isinstance(value, classmethod) or not write.plain):
                yield write._replace(scope="member")


def creates(fn: types.FunctionType, owner: type | None = None) -> bool:
    """Tell whether a function runs while classes are made, and not when they are used."""
    names = fn.__code__.co_varnames[:1]
    meta = names in {("mcs",), ("mcls",), ("metacls",), ("meta",)}
    if owner is not None and issubclass(owner, type):
        meta = True
    return fn.__code__.co_name in _CREATING or (
        meta and fn.__code__.co_name in {"__new__", "__init__", "__prepare__"}
    )


def _members(cls: type, space: Mapping[str, Any], places: Places) -> list[str]:
    """Names in a class's dictionary that its author, not its machinery, put there."""
    members = space.get("_member_map_")
    skipped = _SKIPPED | _ENUM | set(members) if isinstance(members, dict) else _SKIPPED
    return [
        name
        for name, value in space.items()
        if name not in skipped
        and (isinstance(value, types.FunctionType) or not name.startswith(_MACHINES))
        and not _replaced(cls, value, places)
        and not isinstance(value, _DESCRIPTORS)
        and not _generated(cls, value)
        and not (name.startswith("__") and name.endswith("__") and not _written(value, places))
    ]


def _written(value: Any, places: Places) -> bool:
    """Whether the value of a dunder name is its author's, not machinery."""
    if isinstance(value, _CODE) or is_step(value) or type(value) in EXACT:
        return not isinstance(value, (types.BuiltinFunctionType, types.WrapperDescriptorType))
    return places.klass(value if isinstance(value, type) else type(value))


def _replaced(cls: type, value: Any, places: Places) -> bool:
    """Whether an installed metaclass put a descriptor of its own where something was written."""
    kind = type(value)
    return (
        hasattr(kind, "__set__")
        and not isinstance(value, (*_CODE, *_DESCRIPTORS))
        and not places.klass(kind)
        and type(cls).__module__ not in {"builtins", "abc", "enum"}
    )


def _as_written(cls: type, places: Places) -> tuple[bytes, tuple[Slot, ...], tuple[str, ...]]:
    """Return the text of a class statement, and what it reads: where the live class hides it."""
    nodes = class_syntax(cls)
    space = getattr(sys.modules.get(cls.__module__), "__dict__", None)
    if not nodes or space is None:
        return b"", (), ()
    following = Following(space, places)
    known = {name: uses for name, uses in facts_in(nodes).uses.items() if name in space}
    following.names((name, frozenset(uses)) for name, uses in sorted(known.items()))
    text = b"".join(sorted(normalised(node, frozenset()) for node in nodes))
    return text, following.slots, tuple(sorted(following.external))


def subclasses_of(cls: type) -> tuple[type, ...]:
    """Return a class's subclasses, all the way down, in one order."""
    found: dict[type, None] = {}
    todo: list[type] = type.__subclasses__(cls)
    while todo:
        one = todo.pop()
        if one not in found:
            found[one] = None
            todo += type.__subclasses__(one)
    return tuple(sorted(found, key=qualified))


def _asks_for_subclasses(cls: type) -> bool:
    for value in vars(cls).values():
        fn = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if not isinstance(fn, types.FunctionType) or fn.__code__.co_filename[:1] == "<":
            continue
        if "__subclasses__" in text_of_code(fn).reads.attributes:
            return True
    return False


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
    """Return what a class says about its fields, in a form that is only data and code."""
    space = vars(cls)
    if name == "__annotations__":
        return annotations_of(cls) if _by_annotations(cls) else MISSING
    if name == "__subclasses__":
        return subclasses_of(cls)
    if name == "_abc_impl":
        return _registered(cls) if name in space else MISSING
    value = space.get(name)
    if not value:
        return MISSING
    if name in {"__new_member__", "_generate_next_value_"}:
        return value if "_member_map_" in space and _by_user(value) else MISSING
    if name == "_member_map_":
        return tuple(_enum_member(key, member) for key, member in value.items())
    if name == "__dataclass_fields__":
        shown = [(key, *(getattr(f, a, None) for a in _FIELD_PARTS)) for key, f in value.items()]
        return tuple(shown)
    if name == "__attrs_attrs__":
        return tuple(tuple(getattr(f, a, None) for a in _ATTRS_PARTS) for f in value)
    if name == "__private_attributes__":
        return {
            key: (getattr(one, "default", None), getattr(one, "default_factory", None))
            for key, one in value.items()
        }
    return value if name == "__orig_bases__" else dict(value)


def _registered(cls: type) -> Any:
    """Return the classes that were registered as subclasses of an abstract one."""
    refs = abc._get_dump(cls)[0]  # type: ignore[attr-defined] # noqa: SLF001 - there is no other way
    return tuple(sorted(filter(None, (ref() for ref in refs)), key=qualified)) or MISSING


def _by_user(value: Any) -> bool:
    fn = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
    return isinstance(fn, types.FunctionType) and fn.__module__ != "enum"


def _enum_member(key: str, member: Any) -> tuple[Any, ...]:
    state = getattr(member, "__dict__", {})
    more = {name: state[name] for name in sorted(state) if name not in _MEMBERS_OWN}
    return (key, member._value_, more) if more else (key, member._value_)


def _by_annotations(cls: type) -> bool:
    """Whether annotations do something in this class, and not only describe it."""
    space = vars(cls)
    marks = ("__dataclass_fields__", "__attrs_attrs__", "__pydantic_fields__", "_field_defaults")
    if any(mark in space for mark in marks) or type(cls).__module__ not in {
        "builtins",
        "abc",
        "enum",
    }:
        return True
    return any("__init_subclass__" in vars(base) for base in cls.__mro__[1:-1])


def annotations_of(value: Any) -> Any:
    """Return the annotations that a class or function has itself, nothing evaluated."""
    if sys.version_info >= (3, 14):
        annotationlib = importlib.import_module("annotationlib")
        notes = annotationlib.get_annotations(value, format=annotationlib.Format.FORWARDREF)
    else:
        notes = (
            vars(value).get("__annotations__")
            if isinstance(value, type)
            else (getattr(value, "__annotations__", None))
        )
    return dict(notes) if notes else MISSING


def documents(value: Any, places: Places) -> tuple[str, list[Any]]:
    """Return the docstring of a function, class or module, and the annotations that go with it."""
    doc = value.__doc__ if not isinstance(value, type) else vars(value).get("__doc__")
    text = inspect.cleandoc(doc) if isinstance(doc, str) else ""
    if isinstance(value, types.ModuleType):
        return text, []
    found = [annotations_of(value)]
    if isinstance(value, type):
        for name, member in sorted(vars(value).items()):
            fn: Any = member.__func__ if isinstance(member, _BINDING) else member
            fn = fn.fget if isinstance(fn, property) else fn
            while is_step(fn):
                fn = fn.__wrapped__
            if (
                isinstance(fn, types.FunctionType)
                and places.function(fn)
                and not _generated(value, fn)
            ):
                inner, notes = documents(fn, places)
                text += f"\0{name}\0{inner}"
                found += notes
    return text, [notes for notes in found if notes is not MISSING]


HELD["field"] = field_of
