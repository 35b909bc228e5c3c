"""Where the shell runs a cell's statements: which cells are handled as plain cells, and by whom.

Invariant: covering changes nothing for a cell that is not handled; what is uncovered is the
shell's own method again.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, Final

from nbdurable.errors import DurableError

from . import auto, step_cell
from .plain_cells import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

_DURABLE: Final = "nbdurable.notebook.durable_cell"


class _Nested:
    """How deep cells are in each other: one that another one runs is part of that."""

    depth = 0


def cover(shell: InteractiveShell) -> None:
    """Have plain cells handled from now on; once."""
    uncover(shell)
    untyped: Any = shell
    original = untyped.run_ast_nodes
    nested = _Nested()

    async def run_ast_nodes(
        nodelist: list[ast.stmt],
        cell_name: str,
        interactivity: str = "last_expr",
        compiler: Callable[..., Any] = compile,
        result: Any = None,
    ) -> bool | None:
        async def run(nodes: list[ast.stmt], shown: str) -> bool | None:
            found: bool | None = await original(nodes, cell_name, shown, compiler, result)
            return found

        line = step_cell.header_of(nodelist)
        nodes = nodelist if line is None else nodelist[1:]
        if nested.depth or (line is None and not _is_automatic(shell, nodes, result)):
            return await run(nodelist, interactivity)
        request = Request(nodes, interactivity, quiet=_is_quiet(result), run=run)
        nested.depth += 1
        try:
            if line is not None:
                return await step_cell.run(shell, line, request)
            return await auto.run(shell, request, _source_of(result))
        except (DurableError, KeyboardInterrupt) as error:
            if result is not None:
                result.error_in_exec = error
            shell.showtraceback()
            return True
        finally:
            nested.depth -= 1

    run_ast_nodes.nbdurable = True  # type: ignore[attr-defined]
    untyped.run_ast_nodes = run_ast_nodes


def uncover(shell: InteractiveShell) -> None:
    """Let the shell run all cells itself again."""
    if hasattr(vars(shell).get("run_ast_nodes"), "nbdurable"):
        del vars(shell)["run_ast_nodes"]


def _is_automatic(shell: InteractiveShell, nodes: list[ast.stmt], result: Any) -> bool:
    """Tell whether `%durable auto` handles a cell."""
    if not nodes or not auto.is_on(shell) or result is None:
        return False
    info = getattr(result, "info", None)
    if info is None or info.silent:
        return False
    return not any(_is_durable(node) for node in nodes)


def _is_durable(node: ast.stmt) -> bool:
    """Tell whether a statement is a durable cell's block."""
    if not isinstance(node, ast.With | ast.AsyncWith):
        return False
    return _DURABLE in ast.dump(node.items[0].context_expr)


def _source_of(result: Any) -> str:
    info = getattr(result, "info", None)
    return str(getattr(info, "raw_cell", "") or "")


def _is_quiet(result: Any) -> bool:
    """Tell whether a semicolon at a cell's end keeps its last value from being shown."""
    return _source_of(result).rstrip().endswith(";")
