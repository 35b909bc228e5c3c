"""The text of a notebook: the statements of the cells that have run, as one module's.

Invariant: of statements that bind one name and are registered alike, the last one counts;
a shell's own list of cells says which ran, and in which order.
"""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING, Any

from nbdurable.fingerprint.parsing import parsed
from nbdurable.fingerprint.texts import Source

if TYPE_CHECKING:
    from types import CodeType

PATH = "<notebook>"
"""What stands for the notebook's file."""

_known: list[tuple[tuple[str, ...], Source]] = []


def is_notebook() -> bool:
    """Tell whether the main module is made of cells."""
    return _cells() is not None


def _cells() -> list[str] | None:
    main: Any = sys.modules.get("__main__")
    if main is None or vars(main).get("__file__"):
        return None
    cells = vars(main).get("In")
    if not isinstance(cells, list):
        return None
    return [cell for cell in cells if isinstance(cell, str)]


def source() -> Source:
    """Return the notebook's text, taken apart."""
    cells = tuple(_cells() or ())
    if not _known or _known[0][0] != cells:
        _known[:] = [(cells, _made(cells))]
    return _known[0][1]


def _made(cells: tuple[str, ...]) -> Source:
    kept: dict[tuple[object, ...], ast.stmt] = {}
    for cell in cells:
        try:
            tree = parsed(cell)
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in tree.body:
            key = _key(node)
            kept.pop(key, None)
            kept[key] = node
    return Source("__main__", PATH, "\n".join(map(ast.unparse, kept.values())))


def _key(node: ast.stmt) -> tuple[object, ...]:
    """Return what a later statement takes the place of this one by."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return (node.name, *map(ast.dump, node.decorator_list))
    if isinstance(node, ast.Assign) and all(isinstance(one, ast.Name) for one in node.targets):
        return tuple(map(ast.dump, node.targets))
    return (ast.dump(node),)


def statement_of(source: Source, code: CodeType) -> int | None:
    """Return the statement that holds a nameless function, by what it names."""
    names = {*code.co_names, *(one for one in code.co_consts if isinstance(one, str))}
    for at, one in enumerate(source.statements):
        for node in ast.walk(one.node):
            if isinstance(node, ast.Lambda) and names <= _words(node):
                return at
    return None


def _words(node: ast.AST) -> set[str]:
    found: set[str] = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Name):
            found.add(one.id)
        elif isinstance(one, ast.Attribute):
            found.add(one.attr)
        elif isinstance(one, ast.Constant) and isinstance(one.value, str):
            found.add(one.value)
    return found
