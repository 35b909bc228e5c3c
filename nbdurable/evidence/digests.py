"""The content of files and folders as short states that can be compared.

Invariant: equal states mean equal content, but for files above `BIG`, whose content is
sampled. A digest is remembered only for a file that was not written just before.
"""

from __future__ import annotations

import os
import stat as modes
import time
from typing import NamedTuple

import xxhash

BIG = 256 << 20
"""Files above this size, in bytes, are compared by size and time first, then by samples."""

_BLOCK = 1 << 20
_SAMPLES = 64
_SETTLED_NS = 2_000_000_000
_MOST = 20_000


class Stat(NamedTuple):
    """What tells quickly that a file has not changed; ``time`` in nanoseconds."""

    size: int
    time: int
    folder: bool = False


class State(NamedTuple):
    """A file's or folder's content. ``time`` is 0 where it tells nothing, for it was fresh."""

    size: int
    time: int
    digest: bytes

    def packed(self) -> bytes:
        """Return it as bytes."""
        return b"%d %d %b" % (self.size, self.time, self.digest)


GONE = State(-1, 0, b"")
"""The state of what is not there."""


def unpacked(data: bytes) -> State:
    """Return the state that `State.packed` laid; what it did not lay equals none."""
    size, _, rest = data.partition(b" ")
    time_ns, _, digest = rest.partition(b" ")
    try:
        return State(int(size), int(time_ns), digest)
    except ValueError:
        return State(-2, 0, b"")


def stat_of(path: str) -> Stat | None:
    """Return a regular file's or folder's stat; None for anything else, and for nothing."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path costs more than the question
    except (OSError, ValueError):
        return None
    if modes.S_ISREG(found.st_mode):
        return Stat(found.st_size, found.st_mtime_ns)
    if modes.S_ISDIR(found.st_mode):
        return Stat(0, found.st_mtime_ns, folder=True)
    return None


_known: dict[str, tuple[Stat, bytes]] = {}


def state_of(path: str) -> State:
    """Return the state of a file, or of a folder's list of names, as it is now."""
    stat = stat_of(path)
    if stat is None:
        return GONE
    fresh = time.time_ns() - stat.time < _SETTLED_NS
    known = _known.get(path)
    if known is not None and known[0] == stat and not fresh:
        return State(stat.size, stat.time, known[1])
    try:
        digest = _names(path) if stat.folder else _content(path, stat.size)
    except OSError:
        return State(stat.size, 0, b"unreadable")
    if stat_of(path) != stat:
        return State(stat.size, 0, b"moving")
    if fresh:
        return State(stat.size, 0, digest)
    if len(_known) >= _MOST:
        _known.clear()
    _known[path] = stat, digest
    return State(stat.size, stat.time, digest)


def differs(path: str, before: State) -> bool:
    """Tell whether a file's content is no longer what it was; it is read only if need be."""
    stat = stat_of(path)
    if stat is None:
        return before.size != GONE.size
    if not stat.folder and stat.size != before.size:
        return True
    if before.time and stat.time == before.time:
        return False
    return state_of(path).digest != before.digest


def _content(path: str, size: int) -> bytes:
    hasher = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        if size <= BIG:
            while block := file.read(_BLOCK):
                hasher.update(block)
        else:
            for at in range(_SAMPLES):
                file.seek((size - _BLOCK) * at // (_SAMPLES - 1))
                hasher.update(file.read(_BLOCK))
    return hasher.hexdigest().encode()


def _names(path: str) -> bytes:
    names = sorted(name for name in os.listdir(path) if name not in _NO_NAMES)  # noqa: PTH208
    return xxhash.xxh3_128("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest().encode()


_NO_NAMES = frozenset({".nbdurable", "__pycache__", ".ipynb_checkpoints", ".git", ".DS_Store"})
