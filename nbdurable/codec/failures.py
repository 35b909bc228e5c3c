"""Errors taken apart and put together: what one consists of, and what it hangs on.

Invariant: putting one together runs no ``__new__``, ``__init__`` or ``__setattr__`` of its
class, whose arguments need not be its ``args``. What an error is made of is its type,
arguments, attributes, slots, notes and the fields that C keeps; what it hangs on are its
cause, its context and, where it is a group, its members.

This module pickles nothing itself: `nbdurable.codec.values` hands in what does.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import traceback
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbdurable.pickled import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Links = tuple[Any, Any, bool]
"""Cause, context, and whether the context is suppressed: errors, or their indices."""

Frame = tuple[str, int, str]
"""A line of a traceback: file, line number, function."""

_C_FIELDS: tuple[tuple[type[BaseException], tuple[str, ...]], ...] = (
    (BlockingIOError, ("characters_written",)),
    (OSError, ("errno", "strerror", "filename", "filename2")),
    (SyntaxError, ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset")),
    (UnicodeError, ("encoding", "object", "start", "end", "reason")),
    (ImportError, ("name", "path", "msg")),
    (StopIteration, ("value",)),
    (SystemExit, ("code",)),
    (NameError, ("name",)),
    (AttributeError, ("name",)),
)
"""What exceptions in C keep outside ``args`` and ``__dict__``, and let be set."""

_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")
_PACKAGE = str(Path(__file__).parents[1])
_MOST_FRAMES = 50
_MOST_UNITS = 8
_NO_COLUMNS = 0x80 | 13 << 3


# --- what an error is made of -----------------------------------------------------------


def reduction(
    error: BaseException, keep: Callable[[str, object], object], *, linked: bool
) -> tuple[Any, ...]:
    """Return how an error is pickled: an empty one of its class, then all that it holds.

    Args:
        error: What is being pickled.
        keep: Called with the name of each part; says what is stored for it.
        linked: Whether what it hangs on is stored elsewhere.
    """
    kind = type(error)
    made: tuple[Any, ...] = (kind,)
    args: Any = _c_descriptor(kind, "args").__get__(error)
    if isinstance(error, BaseExceptionGroup):
        members: Any = list(error.exceptions)
        if _is_plain_group(error):
            members, args = type(args[1])(members), None
        made = (kind, error.message, members)
    if args is not None:
        args = tuple(keep("args", one) for one in args)
    attributes = {
        name: keep(name, value) for name, value in vars(error).items() if name != "__notes__"
    }
    slots = [
        (owner, name, keep(name, value))
        for owner, name, descriptor in _slots(kind)
        for value in _values(descriptor, error)
    ]
    fields = [
        (name, keep(name, value))
        for name in _c_fields(kind)
        for value in _values(_c_descriptor(kind, name), error)
        if value is not None
    ]
    state = (args, attributes, slots, fields, _extra(error, linked=linked))
    return empty, made, state, None, None, fill


def own_reduction(error: BaseException, protocol: int, *, linked: bool) -> Any:
    """Return how the class of an error says that it is pickled, with notes and what it hangs on."""
    reduced = error.__reduce_ex__(protocol)
    if not isinstance(reduced, tuple):
        return reduced
    make, arguments, state, items, pairs, setter = (*reduced, None, None, None, None)[:6]
    extra = _extra(error, linked=linked)
    return make, arguments, (state, setter, extra), items, pairs, fill_own


@frozen("error")
def empty(
    kind: type[BaseException], message: str = "", members: Sequence[BaseException] | None = None
) -> BaseException:
    """Make an error that holds nothing but its type, and a group's members."""
    builtin: Any = _builtin(kind)
    made: BaseException
    made = builtin.__new__(kind) if members is None else builtin.__new__(kind, message, members)
    return made


@frozen("fill_error")
def fill(error: BaseException, state: tuple[Any, ...]) -> None:
    """Set all that a restored error holds."""
    args, attributes, slots, fields, extra = state
    if args is not None:
        _c_descriptor(type(error), "args").__set__(error, args)
    vars(error).update(attributes)
    for owner, name, value in slots:
        vars(owner)[name].__set__(error, value)
    for name, value in fields:
        _c_descriptor(type(error), name).__set__(error, value)
    _fill_extra(error, extra)


@frozen("fill_own_error")
def fill_own(error: BaseException, state: tuple[Any, ...]) -> None:
    """Set the state, the notes and the links of an error that its own reduction has made."""
    own, setter, extra = state
    if setter is not None:
        setter(error, own)
    elif own is not None:
        plain, slots = own if isinstance(own, tuple) else (own, {})
        error.__setstate__(plain)
        for name, value in (slots or {}).items():
            setattr(error, name, value)
    if isinstance(error, BaseException):
        vars(error).pop("__notes__", None)
        _fill_extra(error, extra)


def reduces_itself(kind: type[BaseException]) -> bool:
    """Tell whether a class of errors has a reduction that is not Python's own for them."""
    owner = next(base for base in kind.__mro__ if "__reduce__" in vars(base))
    return owner.__module__ != "builtins" or "__reduce_ex__" in vars(kind)


def same(found: object, error: BaseException) -> bool:
    """Tell whether a restored error is what the error was, as far as that can be seen."""
    return (
        type(found) is type(error)
        and isinstance(found, BaseException)
        and words(found) == words(error)
        and vars(found).keys() - {"__notes__"} == vars(error).keys() - {"__notes__"}
    )


def words(error: BaseException) -> tuple[str | None, str | None]:
    """Return an error's ``str`` and ``repr`` without addresses; None for one that fails."""
    found: list[str | None] = [None, None]
    with contextlib.suppress(Exception):
        found[0] = _ADDRESS.sub("0x", str(error))
    with contextlib.suppress(Exception):
        found[1] = _ADDRESS.sub("0x", repr(error))
    return found[0], found[1]


def attribute(error: BaseException, value: object) -> str:
    """Return the attribute or slot of an error that holds `value`; nothing if none does."""
    slots = {
        name: one
        for _, name, descriptor in _slots(type(error))
        for one in _values(descriptor, error)
    }
    return next((name for name, one in {**vars(error), **slots}.items() if one is value), "")


def _is_plain_group(group: BaseExceptionGroup[Any]) -> bool:
    """Tell whether a group's arguments are its message and its members, which make them again."""
    if len(group.args) != 2 or type(group.args[1]) not in {list, tuple}:  # noqa: PLR2004
        return False
    message, members = group.args
    return message == group.message and list(map(id, members)) == list(map(id, group.exceptions))


def _builtin(kind: type[BaseException]) -> type:
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def _slots(kind: type[BaseException]) -> list[tuple[type, str, Any]]:
    """Return the slots of a class and its bases: which class has it, its name, what reads it."""
    return [
        (owner, name, descriptor)
        for owner in kind.__mro__
        if "__slots__" in vars(owner)
        for name, descriptor in vars(owner).items()
        if isinstance(descriptor, types.MemberDescriptorType)
    ]


def _c_fields(kind: type[BaseException]) -> list[str]:
    return [name for base, names in _C_FIELDS if issubclass(kind, base) for name in names]


def _c_descriptor(kind: type[BaseException], name: str) -> Any:
    """Return what reads and sets a field in C, whatever a subclass has put before it."""
    return inspect.getattr_static(_builtin(kind), name)


def _values(descriptor: Any, error: BaseException) -> list[object]:
    """Return the value of a slot or a field; none where it was never set."""
    with contextlib.suppress(AttributeError, TypeError):
        return [descriptor.__get__(error, type(error))]
    return []


def _extra(error: BaseException, *, linked: bool) -> tuple[tuple[str, ...], Links | None]:
    notes = getattr(error, "__notes__", ())
    texts = tuple(one for one in notes if isinstance(one, str)) if type(notes) is list else ()
    return texts, None if linked else links_of(error)


def _fill_extra(error: BaseException, extra: tuple[tuple[str, ...], Links | None]) -> None:
    notes, links = extra
    if notes:
        vars(error)["__notes__"] = list(notes)
    if links is not None:
        link(error, *links)


# --- what an error hangs on -------------------------------------------------------------


def chain(error: BaseException) -> list[BaseException]:
    """Return an error and all that it hangs on, each after its members; the error comes last."""
    order: list[BaseException] = []
    seen: set[int] = set()
    stack = [(error, False)]
    while stack:
        one, is_done = stack.pop()
        if is_done:
            order.append(one)
        elif id(one) not in seen:
            seen.add(id(one))
            stack.append((one, True))
            others = [one.__cause__, one.__context__]
            stack += [(other, False) for other in others if other is not None]
            if isinstance(one, BaseExceptionGroup):
                stack += [(member, False) for member in one.exceptions]
    return order


def members_of(error: BaseException) -> list[BaseException]:
    """Return an error and, of a group, all its members."""
    found = [error]
    for one in found:
        if isinstance(one, BaseExceptionGroup):
            found += one.exceptions
    return found


def links_of(error: BaseException) -> Links:
    """Return an error's cause, context, and whether that is suppressed."""
    return error.__cause__, error.__context__, error.__suppress_context__


def link(
    error: BaseException,
    cause: BaseException | None,
    context: BaseException | None,
    suppress: bool,  # noqa: FBT001 - pickled by its position
) -> None:
    """Hang an error on its cause and its context."""
    # Whatever the class has put in the way of setting attributes.
    BaseException.__setattr__(error, "__cause__", cause)
    BaseException.__setattr__(error, "__context__", context)
    BaseException.__setattr__(error, "__suppress_context__", suppress)


# --- tracebacks -------------------------------------------------------------------------


def told(error: BaseException) -> str:
    """Return an error with its traceback, and those it hangs on, without the engine's lines."""
    whole = traceback.TracebackException.from_exception(error)
    pending, seen = [whole], set[int]()
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        others = [frame for frame in one.stack if not frame.filename.startswith(_PACKAGE)]
        one.stack[:] = others or one.stack
        pending += [other for other in (one.__cause__, one.__context__) if other is not None]
        pending += one.exceptions or ()
    return "".join(whole.format())


def frames_of(error: BaseException) -> list[Frame]:
    """Return where an error was raised and passed on, without the engine's own lines."""
    found: list[Frame] = []
    entry = error.__traceback__
    while entry is not None:
        code = entry.tb_frame.f_code
        if not code.co_filename.startswith(_PACKAGE):
            found.append((code.co_filename, entry.tb_lineno or 0, code.co_name))
        entry = entry.tb_next
    return found[-_MOST_FRAMES:]


def traceback_of(frames: list[Frame]) -> types.TracebackType | None:
    """Return a traceback that shows these lines; its frames hold nothing else."""
    trace = None
    for filename, line, name in reversed(frames):
        code = _a_frame.__code__.replace(
            co_filename=filename,
            co_name=name,
            co_qualname=name,
            co_firstlineno=line,
            co_linetable=_on_one_line(len(_a_frame.__code__.co_code)),
        )
        frame = types.FunctionType(code, {"sys": sys})()
        trace = types.TracebackType(trace, frame, 0, line)
    return trace


def _a_frame() -> types.FrameType:
    return sys._getframe()  # noqa: SLF001 - the only way to a frame


def _on_one_line(size: int) -> bytes:
    """Return a line table (Objects/locations.md of CPython) with one line and no columns."""
    entries = bytearray()
    units = size // 2
    while units:
        covered = min(units, _MOST_UNITS)
        entries += bytes([_NO_COLUMNS | (covered - 1), 0])
        units -= covered
    return bytes(entries)
