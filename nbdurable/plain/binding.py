"""Which names of a namespace statements read before they bind them, by their syntax alone.

Invariant: a name that may be read before it is bound counts as read; one that may be bound
counts as bound. So there are never too few of either.
"""

from __future__ import annotations

import ast
import dis
from types import CodeType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LOADS: Final = frozenset({"LOAD_NAME", "LOAD_GLOBAL", "LOAD_CLASSDEREF"})
_STORES: Final = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})


class Binding:
    """Reads statements in their order; afterwards ``reads``, ``binds`` and ``deletes`` are told."""

    def __init__(self) -> None:
        self.reads: set[str] = set()
        self.binds: set[str] = set()
        self.deletes: set[str] = set()

    def run(self, body: Sequence[ast.stmt], bound: frozenset[str] = frozenset()) -> frozenset[str]:
        """Take statements in; return the names that are certainly bound after them."""
        for statement in body:
            bound = self._statement(statement, bound)
        return bound

    def _statement(self, node: ast.stmt, bound: frozenset[str]) -> frozenset[str]:
        match node:
            case ast.Assign(targets=targets, value=value):
                self._load(value, bound)
                return self._targets(targets, bound)
            case ast.AugAssign(target=target, value=value):
                self._load(value, bound)
                if isinstance(target, ast.Name):
                    self._read(target.id, bound)
                return self._targets([target], bound)
            case ast.AnnAssign(target=target, value=value, annotation=annotation):
                self._load(annotation, bound)
                if value is None:
                    return bound
                self._load(value, bound)
                return self._targets([target], bound)
            case ast.Import() | ast.ImportFrom():
                return bound | self._bind(imported_names(node))
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self._definition(node, bound)
                return bound | self._bind({node.name})
            case ast.Delete(targets=targets):
                return self._delete(targets, bound)
            case _:
                return self._compound(node, bound)

    def _compound(self, node: ast.stmt, bound: frozenset[str]) -> frozenset[str]:
        match node:
            case ast.For() | ast.AsyncFor():
                self._load(node.iter, bound)
                self.run(node.body, self._targets([node.target], bound))
                self.run(node.orelse, bound)
                return bound
            case ast.While(test=test, body=body, orelse=orelse):
                self._load(test, bound)
                self.run(body, bound)
                self.run(orelse, bound)
                return bound
            case ast.If(test=test, body=body, orelse=orelse):
                self._load(test, bound)
                return self.run(body, bound) & self.run(orelse, bound)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    self._load(item.context_expr, bound)
                    if item.optional_vars is not None:
                        bound = self._targets([item.optional_vars], bound)
                self.run(node.body, bound)
                return bound  # what the block swallows may have come before a name was bound
            case ast.Try() | ast.TryStar():
                return self._try(node, bound)
            case ast.Match(subject=subject, cases=cases):
                self._load(subject, bound)
                for case in cases:
                    names = _captured(case.pattern)
                    self._bind(names)
                    self._load(case.pattern, bound)
                    if case.guard is not None:
                        self._load(case.guard, bound | names)
                    self.run(case.body, bound | names)
                return bound
            case _:
                self._load(node, bound)
                return bound

    def _try(self, node: ast.Try | ast.TryStar, bound: frozenset[str]) -> frozenset[str]:
        after = self.run(node.orelse, self.run(node.body, bound))
        for handler in node.handlers:
            names = {handler.name} if handler.name else set()
            if handler.type is not None:
                self._load(handler.type, bound)
            self._bind(names)
            self.deletes |= names  # Python unbinds it at the handler's end
            after &= self.run(handler.body, bound | names)
        return after | self.run(node.finalbody, bound)

    def _definition(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, bound: frozenset[str]
    ) -> None:
        """Take in what a definition reads, now or when it is called."""
        module = ast.Module(body=[node], type_ignores=[])
        names, stores = loaded_in(compile(module, "<cell>", "exec", dont_inherit=True))
        for name in names - {node.name, "__name__"}:  # which every class body loads
            self._read(name, bound)
        if node.name in names and node.name not in bound:
            # A function that calls itself reads the name that it is about to bind.
            for outer in _outer_parts(node):
                self._load(outer, bound)
        self._bind(stores)

    def _delete(self, targets: Sequence[ast.expr], bound: frozenset[str]) -> frozenset[str]:
        for target in targets:
            if isinstance(target, ast.Name):
                self._read(target.id, bound)
                self.deletes.add(target.id)
                bound -= {target.id}
            elif isinstance(target, ast.Tuple | ast.List):
                bound = self._delete(target.elts, bound)
            else:
                self._load(target, bound)
        return bound

    def _targets(self, targets: Iterable[ast.expr], bound: frozenset[str]) -> frozenset[str]:
        """Bind what is assigned to; what is assigned into is read."""
        for target in targets:
            match target:
                case ast.Name(id=name):
                    bound |= self._bind({name})
                case ast.Tuple(elts=elts) | ast.List(elts=elts):
                    bound = self._targets(elts, bound)
                case ast.Starred(value=value):
                    bound = self._targets([value], bound)
                case _:
                    self._load(target, bound)
        return bound

    def _bind(self, names: Iterable[str]) -> frozenset[str]:
        found = frozenset(names)
        self.binds |= found
        return found

    def _read(self, name: str, bound: frozenset[str]) -> None:
        if name not in bound:
            self.reads.add(name)

    def _load(self, node: ast.AST, bound: frozenset[str]) -> None:
        """Take in the names that an expression, or a simple statement, reads."""
        finder = _Loads(bound)
        finder.visit(node)
        self.reads |= finder.found
        self._bind(finder.walrus)


class _Loads(ast.NodeVisitor):
    """The names that an expression loads from outside of it."""

    def __init__(self, bound: frozenset[str]) -> None:
        self.found: set[str] = set()
        self.walrus: set[str] = set()
        self._bound = bound

    def visit_Name(self, node: ast.Name) -> None:
        if node.id not in self._bound and not isinstance(node.ctx, ast.Store):
            self.found.add(node.id)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.walrus.add(node.target.id)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        self._within({one.arg for one in _arguments(node.args)}, [node.body])

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
    ) -> None:
        first, *others = node.generators
        self.visit(first.iter)
        names = {
            inner.id
            for one in node.generators
            for inner in ast.walk(one.target)
            if isinstance(inner, ast.Name)
        }
        inside: list[ast.AST] = [first.target, *first.ifs, *others]
        inside += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._within(names, inside)

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension  # noqa: N815

    def _within(self, names: set[str], nodes: Iterable[ast.AST]) -> None:
        outer, self._bound = self._bound, self._bound | names
        for one in nodes:
            self.visit(one)
        self._bound = outer


def loaded_in(code: CodeType) -> tuple[set[str], set[str]]:
    """Return the global names that code, and all code in it, loads; and those that it stores.

    What a module's own code stores is not among them: that depends on the order.
    """
    loads: set[str] = set()
    stores: set[str] = set()
    todo = [code]
    while todo:
        one = todo.pop()
        for step in dis.get_instructions(one):
            if step.opname in _LOADS:
                loads.add(str(step.argval))
            elif step.opname in _STORES:
                stores.add(str(step.argval))
        todo += [const for const in one.co_consts if isinstance(const, CodeType)]
    return loads, stores


def imported_names(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Return the names that an import binds; of a star, none is known."""
    if isinstance(node, ast.Import):
        return {one.asname or one.name.partition(".")[0] for one in node.names}
    return {one.asname or one.name for one in node.names if one.name != "*"}


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    found = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [*found, *filter(None, (arguments.vararg, arguments.kwarg))]


def _outer_parts(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[ast.AST]:
    """Return what of a definition runs when it is made, before its name is bound."""
    found: list[ast.AST] = [*node.decorator_list]
    if isinstance(node, ast.ClassDef):
        return [*found, *node.bases, *node.keywords, *node.body]
    return [*found, *node.args.defaults, *filter(None, node.args.kw_defaults)]


def _captured(pattern: ast.pattern) -> frozenset[str]:
    """Return the names that a pattern may bind."""
    names = {
        name
        for node in ast.walk(pattern)
        for name in (getattr(node, "name", None), getattr(node, "rest", None))
        if isinstance(name, str)
    }
    return frozenset(names)
