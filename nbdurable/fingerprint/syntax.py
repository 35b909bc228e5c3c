"""Normalised syntax: a function's text without what can't change what it does.

Invariant: positions, comments, formatting, function docstrings and annotations of functions
leave no trace; everything else does. Fields that are empty are left out, so that a field that
a newer Python adds changes nothing.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from .values import LEAVES, bytes_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_DEFS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DROPPED = frozenset(
    {"ctx", "type_comment", "type_ignores", "kind", "type_params", "simple", "returns"}
)


def dotted(node: ast.expr) -> str | None:
    """Give ``a.b.c`` of a name, an attribute chain, or a call of one."""
    if isinstance(node, ast.Call):
        node = node.func
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(names)])


def decorators(node: ast.AST) -> Iterator[str]:
    """Names of all decorators of ``node`` and of the functions in it."""
    for inner in ast.walk(node):
        if isinstance(inner, _DEFS):
            yield from filter(None, map(dotted, inner.decorator_list))


def normalised(node: ast.AST, left_out: frozenset[str]) -> bytes:
    """Write ``node`` out in canonical bytes.

    The values of its own defaults are no part of the text: they are looked at as they are.

    Args:
        node: a function definition or lambda.
        left_out: dotted names of the decorators that are no part of the text.
    """
    out: list[bytes] = []
    _Writer(out, left_out, node).write(node)
    return b"".join(out)


class _Writer:
    def __init__(self, out: list[bytes], left_out: frozenset[str], root: ast.AST) -> None:
        self._out = out
        self._signature = getattr(root, "args", None)
        self._left_out = left_out
        self._in_class = False

    def write(self, node: object) -> None:
        """Write one node, or one leaf of the syntax tree."""
        if isinstance(node, ast.AST):
            self._node(node)
        elif isinstance(node, list):
            self._out.append(b"[")
            for item in node:
                self.write(item)
            self._out.append(b"]")
        else:
            self._out.append(_leaf(node))

    def _node(self, node: ast.AST) -> None:
        if isinstance(node, ast.AnnAssign) and not self._in_class:
            if node.value is None:
                return
            node = ast.Assign(targets=[node.target], value=node.value)
        self._out.append(b"(" + type(node).__name__.encode() + b" ")
        outer, self._in_class = self._in_class, isinstance(node, ast.ClassDef)
        constant = isinstance(node, ast.Constant)
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(node, _DEFS):
                value = self._of_function(field, value)
            if field in _DROPPED or (not constant and (value is None or value == [])):
                continue
            if field == "annotation" and isinstance(node, ast.arg):
                continue
            if node is self._signature and field in {"defaults", "kw_defaults"}:
                value = [default is not None for default in value or ()]
            self._out.append(field.encode() + b"=")
            self.write(value)
        self._in_class = outer
        self._out.append(b")")

    def _of_function(self, field: str, value: object) -> object:
        if field == "decorator_list" and isinstance(value, list):
            return [d for d in value if dotted(d) not in self._left_out]
        if field == "body" and isinstance(value, list) and value:
            first = value[0]
            text = first.value if isinstance(first, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                return value[1:]
        return value


def _leaf(value: object) -> bytes:
    """Write a constant, type-tagged."""
    if isinstance(value, (tuple, frozenset)):
        items = [_leaf(v) for v in value]
        if isinstance(value, frozenset):
            items.sort()
        tag = type(value).__name__[:1].encode()
        return b"%b%x:" % (tag, len(items)) + b"".join(items)
    encode = LEAVES.get(type(value))
    return encode(None, value) if encode else bytes_of(b"?", text_of(repr(value)))


constant = _leaf
