"""Random generators: their state, read and set again.

Invariant: a generator whose state was set draws what the one draws whose state was read.
"""

from __future__ import annotations

import random
from typing import Any


def draws_of(generator: Any) -> Any:
    """Return a generator's state, as plain data."""
    if isinstance(generator, random.Random):
        return generator.getstate()
    if hasattr(generator, "bit_generator"):
        return generator.bit_generator.state
    if hasattr(generator, "set_state"):
        return generator.get_state()
    return generator.state


def set_draws(generator: Any, state: Any) -> None:
    """Set a generator's state to one that `draws_of` gave."""
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = state
    elif hasattr(generator, "set_state"):
        generator.set_state(state)
    else:
        generator.state = state
