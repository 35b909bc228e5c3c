"""The notebook's door: ``%%durable``, ``%durable``, and the extension's loading.

A line is parsed (`cell`), the session is called, the view is shown; nothing is
computed here. Loading twice is loading once, and costs no import of DuckDB or
of a widget library.

Invariant: whatever happens in a durable cell happens as in a plain cell: its
values, its errors with their lines, its interrupt. A mistake in using nbdurable
is one line.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import inspect
import linecache
import sys
import time
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from IPython import get_ipython
from IPython.core.error import InputRejected
from IPython.core.magic import no_var_expand

from . import cell, configuration, kernel, owners, questions, session, upkeep
from .errors import CodecError, DurableError, FingerprintError, StoreError, UsageError
from .notice import Notice

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from IPython.core.interactiveshell import InteractiveShell

    from .publisher import LiveView
    from .widget import NotebookScreen

# --- A cell, running ------------------------------------------------------------

_kept: ContextVar[object] = ContextVar("nbdurable_kept", default=None)


def enter(header: str, suggestion: str) -> DurableCell:
    """Open the run that a cell's header asks for; called by the wrapped cell.

    Raises:
        UsageError: The header is wrong, or another cell has its name.
    """
    shell = get_ipython()
    assert shell is not None
    _tidy_first_line(sys._getframe(1).f_code.co_filename)  # noqa: SLF001 - the cell's own frame
    options = cell.parse_header(header, suggestion)
    name = cell.expand_name(options.name, shell.user_ns)
    owners.claim(name, shell)
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
    """Give the kept value, once: the shell shows it, as any last expression's."""
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

    def __init__(self, shell: InteractiveShell, name: str, options: cell.CellOptions) -> None:
        self._shell = shell
        self._name = name
        self._options = options
        self._interrupt = kernel.Interrupt()
        shown = not options.quiet and configuration.default_progress() is not False
        notebook = kernel.in_kernel(shell)
        self._screen = _new_screen(shell, name) if shown and notebook else None
        self._view = None if self._screen is None else _new_view(name, self._screen)
        self._told = shown and not notebook  # the session's own view says all, and stays
        configuration.set_notebook(kernel.notebook(shell))
        kernel.cover_displays(shell)
        self._workflow = session.workflow(
            name,
            observers=() if self._view is None else (self._view,),
            progress=self._told,
            **_asked(options, shell.user_ns),
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
            raise _interrupted(self._shell, interrupt) from None
        finally:
            self._ended(error)
        self._said(error)

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
        except BaseException:
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
            raise _interrupted(self._shell, error) from None
        if error is not None and kind is None:
            raise error
        self._said(error)

    def _started(self) -> None:
        _kept.set(None)
        if self._screen is not None:
            self._screen.controls = self._workflow.control
        if self._view is not None:
            self._view.show()

    def _ended(self, error: BaseException | None) -> None:
        """Tidy up, whatever happened."""
        if error is not None:
            _kept.set(None)
            cell.prune(error)
        if self._view is not None:
            self._view.finish()

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
        _say_store(self._shell)


def _asked(options: cell.CellOptions, names: Mapping[str, object]) -> dict[str, Any]:
    """Give the options that the header names, as the session takes them.

    Raises:
        UsageError: The session has no such option.
    """
    words = ("new", "max_age", "keep", "strict", "limit", "executor", "tee")
    asked = {word: getattr(options, word) for word in words if getattr(options, word)}
    if options.max_age is not None:
        asked["max_age"] = options.max_age  # 0 is an age, too
    for word in asked:
        if word not in inspect.signature(session.workflow).parameters:
            raise UsageError(f"%%durable --{word.replace('_', '-')} is not in this version yet")
    if options.executor is not None:
        asked["executor"] = names.get(options.executor, options.executor)
    return asked


def _new_screen(shell: InteractiveShell, name: str) -> NotebookScreen:
    """Make what a run is shown on in a notebook.

    nbval compares every MIME type of a display but the widget's own. So where
    nobody looks, the summary holds nothing that differs from run to run.
    """
    from .widget import NotebookScreen  # noqa: PLC0415 - a --quiet cell doesn't pay for it

    return NotebookScreen(name, times=kernel.watched(shell))


def _new_view(name: str, screen: NotebookScreen) -> LiveView:
    from .publisher import LiveView  # noqa: PLC0415 - likewise

    return LiveView(name, screen)


def _interrupted(shell: InteractiveShell, error: BaseException) -> KeyboardInterrupt:
    """Make the KeyboardInterrupt that a stopped wait shows as, where it waited."""
    trace = _at_its_line(shell, error.__traceback__)
    raised = KeyboardInterrupt() if trace else KeyboardInterrupt("the cell waited for its steps")
    # Raised from the end of a `with`, it would be shown at its first line.
    raised.__dict__["_render_traceback_"] = functools.partial(
        shell.InteractiveTB.structured_traceback, KeyboardInterrupt, raised, trace, tb_offset=0
    )
    return raised


def _at_its_line(shell: InteractiveShell, trace: TracebackType | None) -> TracebackType | None:
    """Copy a cell's traceback so that its frame stays at the line that it names.

    IPython asks the frame for its line, and a frame moves on to its last one.
    None if the cell waited at its end, where there is no line to show.
    """
    if trace is None or trace.tb_frame.f_globals is not shell.user_global_ns:
        return None
    code = trace.tb_frame.f_code
    source = "\n" * (trace.tb_lineno - 1) + "raise KeyboardInterrupt"
    copied: TracebackType | None = None
    try:
        exec(compile(source, code.co_filename, "exec"), {"__name__": "__main__"})  # noqa: S102
    except KeyboardInterrupt as stand_in:
        copied = stand_in.__traceback__
    if copied is None or (copied := copied.tb_next) is None:
        return None
    copied.tb_next = trace.tb_next
    return copied


_told_store: set[str] = set()


def _say_store(shell: InteractiveShell) -> None:
    """Say once where the checkpoints are, if no notebook tells."""
    store = configuration.default_store()
    notebook = kernel.notebook(shell)
    if store in _told_store or configuration.is_chosen():
        return
    if notebook is None:
        said = f"no notebook path is known here: checkpoints are in {store}"
    elif notebook.parent not in Path(store).parents:
        said = f"DuckDB can't keep a file in {notebook.parent}: checkpoints are in {store}"
    else:
        return
    _told_store.add(store)
    if kernel.watched(shell):
        kernel.say(shell, said)
    else:
        kernel.log(shell, said)


# --- The shell's hooks ----------------------------------------------------------


def _mark(lines: list[str]) -> list[str]:
    return cell.mark(cell.asked(lines))


# IPython leaves such a transform out when it asks whether the input is complete:
# a terminal then waits for the body, as after any other cell magic.
_mark.has_side_effects = True  # type: ignore[attr-defined]


class _Wrapper(ast.NodeTransformer):
    """The AST transformer that puts a marked cell inside its run."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell

    def visit(self, tree: ast.AST) -> ast.AST:
        """Wrap a marked cell; should that fail, refuse it rather than run it bare."""
        if not isinstance(tree, ast.Module):
            return tree
        try:
            return cell.wrap(
                tree,
                autoawait=self._shell.autoawait,
                interactivity=self._shell.ast_node_interactivity,
            )
        except Exception as error:
            raise InputRejected(f"%%durable could not read this cell: {error}") from error


@no_var_expand
def durable_cell(line: str, body: str) -> object:
    """Run the cell as a durable workflow.

    ::

        %%durable NAME [--new] [--max-age AGE] [--keep] [--executor E]
                       [--limit N] [--tee] [--quiet] [--strict]

    Steps that the cell calls or starts are saved as they finish. When the cell
    runs again, after a restart or a crash, what was saved is replayed and only
    the rest runs. NAME takes {expressions}: ``%%durable etl-{day}`` is a run a
    day.

    --new           never replay a finished run (an unfinished one is resumed)
    --max-age AGE   start anew when the last checkpoint is older: 90, 30m, 12h, 7d
    --keep          accept saved outcomes whose code has changed
    --executor E    where steps run: threads, process, dask, or an executor's variable
    --limit N       at most N steps at a time
    --tee           stream every step's output live
    --quiet         no status view
    --strict        raise where something would be left out or not saved
    """
    # A %%durable cell comes here only by `run_cell_magic`: the input transformer
    # has first hand on what is typed. As %%time does, then: no second run_cell.
    shell = get_ipython()
    assert shell is not None
    source = shell.transform_cell(f"{cell.MAGIC} {line}\n{body}")
    name = shell.compile.cache(source)
    tree = shell.compile.ast_parse(source, filename=name)
    if cell.awaits_at_top(tree.body):
        raise UsageError("a %%durable cell that awaits can't be run by another magic")
    *first, last = shell.transform_ast(tree).body
    value = None
    if isinstance(last, ast.Expr):
        value = last.value
    else:
        first.append(last)
    exec(shell.compile(ast.Module(first, []), name, "exec"), shell.user_ns)  # noqa: S102
    if value is None:
        return None
    return eval(shell.compile(ast.Expression(value), name, "eval"), shell.user_ns)  # noqa: S307


# --- %durable -------------------------------------------------------------------


@no_var_expand
def durable_line(line: str) -> object:
    """Look at the durable runs of this notebook: ``%durable`` alone lists how."""
    from . import commands  # noqa: PLC0415 - click and rich wait until somebody asks

    shell = get_ipython()
    assert shell is not None
    return commands.run(shell, line)


def _complete(shell: InteractiveShell, event: Any) -> list[str]:
    from . import commands  # noqa: PLC0415 - likewise

    return commands.complete(shell, event)


_LOAD_WAIT_SECONDS: Final = 1.0
"""Loading waits no longer for the store: the first durable cell waits, and says who holds it."""

# --- Loading --------------------------------------------------------------------


def load(shell: InteractiveShell) -> None:
    """Put the magics into ``shell``, once, and tell what is unfinished."""
    unload(shell)
    shell.input_transformers_cleanup.append(_mark)
    shell.ast_transformers.append(_Wrapper(shell))
    untyped: Any = shell
    untyped.register_magic_function(durable_line, "line", "durable")
    untyped.register_magic_function(durable_cell, "cell", "durable")
    untyped.set_hook("complete_command", _complete, str_key="%durable")
    kernel.capture_displays(shell)
    configuration.set_notebook(kernel.notebook(shell))
    if not Path(configuration.default_store()).is_file():
        for name in upkeep.earlier_names():
            print(  # noqa: T201 - told as the extension loads
                f"nothing is saved for this notebook yet, but there are checkpoints of {name}: if "
                f"this is that notebook, renamed or copied, `%durable adopt {name}` takes them"
            )
        return
    try:
        found = questions.unfinished(wait=_LOAD_WAIT_SECONDS)
    except (StoreError, CodecError) as error:
        print(f"nbdurable is loaded, but what was saved can't be read: {error}")  # noqa: T201
    else:
        if found:
            _tell(shell, Notice(found, time.time()))


def _tell(shell: InteractiveShell, notice: Notice) -> None:
    """Show what is unfinished: in a panel where a person looks, in lines elsewhere."""
    if kernel.in_kernel(shell) and kernel.watched(shell):
        publisher: Any = shell.display_pub
        publisher.publish(notice.bundle)
    else:
        notice.print()


def unload(shell: InteractiveShell) -> None:
    """Take the magics out again; what was never loaded is left alone.

    By module name: after an autoreload the objects are others than those loaded.
    """
    cleanup, trees = shell.input_transformers_cleanup, shell.ast_transformers
    cleanup[:] = [t for t in cleanup if getattr(t, "__module__", "") != __name__]
    trees[:] = [t for t in trees if type(t).__module__ != __name__]
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("durable", None)
    if (completers := shell.strdispatchers.get("complete_command")) is not None:
        completers.strs.pop("%durable", None)
    kernel.release_displays(shell)


def _one_line(error: DurableError) -> list[str]:
    """Render an error that its sentence explains: what IPython shows for its traceback."""
    place = ""
    entry = error.__traceback__
    while entry is not None:
        code = entry.tb_frame.f_code
        if entry.tb_frame.f_globals.get("__name__") == "__main__":
            lines = linecache.getlines(code.co_filename)
            marked = lines[entry.tb_lineno - 1 : entry.tb_lineno]
            place = (
                f" (line {entry.tb_lineno})"
                if len(lines) > 1 and not any(cell.MAGIC in text for text in marked)
                else ""
            )
        entry = entry.tb_next
    return [f"{type(error).__name__}: {error}{place}"]


# Mistakes in using nbdurable, and trouble with its store: no line of code is at fault.
_SENTENCES: Final[tuple[Any, ...]] = (UsageError, StoreError, CodecError, FingerprintError)
for _kind in _SENTENCES:
    _kind._render_traceback_ = _one_line
