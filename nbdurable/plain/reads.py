"""What a cell reads of a namespace: its names, and those that the functions behind them reach.

Invariant: looks only. Every function, method, partial and closure that a value leads to is
followed to the names that its code loads; where there is too much to look through, that is said.
"""

from __future__ import annotations

import ast
import collections
import functools
import gc
import linecache
import re
import sys
import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nbdurable.fingerprint import Fingerprinter, syntax_of
from nbdurable.fingerprint.following import MACHINERY
from nbdurable.fingerprint.prints import WRITTEN
from nbdurable.fingerprint.strings import names_in, run_by
from nbdurable.records import digest_of

from . import effects
from .binding import loaded_in
from .cell_text import clock_called, clocks_in
from .definitions import is_module

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .cell_text import CellText

_ATOMS: Final = frozenset(
    {type(None), bool, int, float, complex, str, bytes, bytearray, range, type(...)}
)
_EMPTY: Final[dict[Any, Any]] = {}
_CONTAINERS: Final[tuple[type, ...]] = (
    list, tuple, dict, set, frozenset, collections.deque, types.MappingProxyType,
    type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items()),
)  # fmt: skip
_QUIET: Final = frozenset(
    {"pandas", "matplotlib", "polars", "pyarrow", "PIL", "datetime",
     "decimal", "fractions", "pathlib", "re", "mpl_toolkits"}
)  # fmt: skip
"""Libraries whose instances hold a notebook's objects only as elements."""

_MOST_OBJECTS: Final = 300_000
_RUNNING: Final = {"query": "query", "eval": "code", "sql": "sql", "execute": "sql"}
_WILD: Final = frozenset({"globals", "locals", "eval", "exec", "In", "Out", "input", "breakpoint"})


class Reached(NamedTuple):
    """What a cell reads: names that are there, names that must not be, and what of code.

    ``stores`` are names that functions bind by `global`; ``code`` the functions and classes that
    values lead to; ``variables`` what may be names of environment variables that are looked at;
    ``clocks`` as in `CellText`, with those of the functions, whose syntax ``trees`` are;
    ``libraries`` are those of the instances that the values hold; ``unkept`` says why the cell
    always runs.
    """

    names: frozenset[str]
    absent: frozenset[str]
    stores: frozenset[str]
    code: tuple[Any, ...]
    variables: frozenset[str]
    clocks: frozenset[str]
    trees: tuple[ast.AST, ...]
    libraries: frozenset[str]
    unkept: str


def reached_by(cell: CellText, namespace: Mapping[str, Any]) -> Reached:
    """Follow what a cell reads."""
    walk = _Walk(namespace)
    walk.names(cell.reads)
    walk.strings(ast.Module(body=list(cell.body), type_ignores=[]))
    walk.run()
    unseen = walk.unkept or effects.unseen([*cell.body, *walk.trees], namespace)
    own = cell.definitions.defined & walk.present
    return Reached(
        frozenset(walk.present | own),
        frozenset(walk.absent),
        frozenset(walk.stores),
        tuple(walk.code),
        frozenset(walk.variables | walk.asked()),
        frozenset(walk.clocks) | cell.clocks,
        tuple(walk.trees),
        frozenset(walk.libraries),
        unseen,
    )


class _Known(NamedTuple):
    """What a code object's text says, kept for as long as it lives."""

    code: types.CodeType
    loads: frozenset[str]
    stores: frozenset[str]
    clocks: frozenset[str]
    tree: ast.AST | None


_codes: dict[int, _Known] = {}


def _known(function: types.FunctionType) -> _Known:
    code = function.__code__
    found = _codes.get(id(code))
    if found is None or found.code is not code:
        loads, stores = loaded_in(code)
        tree = syntax_of(code, function.__globals__)
        nodes = [] if tree is None else [ast.Module(body=[tree], type_ignores=[])]  # type: ignore[list-item]
        clocks = clocks_in(nodes) if nodes else frozenset(loads & {"time", "secrets", "uuid"})  # type: ignore[arg-type]
        if len(_codes) > 5000:  # noqa: PLR2004
            _codes.clear()
        found = _codes[id(code)] = _Known(code, frozenset(loads), frozenset(stores), clocks, tree)
    return found


class _Walk:
    """Follows names and values until there is nothing new."""

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        self.present: set[str] = set()
        self.absent: set[str] = set()
        self.stores: set[str] = set()
        self.clocks: set[str] = set()
        self.code: list[Any] = []
        self.trees: list[ast.AST] = []
        self.variables: set[str] = set()
        self.libraries: set[str] = set()
        self.unkept = ""
        self._asks = False
        self._projects: dict[str | None, bool] = {}
        self._space = namespace
        self._todo: list[Any] = []
        self._seen: set[int] = set()
        self._held: list[Any] = []  # so that no address is used twice

    def names(self, names: Iterable[str]) -> None:
        """Take in names that are read."""
        for name in names:
            if name in self.present or name in self.absent or name in MACHINERY:
                continue
            if name in self._space:
                value = self._space[name]
                self.present.add(name)
                self._todo.append(value)
                if clock := clock_called(name, value):
                    self.clocks.add(clock)
                if isinstance(value, types.ModuleType) and value.__name__ == "__main__":
                    self.unkept = self.unkept or "it uses the notebook as a module, by `__main__`"
            else:
                self.absent.add(name)

    def strings(self, tree: ast.AST) -> None:
        """Take in the names of data, and of variables, that strings in code name."""
        found: set[str] = set()
        if any(_asks_environment(node) for node in ast.walk(tree)):
            self._asks = True
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    self.variables |= _variables_in(node.value)
        for node in ast.walk(tree):
            match node:
                case ast.Constant(value=str(text)):
                    found |= {one.name for one in names_in(text)}
                case ast.Call(func=ast.Attribute(attr=name), args=arguments) if name in _RUNNING:
                    for inner in ast.walk(ast.Tuple(elts=arguments, ctx=ast.Load())):
                        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                            found |= {one.name for one in run_by(_RUNNING[name], inner.value)}
                case _:
                    pass
        self.names(name for name in found if name in self._space)

    def asked(self) -> set[str]:
        """Return the variables of the environment that values name, if code looks at any."""
        found: set[str] = set()
        for name in self.present if self._asks else ():
            value = self._space[name]
            for one in value if isinstance(value, list | tuple | set | dict) else [value]:
                if isinstance(one, str) and len(found) < _MOST_VARIABLES:
                    found |= _variables_in(one)
        return found

    def run(self) -> None:
        """Follow all that was taken in."""
        while self._todo and not self.unkept:
            layer, self._todo = self._todo, []
            for value in layer:
                self._follow(value)
            if len(self._seen) > _MOST_OBJECTS:
                self.unkept = "what it reads holds more objects than can be looked through"

    def _follow(self, value: Any) -> None:
        kind = type(value)
        if kind in _ATOMS:
            return
        if isinstance(value, types.ModuleType):
            return
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._held.append(value)
        if isinstance(value, _CONTAINERS):
            # Only what the garbage collector tracks can lead to a function.
            inner = gc.get_referents(value)
            self._todo += [one for one in inner if type(one) not in _ATOMS]
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.MethodType):
            self._todo += [value.__func__, value.__self__]
        elif isinstance(value, functools.partial):
            self._todo += [value.func, value.args, value.keywords]
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, staticmethod | classmethod):
            self._todo.append(value.__func__)
        elif isinstance(value, property):
            self._todo += [value.fget, value.fset, value.fdel]
        else:
            self._instance(value, kind)

    def _function(self, value: types.FunctionType) -> None:
        if value.__globals__ is self._space or value.__module__ == "__main__":
            known = _known(value)
            self.code.append(value)
            if wild := known.loads & _WILD:
                self.unkept = self.unkept or f"{value.__name__}() uses `{min(wild)}`"
            self.names(known.loads)
            self.stores |= known.stores
            self.clocks |= known.clocks
            if known.tree is not None:
                self.trees.append(known.tree)
                self.strings(known.tree)
        elif self._is_project(value.__module__):
            self.code.append(value)
        elif not value.__closure__ and not value.__dict__:
            return  # a library's
        for cell in value.__closure__ or ():
            try:
                self._todo.append(cell.cell_contents)
            except ValueError:
                continue  # it is empty
        self._todo += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        self._todo += [*vars(value).values()]

    def _is_project(self, module: str | None) -> bool:
        """Tell whether a module, by its name, is of the project, whose code may be edited."""
        found = self._projects.get(module)
        if found is None:
            loaded = sys.modules.get(module or "")
            found = self._projects[module] = loaded is not None and is_module(loaded)
        return found

    def _class(self, value: type) -> None:
        for one in value.__mro__:
            if one.__module__ == "__main__" or self._is_project(one.__module__):
                self.code.append(one)
                if "__del__" in vars(one) and one.__module__ == "__main__":
                    # What is restored in an object's place would let go of it another time.
                    self.unkept = self.unkept or f"{one.__name__}.__del__() may be called"
                self._todo += [
                    held
                    for name, held in vars(one).items()
                    if name not in {"__dict__", "__weakref__"}
                ]
                self._todo += one.__bases__

    def _instance(self, value: Any, kind: type) -> None:
        module = kind.__module__ if isinstance(kind.__module__, str) else ""
        library = module.partition(".")[0]
        if module == "__main__" or self._is_project(module):
            self._todo.append(kind)
        self.libraries.add(library)
        if library in {"numpy", "pandas"}:
            self._todo += _elements(value)
        if library in _QUIET:
            return
        wrapped = getattr(kind, "__wrapped__", None)
        try:
            state = object.__getattribute__(value, "__dict__")
        except AttributeError:
            state = {}
        if isinstance(state, dict):
            self._todo += [*state.values()]
        if wrapped is None and kind is _LRU:
            self._todo.append(value.__wrapped__)
        for one in kind.__mro__:
            for name in _slots(one):
                try:
                    self._todo.append(object.__getattribute__(value, name))
                except AttributeError:
                    continue


def _elements(value: Any) -> list[Any]:
    """Return those elements of an array, or of a frame, that are the notebook's own objects."""
    if hasattr(value, "iloc") and hasattr(value, "columns"):
        arrays = [value.iloc[:, at] for at, one in enumerate(value.dtypes) if _is_of_objects(one)]
    else:
        arrays = [value] if _is_of_objects(getattr(value, "dtype", None)) else []
    found: list[Any] = []
    for array in arrays:
        items = array.ravel().tolist() if hasattr(array, "ravel") else array.tolist()
        own = {one for one in set(map(type, items)) if _is_own_kind(one)}
        found += [one for one in items if type(one) in own] if own else ()
    return found


def _is_of_objects(dtype: Any) -> bool:
    return getattr(dtype, "kind", "") == "O" and bool(getattr(dtype, "hasobject", False))


def _is_own_kind(kind: type) -> bool:
    return kind.__module__ == "__main__" or issubclass(kind, types.FunctionType | types.MethodType)


def _variables_in(text: str) -> set[str]:
    """Return what may be names of variables of the environment in a text."""
    found = {text} if text.isidentifier() else set(_DOLLAR.findall(text)) if "$" in text else set()
    return found | {"HOME"} if text[:1] == "~" else found


_DOLLAR: Final = re.compile(r"\$\{?(\w+)")
_MOST_VARIABLES: Final = 500


def _asks_environment(node: ast.AST) -> bool:
    name = getattr(node, "attr", None) or getattr(node, "id", None)
    return name in {"environ", "getenv", "environb", "expandvars", "expanduser"}


_LRU: Final = type(functools.lru_cache(bool))


def _slots(cls: type) -> tuple[str, ...]:
    found = vars(cls).get("__slots__", ())
    names = (found,) if isinstance(found, str) else tuple(found)
    return tuple(
        f"_{cls.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__")
        else name
        for name in names
    )  # fmt: skip


# --- code -------------------------------------------------------------------------


def code_digest(
    prints: Fingerprinter,
    cell: CellText,
    reached: Reached,
    namespace: dict[str, Any],
    data: frozenset[str],
) -> bytes:
    """Return what stands for all code of the notebook and the project that a cell reaches.

    Args:
        prints: Who digests code.
        cell: The cell.
        reached: What it reaches.
        namespace: Where its names are.
        data: The names that are compared by their content.

    Raises:
        DurableError: It can't be digested.
        OutsideError: It changes what a module of the project holds.
    """
    if not reached.code and not leads_to_code(prints, cell, reached.names, namespace):
        return b"none"
    found = {_digested(prints, one, namespace, data) for one in reached.code}
    return digest_of(own_code_digest(prints, cell, namespace, data), *sorted(found))


class OutsideError(Exception):
    """Code changes what a module of the project holds, which no record can set again."""


def _digested(
    prints: Fingerprinter, code: Any, namespace: Mapping[str, Any], data: frozenset[str]
) -> bytes:
    """Return the digest of a function or class, with all that it reaches.

    Raises:
        OutsideError: It changes what a module of the project holds.
    """
    made = prints.code(code, ignore=data)
    for note in made.notes:
        root, dot, _ = note.where.partition(".")
        own = not dot or isinstance(namespace.get(root), type)
        if note.kind == WRITTEN and not own and root in sys.modules:
            raise OutsideError(f"{note.what} changes `{note.where}`, which is not the notebook's")
    return made.digest


def own_code_digest(
    prints: Fingerprinter, cell: CellText, namespace: dict[str, Any], data: frozenset[str]
) -> bytes:
    """Return what stands for the code that a cell's own text reaches; as `code_digest`."""
    function = _as_function(cell, namespace)
    try:
        return _digested(prints, function, namespace, data)
    finally:
        linecache.cache.pop(function.__code__.co_filename, None)


def leads_to_code(
    prints: Fingerprinter, cell: CellText, names: Iterable[str], namespace: Mapping[str, Any]
) -> bool:
    """Tell whether a cell imports anything, or reads, by a name, a module of the project."""
    for statement in cell.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                return True
    return any(
        prints.is_project_module(value)
        for name in names
        if isinstance(value := namespace[name], types.ModuleType)
    )


def _as_function(cell: CellText, namespace: dict[str, Any]) -> types.FunctionType:
    """Make a function of a cell's statements, whose source is found as any other's."""
    body = [_in_function(one) for one in cell.body if not _is_future(one)]
    bound = sorted(cell.binds | cell.deletes)
    front: list[ast.stmt] = [ast.Global(names=bound)] if bound else []
    arguments = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    waits = any(
        isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith)
        for one in body
        for node in ast.walk(one)
        if not isinstance(one, ast.AsyncFunctionDef)
    )
    make = ast.AsyncFunctionDef if waits else ast.FunctionDef
    made = make(
        name="cell", args=arguments, body=[*front, *body] or [ast.Pass()], decorator_list=[]
    )
    text = ast.unparse(ast.fix_missing_locations(ast.Module(body=[made], type_ignores=[]))) + "\n"
    filename = f"<plain cell {cell.code.hex()}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    module = compile(text, filename, "exec", dont_inherit=True)
    code = next(one for one in module.co_consts if isinstance(one, types.CodeType))
    return types.FunctionType(code, namespace, "cell")


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _in_function(node: ast.stmt) -> ast.stmt:
    """Return a statement as a function may have it: no star import, no annotated global."""
    if isinstance(node, ast.AnnAssign):
        if node.value is None:
            return ast.Expr(value=node.annotation)
        return ast.Assign(targets=[node.target], value=node.value)
    if isinstance(node, ast.ImportFrom) and any(one.name == "*" for one in node.names):
        return ast.Import(names=[ast.alias(name=str(node.module))])
    return node
