"""What a body ran, read, wrote and relied on besides its code and arguments, seen while it runs.

Invariant: seeing changes nothing in the user's program and fails nothing of it; comparing
imports nothing and executes nothing. Evidence is kept as `Part`s of plain data.
"""

from __future__ import annotations

from .files import (
    FILE_KINDS,
    NAMED,
    WATCHED,
    WROTE,
    FileRules,
    Left,
    absent_parts,
    appended_parts,
    changed,
    file_parts,
    file_state,
    is_gone,
    may_name_file,
    same_content,
)
from .recorder import READ, Recorder, begin_cell, leave
from .remote import merge_codes, merge_files
from .seeing import Seeing, install
from .settings import MOVED, SETTING_KINDS, is_setting_now, told_settings, unseeded
from .units import Comparison, code_parts, covered_parts, shown

__all__ = [
    "FILE_KINDS",
    "MOVED",
    "NAMED",
    "READ",
    "SETTING_KINDS",
    "WATCHED",
    "WROTE",
    "Comparison",
    "FileRules",
    "Left",
    "Recorder",
    "Seeing",
    "absent_parts",
    "appended_parts",
    "begin_cell",
    "changed",
    "code_parts",
    "covered_parts",
    "file_parts",
    "file_state",
    "install",
    "is_gone",
    "is_setting_now",
    "leave",
    "may_name_file",
    "merge_codes",
    "merge_files",
    "same_content",
    "shown",
    "told_settings",
    "unseeded",
]
