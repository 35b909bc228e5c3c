"""What is executed in every pass, also in a cell that is restored: imports, functions, classes.

Invariant: what is executed so binds names and does nothing else that a restored value could
contradict; a definition that calls something, or looks at what its own cell changes, is no
reason to guess: its cell runs.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final, NamedTuple

from .binding import imported_names
from .magics import SETTINGS, magic_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PURE: Final = frozenset(
    {"staticmethod", "classmethod", "property", "dataclass", "cache", "lru_cache", "wraps",
     "abstractmethod", "overload", "contextmanager", "asynccontextmanager", "total_ordering",
     "cached_property", "final", "override", "runtime_checkable", "unique", "singledispatch",
     "njit", "jit", "vectorize", "step", "setter", "getter", "no_type_check"}
)  # fmt: skip
"""Decorators, by their last name, that do nothing but make something of what they are given."""

_DEFS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)


class Definitions(NamedTuple):
    """The statements of a cell that are executed in each pass, in their order.

    ``rest`` are the others; ``defined`` the names that functions and classes get, ``imported``
    those of imports; ``fault`` says why the cell can't be restored, if it can't.
    """

    always: tuple[ast.stmt, ...]
    rest: tuple[ast.stmt, ...]
    defined: frozenset[str]
    imported: frozenset[str]
    fault: str


def definitions_of(body: Sequence[ast.stmt], changed: frozenset[str]) -> Definitions:
    """Tell the definitions of a cell from the rest.

    Args:
        body: The cell's statements.
        changed: The names that the rest of it binds, deletes or calls methods of.
    """
    always: list[ast.stmt] = []
    rest: list[ast.stmt] = []
    defined: set[str] = set()
    imported: set[str] = set()
    fault = ""
    for node in body:
        if isinstance(node, _IMPORTS):
            imported |= imported_names(node)
            always.append(node)
            if isinstance(node, ast.ImportFrom) and any(one.name == "*" for one in node.names):
                fault = fault or f"`from {node.module} import *` binds names that can't be told"
        elif isinstance(node, _DEFS):
            always.append(node)
            defined.add(node.name)
            fault = fault or _calls(node) or _looks(node, changed)
        elif _is_setting(node):
            always.append(node)
        elif not _is_text(node):
            rest.append(node)
    return Definitions(tuple(always), tuple(rest), frozenset(defined), frozenset(imported), fault)


def _is_setting(node: ast.stmt) -> bool:
    magic = magic_of(node.value) if isinstance(node, ast.Expr) else None
    return magic is not None and magic.name in SETTINGS


def _is_text(node: ast.stmt) -> bool:
    """Tell whether a statement is a text that stands alone, or nothing at all."""
    if isinstance(node, ast.Pass):
        return True
    alone = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return alone and isinstance(node.value.value, str)  # type: ignore[attr-defined]


def _calls(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    """Say what a definition calls while it is made; nothing if that is nothing of consequence."""
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name not in _PURE:
            return f"the decorator `@{ast.unparse(called)}` of {node.name} calls something"
        if isinstance(decorator, ast.Call):
            for inner in (*decorator.args, *[one.value for one in decorator.keywords]):
                if _has_call(inner):
                    return f"the decorator `@{ast.unparse(called)}` of {node.name} calls something"
    if isinstance(node, ast.ClassDef):
        return _class_calls(node)
    for default in (*node.args.defaults, *node.args.kw_defaults):
        if default is not None and _has_call(default):
            return f"a default of {node.name}() calls something"
    return ""


def _class_calls(node: ast.ClassDef) -> str:
    for base in (*node.bases, *[one.value for one in node.keywords]):
        if _has_call(base):
            return f"a base of class {node.name} calls something"
    for inner in node.body:
        if isinstance(inner, _DEFS):
            if fault := _calls(inner):
                return fault
        elif isinstance(inner, ast.Assign | ast.AnnAssign):
            if inner.value is not None and _has_call(inner.value, fields=True):
                return f"an attribute of class {node.name} calls something"
        elif not _is_text(inner):
            return f"the body of class {node.name} does more than define"
    return ""


_FIELDS: Final = frozenset({"field", "Field", "auto", "list", "dict", "set", "tuple", "frozenset"})


def _has_call(node: ast.expr, *, fields: bool = False) -> bool:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr):
            return True
        if isinstance(inner, ast.Call):
            called = inner.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if not (fields and name in _FIELDS):
                return True
    return False


def _looks(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, changed: frozenset[str]
) -> str:
    """Say what of its own cell a definition looks at while it is made."""
    for part in _evaluated(node):
        for inner in ast.walk(part):
            if not isinstance(inner, ast.Name) or not isinstance(inner.ctx, ast.Load):
                continue
            if inner.id in changed:
                return f"{node.name} is defined with `{inner.id}`, which the same cell changes"
    return ""


def _evaluated(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> Iterator[ast.AST]:
    """Yield what of a definition is evaluated when it is made."""
    yield from node.decorator_list
    if isinstance(node, ast.ClassDef):
        yield from node.bases
        yield from node.keywords
        for inner in node.body:
            if isinstance(inner, _DEFS):
                yield from _evaluated(inner)
            else:
                yield inner
        return
    yield from node.args.defaults
    yield from filter(None, node.args.kw_defaults)
    arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    yield from (one.annotation for one in arguments if one.annotation is not None)
    if node.returns is not None:
        yield node.returns
