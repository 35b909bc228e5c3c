"""Which names of outer scopes a function writes: assigns, stores into, or calls to change.

Invariant: found by scope, so a local of the same name is never mistaken for a global. Without
source the instructions are searched for the plain cases.
"""

from __future__ import annotations

import ast
import dis
from types import CodeType
from typing import NamedTuple

from .syntax import Function  # noqa: TC001 - a NamedTuple's fields are read at run time

ALWAYS = frozenset(
    {"pop", "popitem", "setdefault", "appendleft", "popleft", "extendleft", "rotate", "setflags"}
)
MUTATING = ALWAYS | frozenset(
    {
        "append", "extend", "add", "update", "remove", "discard", "clear", "insert", "sort",
        "reverse", "difference_update", "intersection_update", "symmetric_difference_update",
        "subtract", "move_to_end", "fill", "put", "put_nowait", "resize", "itemset",
        "__setitem__", "__delitem__", "insert_column", "replace_column", "drop_in_place",
        "write", "writelines", "seed", "setstate",
    }
)  # fmt: skip
_FIRST = frozenset(
    {"setattr", "delattr", "setitem", "delitem", "heappush", "heappop", "heapify", "heapreplace",
     "heappushpop", "insort", "insort_left", "insort_right", "shuffle", "copyto", "put"}
)  # fmt: skip
_LONGEST = 10  # names for names
_THROUGH = frozenset({"get", "setdefault"})


class Write(NamedTuple):
    """One way in which a function changes something outside."""

    scope: str  # "global", "cell" or "param"
    root: str
    attribute: str | None  # the attribute directly on the root
    method: str | None  # None: a store, which is certain
    certain: bool  # the call's result is not used, or it says so itself
    plain: bool = False  # `root.attribute = value` and nothing deeper


def writes_of(node: Function | None, code: CodeType) -> frozenset[Write]:
    """Collect what the function writes outside itself, nested code included."""
    if node is None:
        return frozenset(_from_instructions(code))
    finder = _Finder(frozenset(code.co_freevars))
    finder.function(node)
    return frozenset(finder.found)


class _Scope:
    """Names of one function, lambda, comprehension or class body."""

    def __init__(self, *, klass: bool = False) -> None:
        self.klass = klass
        self.bound: set[str] = set()
        self.params: set[str] = set()
        self.outer: set[str] = set()  # declared global
        self.enclosing: set[str] = set()  # declared nonlocal
        self.aliases: dict[str, ast.expr | None] = {}  # other names for what they are bound to


class _Finder(ast.NodeVisitor):
    def __init__(self, free: frozenset[str]) -> None:
        self.found: set[Write] = set()
        self._free = free
        self._scopes: list[_Scope] = []
        self._dropped: set[int] = set()

    def function(self, node: Function) -> None:
        """Open the function's scope and look through its body."""
        scope = _Scope()
        a = node.args
        every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        scope.params = {arg.arg for arg in every}
        scope.bound = set(scope.params)
        body = node.body if isinstance(node.body, list) else [node.body]
        _bind(scope, body)
        self._scopes.append(scope)
        for inner in body:
            self.visit(inner)
        self._scopes.pop()

    def _nested(self, node: Function) -> None:
        outside = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        outside += getattr(node, "decorator_list", [])
        for inner in outside:
            self.visit(inner)
        self.function(node)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _nested  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for inner in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(inner)
        scope = _Scope(klass=True)
        _bind(scope, node.body)
        self._scopes.append(scope)
        for statement in node.body:
            self.visit(statement)
        self._scopes.pop()

    def _comprehension(self, node: ast.AST) -> None:
        scope = _Scope()
        for generator in node.generators:  # type: ignore[attr-defined]
            _names(scope, generator.target)
        self._scopes.append(scope)
        self.generic_visit(node)
        self._scopes.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            return
        declared = self._scopes[-1].outer | self._scopes[-1].enclosing
        if node.id in declared:
            self._add(node.id, None, None, certain=True)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        declared = self._scopes[-1].outer | self._scopes[-1].enclosing
        for alias in node.names:
            name = (alias.asname or alias.name).partition(".")[0]
            if name in declared:
                self._add(name, None, None, certain=True)

    visit_ImportFrom = visit_Import  # noqa: N815

    def _store(self, node: ast.Attribute | ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            chain = _chain(node)
            if chain:
                plain = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
                self._add(chain[0], chain[1], None, certain=True, plain=plain)
        self.generic_visit(node)

    visit_Attribute = visit_Subscript = _store  # noqa: N815

    def visit_Expr(self, node: ast.Expr) -> None:
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        self._dropped.add(id(value))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        dropped = id(node) in self._dropped
        name = None
        if isinstance(node.func, ast.Attribute):
            name = node.func.attr
            in_place = any(
                k.arg == "inplace" and isinstance(k.value, ast.Constant) and k.value.value is True
                for k in node.keywords
            )
            if name in MUTATING or in_place:
                chain = _chain(node.func.value)
                if chain:
                    self._add(chain[0], chain[1], name, certain=dropped or in_place)
        elif isinstance(node.func, ast.Name):
            name = node.func.id
        if name in _FIRST and node.args and (chain := _chain(node.args[0])):
            self._add(chain[0], chain[1], None, certain=True)
        self.generic_visit(node)

    def _add(
        self,
        root: str,
        attribute: str | None,
        method: str | None,
        *,
        certain: bool,
        plain: bool = False,
    ) -> None:
        alias = self._alias(root)
        if alias is not None and (method or not plain):
            root, attribute = alias[0], alias[1] or attribute
            plain = False
        scope = self._scope_of(root)
        if scope is not None:
            self.found.add(Write(scope, root, attribute, method, certain, plain))

    def _alias(self, name: str) -> tuple[str, str | None] | None:
        """Return what a local is another name for; None if it is a name of its own."""
        found: tuple[str, str | None] | None = None
        for _ in range(_LONGEST):
            scope = next((one for one in reversed(self._scopes) if name in one.bound), None)
            node = scope.aliases.get(name) if scope is not None else None
            chain = _chain(node) if node is not None else None
            if chain is None or chain[0] == name:
                return found
            found = chain[0], chain[1] or (found[1] if found else None)
            name = chain[0]
        return found

    def _scope_of(self, name: str) -> str | None:
        """Say where ``name`` lives as seen from here; None for a local."""
        for depth in range(len(self._scopes) - 1, -1, -1):
            scope = self._scopes[depth]
            if name in scope.outer:
                return "global"
            if name in scope.enclosing or (scope.klass and depth < len(self._scopes) - 1):
                continue
            if name in scope.bound:
                return "param" if depth == 0 and name in scope.params else None
        return "cell" if name in self._free else "global"


def _chain(node: ast.expr) -> tuple[str, str | None] | None:
    """Root name of an expression like ``root.attribute[...].more``, and its first attribute."""
    attribute: str | None = None
    while True:
        if isinstance(node, ast.Attribute):
            attribute, node = attribute if node.attr == "__class__" else node.attr, node.value
        elif isinstance(node, ast.Subscript):
            attribute, node = None, node.value
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in _THROUGH
        ):
            attribute, node = None, node.func.value
        elif _is_type_of(node):
            node = node.args[0]  # type: ignore[attr-defined]
        else:
            break
    return (node.id, attribute) if isinstance(node, ast.Name) else None


def _is_type_of(node: ast.expr) -> bool:
    """Tell whether an expression asks for the class of something."""
    called = node.func if isinstance(node, ast.Call) and len(node.args) == 1 else None
    return isinstance(called, ast.Name) and called.id == "type"


def _bind(scope: _Scope, body: list[ast.stmt] | list[ast.expr] | list[ast.stmt | ast.expr]) -> None:
    """Collect the names that the statements bind in their own scope."""
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            scope.bound.add(node.name)
            todo += node.decorator_list
            continue
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, ast.comprehension):
            todo += [node.iter, *node.ifs]
            continue
        if isinstance(node, ast.Global):
            scope.outer.update(node.names)
        elif isinstance(node, ast.Nonlocal):
            scope.enclosing.update(node.names)
        _take_alias(scope, node)
        _names(scope, node, deep=False)
        todo += ast.iter_child_nodes(node)
    scope.bound -= scope.outer | scope.enclosing


def _take_alias(scope: _Scope, node: ast.AST) -> None:
    """Take in that a local is bound to what another name leads to; twice bound, it is its own."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        targets, value = node.targets, node.value
    elif isinstance(node, ast.NamedExpr | ast.AnnAssign) and node.value is not None:
        targets, value = [node.target], node.value
    else:
        return
    for target in targets:
        if isinstance(target, ast.Name):
            plain = isinstance(value, ast.Name | ast.Attribute) or _is_type_of(value)
            scope.aliases[target.id] = value if plain and target.id not in scope.aliases else None


def _names(scope: _Scope, node: ast.AST, *, deep: bool = True) -> None:
    """Add the names that ``node`` binds."""
    for inner in ast.walk(node) if deep else (node,):
        if isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load):
            scope.bound.add(inner.id)
        elif isinstance(inner, ast.alias):
            scope.bound.add((inner.asname or inner.name).partition(".")[0])
        elif isinstance(inner, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and inner.name:
            scope.bound.add(inner.name)
        elif isinstance(inner, ast.MatchMapping) and inner.rest:
            scope.bound.add(inner.rest)


def _from_instructions(code: CodeType) -> set[Write]:
    """Search instructions for stores to globals and calls on them."""
    found: set[Write] = set()
    steps = [i for i in dis.get_instructions(code) if i.opname not in {"CACHE", "PUSH_NULL"}]
    for at, step in enumerate(steps):
        last = steps[at - 1] if at else step
        before = steps[at - 2] if at > 1 else step
        if step.opname in {"STORE_GLOBAL", "DELETE_GLOBAL"}:
            found.add(Write("global", step.argval, None, None, certain=True))
        elif step.opname in {"STORE_ATTR", "DELETE_ATTR"} and last.opname == "LOAD_GLOBAL":
            found.add(Write("global", last.argval, step.argval, None, certain=True))
        elif step.opname in {"STORE_SUBSCR", "DELETE_SUBSCR"} and before.opname == "LOAD_GLOBAL":
            found.add(Write("global", before.argval, None, None, certain=True))
        elif step.opname in {"LOAD_METHOD", "LOAD_ATTR"} and last.opname == "LOAD_GLOBAL":
            if step.argval in MUTATING:
                found.add(Write("global", last.argval, None, step.argval, certain=False))
        elif step.opname == "STORE_DEREF" and step.argval in code.co_freevars:
            found.add(Write("cell", step.argval, None, None, certain=True))
    for const in code.co_consts:
        if isinstance(const, CodeType):
            found |= {w for w in _from_instructions(const) if w.scope == "global"}
    return found
