"""Project modules that are not looked at in memory: what a name in one leads to, by source text.

Invariant: nothing is imported and nothing is executed. A name leads to the top-level
statements that bind it, or change what it stands for, and on to what those read; where that
can't be followed, to the whole module.
"""

from __future__ import annotations

import ast
import builtins
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nbdurable.fingerprint.parsing import parsed
from nbdurable.fingerprint.prints import digest16
from nbdurable.fingerprint.reads import BARE, Imported, Use, absolute, facts_in
from nbdurable.fingerprint.syntax import DEFS, normalised
from nbdurable.fingerprint.values import text_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nbdurable.fingerprint.places import Places

_DEFINING = (*DEFS, ast.ClassDef)
_COMPOUND = (ast.For, ast.While, ast.If, ast.Try, ast.With, ast.Expr, ast.AugAssign, ast.Delete)
_MOST_MODULES = 2000
_NO_LINKS: frozenset[Use] = frozenset()


class _Statement(NamedTuple):
    node: ast.stmt
    binds: frozenset[str]
    uses: dict[str, set[Use]]
    outside: frozenset[str]  # names in decorators, bases and keywords of a definition
    imports: tuple[Imported, ...]
    anywhere: tuple[str, ...]


class Source:
    """The text of one module's file, taken apart."""

    def __init__(self, name: str, path: str, text: str) -> None:
        self.name = name
        self.path = path
        self.is_package = Path(path).name == "__init__.py"
        self.package = name if self.is_package else name.rpartition(".")[0]
        tree = parsed(text, path)
        self.statements = [_statement(node) for node in tree.body if not _says_nothing(node)]
        self.binders: dict[str, list[int]] = {}
        for at, one in enumerate(self.statements):
            for bound in one.binds:
                self.binders.setdefault(bound, []).append(at)
        self.stars = [
            (one.node.module or "", one.node.level)
            for one in self.statements
            if isinstance(one.node, ast.ImportFrom) and one.node.names[0].name == "*"
        ]

    def changing(self, name: str) -> list[int]:
        """Return the statements that may change what ``name`` stands for after it was bound."""
        writers = {name, *self._writers(name)}
        found = []
        for at, one in enumerate(self.statements):
            if isinstance(one.node, _DEFINING):
                if writers & one.outside and self._keeps(writers & one.outside, one.node):
                    found.append(at)
            elif isinstance(one.node, _COMPOUND):
                if writers & one.uses.keys():
                    found.append(at)
            elif isinstance(one.node, ast.Assign) and name in map(_root, one.node.targets):
                found.append(at)
        return found

    def _writers(self, name: str) -> list[str]:
        """Return the functions that read ``name`` and are run while the module is loaded."""
        run: set[str] = set()
        for one in self.statements:
            run |= one.outside if isinstance(one.node, _DEFINING) else one.uses.keys()
        return [
            one.node.name
            for one in self.statements
            if isinstance(one.node, DEFS) and one.node.name in run and name in one.uses
        ]

    def _keeps(self, names: set[str], node: ast.stmt) -> bool:
        """Tell whether one of the names, put before a definition, may keep what is defined."""
        for name in names:
            binders = [self.statements[at] for at in self.binders.get(name, ())]
            for one in binders:
                if isinstance(one.node, DEFS):
                    if any(self._is_data(used) for used in one.uses):
                        return True
                elif isinstance(one.node, ast.ClassDef):
                    hooks = {n.name for n in one.node.body if isinstance(n, DEFS)}
                    if one.node.keywords or "__init_subclass__" in hooks:
                        return isinstance(node, ast.ClassDef)
                else:
                    return True
        return False

    def _is_data(self, name: str) -> bool:
        found = [self.statements[at].node for at in self.binders.get(name, ())]
        return any(not isinstance(n, (*_DEFINING, ast.Import, ast.ImportFrom)) for n in found)


def _statement(node: ast.stmt) -> _Statement:
    facts = facts_in([node])
    outside: list[ast.expr] = []
    if isinstance(node, _DEFINING):
        outside += node.decorator_list
    if isinstance(node, ast.ClassDef):
        outside += [*node.bases, *[keyword.value for keyword in node.keywords]]
    imports = () if isinstance(node, (ast.Import, ast.ImportFrom)) else facts.imports
    return _Statement(
        node,
        frozenset(_bound_by(node)),
        facts.uses,
        frozenset(facts_in(outside).uses),
        imports,
        tuple(facts.anywhere),
    )


def _says_nothing(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _bound_by(node: ast.AST) -> set[str]:
    """Return the names that a top-level statement binds, in whatever it contains."""
    if isinstance(node, _DEFINING):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    found: set[str] = set()
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        found.add(node.id)
    if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
        found.add(node.name)
    if not isinstance(node, ast.Lambda):
        for inner in ast.iter_child_nodes(node):
            found |= _bound_by(inner)
    return found


_SOURCES: dict[str, tuple[tuple[int, int], Source]] = {}


def path_of(name: str) -> str | None:
    """Find a module's file, or a namespace package's folder, without importing its parents."""
    path: Any = None
    found = ""
    done = ""
    for part in name.split("."):
        done = f"{done}.{part}" if done else part
        loaded = sys.modules.get(done)
        known = getattr(loaded, "__file__", None)
        if known is None:
            spec = PathFinder.find_spec(done, path)
            if spec is None:
                return None
            known = spec.origin if spec.has_location else None
            path = spec.submodule_search_locations
        else:
            path = getattr(loaded, "__path__", None)
        found = known or next(iter(path or ()), "")
    return found or None


def source_of(name: str) -> Source | None:
    """Return the text of the project module ``name`` as it is in its file now, taken apart."""
    path = path_of(name)
    if path is None or not path.endswith(".py"):
        return None
    return source_at(path, name)


def source_at(path: str, name: str) -> Source | None:
    """Return the text of a file as it is now, taken apart as a module's of that name."""
    try:
        stat = Path(path).stat()
        state = (stat.st_mtime_ns, stat.st_size)
        known = _SOURCES.get(path)
        if known is not None and known[0] == state and known[1].name == name:
            return known[1]
        source = Source(name, path, Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    _SOURCES[path] = (state, source)
    return source


def statement_digest(node: ast.stmt) -> bytes:
    """Return a digest of a top-level statement; a function's defaults are part of the text here."""
    text = normalised(node, frozenset())
    if isinstance(node, DEFS):
        given = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        text += b"".join(ast.dump(one).encode() for one in given)
    return digest16(text)


class Texts:
    """What names in project modules lead to, each statement under a label."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.texts: dict[str, set[bytes]] = {}
        self.seen: set[tuple[str, str, bool]] = set()
        self.todo: list[tuple[str, str, bool]] = []  # module, name ("" for all), documented

    @staticmethod
    def source(module: str) -> Source | None:
        """Return the text of a module."""
        return source_of(module)

    def found(self) -> dict[str, bytes]:
        """Return a digest for each label."""
        return {name: digest16(b"".join(sorted(texts))) for name, texts in self.texts.items()}

    def keep(self, label: str, text: bytes) -> None:
        """Take in a text under a label."""
        self.texts.setdefault(label, set()).add(text)

    def follow(self, module: str, level: int, package: str, uses: Iterable[Use]) -> None:
        """Take in what an import leads to; without uses, the whole module."""
        name = absolute(module, level, package)
        if name is None or not self.is_ours(name):
            return
        every = list(uses)
        for use in every or [BARE]:
            self.step(name, use)
        while self.todo:
            self.take(*self.todo.pop())

    def anywhere(self, beginning: str, package: str, folder: str) -> None:
        """Take in all modules whose names begin so: which one is imported is not known."""
        dots = len(beginning) - len(beginning.lstrip("."))
        base = absolute(beginning[dots:].rpartition(".")[0], dots, package)
        root = path_of(base) if base else folder
        if not root:
            return
        top = Path(root).parent if root.endswith(".py") else Path(root)
        for path in sorted(top.rglob("*.py"))[:_MOST_MODULES]:
            parts = path.relative_to(top).with_suffix("").parts
            if all(part.isidentifier() for part in parts) and self._places.file(str(path)):
                name = ".".join([*([base] if base else []), *parts]).removesuffix(".__init__")
                if name.startswith(beginning[dots:]) or dots:
                    self.todo.append((name, "", False))
        while self.todo:
            self.take(*self.todo.pop())

    def is_ours(self, name: str) -> bool:
        """Tell whether a module is one of the project's."""
        top = name.partition(".")[0]
        if top in sys.builtin_module_names or top in sys.stdlib_module_names:
            return False
        loaded = sys.modules.get(top)
        if loaded is not None:
            return self._places.module(loaded)
        path = path_of(top)
        return path is not None and self._places.named(top, path)

    def step(self, module: str, use: Use) -> None:
        """Go from a module along the attributes that follow it."""
        if not use.links or use.links[0][0] == "[":
            self.need(module, "", documented=False)
            return
        kind, name = use.links[0]
        if kind == "get":
            name = "get"
        source = self.source(module)
        rest = Use(use.links[1:], use.called)
        if source is not None and name in source.binders:
            self.need(module, name, documented=not (rest.called and not rest.links))
            self.through(source, name, rest)
        elif path_of(f"{module}.{name}") is not None:
            self.step(f"{module}.{name}", rest)
        elif source is not None and source.stars:
            for star, level in source.stars:
                self.enter(source, star, level, Use(((".", name), *rest.links), use.called))
        else:
            self.need(module, "", documented=False)

    def through(self, source: Source, name: str, rest: Use) -> None:
        """Go on where a name in a module is bound by an import."""
        for at in source.binders[name]:
            node = source.statements[at].node
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        on = Use(((".", alias.name), *rest.links), rest.called)
                        self.enter(source, node.module or "", node.level, on)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.asname == name:
                        self.enter(source, alias.name, 0, rest)
                    elif not alias.asname and alias.name.partition(".")[0] == name:
                        self.enter(source, name, 0, rest)

    def enter(self, source: Source, module: str, level: int, use: Use) -> None:
        """Go on in the module that an import statement of another names."""
        name = absolute(module, level, source.package)
        if name is not None and self.is_ours(name) and (name, "", False) not in self.seen:
            self.step(name, use)

    def need(self, module: str, name: str, *, documented: bool) -> None:
        """Take in what a name in a module leads to; without one, the whole module."""
        if (module, name, documented) not in self.seen:
            self.seen.add((module, name, documented))
            self.todo.append((module, name, documented))

    def take(self, module: str, name: str, documented: bool) -> None:  # noqa: FBT001 - an entry of the list
        """Take in the statements that bind a name, or change what it stands for."""
        source = self.source(module)
        if source is None:
            self.keep(module, text_of(module))
            return
        if name:
            places = [*source.binders[name], *source.changing(name)]
        else:
            places = [*range(len(source.statements))]
        places += self._for_effects(source)
        for at in places:
            self.add(source, at, documented=documented)

    def _for_effects(self, source: Source) -> list[int]:
        """Return the imports whose names are never read: what they load may register itself."""
        read: set[str] = set()
        for one in source.statements:
            read |= one.uses.keys()
        return [
            at
            for at, one in enumerate(source.statements)
            if isinstance(one.node, ast.Import) and not one.binds & read
        ]

    def add(self, source: Source, at: int, *, documented: bool) -> None:
        """Take in one statement, and what it reads."""
        one = source.statements[at]
        names = sorted(one.binds) or [f"statement {at}"]
        call = "()" if isinstance(one.node, DEFS) else ""
        label = f"{source.name}.{names[0]}{call}"
        if documented and isinstance(one.node, _DEFINING):
            self.keep(label + ".__doc__", digest16(ast.dump(one.node).encode()))
        key = (source.path, str(at), False)
        if key in self.seen:
            return
        self.seen.add(key)
        self.keep(label, statement_digest(one.node))
        self.read(source, one)

    def read(self, source: Source, one: _Statement) -> None:
        """Take in what a statement reads, and what it imports."""
        if isinstance(one.node, (ast.Import, ast.ImportFrom)):
            for name in one.binds:
                used = any(name in other.uses for other in source.statements)
                if not used and isinstance(one.node, ast.Import):
                    self.through(source, name, BARE)
            return
        self._read_names(source, one)
        for inner in one.imports:
            for use in inner.uses or (BARE,):
                self.enter(source, inner.module, inner.level, use)
        for beginning in one.anywhere:
            if ("", beginning, True) not in self.seen:
                self.seen.add(("", beginning, True))
                self.anywhere(beginning, source.package, str(Path(source.path).parent))

    def _read_names(self, source: Source, one: _Statement) -> None:
        for name, uses in one.uses.items():
            if name in source.binders:
                for use in uses:
                    self.need(source.name, name, documented=not (use.called and not use.links))
                    self.through(source, name, use)
            elif not hasattr(builtins, name):
                for use in uses:
                    for star, level in source.stars:
                        self.enter(source, star, level, Use(((".", name), *use.links), use.called))


def still_defined(qualified: str) -> bool:
    """Tell whether a function's qualified name still stands for it."""
    parts = qualified.partition("#")[0].split(".")
    for at in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:at]))
        if module is not None:
            found: Any = module
            for part in parts[at:]:
                found = vars(found).get(part) if hasattr(found, "__dict__") else None
            while hasattr(type(found), "__nbdurable_step__"):
                found = found.__wrapped__
            name = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
            return name == qualified
    for at in range(len(parts) - 1, 0, -1):
        source = source_of(".".join(parts[:at]))
        if source is not None:
            return parts[at] in source.binders
    return False


def parts_of(package: Any) -> list[str]:
    """Return the names of the modules directly in a package's folder, by its files."""
    found = set()
    for folder in getattr(package, "__path__", ()):
        for path in [*Path(folder).glob("*.py"), *Path(folder).glob("*/__init__.py")]:
            name = path.parent.name if path.name == "__init__.py" else path.stem
            if name.isidentifier() and path != Path(folder, "__init__.py"):
                found.add(f"{package.__name__}.{name}")
    return sorted(found)[:_MOST_MODULES]
