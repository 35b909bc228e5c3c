"""Arguments that can change, kept with the digests that they had.

Invariant: looks at the objects themselves whenever it is asked, and keeps no copy of them;
what was taken apart once stays as it was then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.fingerprint.prints import NOTHING_USED, Pieces, digest16
from nbdurable.fingerprint.values import EXACT, Owner, Walk, text_of

if TYPE_CHECKING:
    from nbdurable.fingerprint.prints import Digested, Ignored, Used

_MOST = 4096
_TRIES = 5
_TABLES = frozenset({"numpy", "pandas", "polars", "pyarrow", "torch"})
_NAMES: dict[str, bytes] = {}


def joined(named: list[tuple[str, bytes]]) -> bytes:
    """Digest named encodings together, whatever their order."""
    texts: list[bytes] = []
    for name, text in sorted(named) if len(named) > 1 else named:
        head = _NAMES.get(name)
        if head is None:
            head = text_of(name)
            if len(_NAMES) < _MOST:
                _NAMES[name] = head
        texts += (head, text)
    return digest16(b"".join(texts))


class GivenInputs:
    """Arguments that can change, with the digests they had."""

    __slots__ = ("_ignore", "_inputs", "_named", "_owner", "_used")

    def __init__(
        self,
        owner: Owner,
        named: list[tuple[str, bytes]],
        inputs: list[tuple[str, Digested]],
        ignore: Ignored,
        used: Used,
    ) -> None:
        self._owner = owner
        self._named = named
        self._inputs = inputs
        self._ignore = ignore
        self._used = used

    def moved(self, sample: bool) -> tuple[tuple[str, object], ...]:  # noqa: FBT001
        """Names and objects of those that have another digest now."""
        found: list[tuple[str, object]] = []
        for name, known in self._inputs:
            small = sample and known.sampled is not None
            settled = known.settled is not None
            walk = Walk(
                self._owner,
                name,
                sample=small,
                settled=settled,
                ignore=self._ignore,
                used=self._used,
            )
            try:
                now = walk.top(known.value)
            except Exception:  # noqa: BLE001 - it could be digested before: it is another now
                now = b""
            if now != (known.settled if settled else known.sampled if small else known.text):
                found.append((name, known.value))
        return tuple(found)

    def pieces(self, *, before: bool) -> Pieces:
        """Return the arguments taken apart: as they were when they were digested, or as now."""
        found = []
        for name, known in self._inputs:
            if not known.changing:
                continue
            if not before:
                found.append(pieces_of(self._owner, name, known.value, self._ignore))
                continue
            if not known.pieces:
                known.pieces.append(pieces_of(self._owner, name, known.value, self._ignore))
            found.append(known.pieces[0])
        return joined_pieces(found)

    def generators(self) -> tuple[Any, ...]:
        """Return the random generators among the arguments, in the order of the walk."""
        return tuple(one for _, known in self._inputs for one in known.generators)

    def digest_without(self, used: Used) -> bytes:
        """Return the digest as it is now, some attributes left out."""
        texts = dict(self._named)
        for name, known in self._inputs:
            if known.changing:
                walk = Walk(self._owner, name, ignore=self._ignore, used=used)
                texts[name] = walk.top(known.value)
        return joined([(name, texts[name]) for name, _ in self._named])


def joined_pieces(found: list[Pieces]) -> Pieces:
    """Return the pieces of several inputs as one."""
    if len(found) == 1:
        return found[0]
    whole = Pieces()
    for one in found:
        whole.join(one)
    return whole


def pieces_of(owner: Owner, name: str, value: object, ignore: Ignored, own: Any = None) -> Pieces:
    """Take a value apart: the encoding of each attribute, without the instances in it."""
    for _ in range(_TRIES):
        walk = Walk(owner, name, own=own, ignore=ignore)
        walk.pieces = found = Pieces()
        try:
            found.plain(root_of(name), walk.top(value))
        except Exception:  # noqa: BLE001 - it may be changed in mid-look, and user code runs there
            found.complete = False
        else:
            break
    return found


def is_plain(value: object) -> bool:
    """Tell whether a value is data, and no object that changes by being used."""
    module = type(value).__module__.partition(".")[0]
    return type(value) in EXACT or module in _TABLES


def root_of(name: str) -> str:
    """Return an input's name as attributes know it."""
    return name.rpartition(".")[2].lstrip("*")


def settled_of(
    owner: Owner, name: str, value: object, ignore: Ignored, used: Used = NOTHING_USED
) -> bytes:
    """Encode a value without what changes by its use alone."""
    return Walk(owner, name, settled=True, ignore=ignore, used=used).top(value)
