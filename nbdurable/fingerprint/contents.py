"""Whether code that writes a global also reads it as data, or only counts, collects, remembers.

Invariant: told from the text of one function. What is not one of the plain ways to count, to
append or to remember results counts as read.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from nbdurable.fingerprint.syntax import Function

_COLLECTING = frozenset(
    {"append", "extend", "add", "update", "insert", "appendleft", "extendleft", "setdefault",
     "discard", "remove", "clear", "write", "writelines", "put", "put_nowait"}
)  # fmt: skip
_LOOKING = frozenset({"get", "setdefault"})


class Touched(NamedTuple):
    """What a function does with the names that it loads or stores."""

    read: frozenset[str]  # as data
    counted: frozenset[str]  # under the keys that it stores under: a table is changed by that
    stored: frozenset[str]  # whatever was there before


def touched_by(node: Function) -> Touched:
    """Return what a function reads as data, and what it stores, of names of outer scopes."""
    finder = _Finder()
    body = node.body if isinstance(node.body, list) else [node.body]
    for inner in body:
        finder.keys(inner)
    for _ in range(2):  # what is looked up further down counts for what is stored above it
        finder.read.clear()
        finder.stored.clear()
        for inner in body:
            finder.visit(inner)
    return Touched(frozenset(finder.read), frozenset(finder.counted), frozenset(finder.stored))


class _Finder(ast.NodeVisitor):
    def __init__(self) -> None:
        self.read: set[str] = set()
        self.stored: set[str] = set()
        self.counted: set[str] = set()
        self._looked: set[tuple[str, str]] = set()  # names and keys that are looked up
        self._lazy: set[str] = set()  # names that are bound only where they were not bound before
        self._keyed: dict[str, set[str]] = {}  # by name: the keys that are stored under
        self._assigned: set[str] = set()  # names that are bound anew
        self._tested: list[frozenset[str]] = []

    def keys(self, node: ast.AST) -> None:
        """Collect what is stored under which keys, and which names are bound anew."""
        for one in ast.walk(node):
            if isinstance(one, ast.Global):
                self._assigned.update(one.names)
            elif isinstance(one, ast.Subscript) and not isinstance(one.ctx, ast.Load):
                self._keyed.setdefault(_name(one.value), set()).add(ast.dump(one.slice))
            elif isinstance(one, ast.Call) and _method(one) == "setdefault" and one.args:
                receiver = one.func.value  # type: ignore[attr-defined]
                self._keyed.setdefault(_name(receiver), set()).add(ast.dump(one.args[0]))

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            if node.id not in self._lazy:
                self.read.add(node.id)
        elif not any(node.id in tested for tested in self._tested):
            self.stored.add(node.id)

    def visit_If(self, node: ast.If) -> None:
        tested = frozenset(one.id for one in ast.walk(node.test) if isinstance(one, ast.Name))
        lazily = {
            one.id
            for statement in node.body
            for one in ast.walk(statement)
            if isinstance(one, ast.Name) and not isinstance(one.ctx, ast.Load)
        }
        self._lazy |= tested & lazily & self._assigned
        self._tested.append(tested)
        self.generic_visit(node)
        self._tested.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._target(target, node.value)
        self._value(node.targets[0], node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._target(node.target, node.value)
        if node.value is not None:
            self._value(node.target, node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        # It counts: what it was before is no input of anything but itself.
        self.counted.add(_root(node.target))
        self._index(node.target)
        self.visit(node.value)

    def _target(self, target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Subscript | ast.Attribute):
            self._index(target)
            name = _root(target)
            remembered = isinstance(target, ast.Subscript) and self._looks_up(name, target.slice)
            if name and not remembered and not (value and self._counts(target, value)):
                self.stored.add(name)
        elif value is None or not self._counts(target, value):
            self.visit(target)

    def _value(self, target: ast.expr, value: ast.expr) -> None:
        """Look through an assigned value; the target's own old value in it is counting."""
        if isinstance(target, ast.Name) and isinstance(value, ast.BinOp | ast.BoolOp):
            parts = value.values if isinstance(value, ast.BoolOp) else [value.left, value.right]
            self.counted.add(target.id)
            for one in parts:
                if _name(one) != target.id:
                    self.visit(one)
            return
        self.visit(value)

    def _counts(self, target: ast.expr, value: ast.expr) -> bool:
        """Tell whether a value is made of the old one: ``n = n + 1``, ``d[k] = d.get(k) + 1``."""
        name = _root(target)
        if not isinstance(value, ast.BinOp | ast.BoolOp):
            return False
        return any(isinstance(one, ast.Name) and one.id == name for one in ast.walk(value))

    def _looks_up(self, name: str, key: ast.expr) -> bool:
        """Tell whether this function looks a key up that it stores under: it remembers."""
        return (name, ast.dump(key)) in self._looked

    def _index(self, target: ast.expr) -> None:
        """Look through what is inside a target's brackets."""
        while isinstance(target, ast.Subscript | ast.Attribute):
            if isinstance(target, ast.Subscript):
                self.visit(target.slice)
            target = target.value

    def visit_Subscript(self, node: ast.Subscript) -> None:
        name, key = _name(node.value), ast.dump(node.slice)
        if isinstance(node.ctx, ast.Load) and key in self._keyed.get(name, ()):
            self.counted.add(name)
            self._looked.add((name, key))
            self.visit(node.slice)
        elif isinstance(node.ctx, ast.Load):
            self.generic_visit(node)
        else:
            self._target(node, None)

    def visit_Compare(self, node: ast.Compare) -> None:
        held = node.comparators[-1]
        if isinstance(node.ops[-1], ast.In | ast.NotIn) and isinstance(held, ast.Name):
            self._looked.add((held.id, ast.dump(node.left)))
            for inner in (node.left, *node.comparators[:-1]):
                self.visit(inner)
            if ast.dump(node.left) not in self._keyed.get(held.id, ()):
                self.visit(held)
        elif isinstance(node.ops[0], ast.Is | ast.IsNot) and _name(node.left) in self._assigned:
            for inner in node.comparators:
                self.visit(inner)
        else:
            self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        call = node.value
        if isinstance(call, ast.Call) and _method(call) in _COLLECTING:
            for inner in (*call.args, *[one.value for one in call.keywords]):
                self.visit(inner)
            if not isinstance(call.func.value, ast.Name):  # type: ignore[attr-defined]
                self._receiver(call.func.value)  # type: ignore[attr-defined]
            return
        self.generic_visit(node)

    def _receiver(self, node: ast.expr) -> None:
        """Look through what something is collected in: its root is not read by that."""
        if isinstance(node, ast.Subscript | ast.Attribute):
            self._index(node)
        else:
            self.visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        method = _method(node)
        if method in _LOOKING and isinstance(node.func.value, ast.Name) and node.args:  # type: ignore[attr-defined]
            name, key = node.func.value.id, ast.dump(node.args[0])  # type: ignore[attr-defined]
            if key in self._keyed.get(name, ()):
                self.counted.add(name)
                self._looked.add((name, key))
                for inner in node.args:
                    self.visit(inner)
                return
        if isinstance(node.func, ast.Name) and node.func.id == "len" and len(node.args) == 1:
            if not isinstance(node.args[0], ast.Name):
                self.visit(node.args[0])
            return
        self.generic_visit(node)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return _name(node)


def _method(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else ""
