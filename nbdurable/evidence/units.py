"""Code that ran, as units of source text, and whether it would run as it did.

Invariant: nothing is imported and nothing is executed. A unit is a definition with the
top-level statements that bind what it reads, transitively, as far as the text can be
followed, else a whole module. What ran and is not what its file says counts by its
instructions. A notebook's definition that has not been made yet is no change.
"""

from __future__ import annotations

import ast
import os
import sys
from typing import TYPE_CHECKING, Any

from nbdurable.fingerprint import nested
from nbdurable.fingerprint.prints import digest16
from nbdurable.fingerprint.source import instructions, syntax_of
from nbdurable.fingerprint.syntax import DEFS
from nbdurable.fingerprint.texts import Source, Texts, path_of, source_at, statement_digest
from nbdurable.records import Part

from . import cells, digests
from .recorder import Ran
from .registries import REGISTRY, has_more, registry_parts, state_now

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, FunctionType

    from nbdurable.fingerprint import Places


RAN, TEXT, MODULE, COMPILED = "ran", "text", "module", "instructions"
"""Kinds of parts: what ran, a statement's text, a module's whole text, a code's instructions."""

_EFFECTS = "<module>"
_DEFINING = (*DEFS, ast.ClassDef)
_SEP = "|"
_OPTIMIZED = 0x1  # CO_OPTIMIZED: a function's


class Units(Texts):
    """The statements that roots lead to, each under a label, and the modules that were read."""

    def __init__(self, places: Places) -> None:
        super().__init__(places)
        self.modules: set[str] = set()
        self._bare: set[tuple[str, str]] = set()

    @staticmethod
    def source(module: str) -> Source | None:
        """Return the text of a module; the notebook's is that of the cells that have run."""
        return text_of_module(module)

    def states(self) -> dict[str, bytes]:
        """Return, for each label, the digests of its statements, sorted."""
        return {label: b"".join(sorted(texts)) for label, texts in self.texts.items()}

    def root(self, module: str, name: str) -> None:
        """Take in what a name in a module leads to; without one, the whole module."""
        self.need(module, name, documented=False)
        while self.todo:
            self.take(*self.todo.pop())

    def take(self, module: str, name: str, documented: bool) -> None:  # noqa: FBT001 - as it is called
        """Take in the statements that bind a name, or change the data that it stands for."""
        source = self.source(module)
        self.modules.add(module)
        if source is None:
            self.keep(module, b"gone")
        elif name == _EFFECTS:
            for at in source_effects(source):
                self._part(source, at, f"{module}.{_EFFECTS}")
        elif not name:
            for at in range(len(source.statements)):
                self.add(source, at, documented=documented)
        else:
            self._take_name(source, name)

    def _take_name(self, source: Source, name: str) -> None:
        binders = source.binders.get(name, [])
        if not binders and not self._is_notebook(source):
            self.keep(f"{source.name}.{name}", b"gone")
        for at in binders:
            self.add(source, at, documented=False)
        if (source.name, name) in self._bare:
            return
        if all(isinstance(source.statements[at].node, DEFS) for at in binders):
            return
        for at in source.changing(name):
            self._part(source, at, f"{source.name}.{name}")

    @staticmethod
    def _is_notebook(source: Source) -> bool:
        return source.path == cells.PATH

    def _part(self, source: Source, at: int, label: str) -> None:
        """Take in a statement that changes something; of a definition, how it is registered."""
        node = source.statements[at].node
        if not isinstance(node, _DEFINING):
            self.add(source, at, documented=False, label=label)
            return
        if self._registers(source, node, label.rpartition(".")[2]):
            self.keep(label, digest16(ast.dump(_shell(node)).encode()))

    @staticmethod
    def _registers(source: Source, node: ast.stmt, name: str) -> bool:
        """Tell whether a definition may be put into what a name stands for when it is made."""
        binders = [source.statements[at].node for at in source.binders.get(name, ())]
        if all(isinstance(one, (*_DEFINING, ast.Import, ast.ImportFrom)) for one in binders):
            hooks = {
                inner.name
                for one in binders
                if isinstance(one, ast.ClassDef)
                for inner in one.body
                if isinstance(inner, DEFS)
            }
            return "__init_subclass__" in hooks
        return bool(getattr(node, "decorator_list", ()) or isinstance(node, ast.ClassDef))

    def add(self, source: Source, at: int, *, documented: bool, label: str = "") -> None:
        """Take in one statement, and what it reads; docstrings don't count here."""
        del documented
        one = source.statements[at]
        name = label or f"{source.name}.{(sorted(one.binds) or [_EFFECTS])[0]}"
        key = (source.path, str(at), False)
        if key in self.seen:
            return
        self.seen.add(key)
        if not isinstance(one.node, (ast.Import, ast.ImportFrom)):
            self.keep(name, statement_digest(one.node))
        if isinstance(one.node, _DEFINING):
            inside = {
                node.id
                for decorator in one.node.decorator_list
                for node in ast.walk(decorator)
                if isinstance(node, ast.Name)
            }
            self._bare |= {(source.name, bare) for bare in inside & source.binders.keys()}
        self.read(source, one)


def _shell(node: Any) -> ast.stmt:
    """Return a definition without what runs when it is called: how it is made and registered."""
    if isinstance(node, ast.ClassDef):
        body = [one for one in node.body if not isinstance(one, (*DEFS, ast.Expr))]
        return ast.ClassDef(node.name, node.bases, node.keywords, body, node.decorator_list)
    return ast.Expr(ast.Tuple([ast.Constant(node.name), *node.decorator_list], ast.Load()))


def source_effects(source: Source) -> list[int]:
    """Return the statements that do something when their module is imported."""
    kinds = (ast.For, ast.While, ast.If, ast.Try, ast.With, ast.Expr, ast.AugAssign, ast.Delete)
    return [at for at, one in enumerate(source.statements) if isinstance(one.node, kinds)]


def text_of_module(module: str) -> Source | None:
    """Return the text of a module as it is now, taken apart; None if it has none that parses.

    Of what was loaded from a file by its path, that path is the module's name here.
    """
    if module == "__main__" and cells.is_notebook():
        return cells.source()
    if module.endswith(".py"):
        return source_at(module, module)
    return Texts.source(module)


# --- from code objects to parts ---------------------------------------------------------


def covered_parts(
    functions: Iterable[FunctionType], covered: frozenset[int], places: Places
) -> tuple[Part, ...]:
    """Return the evidence of functions as if they had run, without code that is `covered`."""
    ran = [
        Ran(code, function.__globals__)
        for function in functions
        for code in nested(function.__code__)
        if id(code) not in covered
    ]
    return code_parts(ran, places) if ran else ()


_Stats = dict[str, digests.Stat | None]
_made: dict[frozenset[int], tuple[list[Ran], _Stats, tuple[Part, ...]]] = {}
_MOST = 1000


def code_parts(ran: Iterable[Ran], places: Places) -> tuple[Part, ...]:
    """Return the evidence of code objects that ran, with the registries that they reached."""
    held = list(ran)
    return (*_texts_of(held, places), *registry_parts(held))


def _texts_of(held: list[Ran], places: Places) -> tuple[Part, ...]:
    """Return the evidence of code objects alone; remembered while their files stay."""
    key = frozenset(id(one.code) for one in held)
    known = _made.get(key)
    if known is not None and all(digests.stat_of(path) == stat for path, stat in known[1].items()):
        return known[2]
    parts = _code_parts(held, places)
    modules = [one.name for one in parts if one.kind == MODULE]
    paths = {name: name if name.endswith(".py") else path_of(name) for name in modules}
    if len(_made) >= _MOST:
        _made.clear()
    if "__main__" not in modules or not cells.is_notebook():
        stats = {path: digests.stat_of(path) for path in paths.values() if path}
        _made[key] = held, stats, parts
    return parts


def _code_parts(ran: Iterable[Ran], places: Places) -> tuple[Part, ...]:
    roots: dict[tuple[str, str], set[str]] = {}
    found: set[Part] = set()
    for one in ran:
        if not one.code.co_flags & _OPTIMIZED and one.code.co_name != _EFFECTS:
            continue  # a class's body runs with what makes it
        if one.code.co_filename[:1] == "<" and one.code.co_name == _EFFECTS:
            for name in _evaluated(one):
                roots.setdefault((str(one.space.get("__name__", "")), name), set())
            continue
        root = _root_of(one.code, one.space, one.owner)
        if root is None:
            label = f"{one.space.get('__name__')}.{one.code.co_qualname}"
            found.add(Part(COMPILED, label, digest16(instructions(one.code))))
        else:
            name = one.code.co_qualname.partition(".<locals>")[0]
            generated = one.owner is not None or name.startswith("<")
            roots.setdefault(root, set()).add("" if generated else name)
    if not roots:
        return tuple(sorted(found))
    units = _units_of(roots, places)
    found |= {
        Part(RAN, _SEP.join(root), "\n".join(sorted(names)).encode())
        for root, names in roots.items()
    }
    found |= {Part(TEXT, label, state) for label, state in units.states().items()}
    found |= {Part(MODULE, name, content_of(name)) for name in units.modules}
    return tuple(sorted(found))


def _units_of(roots: Iterable[tuple[str, str]], places: Places) -> Units:
    units = Units(places)
    for module, name in roots:
        units.root(module, name)
    return units


def content_of(module: str) -> bytes:
    """Return a digest of a module's whole text; nothing for the notebook's, which grows."""
    if module == "__main__" and cells.is_notebook():
        return b""
    path = module if module.endswith(".py") else path_of(module)
    if path is None or not path.endswith(".py"):
        return b"none"
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - by far the quickest
            return digest16(file.read())
    except OSError:
        return b"none"


def _root_of(code: CodeType, space: dict[str, Any], owner: type | None) -> tuple[str, str] | None:
    """Return the module and the top-level name that code belongs to; None if no text is its."""
    module = str(space.get("__name__", ""))
    name = code.co_qualname.partition(".")[0]
    if owner is not None:
        module, name = str(owner.__module__), owner.__qualname__.partition(".")[0]
    path = code.co_filename
    if path.endswith(".py") and path[:1] != "<" and not _is_at(module, path):
        module = path
    source = text_of_module(module)
    if source is None:
        return None
    if code.co_filename[:1] == "<" and source.path != cells.PATH:
        return module, name if name in source.binders else ""
    if name == _EFFECTS:
        return module, _EFFECTS
    if not _is_of_text(code, space):
        return None
    if name in source.binders:
        return module, name
    return module, _name_at(source, code)


def _evaluated(one: Ran) -> list[str]:
    """Return the names of its module that a text names which was evaluated there."""
    source = text_of_module(str(one.space.get("__name__", "")))
    return [name for name in one.code.co_names if source is not None and name in source.binders]


def _is_at(module: str, path: str) -> bool:
    if module == "__main__" and cells.is_notebook():
        return True
    found = path_of(module)
    return found is not None and (
        found == path or os.path.realpath(found) == os.path.realpath(path)
    )


def _is_of_text(code: CodeType, space: dict[str, Any]) -> bool:
    """Tell whether code is what its file, or its cell, says now."""
    function = code.co_flags & 0x3 == 0x3 and code.co_name[:1] != "<"  # noqa: PLR2004 - CO_OPTIMIZED | CO_NEWLOCALS
    return not function or syntax_of(code, space) is not None


def _name_at(source: Source, code: CodeType) -> str:
    """Return a name by which the statement that holds a nameless function is found again."""
    if source.path == cells.PATH:
        at = cells.statement_of(source, code)
    else:
        line = code.co_firstlineno
        at = next(
            (
                at
                for at, s in enumerate(source.statements)
                if s.node.lineno <= line <= _last(s.node)
            ),
            None,
        )
    if at is None:
        return ""
    one = source.statements[at]
    if one.binds:
        return min(one.binds)
    return min((name for name in one.uses if name in source.binders), default="")


def _last(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


# --- comparing --------------------------------------------------------------------------


class Comparison:
    """One pass's look at the code that ran; each set of parts is compared once."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._contents: dict[str, bytes] = {}
        self.unmade: set[str] = set()  # of a notebook, what no cell has defined yet

    def changed(self, parts: tuple[Part, ...]) -> list[Part]:
        """Return the parts of code evidence that are no longer as they were."""
        compiled = [one for one in parts if one.kind == COMPILED and not _compiles(one)]
        compiled += [one for one in parts if one.kind == REGISTRY and has_more(one)]
        modules = {one.name: one.state for one in parts if one.kind == MODULE}
        same = all(state and self._content(name) == state for name, state in modules.items())
        if same:
            return compiled
        now = self.states(parts)
        notebook = cells.is_notebook()
        for one in parts:
            if one.kind != TEXT or now.get(one.name) == one.state:
                continue
            if notebook and one.name.startswith("__main__."):
                if one.name not in now:
                    self.unmade.add(one.name.removeprefix("__main__."))
                    continue
                if _holds_all(now[one.name], one.state):
                    continue
            compiled.append(one)
        before = {one.name for one in parts if one.kind == TEXT}
        fresh = [label for label in now if label not in before]
        return compiled + [Part(TEXT, label, b"") for label in fresh]

    def now(self, parts: tuple[Part, ...]) -> bytes:
        """Return a digest of how all is that some evidence says something of."""
        texts = [label.encode() + state for label, state in sorted(self.states(parts).items())]
        texts += [b"%d" % _compiles(one) for one in parts if one.kind == COMPILED]
        texts += [state_now(one) for one in parts if one.kind == REGISTRY]
        return digest16(b"".join(texts))

    def states(self, parts: Iterable[Part]) -> dict[str, bytes]:
        """Return how the texts are now that the roots of some evidence lead to."""
        roots = [one.name.partition(_SEP) for one in parts if one.kind == RAN]
        return _units_of([(module, name) for module, _, name in roots], self._places).states()

    def _content(self, module: str) -> bytes:
        known = self._contents.get(module)
        if known is None:
            known = self._contents[module] = content_of(module)
        return known


def _holds_all(now: bytes, before: bytes) -> bool:
    """Tell whether all digests of a label are there still, beside others."""
    size = 16
    have = {now[at : at + size] for at in range(0, len(now), size)}
    return all(before[at : at + size] in have for at in range(0, len(before), size))


def _compiles(part: Part) -> bool:
    """Tell whether code that was not what its file said is in memory still."""
    module, _, name = part.name.partition(".")
    while module not in sys.modules and "." in name:
        more, _, name = name.partition(".")
        module = f"{module}.{more}"
    found: Any = sys.modules.get(module)
    for link in name.split("."):
        found = vars(found).get(link) if hasattr(found, "__dict__") else None
        found = getattr(found, "__func__", found)
    code = getattr(found, "__code__", None)
    return code is not None and digest16(instructions(code)) == part.state


def shown(parts: Iterable[Part], evidence: Iterable[Part]) -> list[str]:
    """Name what changed as a user would: what ran of it, and in which file."""
    ran: dict[str, tuple[str, list[str]]] = {}
    for one in evidence:
        if one.kind == RAN:
            module, _, name = one.name.partition(_SEP)
            ran[f"{module}.{name}"] = module, one.state.decode().split("\n")
    found: dict[str, None] = {}
    for part in parts:
        module, names = ran.get(part.name, ("", []))
        named = [name for name in names if name]
        if named:
            where = f" in {_file(module)}" if module != "__main__" else ""
            found |= dict.fromkeys(f"{name}{where}" for name in named)
        else:
            module, _, name = part.name.rpartition(":" if part.kind == REGISTRY else ".")
            where = f" in {_file(module)}" if module not in {"", "__main__"} else ""
            found[f"{name}{where}"] = None
    return list(found)


def _file(module: str) -> str:
    path = module if module.endswith(".py") else path_of(module) or module
    return path.replace("\\", "/").rpartition("/")[2]
