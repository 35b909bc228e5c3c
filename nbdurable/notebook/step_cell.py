"""``%%step NAME``: one plain cell, saved under a name, and restored when nothing has changed.

Invariant: the mark in the first line is the only trace in the cell's text; every line keeps its
number. A mark that the shell does not meet on top of a cell of its own is refused.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from nbdurable.api import configuration
from nbdurable.api.open_stores import executed, executing
from nbdurable.errors import DurableError, UsageError
from nbdurable.labels import duration
from nbdurable.plain.passes import Pass
from nbdurable.records import RunStatus, Why

from . import cell_names, finding, header
from . import shell as kernel
from .plain_cells import PlainCells

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .plain_cells import Outcome, Request

MAGIC: Final = "%%step"

_WORTH_A_WORD: Final = 0.05
"""A restored cell says so if it took at least so many seconds."""


def header_of(nodes: list[ast.stmt]) -> str | None:
    """Return what stands behind ``%%step`` in a marked cell; None for any other cell."""
    match nodes[:1]:
        case [ast.Expr(value=ast.Constant(value=str(text), kind="u"))] if is_mark(text):
            return text.removeprefix(MAGIC).strip()
        case [ast.Expr(value=ast.Call(func=ast.Attribute(attr="refuse_inside"), args=[one]))]:
            return str(one.value) if isinstance(one, ast.Constant) else None
        case _:
            return None


def is_mark(text: str) -> bool:
    """Tell whether a literal is the mark of such a cell."""
    return text == MAGIC or text.startswith(MAGIC + " ")


def guarded(tree: ast.Module) -> ast.Module:
    """Let the mark of a cell refuse to be run: only the shell itself takes it off."""
    line = header_of(tree.body)
    if line is None:
        return tree
    first = tree.body[0]
    source = f"__import__({__name__!r}, None, None, ('MAGIC',)).refuse_inside({line!r})"
    call = ast.parse(source).body[0]
    for node in ast.walk(call):
        ast.copy_location(node, first)
    return ast.Module(body=[call, *tree.body[1:]], type_ignores=tree.type_ignores)


def refuse_inside(line: str) -> None:
    """Refuse a cell that another magic runs.

    Raises:
        UsageError: Always.
    """
    raise UsageError(
        f"{MAGIC} {line or 'NAME'} has to be the first line of its cell, above any other magic"
    )


async def run(shell: InteractiveShell, line: str, request: Request) -> bool:
    """Run or restore a ``%%step`` cell; tell whether it raised.

    Raises:
        UsageError: The line is wrong, or another cell has the name.
        StoreError: The store can't be opened.
    """
    written = header.parse_step(line, header.suggest_name(request.nodes))
    name = header.expand_name(written, shell.user_ns, MAGIC)
    cell_names.claim(name, line, shell)
    configuration.set_notebook(finding.notebook(shell, decide=True))
    place = configuration.store_for(written)
    with executing(place, name):
        one = Pass(place, name)
        try:
            outcome = await PlainCells(shell, one, always=True).handle(request)
        except BaseException:  # an interrupt, too, ends the pass
            _end(one, RunStatus.INTERRUPTED)
            raise
        finally:
            executed(place, name)
    _end(one, RunStatus.FAILED if outcome.raised else RunStatus.FINISHED)
    if not outcome.raised:
        _tell(shell, name, outcome)
    return outcome.raised


def _end(one: Pass, status: RunStatus) -> None:
    try:
        one.end(status)
    except DurableError:
        # What broke the store has been said; a pass without an end counts as died, and loses
        # nothing.
        return


def _tell(shell: InteractiveShell, name: str, outcome: Outcome) -> None:
    if outcome.restored:
        if outcome.seconds >= _WORTH_A_WORD and kernel.watched(shell):
            kernel.say(shell, f"{name}: restored, took {duration(outcome.seconds)}")
    elif outcome.defines:
        _say(shell, f"{name} only defines and imports, which every pass does: nothing to save")
    elif outcome.unsaved:
        _say(shell, f"{name} is not saved and runs again next time: {outcome.unsaved}")
    elif outcome.why not in {"", str(Why.NEW)}:
        _say(shell, f"{name} ran: {outcome.why}")


def _say(shell: InteractiveShell, text: str) -> None:
    """Say a line to who looks, or else to who runs the kernel."""
    if kernel.watched(shell):
        kernel.say(shell, text)
    else:
        kernel.log(shell, text)
