"""The table of what is the process's and not any name's, and what a change in it is.

Invariant: a part's value is a copy, comparable by ``==`` and picklable; of what changed only that
is recorded, and what can't be set again is named.
"""

from __future__ import annotations

import hashlib
import re
import sys
import threading
import types
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nbdurable.isolation import when_loaded
from nbdurable.pickled import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MISSING: Final = "<missing>"
"""In place of a key's value that is not there; also of a part whose library is not imported."""


class Part(NamedTuple):
    """One entry of the table.

    ``keyed`` says that the value is a dictionary of which only the keys that changed are
    recorded; ``edits``, that it is a list of which the edit is recorded; ``draws``, that it is
    a random generator's state. ``refuse`` tells of a changed value (or key and value) why it
    can't be set again, or nothing.
    """

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any, Any], object]
    library: str = ""
    keyed: bool = False
    edits: bool = False
    draws: bool = False
    refuse: Callable[[Any, Any], str] = lambda _, __: ""


class Edit(NamedTuple):
    """How a list became another: what went, what came to the front, to the end; or all of it."""

    removed: tuple[Any, ...]
    front: tuple[Any, ...]
    end: tuple[Any, ...]
    whole: tuple[Any, ...] | None = None

    def __reduce__(self) -> Any:
        return edit, tuple(self)


@frozen("ambient_edit")
def edit(*fields: Any) -> Edit:
    """Restore an edit that was saved."""
    return Edit(*fields)


@dataclass(frozen=True, slots=True)
class Ambient:
    """How the process was at one moment."""

    values: Mapping[str, Any]

    def digest(self, part: str, keys: Iterable[str] | None = None) -> bytes:
        """Return a digest of one part, or of some keys of it; equal in every process."""
        value = self.values.get(part, MISSING)
        if keys is not None and isinstance(value, dict):
            value = {key: value.get(key, MISSING) for key in keys}
        return digest_of(value)


@dataclass(frozen=True, slots=True)
class Changes:
    """What of the process's state a cell changed: picklable, by part.

    ``parts`` holds the value before and after, for a keyed part only of the keys that
    changed, for a list the `Edit`. ``refused`` says of what can't be set again why.
    """

    parts: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.parts or self.refused)

    def __reduce__(self) -> Any:
        return changes_of, (dict(self.parts), dict(self.refused))

    @property
    def draws(self) -> frozenset[str]:
        """The random generators that the cell moved: their state before is a dependency."""
        return frozenset(name for name in self.parts if name in _TABLE and _TABLE[name].draws)


@frozen("ambient_changes")
def changes_of(parts: dict[str, Any], refused: dict[str, str]) -> Changes:
    """Restore changes that were saved."""
    return Changes(parts, refused)


_TABLE: dict[str, Part] = {}
_lock = threading.Lock()


def register(
    name: str,
    read: Callable[[], Any],
    restore: Callable[[Any, Any], object],
    *,
    library: str = "",
    keyed: bool = False,
    draws: bool = False,
) -> None:
    """Add a part to the table, or put another in the place of one.

    Args:
        name: What it is called where it is told.
        read: Returns the part now: a copy, comparable by ``==``, picklable.
        restore: Is given the values before and after, and sets what changed between them.
        library: The module that must be imported for it.
        keyed: Whether the value is a dictionary, of which only changed keys are recorded.
        draws: Whether it is a random generator's state.
    """
    add(Part(name, read, restore, library, keyed=keyed, draws=draws))


def add(part: Part) -> None:
    """Add a part to the table, in the order in which parts are set again."""
    with _lock:
        _TABLE[part.name] = part


def parts() -> tuple[Part, ...]:
    """Return the parts, in the order in which they are set again."""
    return tuple(_TABLE.values())


def seen() -> Ambient:
    """Return how the process is now."""
    modules = sys.modules
    found = {}
    for name, part in list(_TABLE.items()):
        if not part.library or part.library in modules:
            found[name] = part.read()
        elif name in _waiting and not part.keyed and not part.edits:
            found[name] = _waiting[name][1]
    return Ambient(found)


def changed(before: Ambient, after: Ambient) -> Changes:
    """Return what changed between two moments, and of that what can't be set again."""
    found: dict[str, tuple[Any, Any]] = {}
    refused: dict[str, str] = {}
    for name, new in after.values.items():
        old = before.values.get(name, MISSING)
        part = _TABLE.get(name)
        if part is None or old is new or _same(old, new):
            continue
        if old is MISSING and not part.draws:
            old = _arrived.get(name, {} if part.keyed else () if part.edits else MISSING)
            if _same(old, new):
                continue
        if part.keyed and isinstance(old, dict):
            keys = [key for key in old.keys() | new.keys() if not _same_at(old, new, key)]
            pairs = {key: (old.get(key, MISSING), new.get(key, MISSING)) for key in sorted(keys)}
            reasons = {key: part.refuse(key, pair[1]) for key, pair in pairs.items()}
            refused |= {f"{name}: {key}": why for key, why in reasons.items() if why}
            kept = {key: pair for key, pair in pairs.items() if not reasons[key]}
            if kept:
                found[name] = (
                    {key: pair[0] for key, pair in kept.items()},
                    {key: pair[1] for key, pair in kept.items()},
                )
        elif (why := part.refuse(old, new)) != "":
            refused[name] = why
        elif part.edits:
            found[name] = (None, edit_of(old, new))
        else:
            found[name] = (old, new)
    return Changes(found, refused)


def restore(changes: Changes) -> Changes:
    """Make the process as it was after some changes; return those that wait for an import.

    A cell's imports run after its changes were set again (a folder is added to `sys.path`,
    then something in it is imported): what waits is set again when its library is imported.

    Raises:
        KeyError: A part is not in the table (any more).
    """
    unknown = changes.parts.keys() - _TABLE.keys()
    if unknown:
        raise KeyError(*sorted(unknown))
    left = {}
    for name, part in list(_TABLE.items()):
        if name in changes.parts:
            if part.library and part.library not in sys.modules:
                left[name] = changes.parts[name]
                _wait(part, *changes.parts[name])
            else:
                part.restore(*changes.parts[name])
    return Changes(left)


_waiting: dict[str, tuple[Any, Any]] = {}
_hooked: set[str] = set()


def _wait(part: Part, old: Any, new: Any) -> None:
    """Set a part again once its library is imported; of several changes, all of them."""
    if part.name in _waiting and part.keyed:
        before = _waiting[part.name]
        old, new = {**old, **before[0]}, {**before[1], **new}
    _waiting[part.name] = old, new

    def arrived(_: Any) -> None:
        if (waiting := _waiting.pop(part.name, None)) is not None:
            part.restore(*waiting)

    if part.name not in _hooked:
        _hooked.add(part.name)
        when_loaded(part.library, arrived)


def digest_of(value: Any) -> bytes:
    """Return a digest of a part's value: the same in every process."""
    text = _written(value).encode("utf-8", "backslashreplace")
    return hashlib.blake2b(text, digest_size=16).digest()


def _written(value: Any) -> str:
    if isinstance(value, dict):
        inner = ",".join(f"{key!r}:{_written(value[key])}" for key in sorted(value, key=repr))
        return f"{{{inner}}}"
    if isinstance(value, tuple | list):
        return f"({','.join(map(_written, value))})"
    if isinstance(value, re.Pattern):
        return f"re({value.pattern!r},{value.flags})"
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, bytes) and len(value) > _LONG:
        return hashlib.blake2b(value, digest_size=16).hexdigest()
    return repr(value)


_LONG = 64


_arrived: dict[str, Any] = {}


def arrive(name: str) -> None:
    """Note how a part is when its library has just been imported: that is no change of a cell's."""
    _arrived[name] = _TABLE[name].read()


def _same(old: Any, new: Any) -> bool:
    try:
        return bool(old == new)
    except Exception:  # noqa: BLE001 - a value of a library's, compared by its own code
        return False


def _same_at(old: dict[Any, Any], new: dict[Any, Any], key: Any) -> bool:
    mine, other = old.get(key, MISSING), new.get(key, MISSING)
    return mine is other or _same(mine, other)


def edit_of(old: Iterable[Any], new: Iterable[Any]) -> Edit:
    """Return how a list became another."""
    before, after = list(old), list(new)
    kept = before if (at := _find(after, before)) is not None else [x for x in before if x in after]
    if at is None:
        at = _find(after, kept)
    if at is None:
        return Edit((), (), (), tuple(after))
    removed = [one for one in before if one not in after]
    return Edit(tuple(removed), tuple(after[:at]), tuple(after[at + len(kept) :]))


def _find(whole: list[Any], part: list[Any]) -> int | None:
    """Return where one list is in another, in one piece."""
    for at in range(len(whole) - len(part) + 1):
        if whole[at : at + len(part)] == part:
            return at
    return None


def edited(present: Iterable[Any], edit: Edit) -> list[Any]:
    """Return a list with an edit made to it: what it puts in is there once."""
    if edit.whole is not None:
        return list(edit.whole)
    gone = [*edit.removed, *edit.front, *edit.end]
    kept = [one for one in present if one not in gone]
    return [*edit.front, *kept, *edit.end]
