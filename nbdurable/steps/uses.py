"""Objects that change by being used: which attributes of which, and in whose hands they are.

Invariant: an attribute is left out of the comparison only after it was seen to move while a
body ran, with nobody else at work on the object who could have moved it on purpose. All other
attributes of the object, and all plain data, count as ever.
"""

from __future__ import annotations

import dis
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol

from nbdurable.fingerprint import DRAWS, is_plain, joined_pieces, purposes_of, root_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from nbdurable.fingerprint import Attribute, Pieces, Print

_LOADING = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_MOST_CALLERS = 20
_OURS = f"{__name__.partition('.')[0]}."

Moved = tuple[tuple[str, object], ...]
"""Inputs that are no longer what they were, by name."""


class Memory(Protocol):
    """What a run remembers of the attributes that its steps' codes move."""

    def known(self, key: bytes, classes: dict[str, type]) -> frozenset[Attribute]:
        """Return the attributes of these classes that this code was seen to move by use."""

    def learn(self, key: bytes, attributes: dict[Attribute, type]) -> None:
        """Take in attributes that were seen to change by being used."""


class InUse:
    """Which objects are among the inputs of bodies that run now, or ran a moment ago."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, list[Use]] = {}
        self._left: dict[int, int] = {}
        self._moments = 0

    @property
    def moment(self) -> int:
        """A moment that nothing which ends from now on comes before."""
        return self._moments

    def enter(self, use: Use, instances: set[int]) -> None:
        """A body begins to run; it and those that run beside it know of each other."""
        with self._lock:
            for one in instances:
                beside = self._running.setdefault(one, [])
                for other in beside:
                    other.beside.add(use)
                    use.beside.add(other)
                beside.append(use)

    def leave(self, use: Use, instances: set[int]) -> None:
        """A body has ended."""
        with self._lock:
            self._moments += 1
            for one in instances:
                beside = self._running.get(one, [])
                if use in beside:
                    beside.remove(use)
                if not beside:
                    self._running.pop(one, None)
                self._left[one] = self._moments

    def used_since(self, moment: int, use: Use, instances: set[int]) -> bool:
        """Tell whether another body has had one of these objects since a moment."""
        with self._lock:
            return any(
                self._left.get(one, 0) > moment
                or any(other is not use for other in self._running.get(one, ()))
                for one in instances
            )


class Use:
    """One step's use of the objects among its inputs.

    ``reasons`` says of the inputs that are not explained who changed them, where that is known.
    """

    def __init__(  # noqa: PLR0917 - what a use is made of
        self,
        memory: Memory,
        in_use: InUse,
        key: bytes,
        prints: tuple[Print, ...],
        function: Callable[..., Any],
        moment: int,
    ) -> None:
        self.beside: set[Use] = set()
        self.prints = prints
        self.key = key
        self._memory = memory
        self._in_use = in_use
        self._function = function
        self._thread = threading.get_ident()
        self._callers = _callers()
        self._before = self.pieces(before=True)
        self._moment = moment
        self._start: Pieces | None = None
        self._instances: set[int] = set()

    def pieces(self, *, before: bool) -> Pieces:
        """Return the inputs taken apart: as they were at `go`, or as now."""
        inputs = [one.inputs for one in self.prints if one.inputs is not None]
        return joined_pieces([one.pieces(before=before) for one in inputs])

    def begin(self, moved: Moved) -> Moved:
        """Begin to use the objects; return those that somebody moved who only may use them."""
        self._instances = set(self._before.instances)
        self._in_use.enter(self, self._instances)
        self._start = None
        if not moved:
            return ()
        now = self.pieces(before=False)
        known = self._known(now)
        differing = self._before.differing(now, known)
        if differing is None:
            return moved
        left = differing - known
        others = self._in_use.used_since(self._moment, self, self._instances)
        if others:
            # It may be by their use: that is looked at when this body has ended.
            left = frozenset(one for one in left if not _may_be_left(one))
        else:
            self._start = now
            if left:
                # What differs from one look to the next changes by being looked at.
                looked = now.differing(self.pieces(before=False), known) or frozenset()
                self._learn(frozenset(one for one in looked if _may_be_left(one)), now)
                left -= self._known(now)
        return _not_explained(moved, differing, left, others=others)

    def leave(self) -> None:
        """The body has ended."""
        self._in_use.leave(self, self._instances)

    def changes_on_purpose(self, instances: set[int]) -> bool:
        """Tell whether this body changes one of some objects on purpose."""
        purposes = purposes_of(self._function, ..., frozenset())
        return not purposes.isdisjoint(self._before.roots_of(instances))

    def not_explained(self, moved: Moved, value: object) -> Moved:
        """Return what the body moved otherwise than by using it; learn of the rest."""
        now = self.pieces(before=False)
        known = self._known(now)
        mine = (self._start or self._before).differing(now, known)
        all_since = self._before.differing(now, known)
        if mine is None or all_since is None:
            return moved
        purposes = purposes_of(self._function, value, frozenset(one.name for one in mine))
        draws = frozenset(one for one in mine if one.name == DRAWS)
        new = frozenset(one for one in mine - known if _may_be_left(one))
        refused = {one for one in mine if one.root in purposes} - draws
        if new and any(one.changes_on_purpose(self._instances) for one in self.beside):
            refused |= new
        refused |= {one for one in new if self._is_stored_by_callers(one)}
        self._learn(new - refused, now)
        open_ends = (all_since - draws - self._known(now)) | refused
        others = self._in_use.used_since(self._moment, self, self._instances)
        return _not_explained(moved, all_since, frozenset(open_ends), others=others)

    def _is_stored_by_callers(self, attribute: Attribute) -> bool:
        """Tell whether the code that started this step may have moved an attribute meanwhile."""
        if threading.get_ident() == self._thread:
            return False  # it waits while the body runs
        return any(_stores(code, at, attribute) for code, at in self._callers)

    def _known(self, now: Pieces) -> frozenset[Attribute]:
        return self._memory.known(self.key, {**self._before.classes, **now.classes})

    def _learn(self, attributes: frozenset[Attribute], pieces: Pieces) -> None:
        classes = {**self._before.classes, **pieces.classes}
        new = {one: classes[one.cls] for one in attributes if one.cls in classes}
        if new:
            self._memory.learn(self.key, new)


def _may_be_left(attribute: Attribute) -> bool:
    """Tell whether it is an attribute of an object, and no plain data and no draws."""
    return bool(attribute.cls) and attribute.name != DRAWS


def _not_explained(
    moved: Moved,
    differing: frozenset[Attribute],
    open_ends: frozenset[Attribute],
    *,
    others: bool,
) -> Moved:
    """Return the inputs that moved otherwise than by attributes that are left out.

    Where others use an object, it may have moved between its digest and its taking apart.
    """
    roots = {one.root for one in differing}
    left = {one.root for one in open_ends}
    return tuple(
        (name, thing)
        for name, thing in moved
        if root_of(name) in left
        or (root_of(name) not in roots and (not others or thing is None or is_plain(thing)))
    )


def _callers() -> tuple[tuple[CodeType, int], ...]:
    """Return the code that starts a step, where it stands, and what called it."""
    found: list[tuple[CodeType, int]] = []
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way
    while frame is not None and len(found) < _MOST_CALLERS:
        if not str(frame.f_globals.get("__name__")).startswith(_OURS):
            found.append((frame.f_code, frame.f_lasti))
            if frame.f_code.co_name == "<module>":
                break
        frame = frame.f_back
    return tuple(found)


def _stores(code: CodeType, at: int, attribute: Attribute) -> bool:
    """Tell whether code assigns an attribute, or an item of it, after a place, or in its loop."""
    names = {attribute.name, attribute.holder} & {*code.co_names}
    if not names:
        return False
    steps = list(dis.get_instructions(code))
    loops = [int(one.argval) for one in steps if "JUMP_BACKWARD" in one.opname and one.offset > at]
    since = min([at, *loops])
    later = [one for one in steps if one.offset > since]
    if any(one.opname == "STORE_ATTR" and one.argval in names for one in later):
        return True
    loaded = any(one.opname in _LOADING and one.argval in names for one in later)
    return loaded and any(one.opname in {"STORE_SUBSCR", "DELETE_SUBSCR"} for one in later)
