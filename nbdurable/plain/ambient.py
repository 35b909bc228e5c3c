"""What is the process's and not any name's: read, compared and set again, part by part.

Invariant: reading changes nothing and imports nothing; only what changed is recorded, and only
that is set again. What can't be set again is named, so that its cell runs.

A part is one entry of a table. Another package adds one with `register`:

    register("sklearn", lambda: sys.modules["sklearn"].get_config(),
             lambda old, new: sys.modules["sklearn"].set_config(**new), library="sklearn")

``read`` returns a value that stays as it is (a copy), comparable by ``==`` and picklable;
``restore`` is given the value before and after, and makes the process as it was after.
"""

from __future__ import annotations

from . import library_parts, process_parts
from .entropy import ROW, Entropy, entropy, set_entropy
from .table import (
    MISSING,
    Ambient,
    Changes,
    Edit,
    add,
    changed,
    digest_of,
    register,
    restore,
    seen,
)

__all__ = [
    "MISSING",
    "Ambient",
    "Changes",
    "Edit",
    "Entropy",
    "changed",
    "digest_of",
    "entropy",
    "register",
    "restore",
    "seen",
    "set_entropy",
]

for _part in (*process_parts.PARTS, ROW, *library_parts.PARTS):
    add(_part)
del _part
