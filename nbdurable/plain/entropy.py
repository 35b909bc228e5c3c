"""The entropy of a notebook's first kernel, kept so that a later kernel draws the same numbers.

Invariant: nothing that the first kernel draws becomes predictable: the seed is 16 bytes of the
system's. A generator that is there already keeps its state and that is recorded; one that comes
with a library later is seeded from the seed; what numpy would ask the system for
(``default_rng()``, ``SeedSequence()``, ``numpy.random.seed()`` without a seed) is the next number
of a row that the seed gives. How far that row has been used is a part of the process's state, so
that a restored cell leaves it as the cell that ran did. A forked process asks the system again.

The one place that is patched is ``numpy.random.bit_generator.randbits``, the name by which numpy
calls `secrets.randbits`. Not covered: ``random.Random()``, ``random.seed()``, `uuid`, `secrets`,
``os.urandom`` and the clock: a cell that reads them is not deterministic.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import threading
from typing import Any, NamedTuple

from nbdurable.isolation import when_loaded
from nbdurable.pickled import frozen

from .table import Part, arrive, parts


class Entropy(NamedTuple):
    """What a first kernel began with: a seed, and the states of generators that were there."""

    seed: bytes
    states: dict[str, Any]

    def __reduce__(self) -> Any:
        return entropy_of, (self.seed, self.states)


@frozen("entropy")
def entropy_of(seed: bytes, states: dict[str, Any]) -> Entropy:
    """Restore entropy that was saved."""
    return Entropy(seed, states)


class _Row:
    """The numbers that stand in for those that numpy asks the system for."""

    def __init__(self) -> None:
        self.entropy: Entropy | None = None
        self.used = 0
        self.forked = False
        self.hooked = False
        self.lock = threading.Lock()

    def randbits(self, bits: int) -> int:
        """Return the next number of so many bits."""
        entropy = self.entropy
        if entropy is None or self.forked:
            return secrets.randbits(bits)
        with self.lock:
            at, self.used = self.used, self.used + 1
        return _number(entropy.seed, f"numpy {at}", bits)


_row = _Row()


def entropy() -> Entropy:
    """Return what this kernel began with; the first call, at its start, settles that."""
    if _row.entropy is None:
        states = {part.name: part.read() for part in _generators() if _is_there(part)}
        _row.entropy = Entropy(secrets.token_bytes(16), states)
        _hook()
    return _row.entropy


def set_entropy(given: Entropy) -> None:
    """Let this kernel begin with what an earlier one began with; before anything is drawn."""
    _row.entropy = given
    _row.used = 0
    _hook()
    for part in _generators():
        if _is_there(part):
            _begin(part)


def _generators() -> list[Part]:
    return [part for part in parts() if part.draws and part.name != ROW.name]


def _is_there(part: Part) -> bool:
    return not part.library or part.library in sys.modules


def _begin(part: Part) -> None:
    """Give a generator the state that it had, or that the seed gives it."""
    assert _row.entropy is not None, "it is settled before anything is hooked"
    seed, states = _row.entropy
    if part.name in states:
        part.restore(None, states[part.name])
    elif (plant := _SEEDING.get(part.name)) is not None:
        getattr(sys.modules[part.name], plant)(_number(seed, part.name, 32))


_SEEDING = {"random": "seed", "numpy.random": "seed", "torch": "manual_seed"}


def _number(seed: bytes, purpose: str, bits: int) -> int:
    """Return a number of so many bits that a seed gives for a purpose."""
    size = -(-bits // 8)
    drawn = hashlib.shake_256(seed + purpose.encode()).digest(size)
    return int.from_bytes(drawn) >> (8 * size - bits)


def _hook() -> None:
    """Begin with each generator when its library is imported, and note how settings are then."""
    if _row.hooked:
        return
    _row.hooked = True
    os.register_at_fork(after_in_child=_fork)
    when_loaded("numpy.random", _patch)  # what it draws while it is imported does not count
    for part in parts():
        if part.library:
            _await(part)


def _await(part: Part) -> None:
    there = _is_there(part)

    def arrived(_: Any) -> None:
        if there:
            return
        if part.draws and part.name != ROW.name:
            _begin(part)
        elif not part.draws:
            arrive(part.name)

    when_loaded(part.library, arrived)


def _patch(_: Any) -> None:
    module: Any = sys.modules["numpy.random.bit_generator"]
    if hasattr(module, "randbits"):
        module.randbits = _row.randbits


def _fork() -> None:
    _row.forked = True


def _used() -> int:
    return _row.used


def _set_used(_: Any, new: int) -> None:
    _row.used = new


ROW = Part("numpy seeds", _used, _set_used, draws=True)
"""How many times numpy was seeded without a seed."""
