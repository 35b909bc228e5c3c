"""What a fingerprint is handed over as: a digest, its parts, and what to tell the user.

Invariant: a `Print` never changes after it was made; `moved` only looks.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FunctionType

NOT_COMPARED = "not compared"
WRITTEN = "written"
NO_SOURCE = "no source"


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
        return f"{self.kind}: `{self.where}` ({self.what})"


def nothing_moved(_sample: bool) -> tuple[tuple[str, object], ...]:  # noqa: FBT001
    """Answer for a print that read nothing that can change."""
    return ()


def nothing_shifted() -> tuple[str, ...]:
    """Return the names of inputs that may move and did; there are none."""
    return ()


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


class Covered(Protocol):
    """The code that a fingerprint is of; `nbdurable.fingerprint.covered` has it."""

    @property
    def ids(self) -> frozenset[int]:
        """The identities of all code objects."""

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

    ``shifted`` returns the names of inputs that are told, and no fault, when they move;
    ``covered`` is the code that a print of code is of.
    """

    __slots__ = ("_moved", "_named", "_parts", "covered", "digest", "notes", "seconds", "shifted")

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
        covered: Covered | None = None,
    ) -> None:
        self.digest = digest
        self.covered = covered
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
        """Give the same print with another time spent."""
        return Print(
            self.digest, self._named, self.notes, seconds, self._moved, self.shifted, self.covered
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
