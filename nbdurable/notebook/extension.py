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
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from IPython import get_ipython
from IPython.core.error import InputRejected
from IPython.core.magic import no_var_expand

from nbdurable import store as stores
from nbdurable.api import configuration
from nbdurable.errors import CodecError, StoreError, StoreLockedError, UsageError
from nbdurable.inspection import maintenance
from nbdurable.inspection import queries as questions
from nbdurable.labels import harmless
from nbdurable.view.notice import Notice

from . import auto, displays, finding, header, running_cells, short_lived, step_cell
from . import shell as kernel
from . import source as cell
from .tracebacks import SENTENCES, one_line

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nbdurable.records import RunSummary


# --- A cell, running ------------------------------------------------------------


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
                step_cell.guarded(tree),
                autoawait=self._shell.autoawait,
                interactivity=self._shell.ast_node_interactivity,
            )
        except Exception as error:
            raise InputRejected(f"%%durable could not read this cell: {error}") from error


@no_var_expand
def durable_cell(line: str, body: str) -> object:
    """Run the cell as a durable workflow.

    ::

        %%durable NAME [--new] [--max-age AGE] [--keep] [--executor E] [--limit N]
                       [--tee] [--quiet] [--strict]

    Steps that the cell calls or starts are saved as they finish. When the cell
    runs again, after a restart or a crash, what was saved is replayed and only
    the rest runs. NAME takes {expressions}: ``%%durable etl-{day}`` is a run a
    day.

    --new           never replay a finished run (an unfinished one is resumed)
    --max-age AGE   start anew when the last checkpoint is older: 90, 30m, 12h, 7d
    --keep          accept saved outcomes whose code has changed, and say which
    --executor E    where bodies run: threads, process or dask
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


@no_var_expand
def step_magic(line: str, body: str) -> None:
    """Save the cell when it has run, and restore it as long as nothing it uses has changed.

    ::

        %%step NAME

    A plain cell, as it is. What it leaves (variables, output, random state, settings) is saved
    under NAME. When the cell runs again, after a restart or a crash, and its code, what it
    reads and its files are as they were, that is restored, and nothing of it runs but its
    imports and definitions. NAME takes {expressions}. ``%durable auto`` does the same with
    every plain cell.
    """
    # What is typed never comes here: the input transformer has first hand on it.
    del body
    step_cell.refuse_inside(line)


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

_MOST_ASKED: Final = 8
"""Where no notebook is known, loading looks into no more of the folder's stores."""

# --- Loading --------------------------------------------------------------------


def load(shell: InteractiveShell) -> None:
    """Put the magics into ``shell``, once, and tell what is unfinished."""
    unload(shell)
    shell.input_transformers_cleanup.append(_mark)
    shell.ast_transformers.append(_Wrapper(shell))
    untyped: Any = shell
    untyped.register_magic_function(durable_line, "line", "durable")
    untyped.register_magic_function(durable_cell, "cell", "durable")
    untyped.register_magic_function(step_magic, "cell", "step")
    running_cells.cover(shell)
    untyped.set_hook("complete_command", _complete, str_key="%durable")
    displays.capture_displays(shell)
    configuration.set_notebook(finding.notebook(shell))
    store = configuration.known_store()
    if lost := short_lived.told(store or configuration.working_folder()):
        _say(shell, lost)
    if store is not None and not Path(store).is_file():
        _tell_earlier(shell, store)
        return
    found: list[RunSummary] = []
    there = configuration.stores_at_hand()[:_MOST_ASKED]
    if unused := [place for place in there if not _has_used(place)]:
        more = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
        _say(
            shell,
            f"nothing was opened of {unused[0]}{more}: you haven't used it yet under this path; "
            f"its durable cell, or `%durable status`, looks whether it is yours",
        )
    for place in there:
        if place in unused:
            continue
        try:
            found += questions.unfinished(
                store=place, wait=_LOAD_WAIT_SECONDS if store is not None else 0.0
            )
        except (StoreError, CodecError) as error:
            # Another kernel that works in this folder uses its own; nothing has died there.
            if store is not None or not isinstance(error, StoreLockedError):
                _say(shell, f"nbdurable is loaded, but what was saved can't be read: {error}")
    if found:
        _tell(shell, Notice(found, time.time()))


def _has_used(place: str) -> bool:
    """Tell whether this user has used a store under its path: only such are opened at load."""
    try:
        return stores.is_listed(stores.place_of(place))
    except StoreError:
        return False  # what is wrong with it is said where it is asked for


def _tell_earlier(shell: InteractiveShell, store: str) -> None:
    """Say which stores may hold checkpoints of this notebook, which has none yet."""
    for name in maintenance.earlier_names():
        _say(
            shell,
            f"nothing is saved for this notebook yet, but there are checkpoints of {name}: if "
            f"this is that notebook, renamed or copied, `%durable adopt {name}` takes them",
        )
    notebook = configuration.notebook()
    if notebook is None or configuration.is_chosen():
        return
    for source in kernel.saved_sources(notebook):
        written = _name_in(source)
        if written is None:
            continue
        apart = maintenance.store_apart(written, store)
        if apart.is_file():
            _say(
                shell,
                f"nothing is saved for this notebook yet, but {written} has run where no notebook "
                f"was known: {maintenance.adopt_line(apart.stem)} takes what it saved",
            )


def _name_in(source: str) -> str | None:
    """Return the name in a durable cell's first line; None in any other cell."""
    try:
        return header.parse_header(cell.header_of(source) or "").name
    except UsageError:
        return None


def _tell(shell: InteractiveShell, notice: Notice) -> None:
    """Show what is unfinished: in a panel where a person looks, in lines on a terminal.

    A notebook that is executed where nobody looks is not to show that it was interrupted.
    """
    if not kernel.in_kernel(shell):
        notice.print()
    elif kernel.watched(shell):
        publisher: Any = shell.display_pub
        publisher.publish(notice.bundle)
    else:
        kernel.log(shell, str(notice))


def _say(shell: InteractiveShell, text: str) -> None:
    """Print a line as the extension loads; where nobody looks, into the kernel's log."""
    text = harmless(text)
    if kernel.watched(shell):
        print(text)  # noqa: T201 - told as the extension loads
    else:
        kernel.log(shell, text)


def unload(shell: InteractiveShell) -> None:
    """Take the magics out again; what was never loaded is left alone.

    By module name: after an autoreload the objects are others than those loaded.
    """
    cleanup, trees = shell.input_transformers_cleanup, shell.ast_transformers
    cleanup[:] = [t for t in cleanup if getattr(t, "__module__", "") != __name__]
    trees[:] = [t for t in trees if type(t).__module__ != __name__]
    for kind, name in (("line", "durable"), ("cell", "durable"), ("cell", "step")):
        shell.magics_manager.magics[kind].pop(name, None)
    auto.forget(shell)
    running_cells.uncover(shell)
    if (completers := shell.strdispatchers.get("complete_command")) is not None:
        completers.strs.pop("%durable", None)
    displays.release_displays(shell)


for _kind in SENTENCES:
    _kind._render_traceback_ = one_line
