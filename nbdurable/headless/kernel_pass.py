"""One kernel's pass over a notebook: its cells in order, to the end or to what ends it.

Built on nbclient. What the kernel publishes, like to any front end, is looked at on the
way: which steps are in flight, and how many have finished.

Invariant: a pass ends in one of the ways of `Ending`, and its kernel is gone then.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from nbdurable.errors import UsageError

from .kernels import OwnKernels, kernels_for, process_of
from .memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import IO

    import nbformat

_OWN: Final = ("python3", "python", "")
"""Kernels of these names are this interpreter's own: nbdurable is installed there."""

_START_SECONDS: Final = 120
_LOOK_SECONDS: Final = 1.0
"""How often it is looked how much memory the kernel holds."""

_GRACE_SECONDS: Final = 10.0
"""How long a cell may take to end after an interrupt before its kernel is killed."""

_MOVING: Final = ("running", "retrying")

# A kernel that dies is told by whoever runs the pass, not by nbclient.
_SILENT: Final = logging.getLogger("nbdurable.headless")
_SILENT.disabled = True


class Ending(StrEnum):
    """How a pass ended."""

    DONE = "done"
    FAILED = "failed"
    DIED = "died"
    STOPPED = "stopped"


@dataclass(slots=True)
class PassEnd:
    """What is known of a pass when it has ended.

    ``cell`` is the place of the cell that was running, None if the kernel had not begun;
    ``completed`` how many cells had ended; ``made`` how many steps were seen to finish;
    ``how`` says how a kernel died; ``error`` is a failed cell's, its name and its text.
    """

    ending: Ending
    cell: int | None = None
    completed: int = 0
    made: int = 0
    in_flight: list[str] = field(default_factory=list)
    how: str = ""
    error: tuple[str, str] = ("", "")


class Watcher:
    """What is called as a pass goes on; each method does nothing unless overridden."""

    def kernel_started(self, pid: int) -> None:
        """A kernel answers."""

    def cell_began(self, place: int) -> None:
        """A code cell begins."""

    def steps_moved(self, said: str, in_flight: list[str]) -> None:
        """The steps of the running cell stand so."""

    def cell_ended(self, place: int) -> None:
        """A code cell has ended, with an error or without; its outputs are in the notebook."""


class _Client(NotebookClient):
    """An nbclient that lets its owner see each message, and leaves signals to it."""

    def __init__(self, watch: Callable[[Mapping[str, Any]], None], **options: Any) -> None:
        super().__init__(store_widget_state=False, record_timing=False, log=_SILENT, **options)
        self._watch = watch

    def process_message(
        self, msg: dict[str, Any], cell: nbformat.NotebookNode, cell_index: int
    ) -> nbformat.NotebookNode | None:
        """Take a message in as any nbclient does, then show it."""
        made = super().process_message(msg, cell, cell_index)
        self._watch(msg)
        return made

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        """Start the kernel as any nbclient does, but without its signal handlers."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        await super().async_start_new_kernel(**kwargs)


class KernelPass:
    """One pass; `run` once, and `stop` from a signal's handler.

    Args:
        notebook: Its cells get the outputs.
        path: The notebook that the kernel is told to serve.
        kernel: The kernelspec's name; empty, that of the notebook.
        folder: The kernel's working folder.
        log: Where the kernel's stderr goes.
        watcher: Is told what happens.
    """

    def __init__(
        self,
        notebook: nbformat.NotebookNode,
        path: Path,
        *,
        kernel: str,
        folder: Path,
        log: IO[bytes],
        watcher: Watcher,
    ) -> None:
        name = kernel or notebook.metadata.get("kernelspec", {}).get("name", "")
        self._notebook = notebook
        self._folder = folder
        self._log = log
        self._watcher = watcher
        self._memory = Memory()
        self._end = PassEnd(Ending.DONE)
        self._rows: dict[str, dict[str, Any]] = {}
        self._made: set[tuple[int | None, str]] = set()
        self._stopped = False
        self._executing = False
        self._body: asyncio.Task[None] | None = None
        self._client = _Client(
            self._see,
            nb=notebook,
            kernel_manager_class=kernels_for(
                path, OwnKernels if name in _OWN else AsyncKernelManager
            ),
            kernel_name=name or "python3",
            timeout=None,
            startup_timeout=_START_SECONDS,
        )
        self._name = name

    def run(self, on_signal: Callable[[int], None]) -> PassEnd:
        """Run the cells and return how that ended.

        Args:
            on_signal: Called with SIGINT or SIGTERM, in place of their usual effects.

        Raises:
            UsageError: There is no such kernel.
        """
        asyncio.run(self._run(on_signal))
        self._end.made = len(self._made)
        return self._end

    async def _run(self, on_signal: Callable[[int], None]) -> None:
        self._on_signal = on_signal
        self._body = asyncio.ensure_future(self._cells())
        self._take_signals()
        try:
            await self._body
        except NoSuchKernel:
            there = ", ".join(sorted(KernelSpecManager().find_kernel_specs())) or "none"
            raise UsageError(
                f"there is no kernel called {self._name}: there are {there}; --kernel names another"
            ) from None
        except asyncio.CancelledError:
            self._end.ending = Ending.STOPPED
        except (RuntimeError, TimeoutError, OSError) as error:
            if self._end.cell is not None:
                raise
            self._end = PassEnd(Ending.DIED, how=f"it did not start: {error}")

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)

    def stop(self) -> None:
        """Suspend the pass: interrupt the running cell; asked again, kill its kernel."""
        assert self._body is not None
        if not self._executing:
            self._body.cancel()
        elif self._stopped:
            self._kill()
        else:
            loop = asyncio.get_running_loop()
            self._interrupting = loop.create_task(self._interrupt())
            loop.call_later(_GRACE_SECONDS, self._kill)
        self._stopped = True

    async def _interrupt(self) -> None:
        untyped: Any = self._client.km
        await untyped.interrupt_kernel()

    def _kill(self) -> None:
        process = process_of(self._client.km)
        if process is not None and process.poll() is None:
            process.kill()

    async def _cells(self) -> None:
        client = self._client
        async with client.async_setup_kernel(cwd=str(self._folder), stderr=self._log):
            self._take_signals()  # nbclient has taken them for itself
            pid = int(process_of(client.km).pid)
            self._watcher.kernel_started(pid)
            looking = asyncio.ensure_future(self._look(pid))
            try:
                for place, cell in enumerate(self._notebook.cells):
                    if self._stopped:
                        self._end.ending = Ending.STOPPED
                        return
                    if cell.cell_type != "code" or not cell.source.strip():
                        continue
                    if not await self._cell(place, cell):
                        return
            finally:
                looking.cancel()

    async def _cell(self, place: int, cell: nbformat.NotebookNode) -> bool:
        """Run one cell; tell whether the next one is to run."""
        end = self._end
        end.cell, self._rows = place, {}
        self._watcher.cell_began(place)
        self._executing = True
        try:
            await self._client.async_execute_cell(cell, place)
        except CellExecutionError as error:
            end.ending = Ending.STOPPED if self._stopped else Ending.FAILED
            end.error = (error.ename, error.evalue)
            return False
        except DeadKernelError:
            process = process_of(self._client.km)
            end.how = self._memory.verdict(None if process is None else process.poll())
            end.ending = Ending.STOPPED if self._stopped else Ending.DIED
            end.in_flight = self._in_flight()
            return False
        finally:
            self._executing = False
            self._watcher.cell_ended(place)
        end.completed += 1
        return True

    async def _look(self, pid: int) -> None:
        while True:
            self._memory.look(pid)
            await asyncio.sleep(_LOOK_SECONDS)

    # --- what the kernel publishes ----------------------------------------------------

    def _see(self, message: Mapping[str, Any]) -> None:
        """Take in what a cell's live view is told."""
        if message["msg_type"] not in {"comm_open", "comm_msg"}:
            return
        data = message["content"].get("data", {})
        told = data.get("state", {}).get("state") or data.get("content", {}).get("news") or {}
        if not told:
            return
        self._rows |= told.get("rows", {})
        for key, row in told.get("rows", {}).items():
            if row.get("state") == "done":
                self._made.add((self._end.cell, key))
        self._watcher.steps_moved(told.get("head", {}).get("said", ""), self._in_flight())

    def _in_flight(self) -> list[str]:
        """Return the labels of the steps that are running, as the view tells it."""
        return [
            str(row.get("label", ""))
            for row in self._rows.values()
            if row.get("state") in _MOVING and row.get("kind") == "step"
        ]
