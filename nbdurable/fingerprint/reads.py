"""What code reads beyond its own names: globals, imports, and names inside strings.

Invariant: every global and free name in the instructions is here. How a name is used (called,
followed by attributes or constant keys) comes from the syntax; where there is none, or it
does not tell, the name counts as used in every way.
"""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterable  # noqa: TC003 - a NamedTuple's fields are read at run time
from types import CodeType
from typing import Any, NamedTuple

from nbdurable.fingerprint.strings import CODE, Named, names_in, run_by
from nbdurable.fingerprint.syntax import Function, dotted

_GLOBAL = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_STORING = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_NAME", "DELETE_NAME"})
_ATTRIBUTE = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_IMPORTERS = frozenset({"import_module", "__import__"})
_KIND_ONLY = frozenset({"isinstance", "issubclass"})

Link = tuple[str, Any]
"""One step from a name: an attribute (``.``), a constant key (``[``) or a ``get`` of one."""


class Use(NamedTuple):
    """One way in which a name is used: what follows it, and whether that is only called."""

    links: tuple[Link, ...]
    called: bool


class Imported(NamedTuple):
    """An import in a function's body, and how what it binds is used; no uses: for its effects."""

    module: str
    level: int
    uses: frozenset[Use]


Names = tuple[tuple[str, frozenset[Use]], ...]


class Reads(NamedTuple):
    """Names that code reads beyond its own."""

    names: Names
    imported: tuple[Imported, ...]
    anywhere: tuple[str, ...]  # beginnings of module names that are computed
    attributes: frozenset[str]
    strings: frozenset[Named]  # names that strings in the code name
    runs: frozenset[str]  # kinds of strings that it runs and that are no constants
    decorated: tuple[tuple[str, Names], ...]  # its decorators, and what each reads
    outer: frozenset[str]  # names that it loads from or stores to outer scopes
    documented: frozenset[str]  # inner functions and classes that are not only called


BARE = Use((), called=False)


def reads_of(node: Function | None, code: CodeType) -> Reads:
    """Collect what ``code`` and everything nested in it reads."""
    names: set[str] = set()
    attributes: set[str] = set()
    stored: set[str] = set()
    _collect(code, names, attributes, stored)
    names |= set(code.co_freevars)
    if node is None:
        return _without_source(code, names, attributes)
    finder = _Finder()
    for part in node.body if isinstance(node.body, list) else [node.body]:
        finder.visit(part)
    names -= finder.imported_globally()
    return Reads(
        tuple((name, frozenset(finder.uses.get(_plain(name), {BARE}))) for name in sorted(names)),
        finder.imports(),
        tuple(sorted(finder.anywhere)),
        frozenset(attributes),
        frozenset(finder.named()),
        frozenset(finder.runs),
        tuple(map(_decorator, getattr(node, "decorator_list", ()))),
        frozenset(names | stored),
        frozenset(finder.documented()),
    )


class Facts(NamedTuple):
    """What statements or expressions read."""

    uses: dict[str, set[Use]]
    imports: tuple[Imported, ...]
    anywhere: frozenset[str]


def facts_in(nodes: Iterable[ast.AST]) -> Facts:
    """Collect what nodes read, whatever scope the names belong to."""
    finder = _Finder()
    for node in nodes:
        finder.visit(node)
    return Facts(finder.uses, finder.imports(), frozenset(finder.anywhere))


def _decorator(node: ast.expr) -> tuple[str, Names]:
    finder = _Finder()
    finder.visit(node)
    names = ((name, frozenset(uses)) for name, uses in sorted(finder.uses.items()))
    return dotted(node) or "", tuple(names)


def _plain(name: str) -> str:
    """Return a private name as it was written: without the class that it was written in."""
    if name.startswith("_") and not name.startswith("__"):
        owner, mark, rest = name[1:].partition("__")
        if mark and owner and rest:
            return "__" + rest
    return name


def _collect(code: CodeType, names: set[str], attributes: set[str], stored: set[str]) -> None:
    for step in dis.get_instructions(code):
        if step.opname in _GLOBAL:
            names.add(str(step.argval))
        elif step.opname in _STORING:
            stored.add(str(step.argval))
        elif step.opname in _ATTRIBUTE:
            attributes.add(str(step.argval))
    for const in code.co_consts:
        if isinstance(const, CodeType):
            _collect(const, names, attributes, stored)


def _without_source(code: CodeType, names: set[str], attributes: set[str]) -> Reads:
    imported: set[tuple[str, int]] = set()
    strings: set[Named] = set()
    _bare_imports(code, imported, strings)
    every = frozenset({BARE})
    return Reads(
        tuple((name, every) for name in sorted(names)),
        tuple(Imported(module, level, every) for module, level in sorted(imported)),
        (),
        frozenset(attributes),
        frozenset(strings),
        frozenset({"code", "template"}) if names & {"eval", "exec"} else frozenset(),
        (),
        frozenset(names),
        frozenset(),
    )


def _bare_imports(code: CodeType, found: set[tuple[str, int]], strings: set[Named]) -> None:
    steps = list(dis.get_instructions(code))
    for at, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level = next((s.argval for s in reversed(steps[:at]) if isinstance(s.argval, int)), 0)
            found.add((str(step.argval), int(level)))
    for const in code.co_consts:
        if isinstance(const, CodeType):
            _bare_imports(const, found, strings)
        elif isinstance(const, str):
            strings.update(names_in(const))


class _Finder(ast.NodeVisitor):
    """Collects uses of names, imports and strings, from statements or expressions."""

    def __init__(self) -> None:
        self.uses: dict[str, set[Use]] = {}
        self.anywhere: set[str] = set()
        self.runs: set[str] = set()
        self._imports: list[tuple[str, int, str, tuple[Link, ...]]] = []
        self._used: list[tuple[str, Use]] = []  # modules taken out of `sys.modules`
        self._parts: list[tuple[str, str]] = []  # modules below a bound one
        self._in_class = False
        self._constants: set[str] = set()
        self._strings: set[Named] = set()
        self._defined: set[str] = set()
        self._wrapped: set[str] = set()
        self._declared: set[str] = set()

    def imported_globally(self) -> set[str]:
        """Return global names that the code itself binds by imports: these are followed."""
        return self._declared & {bound for _, _, bound, _ in self._imports}

    def documented(self) -> set[str]:
        """Return what is defined inside and not only called: its docstring may be a prompt."""
        return self._wrapped | {
            name
            for name in self._defined
            if any(use.links or not use.called for use in self.uses.get(name, ()))
        }

    def imports(self) -> tuple[Imported, ...]:
        """Return the imports, each with the uses of the name that it binds."""
        found: dict[tuple[str, int], set[Use]] = {}
        unused = [(name, 0, "", ()) for name, top in self._parts if not self.uses.get(top)]
        for module, level, bound, links in (*self._imports, *unused):
            uses = found.setdefault((module, level), set())
            for use in self.uses.get(bound, ()) if bound else ():
                uses.add(Use((*links, *use.links), use.called))
            if links and not uses:
                uses.add(Use(links, called=False))
        for module, use in self._used:
            found.setdefault((module, 0), set()).add(use)
        return tuple(
            Imported(module, level, frozenset(uses))
            for (module, level), uses in sorted(found.items())
        )

    def named(self) -> set[Named]:
        """Return the names that strings name: those that look it, and those that are run."""
        found = set(self._strings)
        for text in self._constants:
            found.update(names_in(text))
            for kind in self.runs:
                found.update(run_by(kind, text))
        return found

    def _use(self, node: ast.expr, *, called: bool) -> bool:
        chain = _chain_of(node)
        if chain is None:
            return False
        name, links, rest = chain
        self.uses.setdefault(name, set()).add(Use(tuple(links), called))
        loaded = _loaded_module(name, links)
        if loaded is not None:
            module, after = loaded
            self._used.append((module, Use(after, called)))
        for inner in rest:
            self.visit(inner)
        return True

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Store):
            self._use(node, called=False)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if _is_space(node.value):
            self._strings.add(Named(node.attr, CODE))
            return
        if not isinstance(node.ctx, ast.Load) or not self._use(node, called=False):
            self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if _is_space(node):
            self.runs.add("space")
            return
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if isinstance(key, str) and isinstance(node.ctx, ast.Load) and _is_space(node.value):
            self._strings.add(Named(key, CODE))
            return
        if not isinstance(node.ctx, ast.Load) or not self._use(node, called=False):
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if _is_get(node) and _is_space(node.func.value):  # type: ignore[attr-defined]
            self._strings.add(Named(str(_constant(node.args[0])), CODE))
            for default in node.args[1:]:
                self.visit(default)
            return
        if _is_getattr(node) and _is_space(node.args[0]):
            self._strings.add(Named(str(_constant(node.args[1])), CODE))
            return
        self._dynamic(node)
        if _chain_of(node) is not None:
            self._use(node, called=False)
            return
        if not self._use(node.func, called=True):
            self.visit(node.func)
        name = _last_name(node.func)
        only_kind = isinstance(node.func, ast.Name) and name in _KIND_ONLY
        for at, inner in enumerate((*node.args, *[keyword.value for keyword in node.keywords])):
            if at == 1 and only_kind:
                self._kinds(inner)
            elif name not in _FILLED or not _is_space(inner):
                self.visit(inner)

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for inner in (left, *node.comparators):
            if _is_space(inner) and isinstance(left, ast.Constant):
                self._strings.add(Named(str(left.value), CODE))
            else:
                self.visit(inner)

    def _kinds(self, node: ast.expr) -> None:
        """Take what is only compared with a type as called: its docstring is not looked at."""
        for one in node.elts if isinstance(node, ast.Tuple) else [node]:
            if not self._use(one, called=True):
                self.visit(one)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            self._kinds(node.type)
        for statement in node.body:
            self.visit(statement)

    def visit_Raise(self, node: ast.Raise) -> None:
        for inner in (node.exc, node.cause):
            if inner is not None and not self._use(inner, called=True):
                self.visit(inner)

    def visit_MatchClass(self, node: ast.MatchClass) -> None:
        self._kinds(node.cls)
        for pattern in (*node.patterns, *node.kwd_patterns):
            self.visit(pattern)

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        """Take in a definition's name and decorators."""
        self._defined.add(node.name)
        for inner in node.decorator_list:
            called = inner.func if isinstance(inner, ast.Call) else inner
            if _last_name(called) not in _CALLING:
                self._wrapped.add(node.name)
            self._kinds(inner)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        if not isinstance(node, ast.Lambda):
            self._define(node)
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        outer, self._in_class = self._in_class, False
        for inner in node.body if isinstance(node.body, list) else [node.body]:
            self.visit(inner)
        self._in_class = outer

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._define(node)
        for inner in (*node.bases, *[keyword.value for keyword in node.keywords]):
            self._kinds(inner)
        outer, self._in_class = self._in_class, True
        for statement in node.body:
            self.visit(statement)
        self._in_class = outer

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.target)
        if self._in_class:
            self._kinds(node.annotation)
        if node.value is not None:
            self.visit(node.value)

    def visit_Global(self, node: ast.Global) -> None:
        self._declared.update(node.names)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.partition(".")[0]
            if alias.asname:
                self._imports.append((alias.name, 0, alias.asname, ()))
            else:
                self._imports.append((top, 0, top, ()))
                if top != alias.name:
                    self._parts.append((alias.name, top))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            link = ((".", alias.name),)
            bound = alias.asname or alias.name
            self._imports.append((node.module or "", node.level, bound, link))

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._constants.add(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def _dynamic(self, node: ast.Call) -> None:
        """Take note of a module that is imported, or a string that is run, by this call."""
        name = _last_name(node.func)
        first = node.args[0] if node.args else None
        if name in _IMPORTERS and first is not None:
            text = first.value if isinstance(first, ast.Constant) else None
            if isinstance(text, str):
                level = len(text) - len(text.lstrip("."))
                package = node.args[1] if level and len(node.args) > 1 else None
                if isinstance(package, ast.Constant):
                    text, level = absolute(text[level:], level, str(package.value)) or "", 0
                self._imports.append((text[level:], level, "", ()))
            else:
                self.anywhere.add(_beginning(first))
            return
        for kind, argument in _run_strings(name, node):
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                self._strings.update(run_by(kind, argument.value))
            else:
                self.runs.add(kind)


def absolute(module: str, level: int, package: str) -> str | None:
    """Return a module's full name; None for a relative one outside of any package."""
    if not level:
        return module or None
    parts = package.split(".") if package else []
    if len(parts) < level:
        return None
    return ".".join([*parts[: len(parts) - level + 1], *([module] if module else [])])


def _loaded_module(name: str, links: list[Link]) -> tuple[str, tuple[Link, ...]] | None:
    """Return the module that ``sys.modules["name"]`` gives, and what follows it."""
    if name == "sys" and links[:1] == [(".", "modules")]:
        links = links[1:]
    elif name != "modules":
        return None
    if links and links[0][0] != "." and isinstance(links[0][1], str):
        return links[0][1], tuple(links[1:])
    return None


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _beginning(node: ast.expr) -> str:
    """Return the constant beginning of a computed string."""
    if isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant):
        return str(node.values[0].value)
    if isinstance(node, ast.BinOp) and isinstance(node.left, ast.Constant):
        return str(node.left.value)
    return ""


_RUNNERS = {
    "eval": "code", "exec": "code", "compile": "code", "query": "query", "sql": "sql",
    "execute": "sql", "executemany": "sql", "read_sql": "sql", "read_sql_query": "sql",
    "run_line_magic": "magic", "run_cell_magic": "magic", "system": "magic", "getoutput": "magic",
}  # fmt: skip
_CALLING = frozenset(
    {"step", "wraps", "lru_cache", "cache", "contextmanager", "asynccontextmanager", "retry",
     "staticmethod", "classmethod", "property", "cached_property", "dataclass", "total_ordering",
     "jit", "njit", "abstractmethod", "setter", "getter", "deleter", "override"}
)  # fmt: skip
"""Decorators that only call what they decorate."""
_SPACES = frozenset({"globals", "vars"})
_FILLED = frozenset({"format", "format_map", "substitute", "safe_substitute", "eval", "exec"})
_PANDAS = frozenset({"pd", "pandas"})


def _is_space(node: ast.expr) -> bool:
    """Tell whether an expression is the namespace itself: ``globals()``."""
    if isinstance(node, ast.Subscript):
        own = isinstance(node.slice, ast.Name) and node.slice.id == "__name__"
        return own and _last_name(node.value) == "modules"
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in _SPACES
        and not node.args
    )


def _run_strings(name: str, node: ast.Call) -> list[tuple[str, ast.expr]]:
    """Return the arguments of a call that are looked up or run as code, each with its kind."""
    kind = _RUNNERS.get(name)
    if kind is not None and node.args:
        if kind == "code" and isinstance(node.func, ast.Attribute):
            kind = "code" if _last_name(node.func.value) in _PANDAS else "query"
        if kind == "magic":
            return [(kind, argument) for argument in node.args]
        return [(kind, node.args[0])]
    given = [*node.args, *[keyword.value for keyword in node.keywords]]
    if name == "format_map" or (name in _FILLED and any(map(_is_space, given))):
        return [("template", node.func.value)] if isinstance(node.func, ast.Attribute) else []
    if _is_space(node):
        # What is taken out of the namespace is a constant of this code, or anything.
        return [("space", node)]
    return []


def _chain_of(node: ast.expr) -> tuple[str, list[Link], list[ast.expr]] | None:
    """Return the name that an expression begins with, what follows it, and what else it holds."""
    links: list[Link] = []
    rest: list[ast.expr] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            links.append((".", node.attr))
            node = node.value
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            links.append(("[", node.slice.value))
            node = node.value
        elif isinstance(node, ast.Call) and _is_get(node):
            assert isinstance(node.func, ast.Attribute)
            links.append(("get", _constant(node.args[0])))
            rest += node.args[1:]
            node = node.func.value
        elif isinstance(node, ast.Call) and _is_getattr(node):
            links.append((".", _constant(node.args[1])))
            rest += node.args[2:]
            node = node.args[0]
        else:
            return None
    return node.id, links[::-1], rest


def _constant(node: ast.expr) -> Any:
    assert isinstance(node, ast.Constant)
    return node.value


def _is_get(node: ast.Call) -> bool:
    return (
        isinstance(node.func, ast.Attribute)
        and node.func.attr == "get"
        and not node.keywords
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
    )


def _is_getattr(node: ast.Call) -> bool:
    return (
        isinstance(node.func, ast.Name)
        and node.func.id == "getattr"
        and len(node.args) > 1
        and isinstance(node.args[1], ast.Constant)
        and isinstance(node.args[1].value, str)
    )
