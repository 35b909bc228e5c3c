"""Functions and classes of the notebook, and what they keep beside their code.

Invariant: a definition is known by the name that leads to it in the notebook's namespace. It is
executed again in each kernel, so only what was put on it since is state.
"""

from __future__ import annotations

import enum
import os
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from nbdurable.fingerprint import Places

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MISSING: Final[Any] = type("Missing", (), {"__repr__": lambda _: "<missing>"})()

_CODE = (
    classmethod, staticmethod, property, types.MemberDescriptorType, types.GetSetDescriptorType,
    types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType,
    types.BuiltinFunctionType,
)  # fmt: skip
_MACHINERY = frozenset(
    {"_abc_impl", "_fields", "_field_defaults", "_member_map_", "_member_names_",
     "_value2member_map_", "_member_type_", "_generate_next_value_", "_new_member_", "_use_args_",
     "_unhashable_values_",
     "_value_repr_", "_hashable_values_", "_unhashable_values_map_", "_flag_mask_", "_all_bits_",
     "_boundary_", "_singles_mask_", "_inverted_", "_is_protocol", "_is_runtime_protocol"}
)  # fmt: skip


_projects = Places()


def is_module(value: Any) -> bool:
    """Tell whether a value is a module of the project: an installed one keeps no state of cells."""
    return (
        type(value) is types.ModuleType
        and value.__name__ != "__main__"
        and sys.modules.get(value.__name__) is value
        and _projects.module(value)
    )


def _project_modules() -> list[types.ModuleType]:
    """Return the loaded modules of the project; looked up again when others have been loaded."""
    if _loaded.get("count") != len(sys.modules):
        _loaded["count"] = len(sys.modules)
        _loaded["found"] = [one for one in list(sys.modules.values()) if is_module(one)]
    found: list[types.ModuleType] = _loaded["found"]
    return found


_loaded: dict[str, Any] = {}


def replace_in_modules(pairs: Iterable[tuple[str, object, object]]) -> None:
    """Let modules hold what stands for an object of theirs from now on.

    Args:
        pairs: Names of the notebook, what they stood for, and what they stand for now.
    """
    found = [one for one in pairs if type(one[1]) not in _ATOMS]
    if not found:
        return
    instead = {id(old): (old, new) for _, old, new in found}
    for module in _project_modules():
        space = vars(module)
        space.update({k: instead[id(v)][1] for k, v in list(space.items()) if id(v) in instead})
    for module in list(sys.modules.values()):
        space = getattr(module, "__dict__", {})
        for name, old, new in found:
            if space.get("__name__") != "__main__" and space.get(name, MISSING) is old:
                space[name] = new


def is_around(value: object) -> bool:
    """Tell whether a value is itself a part of what is around, which is set again as such."""
    matplotlib, pandas = sys.modules.get("matplotlib"), sys.modules.get("pandas")
    return (
        value is os.environ
        or value is sys.path
        or (matplotlib is not None and value is getattr(matplotlib, "rcParams", MISSING))
        or (pandas is not None and value is getattr(pandas, "options", MISSING))
    )


_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, tuple})


def module_state(module: types.ModuleType) -> dict[str, Any]:
    """Return the data that a module holds: neither its code, nor what it has imported."""
    return {
        name: value
        for name, value in vars(module).items()
        if not (name.startswith("__") and name.endswith("__"))
        and not isinstance(value, types.ModuleType | types.FunctionType | type)
        and not isinstance(value, types.BuiltinFunctionType)
        and type(value).__module__ != "typing"
    }


def led_to(namespace: Mapping[str, Any], qualname: object) -> Any:
    """Return what a qualified name leads to in a namespace, or MISSING."""
    if not isinstance(qualname, str) or "<" in qualname:
        return MISSING
    first, *rest = qualname.split(".")
    found = namespace.get(first, MISSING)
    for part in rest:
        if not isinstance(found, type):
            return MISSING
        found = vars(found).get(part, MISSING)
    return found


def is_own(namespace: Mapping[str, Any], value: Any) -> bool:
    """Tell whether a class or function is the notebook's, and its name leads to it."""
    if isinstance(value, type):
        return (
            vars(type)["__module__"].__get__(value) == namespace.get("__name__", "__main__")
            and led_to(namespace, value.__qualname__) is value
        )
    return (
        type(value) is types.FunctionType
        and value.__globals__ is namespace
        and value.__code__.co_qualname == value.__qualname__
        and led_to(namespace, value.__qualname__) is value
    )


def is_definition(namespace: Mapping[str, Any], value: Any) -> bool:
    """Tell whether a name's value is made again by a definition or an import of the notebook.

    Types are asked, for an object can say that it is of another class.
    """
    cls = type(value)
    if cls is types.ModuleType:
        return is_module(value)
    return (cls is types.FunctionType or issubclass(cls, type)) and is_own(namespace, value)


def class_state(cls: type) -> dict[str, Any]:
    """Return the data that a class holds itself, and the functions that were put on it later."""
    if isinstance(cls, enum.EnumMeta):
        return {}
    own = f"{cls.__qualname__}."
    return {
        name: value
        for name, value in vars(cls).items()
        if name not in _MACHINERY
        and not (name.startswith("__") and name.endswith("__"))
        and not isinstance(value, _CODE)
        and not _is_member(value, own)
        and not hasattr(type(value), "__set_name__")
        and not hasattr(type(value), "__set__")
    }


def _is_member(value: Any, own: str) -> bool:
    """Tell whether a function or class was written in the class, or made by a decorator there."""
    if not isinstance(value, types.FunctionType | type):
        return False
    return value.__qualname__.startswith(own) or "<locals>" in value.__qualname__


def copying_acts(namespace: Mapping[str, Any], cls: type) -> str:
    """Say which code of the notebook's would act when an instance is saved, or made again.

    Nothing if there is none: what only gives or takes an instance's own state does no harm.
    """
    for base in cls.__mro__:
        for name, held in vars(base).items():
            function = getattr(held, "__func__", held)
            if name not in _COPYING or getattr(function, "__globals__", None) is not namespace:
                continue
            plain = name == "__new__" and issubclass(base, _IMMUTABLE)
            if name in {"__del__", "__new__"} and not plain:
                return f"{base.__name__}.{name}() would be called for a copy"
            for one in function.__code__.co_names:
                value = namespace.get(one, MISSING)
                if value is not MISSING and not isinstance(value, _NO_DATA):
                    return f"{base.__name__}.{name}() would be called, which uses `{one}`"
    return ""


_IMMUTABLE = (tuple, str, int, float, frozenset, bytes, complex)
_NO_DATA = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type, *_IMMUTABLE)
_COPYING = frozenset(
    {"__new__", "__del__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__",
     "__getnewargs__", "__getnewargs_ex__", "__hash__", "__eq__", "__setattr__", "__getattribute__"}
)  # fmt: skip
"""Methods that are called when an instance is saved, made again, or let go of."""


def function_state(function: types.FunctionType) -> tuple[Any, ...]:
    """Return what a function keeps: defaults, defaults of keywords, attributes."""
    return function.__defaults__, function.__kwdefaults__, vars(function)


def has_state(value: Any) -> bool:
    """Tell whether a definition keeps anything that can change by being used."""
    if isinstance(value, types.ModuleType):
        return bool(module_state(value))
    if isinstance(value, type):
        return bool(class_state(value))
    defaults, keywords, attributes = function_state(value)
    return bool(defaults or keywords or attributes or value.__closure__)
