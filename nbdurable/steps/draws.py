"""Random generators among a step's inputs: their states after the body are saved with it.

Invariant: what is saved lies in the order in which digesting meets the generators, which is
the same on replay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.codec.values import decode, encode
from nbdurable.fingerprint import draws_of, set_draws

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nbdurable.fingerprint import Print


def draws(prints: Iterable[Print | None]) -> bytes:
    """Return the states of the generators among inputs, to be saved; nothing if there are none."""
    found = _generators(prints)
    return encode([draws_of(one) for one in found]).data if found else b""


def draw_again(saved: bytes, prints: Iterable[Print | None]) -> None:
    """Set the generators among a replayed step's inputs as its body left them."""
    for generator, state in zip(_generators(prints), decode(saved), strict=False):
        set_draws(generator, state)


def _generators(prints: Iterable[Print | None]) -> list[Any]:
    inputs = [one.inputs for one in prints if one is not None and one.inputs is not None]
    found = [one for each in inputs for one in each.generators()]
    return list({id(one): one for one in found}.values())
