"""What an object holds, seen without running anybody's code.

Invariant: whatever is returned is the live object itself, in an order that is the same in every
process.
"""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import gc
import pathlib
import re
import struct
import types
import typing
import uuid
import zoneinfo
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from nbdurable.fingerprint.prints import state_of
from nbdurable.fingerprint.values import LEAVES

if TYPE_CHECKING:
    from collections.abc import Sequence

STILL: set[type] = {
    *LEAVES, range, dt.datetime, dt.date, dt.time, dt.timedelta, dt.timezone, decimal.Decimal,
    fractions.Fraction, uuid.UUID, re.Pattern, zoneinfo.ZoneInfo, struct.Struct, types.CodeType,
    types.ModuleType, types.WrapperDescriptorType, types.MethodDescriptorType,
    types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
    types.FrameType, types.TracebackType, types.GenericAlias, types.UnionType, object,
    pathlib.PosixPath, pathlib.PurePosixPath, typing.TypeVar,
}  # fmt: skip
"""Types whose values can't change and lead to nothing that can; looked-up ones are added."""

_FEW = 64
_SLOTS: WeakKeyDictionary[type, tuple[Any, ...]] = WeakKeyDictionary()


def inside(items: Sequence[Any]) -> Sequence[Any]:
    """Return those of some items that may lead to something."""
    kinds = set(map(type, items))
    if kinds <= STILL:
        return ()
    if len(items) > _FEW and kinds & STILL:
        return [one for one in items if type(one) not in STILL]
    return items


def attributes(value: Any) -> list[Any]:
    """Return what an instance's attributes hold, in the order of their names."""
    try:
        held = state_of(value)
    except Exception:  # noqa: BLE001 - a `__dict__` of the user's own making
        return referents(value)
    found = [held[name] for name in sorted(held, key=str)]
    for slot in _slots_of(type(value)):
        try:
            found.append(slot.__get__(value))
        except (AttributeError, TypeError):
            continue  # nothing was put there
    return found


def referents(value: Any) -> list[Any]:
    """Return what an object made in C refers to, classes aside."""
    return [one for one in gc.get_referents(value) if not isinstance(one, type)]


def _slots_of(cls: type) -> tuple[Any, ...]:
    """Return the descriptors of the places that a class's instances have beside a dictionary."""
    found = _SLOTS.get(cls)
    if found is None:
        members = [
            (name, slot)
            for base in cls.__mro__
            if base.__module__ != "builtins"
            for name, slot in vars(base).items()
            if isinstance(slot, types.MemberDescriptorType)
        ]
        found = _SLOTS[cls] = tuple(slot for _, slot in sorted(members, key=lambda pair: pair[0]))
    return found
