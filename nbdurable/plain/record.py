"""What is saved of a plain cell, as plain data, and how it is laid out in a checkpoint.

Invariant: a record's dependencies are the parts of its evidence, so that they can be looked at
before anything of it is unpickled. No class of nbdurable's own is in a payload.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nbdurable.errors import DecodeError
from nbdurable.records import Part, digest_of

from .ambient import Edit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nbdurable.records import Checkpoint, Message

CELL: Final = "cell"
"""The step name of all plain cells."""

NAME, ABSENT, CODE, AMBIENT, ALIASES, CLOCK = (
    "cell name", "cell absent", "cell code", "cell ambient", "cell aliases", "cell clock",
)  # fmt: skip
"""Kinds of parts: a name that is read, names that must not be there, the code that is reached,
a part of the ambient state, the names that share objects with one that is changed, clocks."""

RESULT: Final = "the last value"
"""Stands among the names for the value of the last expression; no identifier is called so."""

_VERSION: Final = 1


def call_of(run: str, code: bytes) -> bytes:
    """Return the call under which the records of one cell's text are found in a run."""
    return digest_of(run.encode("ascii"), CELL.encode(), code)


@dataclass(frozen=True, slots=True)
class Kept:
    """What restoring a cell gives: values by groups, names that go, what is around, the result.

    ``marks`` are the digests of the groups, by their names joined; ``shown`` says whether the
    last value was shown, ``changes`` what the cell changed around it, by part. ``same`` are the
    names that stand for the objects that they stood for before, which were changed in place;
    ``code`` stands for the code as it was once all imports had been executed.
    """

    groups: tuple[Any, ...] = ()
    deleted: tuple[str, ...] = ()
    marks: Mapping[str, bytes] = field(default_factory=dict)
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    shown: bool = False
    same: tuple[str, ...] = ()
    code: bytes = b""

    def laid_out(self) -> tuple[Any, ...]:
        """Return it as plain data, to be pickled."""
        changes = {
            name: ("edit", None, tuple(new)) if isinstance(new, Edit) else ("set", old, new)
            for name, (old, new) in self.changes.items()
        }
        return (
            _VERSION, self.groups, self.deleted, dict(self.marks), changes, self.shown, self.same,
            self.code,
        )  # fmt: skip


def kept_of(data: Any) -> Kept:
    """Take apart what `Kept.laid_out` laid.

    Raises:
        DecodeError: It is something else.
    """
    match data:
        case (
            1, tuple(groups), tuple(deleted), dict(marks), dict(laid), bool(shown), tuple(same),
            bytes(code),
        ):  # fmt: skip
            changes = {
                name: (old, Edit(*new) if how == "edit" else new)
                for name, (how, old, new) in laid.items()
            }
            return Kept(groups, deleted, marks, changes, shown, same, code)
        case _:
            raise DecodeError("what is saved of this cell is no record of a plain cell")


@dataclass(frozen=True, slots=True)
class Found:
    """A saved record with its dependencies."""

    checkpoint: Checkpoint
    parts: tuple[Part, ...]

    def of_kind(self, *kinds: str) -> list[Part]:
        """Return its dependencies of some kinds."""
        return [one for one in self.parts if one.kind in kinds]


@dataclass(frozen=True, slots=True)
class Ran:
    """What is to be saved of a cell that has run, or why it can't be."""

    label: str
    code: bytes
    started: float
    seconds: float
    why: str
    messages: tuple[Message, ...] = ()
    parts: tuple[Part, ...] = ()
    kept: Kept | None = None
    unsaved: str = ""


def joined(names: frozenset[str]) -> str:
    """Return the names of a group as one text."""
    return " ".join(sorted(names))
