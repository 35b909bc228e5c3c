"""``nbdurable run``: a notebook from its first cell to its last, through deaths of its kernel.

A kernel that dies is replaced by a new one, and the notebook run again from the top: what
its durable cells had saved is replayed, so each pass goes on where the last one was. It is
given up where that leads nowhere: after some deaths in a row between which no further cell
ended and no further outcome was saved.

Invariant: the run never waits for an answer, and ends with one of the codes of `Code`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import signal
import tempfile
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from jupyter_core.paths import jupyter_runtime_dir

from nbdurable.api import configuration, open_stores
from nbdurable.errors import DurableError, UsageError
from nbdurable.inspection import queries as questions

from . import notebook_file
from .kernel_pass import Ending, KernelPass, PassEnd, Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    import nbformat

    from .screen import Screen

DEATHS: Final = 3
"""After so many deaths without progress a run is given up."""

_NOTE: Final = "nbdurable: "
"""What stands before a note of nbdurable's own in the kernel's log."""

_LOGGED: Final = "[IPKernelApp] "
_SHOWN: Final = 4


class Code(IntEnum):
    """With what a run ends; 128 and a signal's number when that has suspended it."""

    DONE = 0
    FAILED = 1
    WRONG = 2
    GIVEN_UP = 3
    HELD = 4


@dataclass(frozen=True, slots=True)
class Request:
    """What a command line asks for."""

    notebook: Path
    output: Path | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    kernel: str = ""
    deaths: int = DEATHS

    def __str__(self) -> str:
        words = ["nbdurable", "run", str(self.notebook)]
        for name, value in self.parameters:
            words += ["-p", name, value]
        words += ["--output", str(self.output)] if self.output is not None else []
        words += ["--kernel", self.kernel] if self.kernel else []
        words += ["--deaths", str(self.deaths)] if self.deaths != DEATHS else []
        return shlex.join(words)


class HeldError(DurableError):
    """Another run of the same notebook is going on."""


def run(request: Request, screen: Screen) -> int:
    """Run a notebook and return the exit code; what happens is told to the screen.

    Raises:
        UsageError: There is no such notebook, cell for parameters, or kernel.
        HeldError: Another run of it is going on.
    """
    notebook = notebook_file.read(request.notebook)
    notebook_file.inject(notebook, request.parameters, request.notebook.name)
    path = (request.output or request.notebook).absolute()
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} to write {path.name} to")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    with _only_run_of(path):
        configuration.set_notebook(path)
        with screen, tempfile.TemporaryFile() as log:
            return _Running(request, notebook, path, screen, log).to_the_end()


class _Running(Watcher):
    """A run through all its passes."""

    def __init__(
        self,
        request: Request,
        notebook: nbformat.NotebookNode,
        path: Path,
        screen: Screen,
        log: IO[bytes],
    ) -> None:
        self._request = request
        self._notebook = notebook
        self._output = notebook_file.Output(path)
        self._screen = screen
        self._log = log
        self._read = 0
        self._signal = 0
        self._unwritten = ""
        self._began = time.monotonic()
        self._pass: KernelPass | None = None
        self._moved = ""

    def to_the_end(self) -> int:
        """Run passes until one ends otherwise than by its kernel's death, or it leads nowhere."""
        deaths = idle = furthest = 0
        saved = _saved()
        while True:
            end = self._one_pass()
            if end.ending is not Ending.DIED:
                return self._ended(end, deaths)
            deaths += 1
            now = _saved()
            progress = end.completed > furthest or end.made > 0 or now != saved
            furthest, saved = max(furthest, end.completed), now
            idle = 0 if progress else idle + 1
            end.in_flight = end.in_flight or _in_flight()
            if idle >= self._request.deaths:
                return self._given_up(end, idle)
            self._screen.say(
                f"the kernel died {self._where(end)}: {end.how}. {_counted(now.count)} saved; "
                f"a new kernel starts, and what is saved is replayed"
            )

    def _one_pass(self) -> PassEnd:
        self._pass = KernelPass(
            self._notebook,
            self._output.path,
            kernel=self._request.kernel,
            folder=self._request.notebook.absolute().parent,
            log=self._log,
            watcher=self,
        )
        return self._pass.run(self._on_signal)

    def _on_signal(self, number: int) -> None:
        assert self._pass is not None
        if not self._signal:
            self._screen.say(f"{signal.Signals(number).name}: the notebook is being suspended")
        self._signal = number
        self._pass.stop()

    # --- how it ends ------------------------------------------------------------------

    def _ended(self, end: PassEnd, deaths: int) -> int:
        name = self._output.path.name
        if end.ending is Ending.STOPPED:
            self._screen.say(
                f"suspended {self._where(end)}. {_counted(_saved().count)} saved; to go on: "
                f"{self._request}"
            )
            return 128 + self._signal
        if self._unwritten:
            self._screen.say(self._unwritten)
        if end.ending is Ending.FAILED:
            kind, text = end.error
            first = text.strip().splitlines()[0] if text.strip() else ""
            self._screen.say(
                f"failed {self._where(end)}: {kind}{': ' if first else ''}{first}; its whole error "
                f"is in {name}. {_counted(_saved().count)} saved; to go on from there: "
                f"{self._request}"
            )
            return Code.HELD if kind == "StoreLockedError" else Code.FAILED
        if self._unwritten:
            return Code.FAILED
        through = (
            "" if not deaths else f", through {deaths} death{'s' * (deaths > 1)} of its kernel"
        )
        self._screen.say(f"done{through}: {name}")
        return Code.DONE

    def _given_up(self, end: PassEnd, idle: int) -> int:
        self._screen.say(
            f"given up: the kernel died {idle} times in a row without progress, "
            f"{self._where(end)}: {end.how}. {_counted(_saved().count)} saved; to go on from there "
            f"once that is mended: {self._request}"
        )
        for line in self._last_lines():
            self._screen.say(f"  the kernel's stderr: {line}")
        return Code.GIVEN_UP

    def _where(self, end: PassEnd) -> str:
        """Say in which cell a pass ended, and what was in flight."""
        if end.cell is None:
            return "before its first cell"
        where = f"in cell {end.cell + 1} ({self._title(end.cell)})"
        if not end.in_flight:
            return where if end.ending is not Ending.DIED else f"{where}, with no step in flight"
        more = f" and {len(end.in_flight) - _SHOWN} more" if len(end.in_flight) > _SHOWN else ""
        return f"{where}, with {', '.join(end.in_flight[:_SHOWN])}{more} in flight"

    # --- what a pass tells ------------------------------------------------------------

    def kernel_started(self, pid: int) -> None:
        """Say so."""
        self._screen.say(f"kernel {pid} runs {self._request.notebook.name} from the top")

    def cell_began(self, place: int) -> None:
        """Show it."""
        self._began, self._moved = time.monotonic(), ""
        self._screen.cell(place + 1, len(self._notebook.cells), self._title(place))

    def steps_moved(self, said: str, in_flight: list[str]) -> None:
        """Show it."""
        self._moved = said
        self._screen.steps(said, in_flight)

    def cell_ended(self, place: int) -> None:
        """Show it, and write the notebook."""
        seconds = time.monotonic() - self._began
        self._screen.cell_ended(
            place + 1, len(self._notebook.cells), self._title(place), self._moved, seconds
        )
        for note in self._notes():
            self._screen.say(f"  {note}")
        said = self._output.write(self._notebook)
        if said and said != self._unwritten:
            self._screen.say(said)
        self._unwritten = said if "can't be written" in said else ""

    def _title(self, place: int) -> str:
        """Return what a cell is called: its durable name, or how it begins."""
        lines = [line.strip() for line in self._notebook.cells[place].source.splitlines()]
        first = next((line for line in lines if line and not line.startswith("#")), "")
        if first.startswith("%%durable "):
            return first.split()[1]
        return first if len(first) <= _TITLE else f"{first[: _TITLE - 1]}…"

    def _notes(self) -> list[str]:
        """Return what nbdurable has told the kernel's log since this was last asked."""
        self._log.seek(self._read)
        text = self._log.read().decode(errors="replace")
        self._log.seek(0, os.SEEK_END)
        whole, _, _ = text.rpartition("\n")
        self._read += len(whole.encode())
        return [
            line.partition(_NOTE)[2]
            for line in whole.splitlines()
            if line.startswith(_LOGGED) and _NOTE in line
        ]

    def _last_lines(self) -> list[str]:
        self._log.seek(0)
        text = self._log.read().decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return [line for line in lines if not line.startswith(_LOGGED)][-_SHOWN:]


_TITLE: Final = 40


@dataclass(frozen=True, slots=True)
class _Saved:
    """What the notebook's store holds: outcomes, and saves of steps in flight."""

    count: int = 0
    saves: str = ""


def _saved() -> _Saved:
    """Look into the store; where that can't be, nothing is known to be saved."""
    try:
        (outcomes,) = questions.answer("SELECT count(*) AS n FROM nbdurable.checkpoints")
        saves = questions.answer("SELECT call, saved FROM nbdurable.saves ORDER BY ALL")
    except DurableError:
        return _Saved()
    finally:
        open_stores.close_stores()
    return _Saved(int(str(outcomes["n"])), repr(saves))


def _in_flight() -> list[str]:
    """Return the steps that were in flight in the last execution, as the store tells it."""
    try:
        rows = questions.answer(
            "SELECT DISTINCT label FROM steps WHERE status = 'in flight' "
            "AND execution = (SELECT max(execution) FROM executions)"
        )
    except DurableError:
        return []
    finally:
        open_stores.close_stores()
    return [str(row["label"]) for row in rows]


def _counted(count: int) -> str:
    return f"{count:,} outcome{' is' if count == 1 else 's are'}"


@contextlib.contextmanager
def _only_run_of(path: Path) -> Iterator[None]:
    """Hold off other runs that would write the same notebook.

    Raises:
        HeldError: One is going on.
    """
    folder = Path(jupyter_runtime_dir())
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=8).hexdigest()
    with (folder / f"nbdurable-run-{name}.lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip()
            raise HeldError(
                f"another `nbdurable run` writes {path} now{f' (pid {holder})' if holder else ''}: "
                f"wait for it or stop it; for other parameters beside it name another --output"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
