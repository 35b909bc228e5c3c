"""Which parts of what is around a cell uses without changing them, as far as its values tell.

Invariant: a part that may have decided what a cell made or showed is named; that a part is named
in vain costs a run when it changes.
"""

from __future__ import annotations

import ast
import types
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from nbdurable.records import Message

    from .cell_text import CellText

_DRAWING: Final = frozenset({"matplotlib", "seaborn", "mpl_toolkits", "plotnine"})
_PLOTS: Final = frozenset({"plot", "hist", "boxplot", "scatter_matrix", "savefig", "show"})
_DEEPEST: Final = 5
_PLACES: Final = frozenset({"getcwd", "cwd", "abspath", "resolve", "realpath", "absolute"})

# A part, and the libraries whose values or modules make a cell one that may use it.
_BY_LIBRARY: Final = (
    ("rcParams", _DRAWING),
    ("open figures", _DRAWING),
    ("pandas options", frozenset({"pandas", "seaborn", "plotnine"})),
    ("numpy print options", frozenset({"numpy", "pandas"})),
    ("numpy errors", frozenset({"numpy", "pandas", "scipy"})),
    ("decimal", frozenset({"decimal"})),
    ("locale", frozenset({"locale"})),
    ("logging", frozenset({"logging"})),
    ("warnings", frozenset({"warnings"})),
)


def used_parts(
    text: CellText,
    names: Iterable[str],
    namespace: Mapping[str, Any],
    messages: tuple[Message, ...],
    libraries: frozenset[str] = frozenset(),
) -> frozenset[str]:
    """Return the names of the parts that a cell may have used.

    Args:
        text: The cell.
        names: The names that it read or left.
        namespace: As it is after the cell.
        messages: What it showed.
        libraries: Those that what it read holds instances of.
    """
    named = [namespace[name] for name in names if name in namespace]
    libraries = libraries.union(*map(_roots, named))
    attributes = set(_attributes(text))
    found = {part for part, those in _BY_LIBRARY if libraries & those}
    if attributes & _PLOTS and "pandas" in libraries:
        found |= {"rcParams", "open figures"}
    if attributes & _PLACES:
        found.add("working folder")
    for one in messages:
        if one.kind == "display" and '"image/' in one.data:
            found |= {"rcParams", "open figures"}
        elif one.kind == "stderr" and "Warning" in one.data:
            found.add("warnings")
        elif one.kind == "stderr":
            found.add("logging")
    return frozenset(found)


def _roots(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the libraries that a value, or what a container of it holds first, is of."""
    if isinstance(value, types.ModuleType):
        yield value.__name__.partition(".")[0]
        return
    if depth > _DEEPEST:
        return
    if isinstance(value, list | tuple | set) and value:
        yield from _roots(next(iter(value)), depth + 1)
    elif isinstance(value, dict) and value:
        yield from _roots(next(iter(value.values())), depth + 1)
    owner = value if isinstance(value, type | types.FunctionType) else type(value)
    module = owner.__module__
    if isinstance(module, str):
        yield module.partition(".")[0]


def _attributes(text: CellText) -> Iterator[str]:
    for statement in text.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute):
                yield node.attr
            elif isinstance(node, ast.Name):
                yield node.id
