"""What a fingerprint is handed over as: a digest, its parts, and what to tell the user.

Invariant: a `Print` never changes after it was made; `moved` only looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FunctionType

NOT_COMPARED = "not compared"
WRITTEN = "written"
NO_SOURCE = "no source"
_CONNECTION = "DuckDBPyConnection"
"""What steps that run at once can't share, although nothing refuses it: results get mixed up."""


def digest16(data: bytes) -> bytes:
    """Digest of 16 bytes that stands for ``data``."""
    return blake2b(data, digest_size=16).digest()


def digest8(data: bytes) -> bytes:
    """Digest of 8 bytes: enough to see that one named part changed."""
    return blake2b(data, digest_size=8).digest()


class Note(NamedTuple):
    """Something the user should be told once."""

    kind: str
    where: str
    what: str

    def __str__(self) -> str:
        """Say it in one line."""
        if self.kind == WRITTEN:
            return f"writes global `{self.where}`: on replay that change won't happen"
        if self.kind == NO_SOURCE:
            return f"no source: `{self.where}` ({self.what})"
        said = f"{self.kind}: `{self.where}` ({self.what})"
        if self.what.endswith(_CONNECTION):
            said += "; steps that use it at once need `con.cursor()` each, or limit=1"
        return said


def nothing_moved(_sample: bool) -> tuple[tuple[str, object], ...]:  # noqa: FBT001
    """Answer for a print that read nothing that can change."""
    return ()


class Content(NamedTuple):
    """A global that a step's code writes: no input, but compared with what the run left there.

    ``read`` says whether the code reads it as data, too.
    """

    name: str
    get: Callable[[], Any]
    read: bool


class Inputs(Protocol):
    """What a print can still say of the objects that were digested, as they are now."""

    def pieces(self, *, before: bool) -> Pieces:
        """Return the inputs taken apart: as they were when they were digested, or as now."""

    def generators(self) -> tuple[Any, ...]:
        """Return the random generators among the inputs, in the order of the walk."""

    def digest_without(self, used: Used) -> bytes:
        """Return the digest as it is now, some attributes left out."""


def nothing_shifted() -> tuple[str, ...]:
    """Return the names of inputs that may move and did; there are none."""
    return ()


DRAWS = "its draws"
"""In place of an attribute's name: the state of a random generator."""

STATE = "its state"
"""In place of an attribute's name: a state that is not made of attributes."""

OTHER = "what it is made of"
"""In place of an attribute's name: what an instance's pickle says beside attributes."""

_MOST_PIECES = 20_000


class Attribute(NamedTuple):
    """An attribute of the instances of one class, as far as one input leads to them.

    ``root`` is the input's name, ``holder`` the attribute that leads to the instance, empty
    where it is the input itself or in a container of it. Where ``cls`` is empty it is what
    an input is beside the instances in it.
    """

    root: str
    holder: str
    cls: str
    name: str

    def __str__(self) -> str:
        """Name it as a user would."""
        via = f"{self.root}.{self.holder}" if self.holder else self.root
        kind = self.cls.rpartition(".")[2]
        return f"{via}: {kind}" if " " in self.name or not self.name else f"{via}.{self.name}"


Used = Mapping[Attribute, frozenset[bytes]]
"""Attributes that change by being used, each with the texts of the classes that were seen to."""

NOTHING_USED: Used = {}


class Pieces:
    """An input taken apart: what each attribute holds, without the instances in it.

    An attribute that leads to what is new leaves no trace on what it leads to; so each
    instance is met once, whatever the number of ways to it. ``instances`` are the identities
    of those met; ``complete`` says whether all was kept.
    """

    __slots__ = (
        "_edges", "_holders", "_kinds", "_sums", "_texts", "classes", "complete", "instances",
    )  # fmt: skip

    def __init__(self) -> None:
        self.classes: dict[str, type] = {}
        self.instances: dict[int, object] = {}
        self.complete = True
        self._sums: dict[Attribute, int] = {}
        self._texts: dict[int, dict[str, bytes]] = {}
        self._holders: dict[int, set[tuple[str, str]]] = {}
        self._edges: dict[int | None, list[tuple[str, int, tuple[str, str]]]] = {}
        self._kinds: dict[int, type] = {}

    def plain(self, root: str, text: bytes) -> None:
        """Keep what an input is beside the instances in it."""
        self._sums[Attribute(root, "", "", "")] = int.from_bytes(digest8(text))

    def meet(self, value: object, where: tuple[str, str], owner: tuple[int, str] | None) -> bool:
        """Take in a way to an instance; tell whether it is the first."""
        one = id(value)
        subject, attribute = owner or (None, "")
        self._edges.setdefault(subject, []).append((attribute, one, where))
        holders = self._holders.setdefault(one, set())
        if where not in holders:
            holders.add(where)
            for name, text in self._texts.get(one, {}).items():
                self._sum(one, where, name, text)
        if one in self.instances:
            return False
        if len(self.instances) >= _MOST_PIECES:
            self.complete = False
        self.instances[one] = value
        self._kinds[one] = cls = type(value)
        self.classes[_qualified(cls)] = cls
        return True

    def add(self, one: int, name: str, text: bytes) -> None:
        """Keep what an attribute of an instance that was met holds."""
        self._texts.setdefault(one, {})[name] = text = digest8(text)
        for where in self._holders[one]:
            self._sum(one, where, name, text)

    def _sum(self, one: int, where: tuple[str, str], name: str, text: bytes) -> None:
        attribute = self._attribute(one, where, name)
        known = self._sums.get(attribute, 0)
        self._sums[attribute] = (known + int.from_bytes(text)) % (1 << 64)

    def _attribute(self, one: int, where: tuple[str, str], name: str) -> Attribute:
        return Attribute(*where, _qualified(self._kinds[one]), name)

    def differing(self, other: Pieces, known: frozenset[Attribute]) -> frozenset[Attribute] | None:
        """Return the attributes that are others there; None if that can't be told.

        Not those that only attributes lead to that are known to change, or that have changed.
        """
        if not (self.complete and other.complete):
            return None
        mine, theirs = self._sums, other._sums
        found = {
            where for where in mine.keys() | theirs.keys() if mine.get(where) != theirs.get(where)
        }
        if not found:
            return frozenset()
        cut = found | known
        return frozenset(found & (self._reachable(cut) | other._reachable(cut)))

    def _reachable(self, cut: set[Attribute] | frozenset[Attribute]) -> set[Attribute]:
        """Return the attributes that are met on ways that use none of `cut`."""
        found = {where for where in self._sums if not where.cls}
        todo = [(one, where) for _, one, where in self._edges.get(None, ())]
        met = set(todo)
        while todo:
            way = one, where = todo.pop()
            found.update(self._attribute(*way, name) for name in self._texts.get(one, ()))
            for name, inner, holder in self._edges.get(one, ()):
                if (inner, holder) not in met and self._attribute(one, where, name) not in cut:
                    met.add((inner, holder))
                    todo.append((inner, holder))
        return found

    def roots_of(self, instances: set[int]) -> set[str]:
        """Return the names of the inputs that lead to some instances."""
        met = instances & self.instances.keys()
        return {root for one in met for root, _ in self._holders[one]}

    def join(self, other: Pieces) -> None:
        """Take in the pieces of another input."""
        self._sums.update(other._sums)
        self.classes.update(other.classes)
        self.instances.update(other.instances)
        for one, holders in other._holders.items():
            self._holders.setdefault(one, set()).update(holders)
        for subject, edges in other._edges.items():
            self._edges.setdefault(subject, []).extend(edges)
        for one, texts in other._texts.items():
            self._texts.setdefault(one, {}).update(texts)
        self._kinds.update(other._kinds)
        self.complete &= other.complete


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


class Ignored(NamedTuple):
    """What a step leaves out: names of its own parameters, and of globals of its own module."""

    names: frozenset[str] = frozenset()
    space: Any = None  # the namespace of the step's module


NOTHING_IGNORED = Ignored()


class Digested(NamedTuple):
    """One value's encoding, for calls that have the value in common."""

    value: object
    text: bytes
    sampled: bytes | None
    settled: bytes | None  # without what changes by being used
    mutable: bool
    changing: bool = False  # whether there are instances in it, or it draws
    generators: tuple[Any, ...] = ()
    pieces: list[Pieces] = []  # noqa: RUF012 - where there are any, a list of its own is given
    used: Used = NOTHING_USED  # what was left out


class Covered(Protocol):
    """The code that a fingerprint is of; `nbdurable.fingerprint.covered` has it."""

    @property
    def ids(self) -> frozenset[int]:
        """The identities of all code objects."""

    @property
    def places(self) -> frozenset[tuple[str, str, int]]:
        """Where each code object stands: file, name there, first line."""

    @property
    def texts(self) -> frozenset[str]:
        """What may be names of files among constants and data."""

    @property
    def names(self) -> frozenset[str]:
        """The global names, attributes and modules that the code names."""

    @property
    def variables(self) -> frozenset[str]:
        """What may name environment variables."""

    def functions(self) -> list[FunctionType]:
        """Return the functions."""


Held = dict[str, "Digested | None"]
"""By parameter: what many calls have in common; None is not digested yet."""


class Print:
    """Result of digesting code, arguments or one value.

    ``shifted`` returns the names of inputs that are told, and no fault, when they move.
    ``rebound`` returns the names that stand for other objects now.
    ``inputs`` is None where nothing among them has attributes, or draws.
    ``covered`` is the code that a print of code is of.
    """

    __slots__ = (
        "_moved", "_named", "_parts", "contents", "covered", "digest", "inputs", "notes", "rebound",
        "seconds", "shifted",
    )  # fmt: skip

    digest: bytes
    notes: tuple[Note, ...]
    seconds: float

    def __init__(  # noqa: PLR0917 - most are made where time matters
        self,
        digest: bytes,
        named: Iterable[tuple[str, bytes]],
        notes: tuple[Note, ...] = (),
        seconds: float = 0.0,
        moved: Callable[[bool], tuple[tuple[str, object], ...]] = nothing_moved,
        shifted: Callable[[], tuple[str, ...]] = nothing_shifted,
        inputs: Inputs | None = None,
        contents: tuple[Content, ...] = (),
        rebound: Callable[[], frozenset[str]] = frozenset,
        covered: Covered | None = None,
    ) -> None:
        self.digest = digest
        self.covered = covered
        self.rebound = rebound
        self.contents = contents
        self.inputs = inputs
        self.shifted = shifted
        self._named = named
        self._parts: tuple[tuple[str, bytes], ...] | None = None
        self.notes = notes
        self.seconds = seconds
        self._moved = moved

    @property
    def parts(self) -> tuple[tuple[str, bytes], ...]:
        """Names with a digest of 8 bytes each, sorted by name."""
        if self._parts is None:
            self._parts = tuple(sorted((name, digest8(text)) for name, text in self._named))
        return self._parts

    def moved(self, *, sample: bool = False) -> tuple[tuple[str, object], ...]:
        """Names and objects of the mutable inputs that no longer have the digest they had.

        Args:
            sample: compare what is above 256 MB by sampled blocks.
        """
        return self._moved(sample)

    def timed(self, seconds: float) -> Print:
        """Return the same print with another time spent."""
        return Print(
            self.digest,
            self._named,
            self.notes,
            seconds,
            self._moved,
            self.shifted,
            self.inputs,
            self.contents,
            self.rebound,
            self.covered,
        )

    def pinned(self, digest: bytes, versions: Iterable[tuple[str, bytes]]) -> Print:
        """Return the same print with versions of packages among its parts, and that digest."""
        return Print(
            digest,
            [*self._named, *versions],
            self.notes,
            self.seconds,
            self._moved,
            self.shifted,
            self.inputs,
            self.contents,
            self.rebound,
            self.covered,
        )

    def __repr__(self) -> str:
        """Show the digest, which is all that identity needs."""
        return f"Print({self.digest.hex()})"


def state_of(value: object) -> dict[str, Any]:
    """Return an object's own ``__dict__``, nobody's ``__getattr__`` asked; empty if it has none."""
    try:
        state = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return state if isinstance(state, dict) else {}
