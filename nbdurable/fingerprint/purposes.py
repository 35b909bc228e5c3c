"""What a body changes on purpose: it calls for the change, and uses no result of it.

Invariant: looks at the text of the body alone. What a method of an object does to its own
object is a use of the object, unless the body is that method.
"""

from __future__ import annotations

import ast
import builtins
import functools
import re
import types
from typing import Any

from nbdurable.fingerprint.builtin import is_step
from nbdurable.fingerprint.contain import contains
from nbdurable.fingerprint.syntax import Function  # noqa: TC001 - read at run time by tools
from nbdurable.fingerprint.units import text_of_code

_MUTATING_WORDS = re.compile(
    r"_*(partial_)?(re)?(fit|train|learn|update|load|set|add|append|extend|insert|remove|delete|"
    r"clear|reset|pop|push|put|write|register|compile|build|step|backward)(_|$)"
)
_LOOKING_WORDS = re.compile(
    r"save|to_|dump|export|print|show|display|log|info|debug|warn|error|exception|critical"
)
_CHANGING = frozenset({"setattr", "delattr", "next"})
_COUNTED = (int, float, complex)


def purposes_of(function: Any, value: object, moved: frozenset[str]) -> frozenset[str]:
    """Return the names of the inputs that a body changes on purpose.

    Args:
        function: The body.
        value: What it returned.
        moved: The attributes that changed, for a body that is a method of what has them.
    """
    bound = None
    while is_step(function) or isinstance(function, functools.partial):
        function = (
            function.func if isinstance(function, functools.partial) else function.__wrapped__
        )
    if isinstance(function, types.MethodType):
        bound, function = function.__self__, function.__func__
    plain = isinstance(function, types.FunctionType)
    node = text_of_code(function).node if plain else None
    found = _called_for(node) if node is not None else frozenset()
    if bound is not None and not isinstance(bound, type):
        name = getattr(function, "__name__", "")
        own = function.__code__.co_varnames[0] if plain else "self"
        found -= {own}
        if (
            value is None
            or contains(value, bound)
            or _MUTATING_WORDS.match(name)
            or (node is not None and moved & _assigned(node, own, bound))
        ):
            found |= {own}
    return found


def _called_for(node: Function) -> frozenset[str]:
    """Return names that a body stores into, or calls something on without using what it gives."""
    found: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Expr):
            call = inner.value.value if isinstance(inner.value, ast.Await) else inner.value
            if isinstance(call, ast.Call):
                found |= _changed_by(call)
        elif isinstance(inner, ast.Attribute | ast.Subscript):
            if not isinstance(inner.ctx, ast.Load):
                found |= _root(inner)
        elif isinstance(inner, ast.Call) and _name(inner.func) in _CHANGING:
            found |= _root(inner.args[0]) if inner.args else set()
    return frozenset(found)


def _changed_by(call: ast.Call) -> set[str]:
    """Return the names that a call may change whose result nobody uses."""
    if isinstance(call.func, ast.Attribute):
        return set() if _LOOKING_WORDS.match(call.func.attr) else _root(call.func.value)
    name = _name(call.func)
    if name not in _CHANGING and hasattr(builtins, name):
        return set()
    return {one for argument in call.args for one in _root(argument)}


def _root(node: ast.expr) -> set[str]:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _assigned(node: Function, own: str, bound: object) -> frozenset[str]:
    """Return the attributes of its object that a method sets whatever they were before.

    One that is counted up, or made where it is missing, changes by being used.
    """
    found: set[str] = set()
    body = node.body if isinstance(node.body, list) else [node.body]
    todo: list[tuple[ast.AST, frozenset[str]]] = [(one, frozenset()) for one in body]
    while todo:
        inner, tested = todo.pop()
        if isinstance(inner, ast.If | ast.While | ast.IfExp | ast.Try):
            tested |= _attributes_in(getattr(inner, "test", inner), own)
        if isinstance(inner, ast.Assign | ast.AnnAssign) and inner.value is not None:
            targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
            names = {name for one in targets if (name := _own_attribute(one, own))}
            found |= names - tested - _attributes_in(inner.value, own)
        elif isinstance(inner, ast.AugAssign) and (name := _own_attribute(inner.target, own)):
            counted = isinstance(getattr(bound, "__dict__", {}).get(name), _COUNTED)
            if not (counted and isinstance(inner.op, ast.Add)):
                found.add(name)
        todo += [(one, tested) for one in ast.iter_child_nodes(inner)]
    return frozenset(found)


def _own_attribute(node: ast.expr, own: str) -> str:
    if isinstance(node, ast.Attribute) and _name(node.value) == own:
        return node.attr
    return ""


def _attributes_in(node: ast.AST, own: str) -> frozenset[str]:
    return frozenset(
        name
        for one in ast.walk(node)
        if isinstance(one, ast.expr) and (name := _own_attribute(one, own))
    )
