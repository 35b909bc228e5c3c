"""Files that a body used: which count, as parts of evidence, and whether they have changed.

Invariant: what nbdurable writes itself never counts; what the user named always does. A
file's content is read at most once for one state of it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from nbdurable.fingerprint import Places
from nbdurable.records import Part

from .digests import GONE, State, differs, stat_of, state_of, unpacked
from .recorder import APPEND, LIST, READ, WRITE, begin_cell, leave

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .recorder import Met, Recorder

NAMED, WATCHED, WROTE = "named file", "watched file", "written file"
"""Kinds of parts: a file that the user named, one seen to be read, one seen to be written."""

FILE_KINDS = frozenset({NAMED, WATCHED, WROTE})

_LONGEST = 1024
_PLUMBING = ("/proc/", "/sys/", "/dev/", "/run/")
_HOMES = ("~/.cache", "~/.config", "~/.ipython", "~/.jupyter", "~/.local", "~/.matplotlib")
_MACHINERY = frozenset({"__pycache__", ".git", ".ipynb_checkpoints", ".nbdurable"})


def may_name_file(text: str) -> bool:
    """Tell whether a text can be the name of a file."""
    return 0 < len(text) <= _LONGEST and text.isprintable() and text.strip(" ./") != ""


class FileRules:
    """Which files count in one run, whose store is at a path."""

    def __init__(self, store: str) -> None:
        self._store = os.path.realpath(store)
        self.places = Places()
        self._homes = tuple(os.path.join(os.path.expanduser(home), "") for home in _HOMES)  # noqa: PTH111, PTH118
        self._libraries = (os.path.join(sys.prefix, ""), os.path.join(sys.base_prefix, ""))  # noqa: PTH118

    def counts(self, met: Met) -> bool:
        """Tell whether a file or folder is one of the user's."""
        path = met.path
        if self._is_own(path):
            return False
        if met.named:
            return True
        if path.startswith((*_PLUMBING, *self._homes, *self._libraries)):
            return False
        return _MACHINERY.isdisjoint(Path(path).parts) and self.places.file(path)

    def _is_own(self, path: str) -> bool:
        real = os.path.realpath(path)
        return real.startswith(self._store) or ".nbdurable" in Path(real).parts


def file_parts(recorder: Recorder, rules: FileRules) -> list[Part]:
    """Return what a body that has ended used of files, each with its state."""
    found: list[Part] = []
    token = begin_cell()  # the files that are read here are not used by the bodies that run
    try:
        # A copy, for another thread may just be taking note of a file that it could not place.
        for name, met in recorder.files.copy().items():
            met.named = met.named or name in recorder.named or met.path in recorder.named
            if rules.counts(met):
                found += _parts_of(name, met)
    finally:
        leave(token)
    return found


def _parts_of(name: str, met: Met) -> list[Part]:
    now = stat_of(met.path)
    kind = NAMED if met.named else WATCHED
    if met.first is None and now is None:
        return []  # made and removed meanwhile, or never there
    use = met.use
    if use == LIST or (use & LIST and now is not None and now.folder):
        return [Part(kind, name, (met.before or state_of(met.path)).packed())]
    if now is not None and now.folder:
        return []
    if not use:  # what reads it can't be watched
        use = READ if now == met.first else WRITE
    found = []
    if use & READ and met.first is not None:
        then = met.before
        if then is None:
            then = state_of(met.path) if now == met.first else State(met.first.size, 0, b"moving")
        found.append(Part(kind, name, then.packed()))
    if use & WRITE and not _is_temporary(met.path):
        found.append(Part(WROTE, name, state_of(met.path).packed()))
    return found


def appended_parts(recorder: Recorder, rules: FileRules) -> list[Part]:
    """Return the files that a body added something to, each as it was before that."""
    found = []
    for name, met in recorder.files.copy().items():
        if met.use & APPEND and not met.use & READ and rules.counts(met):
            found.append(Part(WATCHED, name, (met.before or GONE).packed()))
    return found


def absent_parts(recorder: Recorder, rules: FileRules) -> list[Part]:
    """Return the files that a body looked for in vain."""
    return [
        Part(WATCHED, name, GONE.packed())
        for name, met in recorder.files.copy().items()
        if met.use & READ and met.first is None and not met.use & (WRITE | APPEND)
        and stat_of(met.path) is None and rules.counts(met)
    ]  # fmt: skip


def _is_temporary(path: str) -> bool:
    return path.startswith(os.path.join(tempfile.gettempdir(), "tmp"))  # noqa: PTH118


def file_state(part: Part) -> State:
    """Return the state of a part's file as it is now."""
    return state_of(part.name)


class Left:
    """How a run's bodies left the files that they wrote.

    Of bodies that wrote a file beside each other, any may have seen the last of it: their
    ends are not told apart. What ended before the last one began counts no more.
    """

    def __init__(self) -> None:
        self._left: dict[str, list[tuple[float, float, State]]] = {}

    def note(self, part: Part, started: float, ended: float) -> None:
        """Take in that a body which ran from `started` to `ended` left a file so.

        Called in the order in which outcomes were committed.
        """
        before = self._left.get(part.name, [])
        beside = [one for one in before if one[1] > started]
        self._left[part.name] = [*beside, (started, ended, unpacked(part.state))]

    def is_as_left(self, name: str) -> bool:
        """Tell whether a file is now as one of those bodies left it."""
        return any(not differs(name, state) for _, _, state in self._left.get(name, ()))


def changed(parts: Iterable[Part], left: Left) -> Sequence[Part]:
    """Return the parts whose files are neither as they were nor as the run itself left them."""
    return [
        one
        for one in parts
        if one.kind in FILE_KINDS
        and differs(one.name, unpacked(one.state))
        and not left.is_as_left(one.name)
    ]


def same_content(one: bytes, other: bytes) -> bool:
    """Tell whether two states of parts are of the same content."""
    mine, theirs = unpacked(one), unpacked(other)
    return (mine.size, mine.digest) == (theirs.size, theirs.digest)


def is_gone(part: Part) -> bool:
    """Tell whether a part's file is not there any more."""
    return stat_of(part.name) is None and unpacked(part.state).size != GONE.size
