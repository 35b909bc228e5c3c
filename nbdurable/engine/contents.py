"""Globals that steps write: what was there before this run wrote it, and what the run left.

Invariant: a global's content is looked at once an execution, at the first `go` that reaches
it, and once at the end where a body has written it. What equals neither is somebody's
correction: the steps that write and read it are other calls then, by its content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.errors import DurableError
from nbdurable.store import remember
from nbdurable.store.rows import ContentRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbdurable.commit.state import State
    from nbdurable.fingerprint import Fingerprinter, Print
    from nbdurable.handles.handle import StepHandle
    from nbdurable.store import Batch

Bases = tuple[tuple[str, bytes], ...]
"""By name: what a global that a step writes and reads was before any step wrote it."""

_NOBODYS = b""


class Contents:
    """One execution's globals that its steps write."""

    def __init__(self, state: State, prints: Fingerprinter) -> None:
        self._state = state
        self._known = state.index.contents
        self._prints = prints
        self._bases: dict[str, bytes] = {}
        self._found: dict[str, Callable[[], Any]] = {}
        self._writers: list[tuple[StepHandle[Any], tuple[str, ...]]] = []
        self._told: dict[str, bool] = {}
        self._rows: list[tuple[str, bytes, bytes]] = []

    def bases(self, step: str, code: Print) -> Bases:
        """Return what the globals were that a step's code writes and reads."""
        found = []
        for name, get, read in code.contents:
            if name not in self._bases:
                self._look(name, get)
            base = self._bases[name]
            if read and base:
                found.append((name, base))
            elif self._told.get(name):
                self._state.observers.say(
                    f"{step} writes `{name}`, which is neither what it was before this run wrote "
                    f"it nor what the run left; its saved outcome is replayed all the same: "
                    f"`redo` runs it again"
                )
        return tuple(found)

    def written_by(self, handle: StepHandle[Any], code: Print) -> None:
        """Take in that a step writes globals, if its body runs."""
        self._writers.append((handle, tuple(name for name, _, _ in code.contents)))

    def write(self, batch: Batch) -> None:
        """Add what the globals are now that bodies have written, at the end of the run."""
        for handle, names in self._writers:
            for name in names if handle.life.ran else ():
                base = self._bases.get(name, _NOBODYS)
                content = self._content(name, self._found[name])
                if base and content:
                    self._add(name, content, base)
        for row in self._rows:
            remember(batch, self._state.store, ContentRow(*row, self._state.execution))

    def _look(self, name: str, get: Callable[[], Any]) -> None:
        self._found[name] = get
        content = self._content(name, get)
        known = self._known.get(name, {})
        self._bases[name] = known.get(content, content)
        self._told[name] = bool(known) and content not in known
        if content and not known:
            self._add(name, content, content)

    def _content(self, name: str, get: Callable[[], Any]) -> bytes:
        """Return the digest of a global's content; nothing if it has none."""
        try:
            return self._prints.value(get(), name).digest
        except DurableError:
            return _NOBODYS

    def _add(self, name: str, content: bytes, base: bytes) -> None:
        known = self._known.setdefault(name, {})
        if content not in known:
            known[content] = base
            self._rows.append((name, content, base))
