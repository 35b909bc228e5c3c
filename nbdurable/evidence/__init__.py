"""What a body ran, read, wrote and relied on besides its code and arguments, seen while it runs.

Invariant: seeing changes nothing in the user's program and fails nothing of it; comparing
imports nothing and executes nothing. Evidence is kept as `Part`s of plain data.
"""

from __future__ import annotations

from .digests import State, unpacked
from .files import (
    NAMED,
    WATCHED,
    WROTE,
    FileRules,
    changed,
    file_parts,
    file_state,
    is_gone,
    may_name_file,
)
from .recorder import Recorder, Seeing, begin_cell, end_cell, install

__all__ = [
    "NAMED",
    "WATCHED",
    "WROTE",
    "FileRules",
    "Recorder",
    "Seeing",
    "State",
    "begin_cell",
    "changed",
    "end_cell",
    "file_parts",
    "file_state",
    "install",
    "is_gone",
    "may_name_file",
    "unpacked",
]
