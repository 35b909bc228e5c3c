"""Events as JSON text, and back from a text that anybody may have written.

Invariant: what is read back has the types that the events say, texts without control
characters and of bounded length; whatever else is a `ValueError`.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import types
import typing
from typing import Any, Final

from nbdurable import events
from nbdurable.labels import printable
from nbdurable.records import Kind, RunStatus, Why

_LONGEST: Final = 500
"""Of a text so many characters are told."""
_MOST: Final = 10_000
_HIGHEST: Final = 2**53

_CLASSES: Final = {one.__name__: one for one in typing.get_args(events.Event)}
_NAMES: Final = {"Kind": Kind, "RunStatus": RunStatus, "Why": Why}


def packed(event: events.Event) -> list[Any]:
    """Return an event as what JSON can hold."""
    values = (getattr(event, one.name) for one in dataclasses.fields(event))
    return [type(event).__name__, *(_cut(one) for one in values)]


def unpacked(data: object) -> events.Event:
    """Return the event that `packed` laid.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(data, list) or not data or not isinstance(data[0], str):
        raise ValueError("no event")
    kind = _CLASSES.get(data[0])
    if kind is None:
        raise ValueError("no such event")
    hints = _hints(kind)
    if len(data) != len(hints) + 1:
        raise ValueError("an event of another form")
    values = [_checked(one, hint) for one, hint in zip(data[1:], hints, strict=True)]
    event: events.Event = kind(*values)
    return event


def whole(data: object) -> int:
    """Return a whole number that a stranger's text holds.

    Raises:
        ValueError: It is none.
    """
    return int(_checked(data, int))


def text(data: object) -> str:
    """Return a text that a stranger's text holds, as `whole` does."""
    return str(_checked(data, str))


def _cut(value: Any) -> Any:
    return (
        value[:_LONGEST] if isinstance(value, str) and not isinstance(value, enum.Enum) else value
    )


@functools.cache
def _hints(kind: type) -> tuple[Any, ...]:
    found = typing.get_type_hints(kind, vars(events), _NAMES)
    return tuple(found[one.name] for one in dataclasses.fields(kind))


def _checked(value: object, hint: Any) -> Any:
    if hint is type(None):
        return _only(value, value is None)
    if isinstance(hint, types.UnionType):
        parts = typing.get_args(hint)
        if value is None and type(None) in parts:
            return None
        (other,) = (one for one in parts if one is not type(None))
        return _checked(value, other)
    if typing.get_origin(hint) is tuple:
        items = _only(value, isinstance(value, list) and len(value) <= _MOST)
        return tuple(_checked(one, typing.get_args(hint)[0]) for one in items)
    if hint is str:
        return printable(_only(value, isinstance(value, str))[:_LONGEST])
    if hint is bool:
        return _only(value, isinstance(value, bool))
    if hint is int:
        fits = type(value) is int and -_HIGHEST < value < _HIGHEST
        return _only(value, fits)
    if hint is float:
        fits = type(value) in {int, float} and math.isfinite(value)  # type: ignore[arg-type]
        return float(_only(value, fits))
    return hint(value)  # an enum's value, or a ValueError


def _only(value: object, fits: bool) -> Any:  # noqa: FBT001 - the answer itself
    if not fits:
        raise ValueError("a value of another type")
    return value
