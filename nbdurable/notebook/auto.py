"""``%durable auto``: every plain cell of the notebook is handled from now on.

Invariant: one execution of the run `auto` is one pass through the notebook; it is finished when
the notebook's last cell is reached and all cells since the switch have run or were restored.
"""

from __future__ import annotations

import atexit
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from nbdurable.api import configuration
from nbdurable.errors import DurableError, UsageError
from nbdurable.labels import duration
from nbdurable.plain.beginning import begin_alike
from nbdurable.plain.passes import Pass
from nbdurable.records import RunStatus

from . import finding, header
from . import shell as kernel
from .plain_cells import PlainCells

if TYPE_CHECKING:
    from pathlib import Path

    from IPython.core.interactiveshell import InteractiveShell

    from .plain_cells import Outcome, Request

_SWITCH: Final = re.compile(r"^\s*%durable\s+auto\b", re.MULTILINE)
_RESULTS: Final = ("it uses `_", "it uses `Out`")
_WAIT_SECONDS: Final = 1.0
"""A cell waits no longer for a store that another process holds: it runs as ever."""

_WORTH_A_WORD: Final = 0.5
"""A cell is worth a line if it took at least so many seconds."""


@dataclass(slots=True)
class _Counts:
    """What one pass has come to."""

    restored: int = 0
    ran: int = 0
    worked: float = 0.0
    started: float = field(default_factory=time.perf_counter)


class Auto:
    """The handling of one shell's cells, from `%durable auto` on."""

    def __init__(self, shell: InteractiveShell, *, least: float, dry: bool, new: bool) -> None:
        self._shell = shell
        self._least = least
        self._dry = dry
        self._new = new
        self._cells: PlainCells | None = None
        self._counts = _Counts()
        self._done: set[str] = set()
        self._last_raised = False
        self._saved: tuple[int, list[str]] = (0, [])
        self._broken = ""

    async def run(self, request: Request, source: str) -> bool:
        """Handle a cell; tell whether it raised."""
        cells = self._started()
        if cells is None:
            return await request.run()
        outcome = await cells.handle(request)
        self._last_raised = outcome.raised
        self._count(outcome)
        self._tell(outcome)
        if not outcome.raised:
            self._done.add(source.strip())
            if self._is_over(source):
                self._finish(RunStatus.FINISHED)
        return outcome.raised

    def _started(self) -> PlainCells | None:
        """Return what handles cells, in a pass that has begun; None where no store is to be had."""
        if self._cells is None and not self._broken:
            configuration.set_notebook(finding.notebook(self._shell, decide=True))
            try:
                place = configuration.store_for(header.AUTO)
                one = Pass(place, header.AUTO, new=self._new, wait=_WAIT_SECONDS)
                begin_alike(one, new=self._new)
            except DurableError as error:
                self._broken = str(error)
                _say(self._shell, f"cells are not saved: {error}")
                return None
            self._new = False
            self._cells = PlainCells(self._shell, one, least=self._least, dry=self._dry)
            self._counts = _Counts()
            self._done.clear()
        return self._cells

    def _count(self, outcome: Outcome) -> None:
        if outcome.restored:
            self._counts.restored += 1
            self._counts.worked += outcome.seconds
        elif not outcome.defines:
            self._counts.ran += 1

    def _tell(self, outcome: Outcome) -> None:
        """Say beside a cell what became of it, where that is worth a word."""
        if not kernel.watched(self._shell) or outcome.raised:
            return
        if outcome.differs is not None:
            self._tell_dry(outcome)
        elif outcome.restored and outcome.seconds >= _WORTH_A_WORD:
            kernel.say(self._shell, f"restored, took {duration(outcome.seconds)}")
        elif self._counts.restored and outcome.unsaved.startswith(_RESULTS):
            kernel.say(
                self._shell,
                f"{outcome.unsaved}: results of cells that were restored are there as they were "
                f"when they were shown",
            )
        elif outcome.why not in {"", "new"} and outcome.seconds >= _WORTH_A_WORD:
            kernel.say(self._shell, f"ran: {outcome.why}")

    def _tell_dry(self, outcome: Outcome) -> None:
        if outcome.differs:
            names = ", ".join(f"`{name}`" for name in outcome.differs)
            kernel.say(self._shell, f"would have been restored, and {names} would differ")
        else:
            kernel.say(
                self._shell,
                f"would have been restored: the same, after {duration(outcome.seconds)}",
            )

    # --- the end of a pass --------------------------------------------------------

    def _is_over(self, source: str) -> bool:
        """Tell whether the notebook's last cell has run, and all before it since the switch."""
        path = configuration.notebook()
        cells = [] if path is None else self._sources(path)
        if not cells or cells[-1] != source.strip():
            return False
        return all(one in self._done for one in cells)

    def _sources(self, path: Path) -> list[str]:
        """Return the sources of the notebook's cells after the one that switches this on."""
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            return []
        if self._saved[0] != changed:
            found = [one.strip() for one in kernel.saved_sources(path)]
            switched = [at for at, one in enumerate(found) if _SWITCH.search(one)]
            after = found[switched[0] + 1 :] if switched else found
            plain = [one for one in after if one and not one.startswith("%%durable")]
            self._saved = changed, plain
        return self._saved[1]

    def _finish(self, status: RunStatus) -> None:
        """End the pass; the next cell begins another."""
        cells, self._cells = self._cells, None
        if cells is None:
            return
        try:
            cells.one.end(status)
        except DurableError as error:
            _say(self._shell, f"how this pass ended could not be saved: {error}")
            return
        counts = self._counts
        if status is RunStatus.FINISHED and counts.restored:
            took = duration(time.perf_counter() - counts.started)
            line = (
                f"{counts.restored} cells restored, {counts.ran} ran: "
                f"{duration(counts.worked)} of work in {took}"
            )
            if kernel.watched(self._shell):
                kernel.say(self._shell, line)

    def close(self) -> None:
        """End the pass as the kernel ends, or as this is switched off."""
        status = RunStatus.FAILED if self._last_raised else RunStatus.FINISHED
        self._finish(status)


_autos: WeakKeyDictionary[Any, Auto] = WeakKeyDictionary()


def is_on(shell: InteractiveShell) -> bool:
    """Tell whether a shell's plain cells are handled."""
    return shell in _autos


async def run(shell: InteractiveShell, request: Request, source: str) -> bool:
    """Handle a plain cell; tell whether it raised."""
    return await _autos[shell].run(request, source)


def switch(shell: InteractiveShell, words: tuple[str, ...], *, new: bool) -> str:
    """Do what follows ``%durable auto``; return the line that says so.

    Raises:
        UsageError: It is none of what can be asked for.
    """
    asked = {"off", "dry"} & set(words)
    rest = [word for word in words if word not in asked]
    if len(rest) > 1 or (rest and not rest[0][:1].isdecimal()) or ("off" in asked and rest):
        raise UsageError(
            f"%durable auto {' '.join(words)}: write `%durable auto`, `%durable auto 2s` (save "
            f"only cells that took longer), `%durable auto dry`, or `%durable auto off`"
        )
    if shell in _autos:
        _autos.pop(shell).close()
    if "off" in asked:
        return "plain cells run as ever, and nothing of them is saved"
    least = header.parse_age(rest[0], "%durable auto") if rest else 0.0
    _autos[shell] = Auto(shell, least=least, dry="dry" in asked, new=new)
    atexit.unregister(_close_all)
    atexit.register(_close_all)
    if "dry" in asked:
        return "plain cells are saved, and run: each says whether it would have been restored"
    return "plain cells are saved as they finish, and restored where nothing has changed"


def forget(shell: InteractiveShell) -> None:
    """End the handling of a shell's cells, if it is on."""
    if shell in _autos:
        _autos.pop(shell).close()


def _close_all() -> None:
    """End the passes as the kernel ends."""
    for one in list(_autos.values()):
        one.close()


def _say(shell: InteractiveShell, text: str) -> None:
    if kernel.watched(shell):
        kernel.say(shell, text)
    else:
        kernel.log(shell, text)
