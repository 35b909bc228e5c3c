"""A durable cell as it is executed: its run begun, shown, ended."""

from __future__ import annotations

import asyncio
import linecache
import sys
import time
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from IPython import get_ipython

from nbdurable.api import configuration
from nbdurable.api import workflow as session
from nbdurable.codec.pruned import prune
from nbdurable.errors import DurableError, UsageError
from nbdurable.inspection import amending, maintenance
from nbdurable.labels import ago

from . import cell_names, displays, finding, tracebacks
from . import header as header_
from . import interrupt as interrupt_
from . import shell as kernel
from .tracebacks import interrupted

if TYPE_CHECKING:
    from types import TracebackType

    from IPython.core.interactiveshell import InteractiveShell

    from nbdurable.view.live import LiveView
    from nbdurable.view.notebook.widget import NotebookScreen


_kept: ContextVar[object] = ContextVar("nbdurable_kept", default=None)


def enter(header: str, suggestion: str) -> DurableCell:
    """Open the run that a cell's header asks for; called by the wrapped cell.

    Raises:
        UsageError: The header is wrong, or another cell has its name.
    """
    shell = get_ipython()
    assert shell is not None
    _tidy_first_line(sys._getframe(1).f_code.co_filename)  # noqa: SLF001 - the cell's own frame
    options = header_.parse_header(header, suggestion)
    name = header_.expand_name(options.name, shell.user_ns)
    cell_names.claim(name, header, shell)
    return DurableCell(shell, name, options)


def _tidy_first_line(filename: str) -> None:
    """Let tracebacks show the header without the mark that tells it from a docstring."""
    entry = linecache.cache.get(filename)
    if entry is None or len(entry) != 4:  # noqa: PLR2004 - a file that is not read yet has one
        return
    lines = entry[2]
    for at, line in enumerate(lines):
        if line.startswith(("u'%%durable", 'u"%%durable')):
            lines[at] = line[1:]
            return


def keep(value: object) -> None:
    """Keep the value of a cell's last expression until its run has ended."""
    _kept.set(value)


def kept() -> object:
    """Return the kept value, once: the shell shows it, as any last expression's."""
    value = _kept.get()
    _kept.set(None)
    return value


def show(value: object) -> None:
    """Show the value of an expression within a cell, where the shell is set so."""
    shell = get_ipython()
    assert shell is not None
    shell.displayhook(value)


class DurableCell:
    """One execution of one cell: its run, its view, its interrupt."""

    def __init__(self, shell: InteractiveShell, name: str, options: header_.CellOptions) -> None:
        self._shell = shell
        self._name = name
        self._options = options
        self._interrupt = interrupt_.Interrupt()
        shown = not options.quiet and configuration.default_progress() is not False
        notebook = kernel.in_kernel(shell)
        self._screen = _new_screen(shell, name) if shown and notebook else None
        self._view = None if self._screen is None else _new_view(name, self._screen)
        self._told = shown and not notebook  # the session's own view says all, and stays
        configuration.set_notebook(finding.notebook(shell, decide=True))
        self._store = _store_of(shell, options.name)
        displays.cover_displays(shell)
        self._workflow = session.workflow(
            name,
            store=self._store,
            observers=() if self._view is None else (self._view,),
            progress=self._told,
            **_asked(options),
        )

    def __enter__(self) -> Self:
        """Start the execution of a cell that doesn't await."""
        self._workflow.__enter__()
        self._started()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it: wait for its steps, then show what is to be said."""
        try:
            self._workflow.__exit__(kind, error, trace)
        except KeyboardInterrupt as interrupt:
            if interrupt is error:
                raise
            raise self._interrupted(interrupt) from None
        finally:
            self._ended(error)
        self._said(error)

    def _interrupted(self, error: BaseException) -> KeyboardInterrupt:
        """Make the KeyboardInterrupt that the cell ends with, where it waited."""
        raised = interrupted(self._shell, error)
        if self._stopped:
            tracebacks.tell_stop(raised, self._name)
        return raised

    @property
    def _stopped(self) -> bool:
        """Whether a person has stopped the run in its view."""
        controls = None if self._screen is None else self._screen.controls
        return controls is not None and controls.stopped

    async def __aenter__(self) -> Self:
        """Start the execution of a cell that awaits."""
        try:
            self._interrupt.__enter__()
        except RuntimeError:
            raise UsageError(
                "a %%durable cell awaits on asyncio only: run `%autoawait asyncio`"
            ) from None
        try:
            await self._workflow.__aenter__()
        except BaseException:  # an interrupt, too, is put back
            self._interrupt.__exit__()
            raise
        self._started()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it; a wait that the stop button cut short is a KeyboardInterrupt."""
        try:
            await self._workflow.__aexit__(kind, error, trace)
        except (asyncio.CancelledError, KeyboardInterrupt) as late:
            error = error or late
        finally:
            self._interrupt.__exit__()
            self._ended(error)
        if isinstance(error, asyncio.CancelledError) and self._interrupt.fired:
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            raise self._interrupted(error) from None
        if error is not None and kind is None:
            raise error
        self._said(error)

    def _started(self) -> None:
        _kept.set(None)
        if self._workflow.fresh and not configuration.is_chosen():
            for other in maintenance.elsewhere(self._options.name, self._name, self._store):
                _tell(self._shell, _elsewhere_told(self._name, other, self._store))
        if self._screen is not None:
            self._screen.controls = self._workflow.control
        if self._view is not None:
            self._view.show()

    def _ended(self, error: BaseException | None) -> None:
        """Tidy up, whatever happened."""
        if error is not None:
            _kept.set(None)
            prune(error)
            if isinstance(error, KeyboardInterrupt) and self._stopped:
                tracebacks.tell_stop(error, self._name)
        if self._view is not None:
            self._view.finish()
        self._take_out()

    def _take_out(self) -> None:
        """Take out the failures that a person wants to be tried again, now that nothing runs."""
        controls = None if self._screen is None else self._screen.controls
        if controls is None or not controls.redos:
            return
        try:
            said = amending.redo(
                self._name, controls.redos, store=self._store, errors=True, say=lambda _: None
            )
        except DurableError as error:
            said = str(error)
        _tell(self._shell, said)

    def _said(self, error: BaseException | None) -> None:
        """Say what the view can't: there is none, or no step ran."""
        notes = self._workflow.warnings
        if self._view is None and not self._told and kernel.watched(self._shell):
            for note in notes:
                kernel.say(self._shell, note)
        elif not kernel.watched(self._shell):
            # The stable summary of an executed notebook has no place for them.
            for note in notes:
                kernel.log(self._shell, f"{self._name}: {note}")
        if error is None and self._workflow.steps == 0:
            kernel.say(
                self._shell,
                f"{self._name} ran no step, so nothing was saved: call a function marked "
                f"with @step, or start one with go(...)",
            )
        _say_store(self._shell, self._store)


def _asked(options: header_.CellOptions) -> dict[str, Any]:
    """Return the options that the header names, as the session takes them."""
    words = ("new", "max_age", "keep", "strict", "limit", "executor", "tee")
    asked = {word: getattr(options, word) for word in words if getattr(options, word)}
    if options.max_age is not None:
        asked["max_age"] = options.max_age  # 0 is an age, too
    return asked


def _new_screen(shell: InteractiveShell, name: str) -> NotebookScreen:
    """Make what a run is shown on in a notebook.

    nbval compares every MIME type of a display but the widget's own. So where
    nobody looks, the summary holds nothing that differs from run to run.
    """
    from nbdurable.view.notebook.widget import NotebookScreen  # noqa: PLC0415 - a --quiet cell doesn't pay for it

    return NotebookScreen(
        name,
        times=kernel.watched(shell),
        deaf=not kernel.listens(shell),
        announce_busy=kernel.busy_announcer(shell),
    )


def _new_view(name: str, screen: NotebookScreen) -> LiveView:
    from nbdurable.view.live import LiveView  # noqa: PLC0415 - likewise

    return LiveView(name, screen)


_told_folders: set[str] = set()


def _store_of(shell: InteractiveShell, written: str) -> str:
    """Return the store of a cell's run, whose name is `written` so in the cell.

    A notebook that was only found may not have been found when the run began: where it has
    no store and the run has one, the run goes on in that.
    """
    store = configuration.store_for(written)
    if configuration.is_chosen() or configuration.notebook() is None or finding.is_told(shell):
        return store
    own = maintenance.store_apart(written, store)
    return str(own) if own.is_file() and not Path(store).is_file() else store


def _elsewhere_told(name: str, other: maintenance.Elsewhere, store: str) -> str:
    """Say that a run has checkpoints in another store, and how to go on from them."""
    if other.saved is None:
        there = "may have some, but another process has it open"
    else:
        many = "" if other.saved == 1 else "s"
        there = f"has {other.saved} outcome{many}, {ago(time.time() - other.last_started)}"
    if configuration.notebook() is not None:
        line = maintenance.adopt_line(other.store.stem)
    else:
        line = f"`nbdurable.configure(store={str(other.store)!r})` (or set NBDURABLE_STORE)"
    return (
        f"{name} has no checkpoints in {store} and begins anew; {other.store} {there}: to go on "
        f"from there, stop this cell, run {line}, and run it again"
    )


def _say_store(shell: InteractiveShell, store: str) -> None:
    """Say once where the checkpoints are, if no notebook tells."""
    notebook = configuration.notebook()
    folder, name = str(Path(store).parent), Path(store).name
    if folder in _told_folders or configuration.is_chosen():
        return
    if notebook is None:
        said = (
            f"no notebook path is known here: each run has a store of its own in {folder}, this "
            f"one in {name}"
        )
    elif notebook.parent not in Path(store).parents:
        said = f"DuckDB can't keep a file in {notebook.parent}: checkpoints are in {store}"
    else:
        return
    _told_folders.add(folder)
    _tell(shell, said)


def _tell(shell: InteractiveShell, said: str) -> None:
    """Say a line to who looks, or else to who runs the kernel."""
    if kernel.watched(shell):
        kernel.say(shell, said)
    else:
        kernel.log(shell, said)
