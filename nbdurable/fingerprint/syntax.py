"""Normalised syntax: a function's text without what can't change what it does.

Invariant: positions, comments, formatting, function docstrings and annotations of functions
leave no trace, nor do bare constants and ``pass``, the order of imports in a row, and the
names of locals; everything else does. Fields that are empty are left out, so that a field
that a newer Python adds changes nothing.
"""

from __future__ import annotations

import ast
from types import CodeType
from typing import TYPE_CHECKING, Any

from .values import LEAVES, bytes_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
DEFS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DROPPED = frozenset(
    {"ctx", "type_comment", "type_ignores", "kind", "type_params", "simple", "returns"}
)


def dotted(node: ast.expr) -> str | None:
    """Return ``a.b.c`` of a name, an attribute chain, or a call of one."""
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
        if isinstance(inner, DEFS):
            yield from filter(None, map(dotted, inner.decorator_list))


def normalised(
    node: ast.AST,
    left_out: frozenset[str],
    renamed: frozenset[str] = frozenset(),
    documented: frozenset[str] = frozenset(),
) -> bytes:
    """Write ``node`` out in canonical bytes.

    The values of its own defaults are no part of the text: they are looked at as they are.

    Args:
        node: a function definition or lambda.
        left_out: dotted names of the decorators that are no part of the text.
        renamed: names of locals, which are written as numbers.
        documented: names of inner functions and classes whose docstrings and annotations count.
    """
    writer = _Writer(left_out, node, renamed, documented)
    writer.write(node)
    return b"".join(writer.out)


_OPTIMIZED = 0x1
_LOOKING = frozenset({"locals", "vars", "dir", "eval", "exec", "globals"})


def locals_of(node: ast.AST, code: CodeType, outer: frozenset[str]) -> frozenset[str]:
    """Return the names of locals, nested code's included, that nothing but the text knows.

    Args:
        node: the function's definition.
        code: its code.
        outer: names that it, or code in it, loads from or stores to outer scopes.
    """
    mine: set[str] = set()
    others = set(outer)
    _names_of(code, mine, others)
    if others & _LOOKING:
        return frozenset()
    for inner in ast.walk(node):
        if isinstance(inner, (*DEFS, ast.ClassDef)):
            others.add(inner.name)
        elif isinstance(inner, ast.alias) and not inner.asname:
            others.add(inner.name.partition(".")[0])
    return frozenset(mine - others)


def _names_of(code: CodeType, mine: set[str], others: set[str]) -> None:
    flags = code.co_flags
    count = code.co_argcount + code.co_kwonlyargcount + bool(flags & 4) + bool(flags & 8)
    others.update(code.co_varnames[:count])
    if flags & _OPTIMIZED:
        mine.update(code.co_varnames[count:], code.co_cellvars)
    else:
        others.update(code.co_cellvars)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            _names_of(const, mine, others)


class _Writer:
    def __init__(
        self,
        left_out: frozenset[str],
        root: ast.AST,
        renamed: frozenset[str],
        documented: frozenset[str],
    ) -> None:
        self.out: list[bytes] = []
        self._renamed = renamed
        self._documented = documented
        self._keeps = False
        self._numbers: dict[str, int] = {}
        self._signature = getattr(root, "args", None)
        self._left_out = left_out
        self._in_class = False

    def write(self, node: object) -> None:
        """Write one node, or one leaf of the syntax tree."""
        if isinstance(node, ast.AST):
            self._node(node)
        elif isinstance(node, list):
            self.out.append(b"[")
            for item in node:
                self.write(item)
            self.out.append(b"]")
        else:
            self.out.append(_leaf(node))

    def _node(self, node: ast.AST) -> None:
        if isinstance(node, ast.AnnAssign) and not (self._in_class or self._keeps):
            if node.value is None:
                return
            node = ast.Assign(targets=[node.target], value=node.value)
        outer = self._in_class, self._keeps
        defines = isinstance(node, (*DEFS, ast.ClassDef))
        if defines:
            self._keeps = self._keeps or node.name in self._documented  # type: ignore[attr-defined]
        self._in_class = isinstance(node, ast.ClassDef)
        self.out.append(b"(" + type(node).__name__.encode() + b" ")
        for field in node._fields:
            value = self._value(node, field)
            empty = value is None or value == []
            if field not in _DROPPED and (not empty or isinstance(node, ast.Constant)):
                self.out.append(field.encode() + b"=")
                self.write(value)
        if defines and self._keeps:
            self.out.append(ast.dump(node).encode())
        self._in_class, self._keeps = outer
        self.out.append(b")")

    def _value(self, node: ast.AST, field: str) -> Any:
        """Return a field's value, without what says nothing; None to leave the field out."""
        value = getattr(node, field, None)
        if field == "decorator_list":
            return [d for d in value or () if dotted(d) not in self._left_out]
        if field in _BODIES and isinstance(value, list):
            return _telling(value)
        if field == "annotation" and isinstance(node, ast.arg):
            return None
        if node is self._signature and field in {"defaults", "kw_defaults"}:
            return [default is not None for default in value or ()]
        if (field in _NAMED and not isinstance(node, ast.alias)) or field == "asname":
            return self._local(value)
        return value

    def _local(self, value: object) -> object:
        """Return a local's number in place of its name."""
        if isinstance(value, list):
            return [self._local(one) for one in value]
        if isinstance(value, str) and value in self._renamed:
            return self._numbers.setdefault(value, len(self._numbers))
        return value


_BODIES = frozenset({"body", "orelse", "finalbody"})
_NAMED = frozenset({"id", "asname", "name", "rest", "names"})
_IMPORTS = (ast.Import, ast.ImportFrom)


def _telling(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return statements without those that do nothing; imports in a row in one order."""
    found: list[ast.stmt] = []
    row: list[ast.stmt] = []
    for one in body:
        if isinstance(one, _IMPORTS):
            row += [_single(one, alias) for alias in one.names]
            continue
        found += sorted(row, key=ast.dump)
        row.clear()
        constant = isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
        if not constant and not isinstance(one, ast.Pass):
            found.append(one)
    return found + sorted(row, key=ast.dump)


def _single(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    if isinstance(node, ast.Import):
        return ast.Import([alias])
    return ast.ImportFrom(node.module, [alias], node.level)


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
